"""The identity table: which user an endpoint belongs to, and which endpoint a user's score is written to.

Two ports on one table: `Identities` and `EndpointDirectory`.

| attribute | type | meaning |
|---|---|---|
| `Id` (HASH) | S | `endpoint#<endpoint id>` or `user#<user id>` |
| `PinpointProjectId` (RANGE) | S | |
| `UserId` | S | of an endpoint: its user |
| `EndpointId`, `EndpointStatus`, `Channel` | S | of a user: its endpoint, as last found |
| `CheckedAt` | N | of a user: when that was asked, epoch milliseconds |
| `ExpiresAt` | N | time to live, epoch seconds |

What expired and is not deleted yet is as good as before: DynamoDB deletes within a few days
(https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/TTL.html), and every mention renews it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from service.aws.calls import batch_get, batch_put
from service.aws.clients import AwsClient
from service.pipelines.ports import DirectoryEntry, EndpointKey
from service.scoring.fold import UserKey

DEFAULT_TTL_DAYS = 400
"""How long a mapping outlives its last mention: more than a year, so that a yearly campaign finds its people."""

_DAY_S = 86_400
_ENDPOINT = "endpoint#"
_USER = "user#"


class IdentityTable:
    """`Identities` on DynamoDB. Reads are consistent: what one worker learned, every other finds.

    An endpoint or project without a name cannot be a key: nothing is found for it, and nothing learned.

    Args:
        client: DynamoDB.
        table: Its name.
        ttl_days: How long a mapping outlives its last mention; 0: for ever.
        wall_s: Epoch seconds.
    """

    def __init__(
        self,
        client: AwsClient,
        table: str,
        *,
        ttl_days: float = DEFAULT_TTL_DAYS,
        wall_s: Callable[[], float] = time.time,
    ) -> None:
        self._client = client
        self._table = table
        self._ttl_days = ttl_days
        self._wall_s = wall_s

    async def find(self, keys: Sequence[EndpointKey]) -> Mapping[EndpointKey, str]:
        """Return the users known; see `Identities.find`."""
        wanted = [
            _key(_ENDPOINT + key.endpoint_id, key.project_id)
            for key in dict.fromkeys(keys)
            if key.endpoint_id and key.project_id
        ]
        items = await batch_get(self._client, self._table, wanted, ("Id", "PinpointProjectId", "UserId"))
        return {
            EndpointKey(item["Id"]["S"].removeprefix(_ENDPOINT), item["PinpointProjectId"]["S"]): item["UserId"]["S"]
            for item in items
        }

    async def learn(self, users: Mapping[EndpointKey, str]) -> None:
        """Keep which user each endpoint belongs to; see `Identities.learn`."""
        expiry = _expiry(self._ttl_days, self._wall_s())
        await batch_put(
            self._client,
            self._table,
            [
                {**_key(_ENDPOINT + key.endpoint_id, key.project_id), "UserId": {"S": user_id}, **expiry}
                for key, user_id in users.items()
                if key.endpoint_id and key.project_id
            ],
        )


class DirectoryTable:
    """`EndpointDirectory` on DynamoDB, in the same table; arguments as for `IdentityTable`."""

    def __init__(
        self,
        client: AwsClient,
        table: str,
        *,
        ttl_days: float = DEFAULT_TTL_DAYS,
        wall_s: Callable[[], float] = time.time,
    ) -> None:
        self._client = client
        self._table = table
        self._ttl_days = ttl_days
        self._wall_s = wall_s

    async def get(self, keys: Sequence[UserKey]) -> Mapping[UserKey, DirectoryEntry]:
        """Return the entries known; see `EndpointDirectory.get`."""
        wanted = [_key(_USER + key.user_id, key.project_id) for key in dict.fromkeys(keys)]
        attributes = ("Id", "PinpointProjectId", "EndpointId", "EndpointStatus", "Channel", "CheckedAt")
        items = await batch_get(self._client, self._table, wanted, attributes)
        return {
            UserKey(item["Id"]["S"].removeprefix(_USER), item["PinpointProjectId"]["S"]): DirectoryEntry(
                endpoint_id=item["EndpointId"]["S"],
                endpoint_status=item["EndpointStatus"]["S"],
                channel=item["Channel"]["S"],
                checked_ms=int(item["CheckedAt"]["N"]),
            )
            for item in items
        }

    async def put(self, entries: Mapping[UserKey, DirectoryEntry]) -> None:
        """Keep the entries; see `EndpointDirectory.put`."""
        expiry = _expiry(self._ttl_days, self._wall_s())
        await batch_put(
            self._client,
            self._table,
            [
                {
                    **_key(_USER + key.user_id, key.project_id),
                    "EndpointId": {"S": entry.endpoint_id},
                    "EndpointStatus": {"S": entry.endpoint_status},
                    "Channel": {"S": entry.channel},
                    "CheckedAt": {"N": str(entry.checked_ms)},
                    **expiry,
                }
                for key, entry in entries.items()
            ],
        )


def _key(identity: str, project_id: str) -> dict[str, dict[str, Any]]:
    return {"Id": {"S": identity}, "PinpointProjectId": {"S": project_id}}


def _expiry(ttl_days: float, now_s: float) -> dict[str, dict[str, Any]]:
    return {"ExpiresAt": {"N": str(int(now_s + ttl_days * _DAY_S))}} if ttl_days else {}
