"""The identity table and the owner of the endpoints in memory."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet

from service.ingest.stores import DirectoryEntry, EndpointKey, Fresh
from service.runtime.errors import TransientError
from service.scoring.fold import UserKey


class MemoryIdentities:
    """`Identities` in a dict; counts the calls, because sparing them is what its callers are for."""

    def __init__(self, users: Mapping[EndpointKey, str] | None = None) -> None:
        self.users: dict[EndpointKey, str] = {_row(key): user for key, user in (users or {}).items()}
        self.finds = 0
        self.learns = 0

    async def find(self, keys: Sequence[EndpointKey]) -> Mapping[EndpointKey, str]:
        self.finds += 1
        return {key: self.users[_row(key)] for key in keys if _row(key) in self.users}

    async def learn(self, users: Mapping[EndpointKey, str]) -> None:
        self.learns += 1
        self.users.update({_row(key): user for key, user in users.items()})


def _row(key: EndpointKey) -> EndpointKey:
    return EndpointKey(key.endpoint_id.lower(), key.project_id)


class MemoryDirectory:
    """`EndpointDirectory` in a dict, on the same table as `identities`."""

    def __init__(
        self,
        entries: Mapping[UserKey, DirectoryEntry] | None = None,
        identities: MemoryIdentities | None = None,
    ) -> None:
        self.entries: dict[UserKey, DirectoryEntry] = dict(entries or {})
        self.identities = identities or MemoryIdentities()
        self.gets = 0
        self.puts = 0

    async def get(self, keys: Sequence[UserKey], fresh: Fresh) -> Mapping[UserKey, DirectoryEntry]:  # noqa: ARG002 - nobody else writes
        self.gets += 1
        return {key: self.entries[key] for key in keys if key in self.entries}

    async def put(self, entries: Mapping[UserKey, DirectoryEntry]) -> None:
        self.puts += 1
        self.entries.update(entries)
        for key, entry in entries.items():
            if entry.endpoint_id:
                self.identities.users[_row(EndpointKey(entry.endpoint_id, key.project_id))] = key.user_id


class MemoryLookup:
    """`EndpointLookup` in a dict.

    Attributes:
        users: Whose the endpoints are; empty: an endpoint without a user. Those that are absent do not exist.
        fails: Keys that are throttled.
        asked: Every key asked for, in order.
    """

    def __init__(
        self, users: Mapping[EndpointKey, str] | None = None, fails: AbstractSet[EndpointKey] = frozenset()
    ) -> None:
        self.users: dict[EndpointKey, str] = dict(users or {})
        self.fails: set[EndpointKey] = set(fails)
        self.asked: list[EndpointKey] = []

    async def user_of(self, key: EndpointKey) -> str | None:
        self.asked.append(key)
        await asyncio.sleep(0)
        if key in self.fails:
            raise TransientError("throttled", throttled=True)
        return self.users.get(key)
