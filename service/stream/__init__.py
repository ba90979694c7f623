"""Floor 1: reading a sharded stream with many workers. Knows nothing of scores."""
