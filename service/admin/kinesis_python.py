"""The checkpoint table of kinesis-python 0.2.1, read; and what was taken over from it, remembered beside our leases.

Its items (github.com/NerdWalletOSS/kinesis-python, `state.py` and `consumer.py` of 0.2.1):

| attribute | type | meaning |
|---|---|---|
| `shard` (HASH) | S | `<stream name>_<shard id>` |
| `fqdn`, `expires` | S, N | who holds the shard, until when (epoch seconds); renewed while it runs |
| `seq` | S | sequence number of the last record *processed*; absent before the first |

Processed: the consumer is a generator, which writes a record's number when its caller asks for the record after it.
So everything up to `seq` was dealt with, and of what follows at most one record per shard: the one that the caller
had in hand when it was stopped. It drops the records that a closing shard's last page brings: those are behind `seq`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import msgspec

from service.aws.calls import Item, pages
from service.aws.clients import AwsClient
from service.aws.translation import translated
from service.stream.ports import StreamId

_SHARD_ID = re.compile(r"shardId-[0-9]{1,20}")
_SEQUENCE = re.compile(r"[0-9]{1,57}")


class Row(msgspec.Struct, frozen=True):
    """One shard of a stream as kinesis-python left it.

    Attributes:
        shard_id: Its id.
        sequence: The last sequence number processed; empty: none was, or it is not readable.
        owner: Host that holds or held it.
        expires_s: Until when, epoch seconds.
    """

    shard_id: str
    sequence: str = ""
    owner: str = ""
    expires_s: int = 0


class Taken(msgspec.Struct, frozen=True):
    """A shard that was taken over: marks do not cover what came before `sequence`, even if it was counted.

    Attributes:
        sequence: The last sequence number that the other consumer processed.
        at_ms: When it was taken over, epoch milliseconds.
    """

    sequence: str
    at_ms: int


async def read_rows(client: AwsClient, table: str, stream_name: str) -> list[Row]:
    """Return the shards of a stream in a table of kinesis-python, read consistently, by shard id.

    Raises:
        AwsSetupError: There is no such table, or it may not be read.
        TransientError: AWS does not answer.
    """
    found = [
        row
        for item in await _scan(client, table, "shard", f"{stream_name}_")
        if (row := row_of(item, stream_name)) is not None
    ]
    return sorted(found, key=lambda row: row.shard_id)


def row_of(item: Mapping[str, Mapping[str, Any]], stream_name: str) -> Row | None:
    """Read an item; None where it is about another stream."""
    key = item.get("shard", {}).get("S", "")
    shard_id = key.removeprefix(f"{stream_name}_")
    if shard_id == key or not _SHARD_ID.fullmatch(shard_id):
        return None
    sequence, expires = item.get("seq", {}).get("S", ""), item.get("expires", {}).get("N", "0")
    return Row(
        shard_id,
        sequence if _SEQUENCE.fullmatch(sequence) else "",
        item.get("fqdn", {}).get("S", ""),
        int(float(expires)),
    )


class TakenOver:
    """What was taken over of one stream, in rows of the lease table that no worker reads.

    Args:
        client: DynamoDB.
        table: The lease table.
        stream: The stream.
    """

    def __init__(self, client: AwsClient, table: str, stream: StreamId) -> None:
        self._client = client
        self._table = table
        self._prefix = f"imported:{stream.tag}:"

    async def all(self) -> dict[str, Taken]:
        """Return what was taken over, by shard id."""
        return {
            item["leaseKey"]["S"].removeprefix(self._prefix): Taken(
                item["checkpoint"]["S"], int(item["importedAt"]["N"])
            )
            for item in await _scan(self._client, self._table, "leaseKey", self._prefix)
        }

    async def add(self, shard_id: str, taken: Taken) -> None:
        """Remember a shard."""
        with translated(f"table {self._table}"):
            await self._client.put_item(
                TableName=self._table,
                Item={
                    "leaseKey": {"S": self._prefix + shard_id},
                    "checkpoint": {"S": taken.sequence},
                    "importedAt": {"N": str(taken.at_ms)},
                },
            )


async def _scan(client: AwsClient, table: str, key: str, prefix: str) -> list[Item]:
    read = pages(
        client.scan,
        f"table {table}",
        remedy="name the table in which kinesis-python kept its state, and check the account and AWS_REGION",
        TableName=table,
        ConsistentRead=True,
        FilterExpression="begins_with(#key, :prefix)",
        ExpressionAttributeNames={"#key": key},
        ExpressionAttributeValues={":prefix": {"S": prefix}},
    )
    return [item async for page in read for item in page]
