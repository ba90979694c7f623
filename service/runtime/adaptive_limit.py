"""How many calls may be in flight: more while they succeed, half as many when the other side throttles.

Additive increase, multiplicative decrease, as in TCP (RFC 5681). The table's capacity is unknown and changes, and the
only sign of it is throttling.
"""

from __future__ import annotations

import asyncio
from collections import deque
from types import TracebackType


class AdaptiveLimit:
    """A gate that lets a varying number of calls through at once.

    Attributes:
        maximum: Upper limit of calls in flight.

    Args:
        initial: Calls allowed at the start.
        maximum: Upper limit of calls in flight.
    """

    def __init__(self, initial: int = 4, maximum: int = 32) -> None:
        if not 1 <= initial <= maximum:
            raise ValueError(f"a limit starts between 1 and its maximum {maximum}, not at {initial}")
        self._allowed = float(initial)
        self.maximum = maximum
        self._in_flight = 0
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._since_decrease = 0

    @property
    def allowed(self) -> int:
        """Calls allowed in flight now; at least 1."""
        return int(self._allowed)

    def succeeded(self) -> None:
        """Record a call that was not throttled: a full round of them allows one more."""
        self._since_decrease += 1
        self._allowed = min(self._allowed + 1 / self._allowed, self.maximum)

    def throttled(self) -> None:
        """Record a throttled call. The limit is halved once per round of calls in flight, not once per call."""
        if self._since_decrease >= self.allowed or self._since_decrease == 0:
            self._allowed = max(self._allowed / 2, 1.0)
        self._since_decrease = 1

    async def __aenter__(self) -> None:
        """Take a slot; waits, first come first served, while none is free."""
        while self._in_flight >= self.allowed:
            turn = asyncio.get_running_loop().create_future()
            self._waiting.append(turn)
            try:
                await turn
            except asyncio.CancelledError:
                if turn.done() and not turn.cancelled():
                    self._wake_next()
                raise
        self._in_flight += 1

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Return the slot."""
        self._in_flight -= 1
        self._wake_next()

    def _wake_next(self) -> None:
        free = self.allowed - self._in_flight
        while self._waiting and free > 0:
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(None)
                free -= 1
