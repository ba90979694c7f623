"""Bytes to `Event`, one module per event format."""
