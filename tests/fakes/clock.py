"""A clock that a test moves."""

from __future__ import annotations

import asyncio


class ManualClock:
    """`Clock` that stands still until it is told otherwise; a sleep moves it."""

    def __init__(self, now: float = 0.0) -> None:
        self.now = now

    def monotonic(self) -> float:
        return self.now

    def wall_ms(self) -> int:
        return int(self.now * 1000)

    async def sleep(self, seconds: float) -> None:
        self.now += seconds
        await asyncio.sleep(0)
