"""What reading a sharded stream needs from outside: one narrow Protocol per effect."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Generic, Protocol, TypeVar

import msgspec

from service.stream.leases.lease import Leadership, Lease, Member, Snapshot
from service.stream.position import Position

P = TypeVar("P")
T = TypeVar("T")


class StreamId(msgspec.Struct, frozen=True):
    """One incarnation of a stream: a stream deleted and made again under its name is another.

    Attributes:
        name: For people and labels.
        arn: For calls.
        tag: Short hash of ARN and creation time; prefix of every lease key and shard tag of this stream.
    """

    name: str
    arn: str
    tag: str


class Shard(msgspec.Struct, frozen=True):
    """A shard as the stream lists it.

    Attributes:
        shard_id: The stream's own id.
        parents: One after a split, two after a merge, none for a first shard. A parent may be listed no more.
        closed: Whether its last sequence number is known: it takes no more records, but may hold unread ones.
        starting: Its `StartingSequenceNumber`, where the stream is `replaceable` and says it; empty otherwise. A shard
            keeps it for life, and no two shards share one.
    """

    shard_id: str
    parents: tuple[str, ...] = ()
    closed: bool = False
    starting: str = ""


class Record(msgspec.Struct, Generic[P], frozen=True, gc=False):
    """One record of a shard.

    Attributes:
        sequence: Decimal sequence number.
        data: What the record holds: bytes for Kinesis, the item before and after for a DynamoDB stream.
        arrival_ms: When the stream took it (`ApproximateArrivalTimestamp`), epoch milliseconds.
        partition_key: Kinesis only; empty otherwise.
        size: Bytes counted against the read budget.
    """

    sequence: str
    data: P
    arrival_ms: int
    partition_key: str
    size: int


class Page(msgspec.Struct, Generic[P], frozen=True):
    """One answer to a fetch.

    Attributes:
        records: In order; may be empty although more follow.
        next_iterator: Where to go on; None at the end of the shard.
        behind_ms: How far the newest record fetched is behind the tip (`MillisBehindLatest`), where the stream
            says it; None otherwise.
        children: At the end of the shard, its child shards where the stream names them; else empty.
    """

    records: Sequence[Record[P]]
    next_iterator: str | None
    behind_ms: int | None
    children: Sequence[Shard] = ()


class ShardSource(Protocol[P]):
    """A sharded stream. Every method may raise `TransientError`."""

    @property
    def stream(self) -> StreamId:
        """The stream read."""
        ...

    @property
    def replaceable(self) -> bool:
        """Whether the stream's ARN can come to name another stream, as Kinesis's does: it holds a name only."""
        ...

    async def is_current(self) -> bool:
        """Return whether the ARN still names the stream that was opened."""
        ...

    async def list_shards(self) -> Sequence[Shard]:
        """Return every shard the stream knows, closed ones included, pagination done."""
        ...

    async def iterator(self, shard_id: str, position: Position) -> str:
        """Return an iterator that starts right after `position`.

        Raises:
            RecordsTrimmedError: `position` is a sequence number the stream holds no longer.
            ShardGoneError: The stream no longer knows the shard.
        """
        ...

    async def fetch(self, iterator: str, limit: int) -> Page[P]:
        """Return up to `limit` records.

        Raises:
            IteratorExpiredError: The iterator is too old.
            RecordsTrimmedError: What it points at is held no longer.
            ShardGoneError: The stream no longer knows the shard.
        """
        ...


class LeaseStore(Protocol):
    """The lease rows of one stream. Every method may raise `TransientError`.

    All transitions are pure functions of `lease.py`; the store only compares and sets.
    """

    async def snapshot(self) -> Snapshot:
        """Return all lease rows, members and the leadership of this stream, read consistently per row."""
        ...

    async def create(self, lease: Lease) -> bool:
        """Write a new row; return False when there is one already, which stays as it is."""
        ...

    async def replace(self, expected: Lease, new: Lease) -> Lease | None:
        """Write `new` where owner and counter are still `expected`'s.

        Returns:
            None when written; otherwise the row as it is now, or `expected` with no owner and counter -1 when
            there is no row. A lost response may make a write that was done look refused: then the row
            returned equals `new`, which counts as written.
        """
        ...

    async def get(self, shard_id: str) -> Lease | None:
        """Return one row, read consistently."""
        ...

    async def delete(self, expected: Lease) -> bool:
        """Remove the row where owner and counter are still `expected`'s; return whether it is gone."""
        ...


class Membership(Protocol):
    """Who is alive, who leads, who is to hold what. Every method may raise `TransientError`."""

    async def join(self, member: Member) -> None:
        """Write this worker's row, with beat 0 and nothing assigned."""
        ...

    async def beat(self, worker: str, wall_ms: int, *, leaving: bool = False) -> Member | None:
        """Count this worker's heartbeat up and return its row, with what it is assigned.

        Args:
            worker: Its id.
            wall_ms: Its wall clock, epoch milliseconds.
            leaving: Announce that it is stopping; this cannot be undone.

        Returns:
            None when the row is gone: the others take this worker for dead, and it must hold nothing.
        """
        ...

    async def assign(self, worker: str, member: Member) -> bool:
        """Set what a worker is to hold to `member.assigned`; return False when its row is gone."""
        ...

    async def remove(self, worker: str) -> None:
        """Remove a worker's row: it left, or is dead."""
        ...

    async def lead(self, expected: Leadership | None, new: Leadership) -> bool:
        """Write `new` where the row is still `expected` (None: absent) by leader and counter."""
        ...

    async def leadership(self) -> Leadership | None:
        """Return the leadership row, read consistently: every worker asks about once a second."""
        ...


class Batch(msgspec.Struct, Generic[P], frozen=True):
    """A run of records of one shard, in order and without gaps: what is committed and checkpointed as one.

    Attributes:
        stream: The stream.
        shard_id: The shard.
        records: At least one.
        deadline: Monotonic seconds after which the lease may be another's, as known when the batch was closed:
            heartbeats move it on meanwhile, and the tail cancels the call when it has really passed.
        unsettled_until: Monotonic second until which requests of the shard's last owner may still land: it seemed dead,
            and the shard was seized. Minus infinity where it gave the lease back.
        replayed: Whether some of the records may have been dealt with before: those up to the first time this
            worker was at the tip of the shard since it took it. No clock is asked: clocks jump.
        starting: The shard's `StartingSequenceNumber`; empty where it is not known.
    """

    stream: StreamId
    shard_id: str
    records: Sequence[Record[P]]
    deadline: float
    unsettled_until: float = float("-inf")
    replayed: bool = True
    starting: str = ""


class Consumer(Protocol[P, T]):
    """What a tail hands its batches to. The tail owns the calls: one prepare and one commit at a time per shard.

    While one batch commits, the next is prepared. An exception other than `LeaseLostError` ends the process.
    """

    async def prepare(self, batch: Batch[P]) -> T:
        """Do what needs no order, such as decoding; may block: that is the back-pressure."""
        ...

    async def commit(self, prepared: T) -> None:
        """Return once every record of the batch is durably dealt with; called in the shard's order.

        Raises:
            ReleasedError: After `release`: not every record is dealt with, and nothing goes on for the others.
        """
        ...

    async def release(self, shard_id: str) -> None:
        """Begin nothing more for a shard that is being handed over: its next owner waits.

        Returns when nothing of the batches that were prepared and will not be committed is under way any more. A
        commit that was begun goes on beside it, but may end with `ReleasedError` where it can stop half-way.
        """
        ...
