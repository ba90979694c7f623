"""Former users of endpoints, in memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from service.ingest.ownership import Former
from service.ingest.stores import AliasKey


class MemoryFormer:
    """`FormerUsers` in a dict."""

    def __init__(self) -> None:
        self.users: dict[AliasKey, Sequence[Former]] = {}

    async def find(self, keys: Sequence[AliasKey]) -> Mapping[AliasKey, Sequence[Former]]:
        return {key: self.users[_row(key)] for key in keys if _row(key) in self.users}

    async def keep(self, former: Mapping[AliasKey, Sequence[Former]]) -> None:
        self.users.update({_row(key): users for key, users in former.items()})


def _row(key: AliasKey) -> AliasKey:
    return key.stored()
