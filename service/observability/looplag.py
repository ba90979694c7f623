"""Event-loop lag: a timer that fires late shows that something blocked the loop."""

from __future__ import annotations

import asyncio

from service.observability.metrics import Metrics

INTERVAL_S = 1.0
"""Seconds between two measurements. Some blocks are missed, but minutes give a good estimate, and an idle worker
rarely wakes up."""


async def measure_loop_lag(metrics: Metrics, interval_s: float = INTERVAL_S) -> None:
    """Measure until cancelled; the caller's `TaskGroup` owns the task.

    Args:
        metrics: Gets an observation of `loop_lag` per interval, in seconds.
        interval_s: Seconds between observations.
    """
    loop = asyncio.get_running_loop()
    while True:
        due = loop.time() + interval_s
        await asyncio.sleep(interval_s)
        metrics.loop_lag.observe(max(0.0, loop.time() - due))
