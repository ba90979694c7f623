"""One stream, one process: holds the leases the leader assigns, and reads them.

How the workers agree is described in deploy/decisions/0002-leader-plans.md.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

import msgspec
import structlog

from service.observability.metrics import Metrics
from service.runtime.backoff import Backoff
from service.runtime.clock import Clock
from service.runtime.concurrency import first_of
from service.runtime.errors import TransientError
from service.stream.identity import Identity
from service.stream.leases.context import LeaseContext
from service.stream.leases.session import End, Session
from service.stream.leases.share import FleetShare
from service.stream.ports import Consumer, LeaseStore, Membership, ShardSource
from service.stream.position import TRIM_HORIZON, Position
from service.stream.settings import ShardSettings
from service.stream.tail.budget import ByteBudget
from service.stream.tail.held import Held, TailLike
from service.stream.tail.reader import Reading
from service.stream.tail.tail import Tail

P = TypeVar("P")
T = TypeVar("T")

log = structlog.get_logger()

GAUGE_INTERVAL = 1.0
"""Seconds between two settings of the lag and buffer gauges."""

LONGEST_REOPEN_WAIT = 20.0
"""Seconds between two attempts to open a stream that was replaced."""


async def _ignore(_shard_id: str) -> None:
    """Do nothing."""


class Opened(msgspec.Struct, Generic[P, T], frozen=True):
    """A stream as it is now, with everything that belongs to it alone.

    Attributes:
        source: The stream.
        store: Its lease rows.
        membership: Who else reads it.
        consumer: What gets its batches.
    """

    source: ShardSource[P]
    store: LeaseStore
    membership: Membership
    consumer: Consumer[P, T]


class Coordinator(Generic[P, T]):
    """Reads this process's share of a stream into a consumer.

    Args:
        pipeline: `ingest` or `publish`: a metric label.
        worker: Id of this process, new at every start: host and random.
        opened: The stream.
        settings: Limits.
        clock: Its monotonic time must be the event loop's.
        rng: For jitter.
        metrics: The catalogue.
        budget: Shared by all coordinators of the process.
        start: Where a stream never read before starts: `TRIM_HORIZON`, `LATEST`, or an `AT_TIMESTAMP` position. A
            stream that replaces the one being read starts at `TRIM_HORIZON`: all of it is new.
        share: Kept up to date: this worker's part of rates that all workers of the pipeline keep together.
        target: What the consumer writes to (see `target.py`); empty where that does not matter.
        reopen: Opens the stream that has replaced the one being read (see `identity.py`). May raise
            `TransientError`.
        on_trimmed: Called with a shard id when records were lost to the stream's retention.
        open_tail: Makes what reads a lease; for simulations.
    """

    def __init__(
        self,
        *,
        pipeline: str,
        worker: str,
        opened: Opened[P, T],
        settings: ShardSettings,
        clock: Clock,
        rng: random.Random,
        metrics: Metrics,
        budget: ByteBudget,
        start: Position = TRIM_HORIZON,
        share: FleetShare | None = None,
        target: str = "",
        reopen: Callable[[], Awaitable[Opened[P, T]]] | None = None,
        on_trimmed: Callable[[str], Awaitable[None]] = _ignore,
        open_tail: Callable[[Held], TailLike] | None = None,
    ) -> None:
        self._pipeline = pipeline
        self._worker = worker
        self._start = start
        self._settings = settings
        self._clock = clock
        self._rng = rng
        self._metrics = metrics
        self._budget = budget
        self._share = share or FleetShare(clock.monotonic)
        self._target = target
        self._reopen = reopen
        self._on_trimmed = on_trimmed
        self._make_tail = open_tail
        self._stop = asyncio.Event()
        self._lives = 0
        self._beaten = float("-inf")
        self._read(opened)

    def _read(self, opened: Opened[P, T]) -> None:
        """Get ready to read a stream."""
        identity = Identity(opened.source, self._clock, self._metrics, self._pipeline)
        self._stream = opened.source.stream
        self._context = LeaseContext(
            pipeline=self._pipeline,
            source=opened.source,
            store=opened.store,
            membership=opened.membership,
            settings=self._settings,
            clock=self._clock,
            metrics=self._metrics,
            identity=identity,
            share=self._share,
            target=self._target,
        )
        reading = Reading(
            pipeline=self._pipeline,
            source=opened.source,
            store=opened.store,
            consumer=opened.consumer,
            settings=self._settings,
            clock=self._clock,
            rng=self._rng,
            metrics=self._metrics,
            budget=self._budget,
            identity=identity,
            on_trimmed=self._on_trimmed,
        )
        self._open_tail: Callable[[Held], TailLike] = self._make_tail or (lambda held: Tail(held, reading))
        self._session = self._life()

    @property
    def first_sync_done(self) -> bool:
        """Whether the lease table was reached, and there is a leader: for readiness."""
        return self._session.synced

    @property
    def last_beat(self) -> float:
        """Monotonic second of the last successful heartbeat, under whatever id; minus infinity before: for liveness."""
        return max(self._beaten, self._session.last_beat)

    @property
    def worker(self) -> str:
        """The id in use: that of the process, with a number behind it after having been taken for dead."""
        return self._session.worker

    @property
    def leading(self) -> bool:
        """Whether this process plans for all."""
        return self._session.election.leading

    @property
    def ended(self) -> bool:
        """Whether the stream has been read to its end and takes no more records, as far as the leader, us, knows."""
        return self.leading and self._session.leader.ended

    @property
    def shards(self) -> tuple[str, ...]:
        """Shards being read."""
        return tuple(sorted(self._session.tails))

    def holds(self, shard_id: str) -> bool:
        """Return whether the shard's lease is ours, as far as we know, and the deadline has not passed."""
        return shard_id in self._session.tails and self._context.clock.monotonic() < self._session.deadline()

    def stop(self) -> None:
        """Ask `run` to finish what is in hand, give every lease back and return; to be called again without harm."""
        self._stop.set()

    async def run(self) -> None:
        """Read until `stop`. A bug in here or in the consumer ends it with its traceback; so does cancellation.

        Raises:
            ExceptionGroup: What ended it.
        """
        # A worker reads two streams side by side: every line below says which one it is about.
        structlog.contextvars.bind_contextvars(pipeline=self._context.pipeline)
        async with asyncio.TaskGroup() as group:
            gauges = group.create_task(self._set_gauges())
            while (end := await self._session.run()) is not End.LEFT:
                if end is End.TAKEN_FOR_DEAD:
                    self._session = self._life()
                    continue
                await first_of(self._turn_to_the_new_stream(), self._stop.wait())
                if self._stop.is_set():
                    break
            gauges.cancel()

    async def _turn_to_the_new_stream(self) -> None:
        """Read the stream that has replaced the one read so far, from its start.

        Raises:
            RuntimeError: Nothing can open it.
        """
        if self._reopen is None:
            raise RuntimeError(f"stream {self._stream.name} was replaced, and `reopen` is missing")
        backoff = Backoff(self._rng, last=LONGEST_REOPEN_WAIT)
        while True:
            try:
                opened = await self._reopen()
            except TransientError as error:
                # Also where there is no stream: it may be made again, and other pipelines go on meanwhile.
                log.warning("stream.open_failed", stream=self._stream.name, error=str(error))
            else:
                if opened.source.stream.tag != self._stream.tag:
                    break
                log.error(
                    "stream.not_distinguished",
                    stream=self._stream.name,
                    why="its shards start elsewhere, but its creation time equals that of the former stream",
                    remedy="delete the stream and create it again: it was created twice within a second",
                )
            await self._clock.sleep(backoff.failed())
        log.info("stream.reopened", stream=opened.source.stream.name)
        self._start = TRIM_HORIZON
        self._read(opened)

    def _life(self) -> Session:
        if self._lives:
            self._beaten = self.last_beat
        self._lives += 1
        return Session(
            self._worker if self._lives == 1 else f"{self._worker}.{self._lives}",
            self._context,
            start=self._start,
            rng=self._rng,
            open_tail=self._open_tail,
            stop=self._stop,
        )

    async def _set_gauges(self) -> None:
        metrics, pipeline, clock = self._metrics, self._pipeline, self._clock
        share = metrics.fleet_share.labels(pipeline)
        buffered, unreadable = metrics.buffered_bytes.labels(pipeline), metrics.unreadable_shards.labels(pipeline)
        while True:
            tails = self._session.tails
            share.set(self._share())
            buffered.set(sum(tail.in_hand for tail in tails.values()))
            unreadable.set(sum(tail.unreadable for tail in tails.values()))
            worst: dict[str, float] = {}
            now_ms = clock.wall_ms()
            for shard_id, tail in tails.items():
                lag = tail.lag(now_ms)
                if lag is not None:
                    label = metrics.shard_label(pipeline, shard_id)
                    worst[label] = max(lag, worst.get(label, 0.0))
            for label, lag in worst.items():
                metrics.lag.labels(pipeline, label).set(lag)
            await clock.sleep(GAUGE_INTERVAL)
