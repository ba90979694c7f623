"""Wiring: constructs the worker and connects its parts."""
