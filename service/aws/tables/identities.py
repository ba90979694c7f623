"""The identity table: which user an endpoint belongs to, and which endpoint a user's score is written to.

Two ports on one table: `Identities` and `EndpointDirectory`.

| attribute | type | meaning |
|---|---|---|
| `Id` (HASH) | S | `endpoint#<endpoint id>` or `user#<user id>` |
| `PinpointProjectId` (RANGE) | S | |
| `UserId` | S | of an endpoint: its user; empty: it is known to have none |
| `EndpointId` | S | of a user: its endpoint, as last found and spelled; in the user's row and in the endpoint's |
| `EndpointStatus`, `Channel` | S | of that endpoint, likewise |
| `CheckedAt` | N | when that was asked, epoch milliseconds, likewise |
| `ExpiresAt` | N | time to live, epoch seconds |

An endpoint's row tells, beside its user, whether that user's score is written to it. So whoever looks up whose an
event is knows in passing where the score will go, and keeps it in memory: where one process does both, as by default,
the second look-up is spared.

Endpoint ids are case-insensitive in Pinpoint: the keys hold them in lower case.

What expired and is not deleted yet is as good as before: DynamoDB deletes within a few days
(https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/TTL.html), and every mention renews it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from sys import getsizeof, intern
from typing import Any

from service.aws.calls import Item, ItemReader, Key, batch_put
from service.aws.clients import AwsClient
from service.ingest.stores import DirectoryEntry, EndpointKey, Fresh
from service.runtime.cache import RecentCache
from service.scoring.fold import UserKey

DEFAULT_TTL_DAYS = 400
"""How long a mapping outlives its last mention: more than a year, so that a yearly campaign finds its people."""

CACHED = 40_000
"""Users whose entry is kept in memory: enough for those between the look-up of an event's user and the publishing."""

_KEY_NAMES = ("Id", "PinpointProjectId")
_OF_ENDPOINTS = (*_KEY_NAMES, "UserId", "EndpointId", "EndpointStatus", "Channel", "CheckedAt")
_OF_USERS = (*_KEY_NAMES, "EndpointId", "EndpointStatus", "Channel", "CheckedAt")
_DAY_S = 86_400
_ENDPOINT = "endpoint#"
_USER = "user#"


