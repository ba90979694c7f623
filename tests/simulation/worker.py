"""A simulated worker process: the real parts, wired as `service/app/worker.py` wires them, over one wire."""

from __future__ import annotations

import asyncio
import contextlib
import random
from typing import TYPE_CHECKING, Any

import msgspec

from service.ingest.commit import Committer
from service.ingest.definition_book import CurrentDefinitions
from service.ingest.identify import IdentityResolver, IdentitySettings
from service.ingest.ingest import Ingest
from service.ingest.marks import ShardMarks
from service.observability.metrics import Metrics
from service.publish.publisher import Publisher, PublishOptions
from service.publish.reconcile import ReconcileOptions, Reconciler
from service.publish.sender import SenderOptions
from service.runtime.adaptive_limit import AdaptiveLimit
from service.runtime.backoff import Backoff
from service.runtime.errors import TransientError
from service.sources import pinpoint
from service.stream.coordinator import Coordinator, Opened
from service.stream.leases.retirement import Retirement
from service.stream.position import TRIM_HORIZON
from service.stream.settings import HOURS_48_MS, ShardSettings
from service.stream.tail.budget import ByteBudget
from tests.fakes.aio import VirtualClock
from tests.fakes.leases import FakeLeases
from tests.fakes.pipeline import FakePipeline
from tests.simulation.ports import (
    EVENTS,
    SCORES,
    DefinitionPort,
    FormerPort,
    IdentityPort,
    LetterPort,
    ScorePort,
    SimSink,
    SimSource,
)
from tests.simulation.wire import CALL_TIMEOUT, LONGEST_STALE_S, Port, Wire

if TYPE_CHECKING:
    from tests.simulation.world import World

DRAIN_TIMEOUT_S = 30.0
"""How long a worker that was told to stop stays for scores that are uncertain, once its leases are given back: in
`service/app` what is left of its drain timeout. One that is too short is reported by the worker, and not simulated."""


class Tuning(msgspec.Struct, frozen=True):
    """What a seed decides about the settings of its workers."""

    ingest: ShardSettings
    publish: ShardSettings
    linger_s: float
    concurrency: int
    capacity: int
    cache: int
    refresh_s: float
    sink_batch: int
    start: str
    reconcile: ReconcileOptions


def tuning(rng: random.Random) -> Tuning:
    """Draw settings: intervals a few times longer than the defaults, as every wake-up costs; limits far smaller."""
    lease = rng.choice([3.0, 4.0, 5.0, 8.0])
    common = ShardSettings(
        lease_duration=lease,
        max_beat_interval=1.5,
        call_timeout=CALL_TIMEOUT,
        poll_min=0.4,
        poll_max=2.0,
        checkpoint_interval=rng.choice([0.3, 1.0, 2.0]),
        hand_over_patience=rng.choice([0.0, 0.5, 2.0]),
        cycle_min=1.0,
        cycle_max=2.0,
        discovery_interval=rng.choice([2.0, 8.0]),
        absent_lists=2,
        fetch_limit=1000,
    )
    replace = msgspec.structs.replace
    return Tuning(
        ingest=replace(
            common,
            batch_max_age=rng.choice([0.2, 1.0]),
            batch_max_records=rng.choice([2, 5, 20, 1000]),
            in_flight=rng.choice([1, 2, 3]),
        ),
        publish=replace(
            common,
            batch_max_age=0.1,
            read_gap=0.21,
            batch_max_records=rng.choice([2, 10, 1000]),
            in_flight=rng.choice([2, 8]),
            # As in production: longer than anybody could read the shard's changes once more, over newer ones.
            keep_ended_ms=HOURS_48_MS,
        ),
        linger_s=rng.choice([0.0, 0.25]),
        concurrency=rng.choice([1, 4]),
        capacity=rng.choice([2, 8, 1000]),
        cache=rng.choice([2, 8, 100]),
        refresh_s=3.0,
        sink_batch=rng.choice([1, 3, 100]),
        start=TRIM_HORIZON,
        reconcile=ReconcileOptions(per_s=rng.choice([3.0, 100.0]), look_s=2.0, save_s=1.0),
    )


async def _expected(_shard_id: str) -> None:
    """Do nothing: the event stream forgets only shards that were read to their end."""


