"""Former users of names that have changed hands: `FormerUsers` on DynamoDB, rows of the identity table.

| attribute | type | meaning |
|---|---|---|
| `Id` (HASH) | S | `former#<endpoint id>`, in lower case, or `former-<kind>#<name>` of another kind of name |
| `PinpointProjectId` (RANGE) | S | |
| `Former` | S | JSON array of `ownership.Former`, oldest first |
| `ExpiresAt` | N | time to live, epoch seconds |

A row of its own, for the few endpoints that change hands: the row of an endpoint stays small, and what writes that one
need not know of this one.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence

import msgspec
import structlog

from service.aws.calls import Item, ItemReader, Key, batch_put
from service.aws.clients import AwsClient
from service.aws.schema import EXPIRES, IDENTITY_KEYS, key_item
from service.ingest.ownership import Former
from service.ingest.stores import AliasKey

KEPT_DAYS = 400
"""How long a row outlives its last change: longer than any stream keeps what might be read again (365 days)."""

_DAY_S = 86_400

log = structlog.get_logger(__name__)

_former = msgspec.json.Decoder(tuple[Former, ...])


class FormerTable:
    """`FormerUsers` on DynamoDB. Reads are consistent: what one worker wrote, every other finds.

    Args:
        client: DynamoDB.
        table: The identity table's name.
        wall_s: Epoch seconds.
    """

    def __init__(self, client: AwsClient, table: str, *, wall_s: Callable[[], float] = time.time) -> None:
        self._client = client
        self._table = table
        self._wall_s = wall_s
        self._rows = ItemReader(client, table, IDENTITY_KEYS, (*IDENTITY_KEYS, "Former"))

    async def find(self, keys: Sequence[AliasKey]) -> Mapping[AliasKey, Sequence[Former]]:
        """Return the former users; see `FormerUsers.find`."""
        wanted: dict[Key, list[AliasKey]] = {}
        for key in keys:
            wanted.setdefault(_row(key), []).append(key)
        found: dict[AliasKey, Sequence[Former]] = {}
        for row, item in (await self._rows.get(wanted)).items():
            found |= dict.fromkeys(wanted[row], _users_of(item))
        return found

    async def keep(self, former: Mapping[AliasKey, Sequence[Former]]) -> None:
        """Keep former users; see `FormerUsers.keep`."""
        expiry = {"N": str(int(self._wall_s() + KEPT_DAYS * _DAY_S))}
        rows = {_row(key): users for key, users in former.items()}
        items = [
            {
                **key_item(IDENTITY_KEYS, row),
                "Former": {"S": msgspec.json.encode(list(users)).decode()},
                EXPIRES: expiry,
            }
            for row, users in rows.items()
        ]
        await batch_put(self._client, self._table, items)


def _users_of(item: Item) -> Sequence[Former]:
    """Return the former users in a row; none where something else has written over it, which must not stop a shard."""
    try:
        return _former.decode(item.get("Former", {}).get("S", "[]"))
    except msgspec.DecodeError as error:
        log.warning("identity.row_rejected", error=str(error), consequence="the endpoint's former users are not known")
        return ()


def _row(key: AliasKey) -> Key:
    stored = key.stored()
    name = "former" if key.is_endpoint else f"former-{key.kind}"
    return f"{name}#{stored.value}", key.project_id
