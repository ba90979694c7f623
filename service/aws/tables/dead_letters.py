"""The dead-letter table: `DeadLetters`, and the reading side for the command line.

| attribute | type | meaning |
|---|---|---|
| `Origin` (HASH), `Id` (RANGE) | S | the two parts of the letter's id (`service/ingest/letters.py`) |
| `Stage`, `Reason`, `Detail` | S | where, why |
| `Stream`, `ShardId`, `Sequence`, `PartitionKey` | S | the pointer to the record |
| `At` | N | when it was set aside, epoch milliseconds |
| `Payload` | B | the record, zlib-compressed; absent where it does not fit an item |
| `PayloadKept` | BOOL | whether it fitted |
| `PayloadSize` | N | bytes of the record |
| `State` | S | `new`, `redriving`, `redriven` |
| `StateAt` | N | when the state was set, epoch milliseconds |
| `RedrivenTo` | S | where a redrive put it: `stream/shard/sequence`, or the score's new revision |
| `ExpiresAt` | N | time to live, epoch seconds |

Letters are inserted, never overwritten: a replay must not set a letter that was redriven back to `new`. PartiQL's
INSERT does that 25 at a time; BatchWriteItem cannot, and a conditional PutItem is a request for each.
"""

from __future__ import annotations

import asyncio
import time
import zlib
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from typing import Any

import msgspec
from botocore.exceptions import ClientError

from service.aws.calls import Item, each, pages
from service.aws.clients import AwsClient
from service.aws.schema import EXPIRES, LETTER_KEYS, key_item
from service.aws.statements import execute
from service.aws.translation import is_condition_failure, translated
from service.ingest.letters import split_letter_id
from service.ingest.stores import MAX_COMMITS, DeadLetter
from service.scoring.event import Reason

DEFAULT_TTL_DAYS = 14.0

MAX_PAYLOAD_BYTES = 350 * 1024
"""Compressed; an item holds 400 KB, names and pointers included
(https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/Constraints.html)."""

MAX_CALL_BYTES = 700 * 1024
"""Payload bytes per call: in Base64 that stays below the 1 MiB from which aiohttp warns that sending a body holds up
the event loop."""

_THREAD_BYTES = 64 * 1024  # compressing more than this would hold up the event loop by milliseconds
_DAY_S = 86_400
_ATTRIBUTES = (
    *LETTER_KEYS,
    "Stage",
    "Reason",
    "Detail",
    "Stream",
    "ShardId",
    "Sequence",
    "PartitionKey",
    "At",
    "PayloadSize",
    "PayloadKept",
    "State",
    "StateAt",
    "RedrivenTo",
    EXPIRES,
)
_REMEDY = "run `scoring setup`, or set SCORING_DEAD_LETTERS_TABLE"

NEW = "new"
REDRIVING = "redriving"
REDRIVEN = "redriven"


class StoredLetter(msgspec.Struct, frozen=True):
    """A dead letter as it lies in the table.

    Attributes:
        letter: The letter; `payload` is empty where it did not fit, or was not asked for.
        payload_kept: Whether the table has the payload.
        state: `new`, `redriving` (a redrive began, and may have put the record back) or `redriven`.
        state_ms: When that state was set, epoch milliseconds.
        expires_s: When the table forgets it, epoch seconds; 0: never.
        redriven_to: Where a redrive put it; empty before.
    """

    letter: DeadLetter
    payload_kept: bool
    state: str
    state_ms: int
    expires_s: int
    redriven_to: str = ""