class IdentityTable:
    """`Identities` and `EndpointDirectory` on DynamoDB.

    Reads are consistent: what one worker learned, every other finds. An endpoint or project without a name cannot be a
    key: nothing is found for it, and nothing learned.

    Args:
        client: DynamoDB.
        table: Its name.
        ttl_days: How long a mapping outlives its last mention; 0: for ever.
        wall_s: Epoch seconds.
        cached: Users whose entry is kept in memory, in `cache.ENTRY_BYTES` each on average.
    """

    def __init__(
        self,
        client: AwsClient,
        table: str,
        *,
        ttl_days: float = DEFAULT_TTL_DAYS,
        wall_s: Callable[[], float] = time.time,
        cached: int = CACHED,
    ) -> None:
        self._client = client
        self._table = table
        self._ttl_days = ttl_days
        self._wall_s = wall_s
        self._endpoints = ItemReader(client, table, _KEY_NAMES, _OF_ENDPOINTS)
        self._users = ItemReader(client, table, _KEY_NAMES, _OF_USERS)
        self._entries: RecentCache[UserKey, DirectoryEntry] = RecentCache(cached, _bytes_of)

    async def find(self, keys: Sequence[EndpointKey]) -> Mapping[EndpointKey, str]:
        """Return the users known; see `Identities.find`."""
        wanted = _rows(keys)
        users: dict[EndpointKey, str] = {}
        for names, item in (await self._endpoints.get(wanted)).items():
            user_id = item["UserId"]["S"]
            for key in wanted[names]:
                users[key] = user_id
                if user_id and "CheckedAt" in item:
                    endpoint_id = item["EndpointId"]["S"] if "EndpointId" in item else key.endpoint_id
                    self._met(UserKey(user_id, key.project_id), _entry(endpoint_id, item))
        return users

    async def learn(self, users: Mapping[EndpointKey, str]) -> None:
        """Keep which user each endpoint belongs to; see `Identities.learn`."""
        expiry = self._expiry()
        await batch_put(
            self._client,
            self._table,
            [{**_key(*names), "UserId": {"S": user_id}, **expiry} for names, user_id in _by_row(users).items()],
        )

    async def get(self, keys: Sequence[UserKey], fresh: Fresh) -> Mapping[UserKey, DirectoryEntry]:
        """Return the entries known; see `EndpointDirectory.get`."""
        entries: dict[UserKey, DirectoryEntry] = {}
        wanted: dict[Key, UserKey] = {}
        for key in keys:
            entry = self._entries.get(key)
            if entry is not None:
                entries[key] = entry
            if entry is None or not fresh(entry):
                wanted[f"{_USER}{key.user_id}", key.project_id] = key
        for names, item in (await self._users.get(wanted)).items():
            key = wanted[names]
            entries[key] = _entry(item["EndpointId"]["S"], item)
            self._entries.put(key, entries[key])
        return entries

    async def put(self, entries: Mapping[UserKey, DirectoryEntry]) -> None:
        """Keep the entries, and whose the endpoints in them are; see `EndpointDirectory.put`."""
        expiry = self._expiry()
        items: dict[tuple[str, str], Item] = {}
        for key, entry in entries.items():
            self._entries.put(key, entry)
            told = {
                "EndpointId": {"S": entry.endpoint_id},
                "EndpointStatus": {"S": entry.endpoint_status},
                "Channel": {"S": entry.channel},
                "CheckedAt": {"N": str(entry.checked_ms)},
                **expiry,
            }
            user = f"{_USER}{key.user_id}", key.project_id
            items[user] = {**_key(*user), **told}
            if entry.endpoint_id:
                endpoint = f"{_ENDPOINT}{entry.endpoint_id.lower()}", key.project_id
                items[endpoint] = {**_key(*endpoint), "UserId": {"S": key.user_id}, **told}
        await batch_put(self._client, self._table, list(items.values()))

    def _met(self, key: UserKey, entry: DirectoryEntry) -> None:
        """Keep an entry found in passing, unless a younger one is known: the user's score may go elsewhere by now."""
        known = self._entries.get(key)
        if known is None or known.checked_ms < entry.checked_ms:
            self._entries.put(key, entry)

    def _expiry(self) -> dict[str, dict[str, Any]]:
        if not self._ttl_days:
            return {}
        return {"ExpiresAt": {"N": str(int(self._wall_s() + self._ttl_days * _DAY_S))}}


def _rows(keys: Sequence[EndpointKey]) -> dict[Key, list[EndpointKey]]:
    """Return the rows of endpoints: ids that differ in case only are one endpoint, with one row."""
    rows: dict[Key, list[EndpointKey]] = {}
    for key in keys:
        if key.endpoint_id and key.project_id:
            rows.setdefault((f"{_ENDPOINT}{key.endpoint_id.lower()}", key.project_id), []).append(key)
    return rows


def _by_row(users: Mapping[EndpointKey, str]) -> dict[Key, str]:
    return {
        (f"{_ENDPOINT}{key.endpoint_id.lower()}", key.project_id): user_id
        for key, user_id in users.items()
        if key.endpoint_id and key.project_id
    }


def _entry(endpoint_id: str, item: Item) -> DirectoryEntry:
    # Kept for many users: one text of a status and a channel serves all.
    status, channel = intern(item["EndpointStatus"]["S"]), intern(item["Channel"]["S"])
    return DirectoryEntry(endpoint_id, status, channel, int(item["CheckedAt"]["N"]))


def _bytes_of(key: UserKey, entry: DirectoryEntry) -> int:
    return getsizeof(key.user_id) + getsizeof(entry.endpoint_id)


def _key(identity: str, project_id: str) -> dict[str, dict[str, Any]]:
    return {"Id": {"S": identity}, "PinpointProjectId": {"S": project_id}}
