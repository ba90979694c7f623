"""One leased shard, read from its checkpoint on: fetch, hand on in batches, checkpoint.

    reader --pages--> Buffer --batches--> preparer --prepared--> committer --> checkpointer

Four tasks of one task group. The reader waits while the buffer is full or the process's byte budget is used up;
the preparer waits while `in_flight` batches are not yet committed. So a slow consumer slows the reader.

A checkpoint is written only for what is durable, in order and without gaps. It may lag behind, as reading something
twice is harmless to a consumer that knows what it has applied; so it is written `checkpoint_interval` late, and
always at the end of the shard, at a hand-over and at a stop.

At a hand-over the next owner waits. What is in hand is finished as long as that owner, most likely, does not know yet;
then the commit that was begun is cut short where it can be, and everything else is left for the next owner to read.
`phase.py` has the phases that a tail goes through.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Generic, TypeVar

import msgspec
import structlog

from service.runtime.backoff import Backoff
from service.runtime.concurrency import set_within
from service.runtime.errors import LeaseLostError, ReleasedError, TransientError
from service.stream.leases.lease import Lease
from service.stream.ports import Batch, Shard
from service.stream.position import TRIM_HORIZON
from service.stream.tail.buffer import Buffer
from service.stream.tail.held import Held
from service.stream.tail.phase import Phase, Progress
from service.stream.tail.reader import Reader, Reading

P = TypeVar("P")
T = TypeVar("T")
R = TypeVar("R")

log = structlog.get_logger()

_LOG_EVERY = 10
"""Of failures in a row, the first and then every so manieth is logged."""


class _InFlight(msgspec.Struct, Generic[T]):
    """A prepared batch on its way to the committer, less its records: they may be many times what is left of them.

    Attributes:
        last: Sequence number of its last record.
        size: Bytes of its records.
        prepared: What the consumer made of them.
    """

    last: str
    size: int
    prepared: T


class Tail(Generic[P, T]):
    """Reads one shard while its lease is held. Made by the coordinator, which owns the task of `run`."""

    def __init__(self, held: Held, reading: Reading[P, T]) -> None:
        self._held = held
        self._reading = reading
        self._lease = held.lease
        self._unsettled_until = held.seized_at + reading.settings.call_timeout
        self._buffer: Buffer[P] = Buffer(reading.settings, reading.clock)
        self._reader: Reader[P, T] = Reader(held, reading, self._buffer)
        self._read_task: asyncio.Task[None] | None = None
        self._progress = Progress()
        self._slots = asyncio.Semaphore(reading.settings.in_flight)
        self._prepared: asyncio.Queue[_InFlight[T] | None] = asyncio.Queue()
        self._arrivals: deque[int] = deque()
        self._durable = self._lease.checkpoint
        self._durable_moved = asyncio.Event()

    @property
    def in_hand(self) -> int:
        """Bytes read and not yet durable."""
        return self._reader.in_hand

    @property
    def unreadable(self) -> bool:
        """Whether the shard could not be read for a good while."""
        return self._reader.unreadable

    def lag(self, now_ms: int) -> float | None:
        """Return seconds since the oldest record in hand arrived, else how far behind the tip the last read was.

        None before the first read, unless that is overdue. Rises by a second per second while nothing goes on.
        """
        oldest = self._arrivals[0] if self._arrivals else self._buffer.oldest_arrival_ms
        if oldest is not None:
            return max(0.0, (now_ms - oldest) / 1000)
        return self._reader.behind

    def finish(self) -> None:
        """Stop fetching; `run` then finishes everything in hand, releases the lease and returns.

        For a stream that is gone: nobody can read again what is dropped.
        """
        self._progress.to(Phase.FINISHING)
        if self._read_task is not None:
            self._read_task.cancel()

    def hand_over(self) -> None:
        """Stop fetching; `run` then finishes what it can soon, checkpoints, releases the lease and returns.

        A shard that is behind would keep its lease for as long as thousands of records take: what is in no batch
        yet while others are in flight is left to the next owner, who reads it again; after `hand_over_patience`, so is
        all that is not being committed.
        """
        self._progress.to(Phase.HANDING_OVER)
        if self._read_task is not None:
            self._read_task.cancel()
        if self._arrivals:
            self._reader.release(self._buffer.drop())

    async def run(self) -> bool:
        """Read until the end of the shard, `hand_over` or `finish`.

        Every log line written below carries the pipeline, stream, shard and worker, and the lease as it was taken:
        its owner and counter, which the lease table's history shows too.

        Returns:
            Whether the shard is finished; otherwise its lease is released.

        Raises:
            LeaseLostError: The lease is another's, or the deadline has passed. Nothing more is written.
        """
        structlog.contextvars.bind_contextvars(
            pipeline=self._reading.pipeline,
            stream=self._reading.source.stream.name,
            shard=self._lease.shard_id,
            lease=f"{self._lease.owner}#{self._lease.counter}",
            worker=self._held.worker,
        )
        try:
            async with asyncio.TaskGroup() as group:
                if self._progress.phase is Phase.READING:
                    self._read_task = group.create_task(self._reader.run())
                else:
                    self._buffer.close()
                preparing = group.create_task(self._prepare())
                hurrying = group.create_task(self._hurry(preparing))
                group.create_task(self._commit(hurrying))
                group.create_task(self._keep_checkpoint())
            return await self._finish()
        except BaseExceptionGroup as errors:
            lost, rest = errors.split(LeaseLostError)
            if rest is not None:
                raise rest from None
            raise _first(lost) from errors
        finally:
            self._reader.drop()
            self._reading.metrics.forget_shard(self._reading.pipeline, self._lease.shard_id)

    async def _prepare(self) -> None:
        consumer = self._reading.consumer
        sizes = self._reading.metrics.batch_records.labels(self._reading.pipeline)
        while self._progress.phase is not Phase.CUT_SHORT:
            await self._slots.acquire()
            taken = await self._buffer.take()
            if taken is None:
                await self._prepared.put(None)
                return
            records, size = taken
            self._arrivals.append(records[0].arrival_ms)
            sizes.observe(len(records))
            batch = Batch(
                stream=self._reading.source.stream,
                shard_id=self._lease.shard_id,
                records=records,
                deadline=self._held.deadline(),
                unsettled_until=self._unsettled_until,
                replayed=self._reader.may_be_replayed(records[0]),
                starting=self._reader.starting,
            )
            prepared = await self._insist("prepare", partial(consumer.prepare, batch))
            last = records[-1].sequence
            del batch, records, taken
            await self._prepared.put(_InFlight(last=last, size=size, prepared=prepared))

    async def _hurry(self, preparing: asyncio.Task[None]) -> None:
        """Once asked to hand over, wait a little; then drop everything but the commit that was begun."""
        await self._progress.handing_over.wait()
        await self._reading.clock.sleep(self._reading.settings.hand_over_patience)
        self._progress.to(Phase.CUT_SHORT)
        self._reader.release(self._buffer.drop())
        preparing.cancel()
        self._prepared.put_nowait(None)
        await self._reading.consumer.release(self._lease.shard_id)

    async def _commit(self, hurrying: asyncio.Task[None]) -> None:
        while (item := await self._prepared.get()) is not None and self._progress.phase is not Phase.CUT_SHORT:
            try:
                await self._insist("commit", partial(self._reading.consumer.commit, item.prepared))
            except ReleasedError:
                break
            self._durable = item.last
            self._arrivals.popleft()
            self._reader.release(item.size)
            self._slots.release()
            self._durable_moved.set()
        if self._progress.phase is not Phase.CUT_SHORT:
            hurrying.cancel()
        self._progress.to(Phase.DRAINED)
        self._durable_moved.set()

    async def _keep_checkpoint(self) -> None:
        clock, interval = self._reading.clock, self._reading.settings.checkpoint_interval
        last = clock.monotonic()
        handing_over = self._progress.handing_over
        while self._progress.phase is not Phase.DRAINED:
            # At a hand-over the last write, which gives the lease back, says how far it is done too.
            idle = self._durable == self._lease.checkpoint or handing_over.is_set()
            wait = float("inf") if idle else max(0.0, last + interval - clock.monotonic())
            if wait > 0:
                self._durable_moved.clear()
                if await set_within(self._durable_moved, wait):
                    if idle:
                        # Counted from the first batch to be noted: a shard with an event now and then has few writes.
                        last = clock.monotonic()
                    continue
                if handing_over.is_set():
                    continue
            last = clock.monotonic()
            await self._write(self._lease.checkpointed(self._durable, clock.wall_ms()))
            self._checkpointed()

    async def _finish(self) -> bool:
        """Write the last state of the lease; return whether the shard is finished."""
        now_ms = self._reading.clock.wall_ms()
        if self._reader.ended and not self._buffer.gap and not self._arrivals:
            for child in self._reader.children:
                await self._add_child(child)
            await self._write(self._lease.ended(tuple(child.shard_id for child in self._reader.children), now_ms))
            self._checkpointed()
            return True
        unsettled = self._reading.clock.monotonic() < self._unsettled_until
        if self._durable == self._lease.checkpoint:
            await self._write(self._lease.released(unsettled=unsettled))
        else:
            await self._write(self._lease.checkpointed(self._durable, now_ms).released(unsettled=unsettled))
            self._checkpointed()
        return False

    async def _add_child(self, child: Shard) -> None:
        row = Lease(shard_id=child.shard_id, checkpoint=TRIM_HORIZON, parents=tuple(child.parents))
        await self._insist("create", lambda: self._reading.store.create(row))

    async def _write(self, new: Lease) -> None:
        """Write the lease's next state.

        Raises:
            LeaseLostError: Somebody else wrote.
        """
        started = self._reading.clock.monotonic()
        expected = self._lease
        new = msgspec.structs.replace(new, starting=self._reader.starting)
        found = await self._insist("checkpoint", lambda: self._reading.store.replace(expected, new))
        if found is not None and found != new:
            raise LeaseLostError(f"lease of {new.shard_id}: expected counter {expected.counter}, found {found.counter}")
        self._lease = new
        self._reading.metrics.stage_seconds.labels(self._reading.pipeline, "checkpoint").observe(
            self._reading.clock.monotonic() - started
        )

    def _checkpointed(self) -> None:
        metrics, pipeline = self._reading.metrics, self._reading.pipeline
        metrics.checkpoints.labels(pipeline).inc()
        metrics.checkpoint_time.labels(pipeline, metrics.shard_label(pipeline, self._lease.shard_id)).set(
            self._reading.clock.wall_ms() / 1000
        )

    async def _insist(self, what: str, call: Callable[[], Awaitable[R]]) -> R:
        """Call until it works, or the deadline has passed."""
        backoff = Backoff(self._reading.rng)
        while True:
            self._held.check(self._reading.clock)
            try:
                return await call()
            except TransientError as error:
                if backoff.failures % _LOG_EVERY == 0:
                    log.warning("tail.call_failed", what=what, failures=backoff.failures + 1, error=str(error))
                await self._reading.clock.sleep(backoff.failed())


def _first(group: BaseExceptionGroup[LeaseLostError] | None) -> LeaseLostError:
    """Return the first error inside a group."""
    error: BaseException | None = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error if isinstance(error, LeaseLostError) else LeaseLostError("lost")
