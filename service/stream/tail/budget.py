"""How much may be in hand: bytes read and not yet dealt with, over all shards of a process.

A shard whose consumer is slow keeps its bytes; so the bound is on bytes, and reading waits for room. Any page
asked for counts with its expected size at once, and with its real size once it is there.
"""

from __future__ import annotations

import asyncio
from collections import deque

import msgspec

from service.stream.settings import MIB

BYTE_BUDGET = 64 * MIB
"""Bytes in hand of a process."""

MAX_FETCHES = 16
"""Fetches of a process in flight at once."""

PAGE_BYTES = 2 * MIB
"""What a page is expected to be at most."""


class _Waiter(msgspec.Struct, eq=False):
    admitted: asyncio.Future[bool]
    empty_handed: bool


class ByteBudget:
    """Shared by all tails of a process; first come, first served.

    Above the limit there is one spare page, for a tail that has nothing in hand: one shard can always go on,
    even where everything in hand waits for something that is not read yet. So at most `limit + page` bytes are
    in hand, and what pages turn out larger than expected.
    """

    def __init__(self, limit: int = BYTE_BUDGET, *, page: int = PAGE_BYTES, fetches: int = MAX_FETCHES) -> None:
        self.limit = limit
        self.page = min(page, limit)
        self.used = 0
        self.peak = 0
        self._free_fetches = fetches
        self._spare_free = True
        self._waiters: deque[_Waiter] = deque()

    async def admit(self, *, empty_handed: bool) -> bool:
        """Wait for room for one page, and reserve it; to be followed by one `settle`.

        Args:
            empty_handed: Whether the caller has nothing in hand and so may have the spare page.

        Returns:
            Whether it is the spare page, to be given to `settle` and later to `release`.
        """
        if not self._waiters and self._free_fetches and self.used + self.page <= self.limit:
            self._free_fetches -= 1
            self.used += self.page
            return False
        waiter = _Waiter(admitted=asyncio.get_running_loop().create_future(), empty_handed=empty_handed)
        self._waiters.append(waiter)
        self._wake()
        try:
            return await waiter.admitted
        except asyncio.CancelledError:
            if waiter.admitted.done() and not waiter.admitted.cancelled():
                self.settle(0, spare=waiter.admitted.result())
            elif waiter in self._waiters:
                self._waiters.remove(waiter)
            raise

    def settle(self, size: int, *, spare: bool) -> None:
        """Replace the reservation by what the page holds; 0 gives it all back."""
        self._free_fetches += 1
        self.used += size - self.page
        self.peak = max(self.peak, self.used)
        if spare and not size:
            self._spare_free = True
        self._wake()

    def release(self, size: int, *, spare: bool = False) -> None:
        """Give back bytes that are dealt with.

        Args:
            size: How many.
            spare: Whether the last of a spare page is among them.
        """
        self.used -= size
        if spare:
            self._spare_free = True
        self._wake()

    def _wake(self) -> None:
        for waiter in list(self._waiters):
            if not self._free_fetches:
                return
            if waiter.admitted.done():
                self._waiters.remove(waiter)
                continue
            room = self.used + self.page <= self.limit
            if not room and not self._spare_free:
                return
            spare = not room and waiter.empty_handed
            if not room and not spare:
                continue
            self._waiters.remove(waiter)
            self._free_fetches -= 1
            self.used += self.page
            self._spare_free = self._spare_free and not spare
            waiter.admitted.set_result(spare)
