"""Amazon EventBridge as a sink."""
