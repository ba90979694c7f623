"""One stream, one process: holds the leases the leader assigns, and reads them.

How the workers agree is told in deploy/decisions/0002-leader-plans.md.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

import structlog

from service.observability.metrics import Metrics
from service.runtime.clock import Clock
from service.stream.leases.leadership import LeaderPorts
from service.stream.leases.retirement import Retirement
from service.stream.leases.session import Session, TailLike
from service.stream.ports import Consumer, LeaseStore, Membership, ShardSource
from service.stream.position import TRIM_HORIZON, Position
from service.stream.settings import ShardSettings
from service.stream.tail.budget import ByteBudget
from service.stream.tail.reader import Held, Reading
from service.stream.tail.tail import Tail

P = TypeVar("P")
T = TypeVar("T")

log = structlog.get_logger()

GAUGE_INTERVAL = 1.0
"""Seconds between two settings of the lag and buffer gauges."""


async def _ignore(_shard_id: str) -> None:
    """Do nothing."""


class Coordinator(Generic[P, T]):
    """Reads this process's share of a stream into a consumer.

    Args:
        pipeline: `ingest` or `publish`: a metric label.
        worker: Id of this process, new at every start: host and random.
        source: The stream.
        store: Its lease rows.
        membership: Who else there is.
        consumer: What gets the batches.
        settings: Limits.
        clock: Its monotonic time must be the event loop's.
        rng: For jitter.
        metrics: The catalogue.
        budget: Shared by all coordinators of the process.
        retirement: Told of every full reading while this process leads.
        start: Where a stream never read before starts: `TRIM_HORIZON`, `LATEST`, or an `AT_TIMESTAMP` position.
        on_trimmed: Called with a shard id when records were lost to the stream's retention.
        open_tail: Makes what reads a lease; for simulations.
    """

    def __init__(
        self,
        *,
        pipeline: str,
        worker: str,
        source: ShardSource[P],
        store: LeaseStore,
        membership: Membership,
        consumer: Consumer[P, T],
        settings: ShardSettings,
        clock: Clock,
        rng: random.Random,
        metrics: Metrics,
        budget: ByteBudget,
        retirement: Retirement | None = None,
        start: Position = TRIM_HORIZON,
        on_trimmed: Callable[[str], Awaitable[None]] = _ignore,
        open_tail: Callable[[Held], TailLike] | None = None,
    ) -> None:
        self._worker = worker
        self._start = start
        self._rng = rng
        self._stop = asyncio.Event()
        self._ports = LeaderPorts(
            pipeline=pipeline,
            source=source,
            store=store,
            membership=membership,
            settings=settings,
            clock=clock,
            metrics=metrics,
            retirement=retirement or Retirement(clock.monotonic),
        )
        reading = Reading(
            pipeline=pipeline,
            source=source,
            store=store,
            consumer=consumer,
            settings=settings,
            clock=clock,
            rng=rng,
            metrics=metrics,
            budget=budget,
            on_trimmed=on_trimmed,
        )
        self._open_tail: Callable[[Held], TailLike] = open_tail or (lambda held: Tail(held, reading))
        self._session = self._life(1)

    @property
    def first_sync_done(self) -> bool:
        """Whether the lease table was reached, and there is a leader: for readiness."""
        return self._session.synced

    @property
    def last_beat(self) -> float:
        """Monotonic second of the last successful heartbeat; minus infinity before: for liveness."""
        return self._session.last_beat

    @property
    def worker(self) -> str:
        """The id in use: that of the process, with a number behind it after having been taken for dead."""
        return self._session.worker

    @property
    def leading(self) -> bool:
        """Whether this process plans for all."""
        return self._session.leader.leading

    @property
    def shards(self) -> tuple[str, ...]:
        """Shards being read."""
        return tuple(sorted(self._session.tails))

    def holds(self, shard_id: str) -> bool:
        """Return whether the shard's lease is ours, as far as we know, and the deadline has not passed."""
        return shard_id in self._session.tails and self._ports.clock.monotonic() < self._session.deadline()

    def stop(self) -> None:
        """Ask `run` to finish what is in hand, give every lease back and return; to be called again without harm."""
        self._stop.set()

    async def run(self) -> None:
        """Read until `stop`. A bug in here or in the consumer ends it with its traceback; so does cancellation.

        Raises:
            ExceptionGroup: What ended it.
        """
        # A worker reads two streams side by side: every line below says which one it is about.
        structlog.contextvars.bind_contextvars(pipeline=self._ports.pipeline)
        async with asyncio.TaskGroup() as group:
            gauges = group.create_task(self._set_gauges())
            lives = 1
            while not await self._session.run():
                lives += 1
                self._session = self._life(lives)
            gauges.cancel()

    def _life(self, number: int) -> Session:
        return Session(
            self._worker if number == 1 else f"{self._worker}.{number}",
            self._ports,
            start=self._start,
            rng=self._rng,
            open_tail=self._open_tail,
            stop=self._stop,
        )

    async def _set_gauges(self) -> None:
        ports, metrics, pipeline = self._ports, self._ports.metrics, self._ports.pipeline
        buffered = metrics.buffered_bytes.labels(pipeline)
        while True:
            tails = self._session.tails
            buffered.set(sum(tail.in_hand for tail in tails.values()))
            worst: dict[str, float] = {}
            now_ms = ports.clock.wall_ms()
            for shard_id, tail in tails.items():
                lag = tail.lag(now_ms)
                if lag is not None:
                    label = metrics.shard_label(pipeline, shard_id)
                    worst[label] = max(lag, worst.get(label, 0.0))
            for label, lag in worst.items():
                metrics.lag.labels(pipeline, label).set(lag)
            await ports.clock.sleep(GAUGE_INTERVAL)
