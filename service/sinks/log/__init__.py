"""A log line per batch as a sink."""
