"""How leases behave with many workers and many shards, in virtual time: real coordinators, idle tails.

python -m tests.simulation.scale [--shards 10000] [--workers 200] [--kill 20] [--seed 1]
"""

from __future__ import annotations

import argparse
import asyncio
import collections
import logging
import random
import time
from collections.abc import Callable

import msgspec
import structlog
from prometheus_client import CollectorRegistry

from service.observability.metrics import Metrics
from service.stream.coordinator import Coordinator, Opened
from service.stream.leases.lease import Lease
from service.stream.settings import ShardSettings
from service.stream.tail.budget import ByteBudget
from service.stream.tail.held import Held
from tests.fakes.aio import Gate, VirtualClock, run
from tests.fakes.leases import FakeLeases, LeaseTable
from tests.fakes.source import FakeSource, FakeStream

STEADY_SECONDS = 60.0
KCL_FAILOVER_SECONDS = 10.0
"""Default `failoverTimeMillis` (https://docs.aws.amazon.com/streams/latest/dev/kcl-configuration.html)."""


class IdleTail:
    """Holds a lease and reads nothing."""

    in_hand = 0
    unreadable = False

    def __init__(self, held: Held, store: FakeLeases) -> None:
        self._lease: Lease = held.lease
        self._store = store
        self._over = asyncio.Event()

    def lag(self, now_ms: int) -> float | None:
        del now_ms
        return None

    def hand_over(self) -> None:
        self._over.set()

    finish = hand_over

    async def run(self) -> bool:
        await self._over.wait()
        await self._store.replace(self._lease, self._lease.released())
        return False


class Figures(msgspec.Struct):
    """What a run showed; rates are per second."""

    shards: int
    workers: int
    seconds_to_balance: float
    moves_per_lease: float
    steady_writes: float
    steady_write_units: float
    steady_write_units_per_lease: float
    steady_reads: float
    steady_read_units: float
    steady_rows_read: float
    killed: int
    seconds_to_take_over: float
    seconds_to_balance_again: float
    moves_per_lost_lease: float
    take_over_write_units: float
    take_over_read_units: float
    real_seconds: float


class Fleet:
    def __init__(self, shards: int, workers: int, seed: int) -> None:
        self.rng = random.Random(seed)
        self.table = LeaseTable()
        self.stream = FakeStream(shards)
        self.shards = shards
        self.metrics = Metrics(CollectorRegistry(), max_shards=1)
        self.tasks: dict[str, asyncio.Task[None]] = {}
        self._count = workers

    def start(self, group: asyncio.TaskGroup, index: int) -> None:
        worker = f"worker-{index:04d}"
        rng = random.Random(self.rng.random())
        gate = Gate(rng, latency=lambda: rng.uniform(0.001, 0.005))
        store = FakeLeases(self.table, gate)
        coordinator: Coordinator[None, None] = Coordinator(
            pipeline="ingest",
            worker=worker,
            opened=Opened(FakeSource(self.stream, gate), store, store, None),  # idle tails hand nothing on
            settings=ShardSettings(),
            clock=VirtualClock(gate),
            rng=rng,
            metrics=self.metrics,
            budget=ByteBudget(),
            open_tail=lambda held: IdleTail(held, store),
        )

        async def live() -> None:
            await asyncio.sleep(rng.uniform(0, 3.0))
            await coordinator.run()

        self.tasks[worker] = group.create_task(live())

    def balanced(self) -> bool:
        loads = collections.Counter(lease.owner for lease in self.table.leases.values())
        if len(self.table.leases) < self.shards or "" in loads or set(loads) != set(self.tasks):
            return False
        return max(loads.values()) - min(loads.values()) <= 1

    async def until(self, met: Callable[[], bool]) -> float:
        started = asyncio.get_running_loop().time()
        while not met():  # noqa: ASYNC110 - time is virtual, and nobody is there to set an event
            await asyncio.sleep(0.25)
        return asyncio.get_running_loop().time() - started

    def takes(self) -> int:
        return sum(bool(lease.owner) for _, lease in self.table.history)


async def measure(shards: int, workers: int, kill: int, seed: int) -> Figures:
    began = time.perf_counter()
    fleet = Fleet(shards, workers, seed)
    table = fleet.table
    async with asyncio.TaskGroup() as group:
        for index in range(workers):
            fleet.start(group, index)
        to_balance = await fleet.until(fleet.balanced)
        moves = fleet.takes() / shards
        await asyncio.sleep(5)
        before = (table.writes, table.write_units, table.reads, table.read_units, table.rows_read)
        await asyncio.sleep(STEADY_SECONDS)
        after = (table.writes, table.write_units, table.reads, table.read_units, table.rows_read)
        writes, units, reads, read_units, rows = ((b - a) / STEADY_SECONDS for a, b in zip(before, after, strict=True))

        takes, units_before, reads_before = fleet.takes(), table.write_units, table.read_units
        victims = fleet.rng.sample(sorted(fleet.tasks), kill)
        lost = sum(len(table.owned_by(worker)) for worker in victims)
        for worker in victims:
            fleet.tasks.pop(worker).cancel()
        gone = set(victims)
        to_take_over = await fleet.until(lambda: not any(lease.owner in gone for lease in table.leases.values()))
        to_balance_again = to_take_over + await fleet.until(fleet.balanced)
        taken = fleet.takes() - takes
        figures = Figures(
            shards=shards,
            workers=workers,
            seconds_to_balance=to_balance,
            moves_per_lease=moves,
            steady_writes=writes,
            steady_write_units=units,
            steady_write_units_per_lease=units / shards,
            steady_reads=reads,
            steady_read_units=read_units,
            steady_rows_read=rows,
            killed=kill,
            seconds_to_take_over=to_take_over,
            seconds_to_balance_again=to_balance_again,
            moves_per_lost_lease=taken / max(1, lost),
            take_over_write_units=(table.write_units - units_before) / max(1.0, to_balance_again),
            take_over_read_units=(table.read_units - reads_before) / max(1.0, to_balance_again),
            real_seconds=time.perf_counter() - began,
        )
        for task in fleet.tasks.values():
            task.cancel()
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shards", type=int, default=10_000)
    parser.add_argument("--workers", type=int, default=200)
    parser.add_argument("--kill", type=int, default=20)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    figures = run(measure(args.shards, args.workers, args.kill, args.seed))
    for name, value in msgspec.structs.asdict(figures).items():
        print(f"{name:32} {value:12.3f}" if isinstance(value, float) else f"{name:32} {value:12}")  # noqa: T201
    renewals = args.shards * 3 / KCL_FAILOVER_SECONDS
    print(f"{'kcl: writes for renewals alone':32} {renewals:12.1f}")  # noqa: T201


if __name__ == "__main__":
    main()
