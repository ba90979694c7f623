"""The identity table and the owner of the endpoints in memory."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from collections.abc import Set as AbstractSet

from service.ingest.identity_rows import Row, RowKey, Write
from service.ingest.stores import AliasKey
from service.runtime.errors import TransientError


class MemoryIdentities:
    """`Identities` in a dict; counts the calls, because sparing them is what its callers are for."""

    def __init__(self, users: Mapping[AliasKey, str] | None = None) -> None:
        self.users: dict[AliasKey, str] = {_row(key): user for key, user in (users or {}).items()}
        self.finds = 0
        self.learns = 0

    async def find(self, keys: Sequence[AliasKey]) -> Mapping[AliasKey, str]:
        self.finds += 1
        return {key: self.users[_row(key)] for key in keys if _row(key) in self.users}

    async def learn(self, users: Mapping[AliasKey, str]) -> None:
        self.learns += 1
        self.users.update({_row(key): user for key, user in users.items()})


def _row(key: AliasKey) -> AliasKey:
    return key.stored()


class MemoryRows:
    """`RowStore` in a dict; counts the calls. `meanwhile` is called once, before the next write takes effect."""

    def __init__(self) -> None:
        self.rows: dict[RowKey, Row] = {}
        self.reads = 0
        self.writes = 0
        self.meanwhile: Callable[[], Awaitable[None]] | None = None

    async def read(self, keys: Collection[RowKey]) -> Mapping[RowKey, Row]:
        self.reads += 1
        await asyncio.sleep(0)
        return {key: self.rows[key] for key in keys if key in self.rows}

    async def write(self, writes: Mapping[RowKey, Write]) -> Collection[RowKey]:
        meanwhile, self.meanwhile = self.meanwhile, None
        if meanwhile is not None:
            await meanwhile()
        self.writes += 1
        await asyncio.sleep(0)
        return apply(self.rows, writes)


def apply(rows: dict[RowKey, Row], writes: Mapping[RowKey, Write]) -> list[RowKey]:
    """Change rows as a table does; return the keys whose row was another one."""
    lost = []
    for key, write in writes.items():
        row, before = rows.get(key), write.before
        if (row is None) != (before is None) or (row and before and row.stamp != before.stamp):
            lost.append(key)
        else:
            rows[key] = write.after
    return lost


class MemoryLookup:
    """`EndpointLookup` in a dict.

    Attributes:
        users: Whose the endpoints are; empty: an endpoint without a user. Those that are absent do not exist.
        fails: Keys that are throttled.
        asked: Every key asked for, in order.
    """

    def __init__(self, users: Mapping[AliasKey, str] | None = None, fails: AbstractSet[AliasKey] = frozenset()) -> None:
        self.users: dict[AliasKey, str] = dict(users or {})
        self.fails: set[AliasKey] = set(fails)
        self.asked: list[AliasKey] = []

    async def user_of(self, key: AliasKey) -> str | None:
        self.asked.append(key)
        await asyncio.sleep(0)
        if key in self.fails:
            raise TransientError("throttled", throttled=True)
        return self.users.get(key)
