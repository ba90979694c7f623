"""Workers over the in-memory stream and lease table, each behind a gate, and a consumer that keeps what it gets."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from typing import Any, Self

import msgspec
from prometheus_client import CollectorRegistry

from service.observability.metrics import Metrics
from service.stream.coordinator import Coordinator, Opened
from service.stream.ports import Batch
from service.stream.position import TRIM_HORIZON
from service.stream.settings import ShardSettings
from service.stream.tail.budget import ByteBudget
from tests.fakes.aio import Gate, VirtualClock
from tests.fakes.leases import FakeLeases, LeaseTable
from tests.fakes.source import FakeSource, FakeStream


class Committed(msgspec.Struct):
    """A batch that was committed."""

    at: float
    worker: str
    batch: Batch[Any]


class FakeConsumer:
    """Keeps every committed batch.

    Attributes:
        seconds: What a commit takes.
        error: Raised by commits while set.
    """

    def __init__(self, worker: str, committed: list[Committed], gate: Gate) -> None:
        self._worker = worker
        self._committed = committed
        self._gate = gate
        self.seconds = 0.0
        self.error: Exception | None = None
        self.prepared = 0
        self.released: list[str] = []

    async def prepare(self, batch: Batch[Any]) -> Batch[Any]:
        self.prepared += 1
        return batch

    async def commit(self, prepared: Batch[Any]) -> None:
        await asyncio.sleep(self.seconds)
        if self.error is not None:
            raise self.error
        await self._gate.call(
            lambda: self._committed.append(Committed(asyncio.get_running_loop().time(), self._worker, prepared))
        )

    async def release(self, shard_id: str) -> None:
        self.released.append(shard_id)


class FakeWorker:
    """One process."""

    def __init__(self, cluster: Cluster, name: str, **options: Any) -> None:  # noqa: ANN401 - passed on
        rng = random.Random(f"{cluster.seed} {name}")
        self.name = name
        self.gate = Gate(rng, latency=lambda: rng.uniform(0.001, 0.004))
        self.clock = VirtualClock(self.gate, skew_ms=options.pop("skew_ms", 0))
        self.metrics = Metrics(CollectorRegistry())
        self.budget = options.pop("budget", None) or ByteBudget()
        self.consumer = FakeConsumer(name, cluster.committed, self.gate)

        async def opened() -> Opened[Any, Any]:
            return open_now()

        def open_now() -> Opened[Any, Any]:
            store = FakeLeases(cluster.table, self.gate)
            return Opened(FakeSource(cluster.stream, self.gate), store, store, self.consumer)

        self.trimmed: list[str] = []
        self.coordinator: Coordinator[Any, Any] = Coordinator(
            pipeline="ingest",
            worker=name,
            opened=open_now(),
            reopen=opened,
            settings=options.pop("settings", cluster.settings),
            clock=self.clock,
            rng=rng,
            metrics=self.metrics,
            budget=self.budget,
            start=options.pop("start", TRIM_HORIZON),
            on_trimmed=self._trimmed,
            **options,
        )
        self.task = cluster.group.create_task(self.coordinator.run())

    @property
    def shards(self) -> tuple[str, ...]:
        return self.coordinator.shards

    async def _trimmed(self, shard_id: str) -> None:
        self.trimmed.append(shard_id)

    async def stop(self) -> float:
        """SIGTERM; return the seconds it took."""
        started = asyncio.get_running_loop().time()
        self.coordinator.stop()
        await self.task
        return asyncio.get_running_loop().time() - started

    def kill(self) -> None:
        """SIGKILL: nothing it does from here on reaches the world."""
        self.gate.pause()
        self.task.cancel()

    def value(self, name: str, **labels: str) -> float:
        return self.metrics.registry.get_sample_value(name, labels) or 0.0


class Cluster:
    """A stream, a lease table, and workers; `async with` ends the workers."""

    def __init__(self, stream: FakeStream, *, seed: int = 1, settings: ShardSettings | None = None) -> None:
        self.stream = stream
        self.seed = seed
        self.settings = settings or ShardSettings()
        self.tables = [LeaseTable()]
        self.committed: list[Committed] = []
        self.workers: list[FakeWorker] = []
        self.group = asyncio.TaskGroup()

    @property
    def table(self) -> LeaseTable:
        """The lease rows of the stream as it is now: those of a stream made again have keys of their own."""
        while len(self.tables) <= self.stream.incarnation:
            self.tables.append(LeaseTable())
        return self.tables[self.stream.incarnation]

    async def __aenter__(self) -> Self:
        await self.group.__aenter__()
        return self

    async def __aexit__(self, *error: object) -> None:
        for worker in self.workers:
            worker.task.cancel()
        await self.group.__aexit__(*error)  # handed on as it came

    def start(self, name: str, **options: Any) -> FakeWorker:  # noqa: ANN401 - passed on
        worker = FakeWorker(self, name, **options)
        self.workers.append(worker)
        return worker

    def settled(self) -> bool:
        """Return whether every worker reads its share, and the table says so too."""
        loads = [len(worker.shards) for worker in self.workers if not worker.task.done()]
        unfinished = [lease for lease in self.table.leases.values() if not lease.finished]
        return sum(loads) == len(unfinished) == len([1 for lease in unfinished if lease.owner]) > 0 and (
            max(loads) - min(loads) <= 1
        )

    async def until(self, met: Callable[[], bool], within: float = 60.0) -> float:
        """Wait until `met`; return the seconds it took; fail after `within`."""
        loop = asyncio.get_running_loop()
        started = loop.time()
        while not met():
            assert loop.time() - started <= within, f"not within {within} s"
            await asyncio.sleep(0.02)
        return loop.time() - started

    def data(self, shard_id: str | None = None) -> list[Any]:
        """What was committed, in order, with repetitions."""
        return [
            record.data
            for done in self.committed
            for record in done.batch.records
            if shard_id is None or done.batch.shard_id == shard_id
        ]

    def checkpoint(self, shard_id: str) -> str:
        return self.table.leases[shard_id].checkpoint
