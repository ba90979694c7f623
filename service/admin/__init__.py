"""Operator tools: set-up, doctor, and taking over from other consumers."""
