"""What the session, which holds a worker's leases, and the tails, which read them, share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import msgspec

from service.runtime.clock import Clock
from service.runtime.errors import LeaseLostError
from service.stream.leases.lease import Lease


class Held(msgspec.Struct, frozen=True):
    """A lease in hand.

    Attributes:
        lease: As it was taken.
        worker: Who holds it.
        deadline: Returns the monotonic second until which this worker may work; grows with every heartbeat.
        seized_at: Monotonic second of a seizure by force, or of taking it from somebody who had just seized it; minus
            infinity when it was free.
    """

    lease: Lease
    worker: str
    deadline: Callable[[], float]
    seized_at: float = float("-inf")

    def check(self, clock: Clock) -> None:
        """Raise `LeaseLostError` when the deadline has passed."""
        if clock.monotonic() >= self.deadline():
            raise LeaseLostError(f"no heartbeat in time: {self.lease.shard_id} may be another's")


class TailLike(Protocol):
    """What a session asks of a tail."""

    @property
    def in_hand(self) -> int:
        """Bytes read and not yet durable."""
        ...

    @property
    def unreadable(self) -> bool:
        """Whether the shard could not be read for a good while."""
        ...

    def lag(self, now_ms: int) -> float | None:
        """Return seconds behind; None when unknown."""
        ...

    def hand_over(self) -> None:
        """Ask `run` to finish what it can soon, release the lease and return."""
        ...

    def finish(self) -> None:
        """Ask `run` to finish everything in hand, release the lease and return."""
        ...

    async def run(self) -> bool:
        """Read; return whether the shard is finished. May raise `LeaseLostError`."""
        ...
