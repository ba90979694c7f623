"""A sharded stream in memory: `ShardSource` with splits, merges, roll-over, retention and a list that may be wrong."""

from __future__ import annotations

import asyncio
from bisect import bisect_right
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar

from service.shards.errors import IteratorExpiredError, RecordsTrimmedError, ShardGoneError
from service.shards.ports import Page, Record, Shard, StreamId
from service.shards.position import LATEST, TRIM_HORIZON, sequence_of, timestamp_of
from tests.fakes.aio import EPOCH_MS, Gate

T = TypeVar("T")

STREAM = StreamId(name="events", arn="arn:aws:kinesis:us-east-1:000000000000:stream/events", tag="abc12345")


class FakeShard:
    def __init__(self, shard_id: str, parents: tuple[str, ...] = ()) -> None:
        self.shard_id = shard_id
        self.parents = parents
        self.closed = False
        self.children: list[FakeShard] = []
        self.records: list[Record[Any]] = []
        self.trimmed_to = 0

    def as_listed(self) -> Shard:
        return Shard(shard_id=self.shard_id, parents=self.parents, closed=self.closed)


class FakeStream:
    """The stream itself, shared by all workers.

    Args:
        shards: Number of first shards.
        names_children: Whether the last page names the children, as Kinesis does.
        says_behind: Whether a page says how far behind it is, as Kinesis does.
        iterator_life: Seconds.

    Attributes:
        hidden: Shard ids that lists leave out.
        fetches: Start times of fetches, by shard.
    """

    def __init__(
        self, shards: int = 1, *, names_children: bool = True, says_behind: bool = True, iterator_life: float = 300
    ) -> None:
        self.shards: dict[str, FakeShard] = {}
        self.hidden: set[str] = set()
        self.fetches: dict[str, list[float]] = {}
        self.lists = 0
        self._names_children = names_children
        self._says_behind = says_behind
        self.iterator_life = iterator_life
        self._sequence = 10**40
        for _ in range(shards):
            self._new()

    def _new(self, *parents: str) -> FakeShard:
        shard = FakeShard(f"shardId-{len(self.shards):012d}", parents)
        self.shards[shard.shard_id] = shard
        for parent in parents:
            self.shards[parent].children.append(shard)
        return shard

    def put(self, shard_id: str, data: object, size: int = 100) -> str:
        """Append a record; return its sequence number."""
        shard = self.shards[shard_id]
        assert not shard.closed
        self._sequence += 7
        record = Record(
            sequence=str(self._sequence),
            data=data,
            arrival_ms=EPOCH_MS + round(asyncio.get_running_loop().time() * 1000),
            partition_key="",
            size=size,
        )
        shard.records.append(record)
        return record.sequence

    def put_many(self, shard_id: str, data: Iterable[Any], size: int = 100) -> None:
        for item in data:
            self.put(shard_id, item, size)

    def split(self, shard_id: str) -> tuple[str, str]:
        self.shards[shard_id].closed = True
        return self._new(shard_id).shard_id, self._new(shard_id).shard_id

    def merge(self, one: str, other: str) -> str:
        self.shards[one].closed = self.shards[other].closed = True
        return self._new(one, other).shard_id

    def roll_over(self, shard_id: str, *, close: bool = True) -> str:
        """Replace a shard by one child, as DynamoDB streams do; the parent may look open for a while."""
        child = self._new(shard_id)
        self.shards[shard_id].closed = close
        return child.shard_id

    def trim(self, shard_id: str, records: int) -> None:
        """Forget the first `records` records."""
        self.shards[shard_id].trimmed_to = records

    def forget(self, shard_id: str) -> None:
        """Forget a shard altogether."""
        del self.shards[shard_id]

    def list_shards(self) -> list[Shard]:
        self.lists += 1
        return [shard.as_listed() for shard in self.shards.values() if shard.shard_id not in self.hidden]

    def iterator(self, shard_id: str, position: str) -> str:
        shard = self._known(shard_id)
        if position == TRIM_HORIZON:
            start = shard.trimmed_to
        elif position == LATEST:
            start = len(shard.records)
        elif (at_ms := timestamp_of(position)) is not None:
            start = sum(record.arrival_ms < at_ms for record in shard.records)
        else:
            start = bisect_right(shard.records, int(position), key=lambda record: int(record.sequence))
            assert sequence_of(position) is not None
            if start < shard.trimmed_to:
                raise RecordsTrimmedError(shard_id)
        return f"{shard_id}|{start}|{asyncio.get_running_loop().time()}"

    def fetch(self, iterator: str, limit: int) -> Page[Any]:
        now = asyncio.get_running_loop().time()
        shard_id, start, issued = iterator.split("|")
        shard, first = self._known(shard_id), int(start)
        self.fetches.setdefault(shard_id, []).append(now)
        if now - float(issued) > self.iterator_life:
            raise IteratorExpiredError(shard_id)
        if first < shard.trimmed_to:
            raise RecordsTrimmedError(shard_id)
        records = shard.records[first : first + limit]
        after = first + len(records)
        rest = shard.records[after:]
        behind = max(1, EPOCH_MS + round(now * 1000) - rest[0].arrival_ms) if rest else 0
        ended = shard.closed and not rest
        named = ended and self._names_children
        return Page(
            records=records,
            next_iterator=None if ended else f"{shard_id}|{after}|{now}",
            behind_ms=behind if self._says_behind else None,
            children=[child.as_listed() for child in shard.children] if named else (),
        )

    def _known(self, shard_id: str) -> FakeShard:
        if shard_id not in self.shards:
            raise ShardGoneError(shard_id)
        return self.shards[shard_id]


class FakeSource:
    """One worker's access to the stream."""

    def __init__(self, stream: FakeStream, gate: Gate | None = None) -> None:
        self.fake = stream
        self._gate = gate or Gate()

    @property
    def stream(self) -> StreamId:
        return STREAM

    async def list_shards(self) -> Sequence[Shard]:
        return await self._call(self.fake.list_shards)

    async def iterator(self, shard_id: str, position: str) -> str:
        return await self._call(lambda: self.fake.iterator(shard_id, position))

    async def fetch(self, iterator: str, limit: int) -> Page[Any]:
        return await self._call(lambda: self.fake.fetch(iterator, limit))

    async def _call(self, operation: Callable[[], T]) -> T:
        return await self._gate.call(operation)
