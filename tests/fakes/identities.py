"""The identity table in memory: `Identities` and `EndpointDirectory`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from service.pipelines.ports import DirectoryEntry, EndpointKey
from service.scoring.fold import UserKey


class MemoryIdentities:
    """`Identities` in a dict; counts the calls, because sparing them is what its callers are for."""

    def __init__(self, users: Mapping[EndpointKey, str] | None = None) -> None:
        self.users: dict[EndpointKey, str] = dict(users or {})
        self.finds = 0
        self.learns = 0

    async def find(self, keys: Sequence[EndpointKey]) -> Mapping[EndpointKey, str]:
        self.finds += 1
        return {key: self.users[key] for key in keys if key in self.users}

    async def learn(self, users: Mapping[EndpointKey, str]) -> None:
        self.learns += 1
        self.users.update(users)


class MemoryDirectory:
    """`EndpointDirectory` in a dict."""

    def __init__(self, entries: Mapping[UserKey, DirectoryEntry] | None = None) -> None:
        self.entries: dict[UserKey, DirectoryEntry] = dict(entries or {})
        self.gets = 0
        self.puts = 0

    async def get(self, keys: Sequence[UserKey]) -> Mapping[UserKey, DirectoryEntry]:
        self.gets += 1
        return {key: self.entries[key] for key in keys if key in self.entries}

    async def put(self, entries: Mapping[UserKey, DirectoryEntry]) -> None:
        self.puts += 1
        self.entries.update(entries)