class DeadLetterTable:
    """`DeadLetters` on DynamoDB, and what redriving needs.

    Args:
        client: DynamoDB.
        table: Its name.
        ttl_days: How long letters are kept; 0: for ever.
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
        self._what = f"table {table}"

    async def put(self, letters: Sequence[DeadLetter]) -> None:
        """Keep the letters; see `DeadLetters.put`."""
        unique = {letter.letter_id: letter for letter in reversed(letters)}
        for letter_group in _groups(list(unique.values())):
            payloads = await asyncio.gather(*(_compressed(letter.payload) for letter in letter_group))
            items = [self._item(letter, payload) for letter, payload in zip(letter_group, payloads, strict=True)]
            await each(self._insert, list(_calls(items)))

    def _item(self, letter: DeadLetter, payload: bytes) -> dict[str, dict[str, Any]]:
        now_s = self._wall_s()
        kept = len(payload) <= MAX_PAYLOAD_BYTES and len(letter.payload) >= letter.payload_size
        item: dict[str, dict[str, Any]] = {
            **_key(letter.letter_id),
            "Stage": {"S": letter.stage},
            "Reason": {"S": letter.reason.value},
            "Detail": {"S": letter.detail},
            "Stream": {"S": letter.stream},
            "ShardId": {"S": letter.shard_id},
            "Sequence": {"S": letter.sequence},
            "PartitionKey": {"S": letter.partition_key},
            "At": {"N": str(letter.at_ms)},
            "PayloadSize": {"N": str(letter.payload_size)},
            "PayloadKept": {"BOOL": kept},
            "State": {"S": NEW},
            "StateAt": {"N": str(int(now_s * 1000))},
        }
        if kept:
            item["Payload"] = {"B": payload}
        if self._ttl_days:
            item[EXPIRES] = {"N": str(int(now_s + self._ttl_days * _DAY_S))}
        return item

    async def _insert(self, items: Sequence[Item]) -> None:
        statements = {index: _insertion(self._table, item) for index, item in enumerate(items)}
        # A letter that is there already stays as it is.
        await execute(self._client, self._table, statements, remedy=_REMEDY, actions="dynamodb:PartiQLInsert")

    async def letters(self, *, reason: Reason | None = None, stage: str = "") -> AsyncIterator[StoredLetter]:
        """Yield the letters of a reason and a stage (all, unless given), without payloads, in no order."""
        names = {f"#{index}": name for index, name in enumerate(_ATTRIBUTES)}
        request: dict[str, Any] = {
            "TableName": self._table,
            "ProjectionExpression": ", ".join(names),
            "ExpressionAttributeNames": names,
        }
        wanted = {"Reason": reason.value if reason else "", "Stage": stage}
        conditions = {name: value for name, value in wanted.items() if value}
        if conditions:
            request["FilterExpression"] = " AND ".join(
                f"#{_ATTRIBUTES.index(name)} = :{name.lower()}" for name in conditions
            )
            request["ExpressionAttributeValues"] = {
                f":{name.lower()}": {"S": value} for name, value in conditions.items()
            }
        async for page in pages(self._client.scan, self._what, remedy=_REMEDY, **request):
            for item in page:
                yield _stored(item)

    async def between(self, origin: str, first: str, last: str) -> Collection[str]:
        """Return the ids of an origin's letters from `first` to `last`; see `DeadLetters.between`."""
        found: set[str] = set()
        async for page in pages(
            self._client.query,
            self._what,
            remedy=_REMEDY,
            TableName=self._table,
            ConsistentRead=True,
            KeyConditionExpression="Origin = :origin AND Id BETWEEN :first AND :last",
            ProjectionExpression="Id",
            ExpressionAttributeValues={":origin": {"S": origin}, ":first": {"S": first}, ":last": {"S": last}},
        ):
            found.update(f"{origin}.{item['Id']['S']}" for item in page)
        return found

    async def get(self, letter_id: str) -> StoredLetter | None:
        """Return one letter with its payload, read consistently; None where there is none."""
        with translated(self._what, remedy=_REMEDY):
            answer = await self._client.get_item(TableName=self._table, Key=_key(letter_id), ConsistentRead=True)
            return _stored(answer["Item"]) if answer.get("Item") else None

    async def claim(self, letter_id: str) -> bool:
        """Begin a redrive: `new` to `redriving`; return whether this caller is the one who does it.

        A redrive that dies between putting the record back and `finish` leaves the letter `redriving`. It is
        not taken up again by itself: that could count the event twice. `release` is for a person who knows.
        """
        return await self._move(letter_id, NEW, REDRIVING)

    async def finish(self, letter_id: str, redriven_to: str = "") -> bool:
        """End a redrive: `redriving` to `redriven`; return whether it was so. `redriven_to` says where it went."""
        return await self._move(letter_id, REDRIVING, REDRIVEN, redriven_to)

    async def release(self, letter_id: str) -> bool:
        """Undo a claim whose record was not put back: `redriving` to `new`; return whether it was so."""
        return await self._move(letter_id, REDRIVING, NEW)

    async def remove(self, letter_id: str) -> bool:
        """Remove a letter for good; return whether there was one."""
        with translated(self._what, remedy=_REMEDY):
            answer = await self._client.delete_item(TableName=self._table, Key=_key(letter_id), ReturnValues="ALL_OLD")
        return bool(answer.get("Attributes"))

    async def _move(self, letter_id: str, before: str, after: str, redriven_to: str = "") -> bool:
        with translated(self._what, remedy=_REMEDY):
            try:
                await self._client.update_item(
                    TableName=self._table,
                    Key=_key(letter_id),
                    UpdateExpression="SET #state = :after, StateAt = :now, RedrivenTo = :to",
                    ConditionExpression="#state = :before",
                    ExpressionAttributeNames={"#state": "State"},
                    ExpressionAttributeValues={
                        ":before": {"S": before},
                        ":after": {"S": after},
                        ":now": {"N": str(int(self._wall_s() * 1000))},
                        ":to": {"S": redriven_to},
                    },
                )
            except ClientError as error:
                if is_condition_failure(error):
                    return False
                raise
        return True


