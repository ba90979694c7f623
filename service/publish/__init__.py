"""Changed scores to sinks."""
