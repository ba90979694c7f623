"""Wiring: the only package that constructs."""
