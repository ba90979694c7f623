"""Floor 1: metrics, logs and the HTTP endpoints that show them."""
