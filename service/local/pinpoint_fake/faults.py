"""Pure: failures that a test asks the fake for."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

MAX_FAULTS = 100
"""Faults waiting at once."""


class Fault(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """What happens to the next `times` requests of `operation`; the JSON body of `POST /_fake/fail`."""

    operation: str
    """An operation's name, or `*`."""
    times: Annotated[int, Meta(ge=1, le=1_000_000)] = 1
    status: Literal[400, 403, 404, 405, 409, 413, 429, 500] | None = None
    """Answer this instead of doing anything; None: do as always (after the delay)."""
    delay_s: Annotated[float, Meta(ge=0, le=600)] = 0.0
    """Seconds to wait before anything else."""
    lose_response: bool = False
    """Do as always, then close the connection without an answer."""


class Faults:
    """The faults that are waiting, oldest first."""

    def __init__(self) -> None:
        self._waiting: list[Fault] = []

    def add(self, fault: Fault) -> None:
        """Add one. Raises ValueError when MAX_FAULTS are waiting."""
        if len(self._waiting) >= MAX_FAULTS:
            raise ValueError(f"{MAX_FAULTS} faults are waiting already")
        self._waiting.append(fault)

    def clear(self) -> None:
        """Forget all."""
        self._waiting.clear()

    def next(self, operation: str) -> Fault | None:
        """The fault that meets a request of `operation`, if any; uses it up by one."""
        for fault in self._waiting:
            if fault.operation in {operation, "*"}:
                fault.times -= 1
                if fault.times == 0:
                    self._waiting.remove(fault)
                return fault
        return None
