"""Where undefined event types are added up, in memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from service.ingest.stores import ProjectType, Undefined
from service.ingest.undefined import merged
from service.runtime.errors import TransientError


class MemoryUndefined:
    """`UndefinedStore` in a list.

    Attributes:
        types: What is stored.
        faults: Errors that the next calls raise.
    """

    def __init__(self) -> None:
        self.types: Sequence[Undefined] = []
        self.faults: list[TransientError] = []

    async def load(self) -> Sequence[Undefined]:
        return self.types

    async def add(self, types: Mapping[ProjectType, Undefined]) -> None:
        if self.faults:
            raise self.faults.pop()
        self.types = merged(self.types, types.values(), oldest_ms=0)
