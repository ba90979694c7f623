"""The real clock."""

from __future__ import annotations

import asyncio
import time
from typing import Protocol

MIN_WAIT_S = 0.001
"""Shortest wait: a shorter one may end before the clock has advanced."""


class Clock(Protocol):
    """Time. `monotonic` for deadlines and ages, `wall_ms` for timestamps that others read."""

    def monotonic(self) -> float:
        """Return seconds from an arbitrary start; never goes back."""
        ...

    def wall_ms(self) -> int:
        """Return epoch milliseconds; may jump."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Return after `seconds`."""
        ...


class SystemClock:
    """`Clock` of this machine; its monotonic time is the event loop's, so that timers and deadlines agree.

    For one event loop: finding the running loop costs a system call each time (CPython 3.11).
    """

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None

    def monotonic(self) -> float:
        """Return the running event loop's time."""
        if self._loop is None:
            self._loop = asyncio.get_running_loop()
        return self._loop.time()

    def wall_ms(self) -> int:
        """Return epoch milliseconds."""
        return time.time_ns() // 1_000_000

    async def sleep(self, seconds: float) -> None:
        """Sleep."""
        await asyncio.sleep(seconds)
