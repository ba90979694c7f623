"""Writes one line a minute that CloudWatch turns into metrics."""

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
        service: The service name in the metrics.
        metrics: The catalogue.
        clock: Time.
        lines: Where the lines go; standard output unless given.
    """
    before: emf.Totals | None = None
    while True:
        await clock.sleep(emf.PERIOD_S)
        now = emf.read(metrics)
        line = emf.emf_line(emf.NAMESPACE, {emf.DIMENSION: service}, emf.metrics_between(before, now), clock.wall_ms())
        # Written directly, not through the log: CloudWatch requires a line that is only this object.
        out = lines or sys.stdout
        out.write(f"{msgspec.json.encode(line).decode()}\n")
        out.flush()
        before = now
