"""Streams of one shard, each over another source: in memory, on Kinesis, and of a DynamoDB table."""

from __future__ import annotations

import asyncio
import base64
import json
import time
from typing import Any, NamedTuple, Protocol

from service.aws.clients import AwsClient, Clients
from service.aws.streams.dynamodb_streams import DynamoDbStreamSource
from service.aws.streams.kinesis import KinesisSource
from service.aws.streams.writer import KinesisWriter, Put
from service.scoring.fold import UserKey
from service.stream.ports import Record, ShardSource
from tests.fakes.aio import EPOCH_MS
from tests.fakes.embedded import POLLED, Run
from tests.fakes.images import key_item
from tests.fakes.source import FakeSource, FakeStream

PARTITION_KEY = "ann"


MIDDLE = 2**127
"""Where the whole range of hash keys is split (0 to 2**128 - 1)."""


MAX_PUTS = 10_000


class Sent(NamedTuple):
    """A record put: its sequence number is empty where the writer is not told."""

    shard_id: str
    sequence: str


class OneShard(Protocol):
    """A stream of one shard, and what happens to it."""

    source: ShardSource[Any]
    run: Run

    def put(self, *texts: str) -> list[Sent]: ...

    def text(self, record: Record[Any]) -> str:
        """What was put."""
        ...

    def now_ms(self) -> int: ...

    def close(self) -> None:
        """Make the shard end."""
        ...

    def aged(self, iterator: str) -> str:
        """Return the iterator, after longer than iterators live."""
        ...


class Resharding(OneShard, Protocol):
    """A subject that reshards."""

    def split(self, shard_id: str) -> None: ...

    def merge(self, one: str, other: str) -> None: ...


class Replaced(OneShard, Protocol):
    """A subject whose stream can be deleted and made again."""

    def recreate(self) -> None: ...


class MemoryShard:
    def __init__(self, runner: asyncio.Runner, *, dynamodb: bool) -> None:
        self.fake = FakeStream(dynamodb=dynamodb)
        self.source = FakeSource(self.fake)
        self.run: Run = runner.run
        self._dynamodb = dynamodb

    def put(self, *texts: str) -> list[Sent]:
        async def put() -> list[Sent]:
            shard_id = next(shard.shard_id for shard in reversed(self.fake.shards.values()) if not shard.closed)
            await asyncio.sleep(0.001)
            return [Sent(shard_id, self.fake.put(shard_id, text, len(text.encode()))) for text in texts]

        return self.run(put())

    def text(self, record: Record[Any]) -> str:
        return str(record.data)

    def now_ms(self) -> int:
        async def now() -> int:
            return EPOCH_MS + round(asyncio.get_running_loop().time() * 1000)

        return self.run(now())

    def close(self) -> None:
        (shard_id,) = self.fake.shards
        if self._dynamodb:
            self.fake.roll_over(shard_id)
        else:
            self.split(shard_id)

    def split(self, shard_id: str) -> None:
        self.fake.split(shard_id)

    def merge(self, one: str, other: str) -> None:
        self.fake.merge(one, other)

    def recreate(self) -> None:
        self.fake.recreate(1)

    def aged(self, iterator: str) -> str:
        self.run(asyncio.sleep(self.fake.iterator_life + 1))
        return iterator

    def trim(self, records: int) -> None:
        (shard_id,) = self.fake.shards
        self.fake.trim(shard_id, records)


class KinesisShard:
    def __init__(self, client: AwsClient, name: str, run: Run) -> None:
        self.run = run
        self._client = client
        self._name = name
        run(client.create_stream(StreamName=name, ShardCount=1))
        self._settle()
        self.source: KinesisSource = run(KinesisSource.open(client, name))
        self._writer = KinesisWriter(client, name)

    def _settle(self) -> None:
        """Wait until the stream has changed."""
        self.run(self._client.get_waiter("stream_exists").wait(StreamName=self._name, WaiterConfig=POLLED))

    def put(self, *texts: str) -> list[Sent]:
        landed = self.run(self._writer.put([Put(PARTITION_KEY, text.encode()) for text in texts]))
        return [Sent(each.shard_id, each.sequence) for each in landed]

    def text(self, record: Record[bytes]) -> str:
        assert record.partition_key == PARTITION_KEY
        assert record.size == len(record.data) + len(PARTITION_KEY)
        return record.data.decode()

    def now_ms(self) -> int:
        return time.time_ns() // 1_000_000

    def close(self) -> None:
        (shard,) = self.run(self.source.list_shards())
        self.split(shard.shard_id)

    def split(self, shard_id: str) -> None:
        self.run(self._client.split_shard(StreamName=self._name, ShardToSplit=shard_id, NewStartingHashKey=str(MIDDLE)))
        self._settle()

    def merge(self, one: str, other: str) -> None:
        self.run(self._client.merge_shards(StreamName=self._name, ShardToMerge=one, AdjacentShardToMerge=other))
        self._settle()

    def recreate(self) -> None:
        made_at = int(time.time())
        self.run(self._client.delete_stream(StreamName=self._name))
        self.run(self._client.get_waiter("stream_not_exists").wait(StreamName=self._name, WaiterConfig=POLLED))
        while int(time.time()) == made_at:
            time.sleep(0.02)  # a creation time counts in whole seconds here
        self.run(self._client.create_stream(StreamName=self._name, ShardCount=1))
        self._settle()

    def aged(self, iterator: str) -> str:
        return iterator[::-1]  # the embedded AWS says of any iterator it does not know that it has expired


class TableShard:
    def __init__(self, aws: Clients, table: str, run: Run) -> None:
        self.run = run
        self._aws = aws
        self._table = table
        self.source: DynamoDbStreamSource = run(DynamoDbStreamSource.open(aws.dynamodb, aws.streams, table))

    def put(self, *texts: str) -> list[Sent]:
        (shard,) = self.run(self.source.list_shards())
        for text in texts:
            self.run(self._aws.dynamodb.put_item(TableName=self._table, Item=key_item(UserKey(text, "p1"))))
        return [Sent(shard.shard_id, "") for _ in texts]

    def text(self, record: Record[Any]) -> str:
        return str(json.loads(bytes(record.data.keys))["UserId"]["S"])

    def now_ms(self) -> int:
        return time.time_ns() // 1_000_000

    def close(self) -> None:
        off = {"StreamEnabled": False}
        self.run(self._aws.dynamodb.update_table(TableName=self._table, StreamSpecification=off))

    def aged(self, iterator: str) -> str:
        told = json.loads(base64.urlsafe_b64decode(iterator))
        told["i"] -= 16 * 60
        return base64.urlsafe_b64encode(json.dumps(told).encode()).decode()
