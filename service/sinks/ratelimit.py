"""A rate limit whose waits are counted."""

from __future__ import annotations

import asyncio

from aiolimiter import AsyncLimiter

from service.observability.metrics import Metrics

SMOOTHING_S = 0.1
"""How much of a second's calls may go out at once. More would let two bursts meet in one second and break the quota."""


class RateLimit:
    """Lets at most `per_second` calls through, evenly; who comes first goes first.

    Args:
        sink: Who calls: a metric label.
        limit: What is limited: a metric label.
        per_second: The rate; below 10 a second there are no bursts at all.
        metrics: The catalogue.
    """

    def __init__(self, sink: str, limit: str, per_second: float, metrics: Metrics) -> None:
        burst = max(1.0, per_second * SMOOTHING_S)
        self._limiter = AsyncLimiter(burst, burst / per_second)
        self._waited = metrics.sink_wait_seconds.labels(sink, limit)

    async def wait(self) -> None:
        """Return when a call may go out."""
        if self._limiter.has_capacity():
            await self._limiter.acquire()
            return
        loop = asyncio.get_running_loop()
        started = loop.time()
        await self._limiter.acquire()
        self._waited.inc(loop.time() - started)
