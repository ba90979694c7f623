"""HTTPS requests as a sink: Standard Webhooks, and services that take a batch of people."""
