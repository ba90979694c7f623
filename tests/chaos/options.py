"""What a chaos run plays."""

from __future__ import annotations

import msgspec


class Options(msgspec.Struct, frozen=True):
    """What to play.

    Attributes:
        events: Records to put.
        seed: Another seed, another run.
        seconds: Over how many seconds they are put, where the machine keeps up.
        lease_s: Lease duration of the workers.
        storm: Factor on the probability of every fault; 0: none.
        keep_logs: Whether to keep the logs of an exact run.
    """

    events: int = 50_000
    seed: int = 1
    seconds: float = 100.0
    lease_s: float = 3.0
    storm: float = 1.0
    keep_logs: bool = False
