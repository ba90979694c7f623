"""A sharded stream in memory: `ShardSource` with splits, merges, roll-over, retention and a list that may be wrong."""

from __future__ import annotations

import asyncio
from bisect import bisect_right
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar

from service.runtime.errors import (
    IteratorExpiredError,
    RecordsTrimmedError,
    ShardGoneError,
    TransientError,
    Trouble,
    TroubleError,
)
from service.stream.ports import Page, Record, Shard, StreamId
from service.stream.position import LATEST, SHARD_END, TRIM_HORIZON, sequence_of, timestamp_of
from tests.fakes.aio import EPOCH_MS, Gate

T = TypeVar("T")

STREAM = StreamId(name="events", arn="arn:aws:kinesis:us-east-1:000000000000:stream/events", tag="abc12345")


def incarnation_of(named: StreamId, incarnation: int) -> StreamId:
    """Return the id of a stream that was deleted and made again so many times: the same name and ARN, another tag."""
    return StreamId(named.name, named.arn, f"{named.tag}.{incarnation}") if incarnation else named


class FakeShard:
    def __init__(self, shard_id: str, parents: tuple[str, ...] = (), starting: str = "") -> None:
        self.shard_id = shard_id
        self.parents = parents
        self.starting = starting
        self.closed = False
        self.children: list[FakeShard] = []
        self.records: list[Record[Any]] = []
        self.trimmed_to = 0

    def as_listed(self) -> Shard:
        return Shard(shard_id=self.shard_id, parents=self.parents, closed=self.closed, starting=self.starting)


