"""The fetching end of a tail: pages of one shard, in order, at the right pace, within the byte budget."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

import msgspec
import structlog

from service.observability.metrics import Metrics
from service.runtime.backoff import Backoff
from service.runtime.clock import Clock
from service.runtime.errors import (
    IteratorExpiredError,
    RecordsTrimmedError,
    ShardGoneError,
    TransientError,
    TroubleError,
)
from service.stream.identity import Identity
from service.stream.ports import Consumer, LeaseStore, Page, Record, Shard, ShardSource
from service.stream.position import TRIM_HORIZON, sequence_of
from service.stream.settings import ShardSettings
from service.stream.tail.budget import ByteBudget
from service.stream.tail.buffer import Buffer
from service.stream.tail.held import Held
from service.stream.tail.pace import Pace, Seen
from service.stream.tail.refusals import Refusals

P = TypeVar("P")
T = TypeVar("T")

log = structlog.get_logger()

FIRST_RECORD_SIZE = 16 * 1024
"""Bytes; size of a record assumed before one was seen: rather too large, as all shards start at once and the
first page is the one whose size nobody knows."""

OVERDUE_S = 3.0
"""Seconds beyond `poll_max` without a page after which a reader no longer knows how far behind it is."""

_LOG_EVERY = 10
"""Of failures in a row, the first and then every tenth is logged."""

_SMOOTHING = 0.5
"""Weight of the newest page in the average record size."""


class Reading(msgspec.Struct, Generic[P, T], frozen=True):
    """What all tails of a pipeline share.

    Attributes:
        pipeline: `ingest` or `publish`: a metric label.
        on_trimmed: Called with the shard id when records were lost to the stream's retention. Reading goes on once it
            has returned: until then the position still shows the loss to the shard's next owner.
    """

    pipeline: str
    source: ShardSource[P]
    store: LeaseStore
    consumer: Consumer[P, T]
    settings: ShardSettings
    clock: Clock
    rng: random.Random
    metrics: Metrics
    budget: ByteBudget
    identity: Identity
    on_trimmed: Callable[[str], Awaitable[None]]


class Reader(Generic[P, T]):
    """Fetches one shard into a buffer.

    Attributes:
        in_hand: Bytes fetched and not yet released.
        ended: Whether the end of the shard was read.
        children: The shard's children, at its end, where the stream names them.
        starting: Where the shard starts, once known: see `Lease.starting`.
    """

    def __init__(self, held: Held, reading: Reading[P, T], buffer: Buffer[P]) -> None:
        self._held = held
        self._reading = reading
        self._buffer = buffer
        self._shard_id = held.lease.shard_id
        self._position = held.lease.checkpoint
        self._iterator: str | None = None
        self._backoff = Backoff(reading.rng)
        self._record_size: float = FIRST_RECORD_SIZE
        self._fetch_seconds = reading.metrics.stage_seconds.labels(reading.pipeline, "fetch")
        self._pace = Pace(reading.settings, reading.rng)
        self._tip_at: float | None = None
        self._refusals = Refusals()
        self._first_tip: int | None = None
        self._spare = False
        self.in_hand = 0
        self._behind: float | None = None
        self._read_at = reading.clock.monotonic()
        self.ended = False
        self.children: Sequence[Shard] = ()
        self.starting = held.lease.starting

    @property
    def behind(self) -> float | None:
        """Seconds behind the tip at the last fetch, None before the first; once overdue, at most how far it is now.

        A shard that cannot be read shows a lag that rises, as one that cannot be committed does.
        """
        unread = self._reading.clock.monotonic() - self._read_at
        if unread <= self._reading.settings.poll_max + OVERDUE_S:
            return self._behind
        return (self._behind or 0.0) + unread

    async def run(self) -> None:
        """Fetch until the end of the shard, or of the stream; to be cancelled for a stop.

        Closes the buffer on the way out.
        """
        clock = self._reading.clock
        try:
            while not self._over():
                await self._buffer.room()
                self._held.check(clock)
                started = clock.monotonic()
                try:
                    pause = await self._step(started)
                except (IteratorExpiredError, RecordsTrimmedError, ShardGoneError, TransientError) as error:
                    started = clock.monotonic()
                    pause = max(await self._recover(error), self._reading.settings.read_gap)
                wait = started + pause - clock.monotonic()
                if wait > 0 and not self._over():
                    await clock.sleep(wait)
        finally:
            self._buffer.close()

    def _over(self) -> bool:
        """Return whether nothing more can be read: the shard has ended, or the stream is another."""
        return self.ended or self._reading.identity.replaced.is_set()

    def release(self, size: int) -> None:
        """Give back `size` bytes that are durable."""
        self.in_hand -= size
        self._reading.budget.release(size, spare=self._spare and not self.in_hand)
        self._spare = self._spare and self.in_hand > 0

    def may_be_replayed(self, record: Record[P]) -> bool:
        """Return whether another owner of the lease may have read the record.

        Not one that comes after the first time this reader was at the tip (`MillisBehindLatest` 0,
        https://docs.aws.amazon.com/kinesis/latest/APIReference/API_GetRecords.html): it is younger than the lease.
        """
        return self._first_tip is None or int(record.sequence) <= self._first_tip

    def drop(self) -> None:
        """Give back everything: the lease is no longer held."""
        if self.in_hand:
            self.release(self.in_hand)

    async def _step(self, started: float) -> float:
        """Fetch one page; return the least number of seconds from `started`, which is now, to the next fetch."""
        reading = self._reading
        if self._iterator is None:
            iterator = await reading.source.iterator(self._shard_id, self._position)
            starting = await reading.identity.start_of(self._shard_id, self.starting)
            if starting is None:
                return 0
            self._iterator, self.starting = iterator, starting
        limit = max(1, min(reading.settings.fetch_limit, int(reading.settings.page_bytes / self._record_size)))
        page, seen = await self._fetch(self._iterator, limit)
        self._readable()
        self._iterator = page.next_iterator
        # Where the stream does not say it, only an empty page shows that there is nothing more.
        if self._first_tip is None and (page.behind_ms == 0 or (page.behind_ms is None and not page.records)):
            self._first_tip = sequence_of(self._position) or 0
        self._behind = seen.lag_s
        self._read_at = reading.clock.monotonic()
        if page.next_iterator is None:
            self.ended, self.children = True, page.children
            return 0
        return self._pace.next(seen, started)

    async def _fetch(self, iterator: str, limit: int) -> tuple[Page[P], Seen]:
        reading = self._reading
        budget = reading.budget
        spare = await budget.admit(empty_handed=not self.in_hand)
        size = 0
        started = reading.clock.monotonic()
        try:
            page = await reading.source.fetch(iterator, limit)
            size = sum(record.size for record in page.records)
        finally:
            budget.settle(size, spare=spare)
        answered = reading.clock.monotonic()
        self._fetch_seconds.observe(answered - started)
        age_ms = reading.clock.wall_ms() - page.records[-1].arrival_ms if page.records else 0
        behind_s = None if page.behind_ms is None else page.behind_ms / 1000
        seen = Seen(len(page.records), limit, behind_s, max(0, age_ms) / 1000)
        if page.records:
            self._spare = self._spare or (spare and size > 0)
            # From one read at the tip to the next: whatever came, came after the first. No other clock is asked.
            since = answered if self._tip_at is None or not seen.at_tip else self._tip_at
            self._take_in(page.records, size, since=since, at_tip=seen.at_tip)
        self._tip_at = started if seen.at_tip else None
        return page, seen

    def _take_in(self, records: Sequence[Record[P]], size: int, *, since: float, at_tip: bool) -> None:
        self.in_hand += size
        self._position = records[-1].sequence
        mean = size / len(records)
        # Growing sizes count at once: the limit is there for them.
        self._record_size = max(1.0, mean, self._record_size + _SMOOTHING * (mean - self._record_size))
        self._buffer.add(records, size, since=since, at_tip=at_tip)
        metrics, pipeline = self._reading.metrics, self._reading.pipeline
        metrics.records_read.labels(pipeline, metrics.shard_label(pipeline, self._shard_id)).inc(len(records))
        metrics.bytes_read.labels(pipeline).inc(size)

    @property
    def unreadable(self) -> bool:
        """Whether the shard could not be read for a good while, whatever the stream answers."""
        return self._refusals.unreadable(self._reading.clock.monotonic())

    def _readable(self) -> None:
        """Take note of a page."""
        if self.unreadable:
            log.info("tail.recovered", failures=self._refusals.failures)
        if self._refusals.failures:
            self._refusals = Refusals()
        self._backoff.succeeded()

    async def _recover(self, error: Exception) -> float:
        """Make ready for another try; return how many seconds to wait before it."""
        reading, refusals, now = self._reading, self._refusals, self._reading.clock.monotonic()
        first = not refusals.failures
        wait = self._backoff.failed()
        refusals.failed(now)
        reading.metrics.read_failures.labels(reading.pipeline, _kind_of(error)).inc()
        if refusals.to_be_said(now):
            log.error(
                "tail.shard_blocked",
                seconds=round(refusals.for_s(now)),
                failures=refusals.failures,
                error=str(error),
                consequence="records of this shard wait; other shards are not affected",
            )
        elif refusals.failures % _LOG_EVERY == 1 and not isinstance(error, (IteratorExpiredError, RecordsTrimmedError)):
            log.warning("tail.fetch_failed", failures=refusals.failures, error=str(error))
        match error:
            case IteratorExpiredError():
                self._iterator = None
                return 0 if first else wait
            case RecordsTrimmedError():
                return await self._trimmed(wait, first=first)
            case ShardGoneError():
                return await self._refused(max(wait, reading.settings.poll_max))
            case TransientError(throttled=True):
                self._pace.throttled()
        return wait

    async def _trimmed(self, wait: float, *, first: bool) -> float:
        """Go to the oldest record held; return how many seconds to wait before that.

        It is a loss where the position is a record that was read: what came after it may be among what is gone. At the
        trim horizon nothing was read, and nothing is known to be lost: a new iterator goes on. (DynamoDB Local answers
        so to an iterator that was taken while the shard was empty, once the first record comes.)
        """
        at_the_horizon = sequence_of(self._position) is None
        if not at_the_horizon:
            await self._lost("the position has left the stream's retention")
        self._iterator, self._position = None, TRIM_HORIZON
        if first:
            log.info(
                "tail.iterator_renewed",
                why="the iterator pointed before the oldest record held",
                loss=not at_the_horizon,
            )
            return 0
        return await self._refused(wait) if at_the_horizon else wait

    async def _refused(self, wait: float) -> float:
        """End the shard where the stream does not have it any more; return how many seconds to wait otherwise."""
        self._iterator = None
        reading, refusals, now = self._reading, self._refusals, self._reading.clock.monotonic()
        refusals.refuse(now)
        try:
            listed = await reading.source.list_shards()
            shard = next((each for each in listed if each.shard_id == self._shard_id), None)
            if not await reading.identity.confirms([shard] if shard else [], {self._shard_id: self.starting}):
                return 0
        except TransientError as error:
            log.warning("tail.list_failed", error=str(error))
            return wait
        if refusals.refused == 1:
            log.warning("tail.shard_refused", listed=shard is not None, closed=shard is not None and shard.closed)
        why = refusals.lost(self._shard_id, listed, now)
        if why:
            await self._lost(why)
            self.ended = True
        return wait

    async def _lost(self, why: str) -> None:
        log.error("tail.records_trimmed", why=why, checkpoint=self._held.lease.checkpoint)
        self._reading.metrics.records_trimmed.labels(self._reading.pipeline).inc()
        await self._reading.on_trimmed(self._shard_id)


def _kind_of(error: Exception) -> str:
    """Return the kind of a failed read, as a metric label."""
    match error:
        case IteratorExpiredError():
            return "expired"
        case RecordsTrimmedError():
            return "trimmed"
        case ShardGoneError():
            return "gone"
        case TransientError(throttled=True):
            return "throttled"
        case TroubleError():
            return "trouble"
    return "unanswered"