class SimWorker:
    """One process, from start to crash or stop.

    Attributes:
        wire: Everything it does in the world.
        clock: Its clock.
        task: Its life.
        resumed_at: When it last came back from a pause.
        sinks: Its way to each sink.
    """

    def __init__(self, world: World, name: str, metrics: Metrics) -> None:
        self.name = name
        self.rng = random.Random(f"{world.seed} {name}")
        self.wire = Wire(world.ether, self.rng, name)
        self.clock = VirtualClock(self.wire)  # type: ignore[arg-type] # all a clock asks of a gate is `sleep`
        # With a clock that is ahead, the first leader notes a LATEST that is still to come, and skips events.
        self.clock.skew_ms = self.rng.randint(-500, 0 if world.plan.latest else 500)
        self.resumed_at = float("-inf")
        self._world = world
        self._metrics = metrics
        self._stop = asyncio.Event()
        self.reconciler: Reconciler | None = None
        self.sinks = [
            SimSink(name, held, self.wire, world.witness, world.tuning.sink_batch) for name, held in world.sinks.items()
        ]
        self.coordinators: dict[str, Coordinator[Any, Any]] = {}
        self.task = asyncio.get_running_loop().create_task(self._live(), name=name)

    @property
    def alive(self) -> bool:
        """Whether it has not ended yet, by a stop or a crash."""
        return not self.wire.dead and not self.task.done()

    def stop(self) -> None:
        """SIGTERM."""
        self._stop.set()

    def crash(self) -> None:
        """SIGKILL: calls on the wire may still take effect, nothing else does."""
        self.wire.dead = True
        self.wire.resume()
        self.task.cancel()

    async def _live(self) -> None:
        world, tuning, clock, metrics, wire = self._world, self._world.tuning, self.clock, self._metrics, self.wire
        definitions = CurrentDefinitions(
            DefinitionPort(world.definitions, wire), clock, metrics, refresh_s=tuning.refresh_s
        )
        backoff = Backoff(self.rng)
        while True:
            try:
                await definitions.refresh()
                break
            except TransientError:
                await clock.sleep(backoff.failed())
        identities = IdentityPort(world.identities, world.owners, wire)
        scores = ScorePort(world.scores, wire)
        letters = LetterPort(world.letters, wire)
        resolver = IdentityResolver(
            identities,
            FormerPort(world.former, wire),
            identities,
            IdentitySettings(unknown_ttl_s=2.0),
            clock,
            metrics,
        )
        committer = Committer(scores, clock, metrics, AdaptiveLimit(), cache_entries=tuning.cache, rng=self.rng)
        port, lease_port = Port(wire, "ingest stream"), Port(wire, "leases")

        async def open_events() -> Opened[Any, Any]:
            while True:
                try:
                    incarnation = await port.call(lambda: world.events.incarnation)
                except TransientError:
                    await clock.sleep(backoff.failed())
                else:
                    break
            source = SimSource(world.events, EVENTS, port, incarnation)
            retirement = Retirement(clock.monotonic, quarantine_s=LONGEST_STALE_S)
            marks = ShardMarks(source.stream, retirement)
            ingest = Ingest(pinpoint.decode, definitions, resolver, committer, letters, clock, metrics, marks=marks)
            leases = FakeLeases(world.event_leases[incarnation], lease_port)  # type: ignore[arg-type]
            return Opened(source, leases, leases, ingest, retirement)

        publisher = Publisher(
            self.sinks,
            scores,
            letters,
            lambda shard_id: self.coordinators["publish"].holds(shard_id),  # noqa: PLW0108 - not there yet here
            clock,
            metrics,
            self.rng,
            PublishOptions(
                sender=SenderOptions(
                    linger_s=tuning.linger_s,
                    concurrency=tuning.concurrency,
                    capacity=tuning.capacity,
                    call_timeout_s=CALL_TIMEOUT,
                ),
            ),
        )
        self.reconciler = reconciler = Reconciler(
            scores,
            FakePipeline(world.pipeline, Port(wire, "leases")),  # type: ignore[arg-type] # all it asks is `call`
            lambda: self.coordinators["publish"].leading,
            clock,
            metrics,
            self.rng,
            tuning.reconcile,
        )

        budget = ByteBudget()
        changes = FakeLeases(world.leases["publish"], lease_port)  # type: ignore[arg-type]
        source = SimSource(world.changes, SCORES, Port(wire, "publish stream"), 0)
        opened: dict[str, Opened[Any, Any]] = {
            "ingest": await open_events(),
            "publish": Opened(source, changes, changes, publisher),
        }
        for pipeline, stream in opened.items():
            self.coordinators[pipeline] = Coordinator(
                pipeline=pipeline,
                worker=self.name,
                opened=stream,
                settings=tuning.ingest if pipeline == "ingest" else tuning.publish,
                clock=clock,
                rng=self.rng,
                metrics=metrics,
                budget=budget,
                start=tuning.start if pipeline == "ingest" else TRIM_HORIZON,
                reopen=open_events if pipeline == "ingest" else None,
                on_trimmed=reconciler.owe if pipeline == "publish" else _expected,
            )
        async with asyncio.TaskGroup() as group:
            beside = [group.create_task(each.run()) for each in (definitions, publisher, reconciler)]
            reading = [group.create_task(each.run()) for each in self.coordinators.values()]
            beside.append(group.create_task(self._drain_when_told()))
            await asyncio.wait(reading)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(DRAIN_TIMEOUT_S):
                    await publisher.drained()
            for task in beside:
                task.cancel()

    async def _drain_when_told(self) -> None:
        await self._stop.wait()
        for coordinator in self.coordinators.values():
            coordinator.stop()