class FakeStream:
    """The stream itself, shared by all workers; what it promises is told by tests/contract/test_shard_source.py.

    Args:
        shards: Number of first shards.
        dynamodb: As the stream of a table: the last page names no children, pages do not say how far behind they are,
            times are whole seconds, there is no start by time, and a position whose record was trimmed is an error,
            where Kinesis silently starts at the oldest record held.
        iterator_life: Seconds.
        first: Number of the first shard.

    Attributes:
        hidden: Shard ids that lists leave out.
        incarnation: How often the stream was deleted and created again under its name.
        fetches: Start times of fetches, by shard.
        failing: How many of the next calls for an iterator fail.
        refused: Shard ids for which no iterator is given, for a reason that nobody foresaw.
        unknown: Shard ids that are listed, but unknown to every other call.
    """

    def __init__(self, shards: int = 1, *, dynamodb: bool = False, iterator_life: float = 300, first: int = 0) -> None:
        self.shards: dict[str, FakeShard] = {}
        self.hidden: set[str] = set()
        self.fetches: dict[str, list[float]] = {}
        self.lists = 0
        self.failing = 0
        self.refused: set[str] = set()
        self.unknown: set[str] = set()
        self.dynamodb = dynamodb
        self.iterator_life = iterator_life
        self._sequence = 10**40
        self._made = first
        self.incarnation = 0
        for _ in range(shards):
            self._new()

    def recreate(self, shards: int) -> None:
        """Delete the stream and create it again: the same ARN and shard ids, no records, iterators void."""
        self.shards = {}
        self._made = 0
        self.incarnation += 1
        for _ in range(shards):
            self._new()

    def _new(self, *parents: str) -> FakeShard:
        # As on Kinesis: no two shards start at the same number, and later ones start later. A table's stream says it
        # too, but nothing depends on it there.
        self._sequence += 7
        starting = "" if self.dynamodb else str(self._sequence)
        shard = FakeShard(f"shardId-{self._made:012d}", parents, starting)
        self._made += 1
        self.shards[shard.shard_id] = shard
        for parent in parents:
            self.shards[parent].children.append(shard)
        return shard

    def put(self, shard_id: str, data: object, size: int = 100) -> str:
        """Append a record; return its sequence number."""
        shard = self.shards[shard_id]
        assert not shard.closed
        self._sequence += 7
        now_ms = EPOCH_MS + round(asyncio.get_running_loop().time() * 1000)
        record = Record(
            sequence=str(self._sequence),
            data=data,
            arrival_ms=now_ms // 1000 * 1000 if self.dynamodb else now_ms + self.error_ms(shard_id),
            partition_key="",
            size=size,
        )
        shard.records.append(record)
        return record.sequence

    def error_ms(self, shard_id: str) -> int:
        """Return by how much a shard's arrival times are wrong."""
        del shard_id
        return 0

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
        if self.failing:
            self.failing -= 1
            raise TransientError("injected: no iterator")
        if shard_id in self.refused:
            raise TroubleError(f"injected: no iterator of {shard_id}", Trouble.REFUSED)
        at_ms, sequence = timestamp_of(position), sequence_of(position)
        if position == SHARD_END or (self.dynamodb and at_ms is not None):
            raise ValueError(f"no start at {position}")
        shard = self._known(shard_id)
        if position == TRIM_HORIZON:
            start = shard.trimmed_to
        elif position == LATEST:
            start = len(shard.records)
        elif at_ms is not None:
            start = sum(record.arrival_ms < at_ms for record in shard.records)
        else:
            assert sequence is not None
            start = bisect_right(shard.records, sequence, key=lambda record: int(record.sequence))
            if self.dynamodb and start <= shard.trimmed_to > 0:
                raise RecordsTrimmedError(shard_id)
        return self._iterator(shard_id, max(start, shard.trimmed_to))

    def _iterator(self, shard_id: str, start: int) -> str:
        return f"{shard_id}|{start}|{asyncio.get_running_loop().time()}|{self.incarnation}"

    def fetch(self, iterator: str, limit: int) -> Page[Any]:
        now = asyncio.get_running_loop().time()
        shard_id, start, issued, incarnation = iterator.split("|")
        shard, first = self._known(shard_id), int(start)
        self.fetches.setdefault(shard_id, []).append(now)
        if now - float(issued) > self.iterator_life or int(incarnation) != self.incarnation:
            raise IteratorExpiredError(shard_id)
        if first < shard.trimmed_to and self.dynamodb:
            raise RecordsTrimmedError(shard_id)
        first = max(first, shard.trimmed_to)
        records = shard.records[first : first + limit]
        after = first + len(records)
        rest = shard.records[after:]
        behind = max(1, EPOCH_MS + round(now * 1000) - rest[0].arrival_ms) if rest else 0
        ended = shard.closed and not rest
        named = ended and not self.dynamodb
        return Page(
            records=records,
            next_iterator=None if ended else self._iterator(shard_id, after),
            behind_ms=None if self.dynamodb else behind,
            children=[Shard(child.shard_id, child.parents) for child in shard.children] if named else (),
        )

    def _known(self, shard_id: str) -> FakeShard:
        if shard_id not in self.shards or shard_id in self.unknown:
            raise ShardGoneError(shard_id)
        return self.shards[shard_id]


class FakeSource:
    """One worker's access to the stream: to its present incarnation unless another is given."""

    def __init__(
        self, stream: FakeStream, gate: Gate | None = None, named: StreamId = STREAM, incarnation: int | None = None
    ) -> None:
        self.fake = stream
        self._gate = gate or Gate()
        self._incarnation = stream.incarnation if incarnation is None else incarnation
        self._id = incarnation_of(named, self._incarnation)

    @property
    def stream(self) -> StreamId:
        return self._id

    @property
    def replaceable(self) -> bool:
        return not self.fake.dynamodb

    async def is_current(self) -> bool:
        return await self._call(lambda: self.fake.incarnation == self._incarnation)

    async def list_shards(self) -> Sequence[Shard]:
        return await self._call(self.fake.list_shards)

    async def iterator(self, shard_id: str, position: str) -> str:
        return await self._call(lambda: self.fake.iterator(shard_id, position))

    async def fetch(self, iterator: str, limit: int) -> Page[Any]:
        return await self._call(lambda: self.fake.fetch(iterator, limit))

    async def _call(self, operation: Callable[[], T]) -> T:
        return await self._gate.call(operation)