def _key(letter_id: str) -> dict[str, dict[str, Any]]:
    return key_item(LETTER_KEYS, split_letter_id(letter_id))


async def _compressed(payload: bytes) -> bytes:
    if len(payload) > _THREAD_BYTES:
        return await asyncio.to_thread(zlib.compress, payload)
    return zlib.compress(payload)


def _groups(letters: Sequence[DeadLetter]) -> list[list[DeadLetter]]:
    """Split so that what is held compressed at once stays bounded."""
    groups: list[list[DeadLetter]] = []
    for index, letter in enumerate(letters):
        if index % (MAX_COMMITS * 4) == 0:
            groups.append([])
        groups[-1].append(letter)
    return groups


def _calls(items: Sequence[Item]) -> list[list[Item]]:
    calls: list[list[Item]] = []
    size = 0
    for item in items:
        bytes_here = len(item["Payload"]["B"]) if "Payload" in item else 0
        if not calls or len(calls[-1]) == MAX_COMMITS or size + bytes_here > MAX_CALL_BYTES:
            calls.append([])
            size = 0
        calls[-1].append(item)
        size += bytes_here
    return calls


def _insertion(table: str, item: Item) -> dict[str, Any]:
    fields = ", ".join(f"'{name}': ?" for name in item)
    return {"Statement": f'INSERT INTO "{table}" VALUE ' + "{" + fields + "}", "Parameters": list(item.values())}


def _stored(item: Item) -> StoredLetter:
    payload = zlib.decompress(item["Payload"]["B"]) if "Payload" in item else b""
    return StoredLetter(
        letter=DeadLetter(
            letter_id=f"{item['Origin']['S']}.{item['Id']['S']}",
            stage=item["Stage"]["S"],
            reason=Reason(item["Reason"]["S"]),
            detail=item["Detail"]["S"],
            stream=item["Stream"]["S"],
            shard_id=item["ShardId"]["S"],
            sequence=item["Sequence"]["S"],
            partition_key=item["PartitionKey"]["S"],
            at_ms=int(item["At"]["N"]),
            payload=payload,
            payload_size=int(item["PayloadSize"]["N"]),
        ),
        payload_kept=item["PayloadKept"]["BOOL"],
        state=item["State"]["S"],
        state_ms=int(item["StateAt"]["N"]),
        expires_s=int(item[EXPIRES]["N"]) if EXPIRES in item else 0,
        redriven_to=item.get("RedrivenTo", {}).get("S", ""),
    )
