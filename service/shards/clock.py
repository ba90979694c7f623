"""The real clock."""

from __future__ import annotations

import asyncio
import time


class SystemClock:
    """`Clock` of this machine; its monotonic time is the event loop's, so that timers and deadlines agree."""

    def monotonic(self) -> float:
        """Return the running event loop's time."""
        return asyncio.get_running_loop().time()

    def wall_ms(self) -> int:
        """Return epoch milliseconds."""
        return time.time_ns() // 1_000_000

    async def sleep(self, seconds: float) -> None:
        """Sleep."""
        await asyncio.sleep(seconds)
