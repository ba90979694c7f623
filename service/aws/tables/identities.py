"""The identity table's rows: `RowStore` on DynamoDB.

| attribute | type | meaning |
|---|---|---|
| `Id` (HASH) | S | `user#<user id>`, `endpoint#<endpoint id, in lower case>`, or `<kind>#<name>` (`AliasKind`) |
| `PinpointProjectId` (RANGE) | S | |
| `Stamp` | S | another one with every write; absent in rows of version 0.1 |
| `UserId` | S | of an endpoint: its user; empty: none |
| `EndpointId` | S | the endpoint that gets a user's score, as its owner spells it; empty: none; in both rows |
| `EndpointStatus`, `Channel` | S | of that endpoint, likewise |
| `CheckedAt` | N | when that was asked, epoch milliseconds, likewise; 0: to be asked |
| `OtherEndpoints` | M | of a user: the other endpoints and their status; absent where there are none |
| `Named` | BOOL | of an endpoint: an event named its user; of a user: an event named an endpoint |
| `ExpiresAt` | N | time to live, epoch seconds |

An endpoint's row says, beside its user, whether that user's score is written to it. So the look-up of an event's user
brings in passing where the score will go: where one process does both, as by default, the second look-up is spared.

What expired and is not deleted yet is as good as before: DynamoDB deletes within a few days
(https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/TTL.html), and every mention renews it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping
from functools import lru_cache
from sys import intern
from typing import Any

from service.aws.calls import Item, ItemReader
from service.aws.clients import AwsClient
from service.aws.schema import EXPIRES, IDENTITY_KEYS
from service.aws.statements import execute
from service.aws.translation import translated
from service.ingest.identity_rows import Row, RowKey, Write
from service.ingest.identity_store import CACHED, DEFAULT_TTL_DAYS, IdentityStore

_FIELDS = (
    "UserId", "EndpointId", "EndpointStatus", "Channel", "CheckedAt", "OtherEndpoints", "Named", EXPIRES, "Stamp",
)  # fmt: skip
_ATTRIBUTES = (*IDENTITY_KEYS, *_FIELDS)
_REMEDY = "run `scoring setup`, or set SCORING_IDENTITIES_TABLE"


class IdentityRows:
    """`RowStore` on DynamoDB.

    Reads are consistent: what one worker wrote, every other finds. BatchWriteItem has no conditions, and PutItem writes
    one row per request. PartiQL writes 25 rows per request, each with its condition.

    Args:
        client: DynamoDB.
        table: Its name.
    """

    def __init__(self, client: AwsClient, table: str) -> None:
        self._client = client
        self._table = table
        self._reader = ItemReader(client, table, IDENTITY_KEYS, _ATTRIBUTES)

    async def read(self, keys: Collection[RowKey]) -> Mapping[RowKey, Row]:
        """Return the rows that exist; see `RowStore.read`."""
        items = await self._reader.get(keys)
        with translated(f"table {self._table}", remedy=_REMEDY):
            return {key: _row_of(item) for key, item in items.items()}

    async def write(self, writes: Mapping[RowKey, Write]) -> Collection[RowKey]:
        """Change rows that are still as they were; see `RowStore.write`."""
        statements = {key: _statement(self._table, key, write) for key, write in writes.items()}
        actions = "dynamodb:PartiQLInsert and dynamodb:PartiQLUpdate"
        return await execute(self._client, self._table, statements, remedy=_REMEDY, actions=actions)


class IdentityTable(IdentityStore):
    """`Identities` and `EndpointDirectory` on DynamoDB: `IdentityStore` over `IdentityRows`.

    Args:
        client: DynamoDB.
        table: Its name.
        ttl_days: See `IdentityStore`, as all the others.
        wall_s: Epoch seconds.
        monotonic: Seconds that never go back.
        cached: Users whose entry is kept in memory.
    """

    def __init__(
        self,
        client: AwsClient,
        table: str,
        *,
        ttl_days: float = DEFAULT_TTL_DAYS,
        wall_s: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
        cached: int = CACHED,
    ) -> None:
        rows = IdentityRows(client, table)
        super().__init__(rows, ttl_days=ttl_days, wall_s=wall_s, monotonic=monotonic, cached=cached)


def _row_of(item: Item) -> Row:
    def text(name: str) -> str:
        value: str = item[name]["S"] if name in item else ""
        return value

    return Row(
        stamp=text("Stamp"),
        user_id=text("UserId"),
        endpoint_id=text("EndpointId"),
        status=intern(text("EndpointStatus")),  # kept for many users: one text of each serves all
        channel=intern(text("Channel")),
        checked_ms=int(item["CheckedAt"]["N"]) if "CheckedAt" in item else 0,
        others=tuple((name, intern(value["S"])) for name, value in item["OtherEndpoints"]["M"].items())
        if "OtherEndpoints" in item
        else (),
        named=item["Named"]["BOOL"] if "Named" in item else False,
        expires_s=int(item[EXPIRES]["N"]) if EXPIRES in item else 0,
    )


def _attributes(key: RowKey, row: Row, before: Row | None) -> dict[str, Mapping[str, Any]]:
    values: dict[str, Mapping[str, Any]] = {
        **({} if key[0].startswith("user#") else {"UserId": {"S": row.user_id}}),
        "EndpointId": {"S": row.endpoint_id},
        "EndpointStatus": {"S": row.status},
        "Channel": {"S": row.channel},
        "CheckedAt": {"N": str(row.checked_ms)},
        "Named": {"BOOL": row.named},
        "Stamp": {"S": row.stamp},
    }
    if row.expires_s:
        values[EXPIRES] = {"N": str(row.expires_s)}
    if row.others or (before is not None and before.others):
        values["OtherEndpoints"] = {"M": {endpoint_id: {"S": status} for endpoint_id, status in row.others}}
    return values


def _statement(table: str, key: RowKey, write: Write) -> Mapping[str, Any]:
    values = _attributes(key, write.after, write.before)
    parameters: list[Mapping[str, Any]] = list(values.values())
    keys = [{"S": part} for part in key]
    if write.before is None:
        return {"Statement": _insertion(table, tuple(values)), "Parameters": [*keys, *parameters]}
    stamp = write.before.stamp
    text = _update(table, tuple(values), with_stamp=bool(stamp), forever=EXPIRES not in values)
    return {"Statement": text, "Parameters": [*parameters, *keys, *([{"S": stamp}] if stamp else [])]}


@lru_cache(64)
def _insertion(table: str, names: tuple[str, ...]) -> str:
    pairs = ", ".join(f"'{name}': ?" for name in (*IDENTITY_KEYS, *names))
    return f'INSERT INTO "{table}" VALUE {{{pairs}}}'


@lru_cache(64)
def _update(table: str, names: tuple[str, ...], *, with_stamp: bool, forever: bool) -> str:
    changes = " ".join(f"SET {name} = ?" for name in names) + (f" REMOVE {EXPIRES}" if forever else "")
    where = " AND ".join(f"{name} = ?" for name in IDENTITY_KEYS)
    # A table's name cannot be a parameter.
    return f'UPDATE "{table}" {changes} WHERE {where} AND Stamp {"= ?" if with_stamp else "IS MISSING"}'
