"""Floor 2: where scores are written to."""
