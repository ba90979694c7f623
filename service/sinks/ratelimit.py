"""A rate limit that all workers keep together; its waits are counted."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from service.observability.metrics import Metrics
from service.sinks.port import whole

SMOOTHING_S = 0.1
"""How much of a second's calls may go out at once. More would let two bursts meet in one second and break the quota."""

LOOK_S = 0.25
"""Longest wait until a changed share takes effect, seconds."""

_ALMOST_ONE = 1 - 1e-9


class RateLimit:
    """Lets this process's share of `per_second` calls through, evenly; who comes first goes first.

    After a pause one burst may go out at once. So in any span of time the processes together make at most one burst
    each more than the rate allows.

    Args:
        sink: Who calls: a metric label.
        limit: What is limited: a metric label.
        per_second: The rate of all processes together; up to 10 a second a burst is a single call.
        metrics: The catalogue.
        share: Returns this process's part of the rate, from 0 (nothing goes out) to 1.
    """

    def __init__(
        self, sink: str, limit: str, per_second: float, metrics: Metrics, share: Callable[[], float] = whole
    ) -> None:
        self._per_second = per_second
        self._burst = max(1.0, per_second * SMOOTHING_S)
        self._share = share
        self._credit = self._burst
        self._at = float("-inf")
        self._turn = asyncio.Lock()
        self._waited = metrics.sink_wait_seconds.labels(sink, limit)

    async def wait(self) -> None:
        """Return when a call may go out."""
        now = asyncio.get_running_loop().time
        started = now()
        async with self._turn:
            while (rate := self._earn(now())) == 0 or self._credit < _ALMOST_ONE:  # noqa: ASYNC110 # time passes, no event
                await asyncio.sleep(min(LOOK_S, (1 - self._credit) / rate) if rate else LOOK_S)
            self._credit -= 1
        self._waited.inc(now() - started)

    def _earn(self, now: float) -> float:
        """Add what the time since the last look is worth; return the calls per second that are allowed now."""
        share = self._share()
        rate = self._per_second * share
        if self._at > float("-inf"):
            self._credit += (now - self._at) * rate
        self._credit = min(self._credit, max(1.0, self._burst * share))
        self._at = now
        return rate
