"""One line a minute that CloudWatch turns into metrics."""

from __future__ import annotations

import sys

import msgspec

from service.observability import emf
from service.observability.logs import Stream
from service.observability.metrics import Metrics
from service.runtime.clock import Clock


async def log_emf(service: str, metrics: Metrics, clock: Clock, lines: Stream | None = None) -> None:
    """Write the lines until cancelled.

    Args:
        service: What the lines are named after.
        metrics: The catalogue.
        clock: For the time between two lines, and their time.
        lines: Where they go; standard output unless given.
    """
    before: emf.Totals | None = None
    while True:
        await clock.sleep(emf.PERIOD_S)
        now = emf.read(metrics)
        line = emf.emf_line(emf.NAMESPACE, {emf.DIMENSION: service}, emf.metrics_between(before, now), clock.wall_ms())
        # Bare, not through the log: CloudWatch takes only an event that is nothing but this object.
        out = lines or sys.stdout
        out.write(f"{msgspec.json.encode(line).decode()}\n")
        out.flush()
        before = now
