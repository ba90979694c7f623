"""Floor 3: the `scoring` command."""
