"""A simulated worker process: the real parts, wired as `service/app/worker.py` wires them, over one wire."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from service.app.retention import watch_retention
from service.ingest.commit import Committer
from service.ingest.definition_book import CurrentDefinitions
from service.ingest.identify import IdentityResolver, IdentitySettings
from service.ingest.ingest import Ingest
from service.ingest.retention import Retention
from service.ingest.source_book import CurrentSources
from service.ingest.stores import Identities, Sink
from service.observability.metrics import Metrics
from service.publish.follow import FollowOptions, StreamFollower, StreamReader
from service.publish.publisher import Publisher, PublishOptions
from service.publish.reconcile import ReconcileOptions, Reconciler
from service.publish.sender import SenderOptions
from service.runtime.adaptive_limit import AdaptiveLimit
from service.runtime.backoff import Backoff
from service.runtime.errors import TransientError
from service.stream.coordinator import Coordinator, Opened
from service.stream.position import TRIM_HORIZON
from service.stream.settings import HOURS_48_MS, ShardSettings
from service.stream.tail.budget import ByteBudget
from tests.fakes.aio import VirtualClock
from tests.fakes.leases import FakeLeases
from tests.fakes.pipeline import FakePipeline
from tests.simulation import hands
from tests.simulation.forgetting import DAY_S, EVERY_S, HOUR_S
from tests.simulation.network import CALL_TIMEOUT, Port, Wire
from tests.simulation.stores import (
    DefinitionPort,
    FormerPort,
    IdentityPort,
    LetterPort,
    ScorePort,
    SimScoreStreams,
    SimSink,
    now,
    score_stream,
)
from tests.simulation.streams import EVENTS, SimSource

if TYPE_CHECKING:
    from tests.simulation.sim_world import SimWorld

T = TypeVar("T")

DRAIN_TIMEOUT_S = 30.0
"""How long a worker that was told to stop stays for scores that are uncertain, once its leases are given back: in
`service/app` what is left of its drain timeout. One that is too short is reported by the worker, and not simulated."""


LOOK_S = 2.0
"""Seconds between two looks at the row that says which stream is read."""


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
    follow: FollowOptions


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
        reconcile=ReconcileOptions(
            per_s=rng.choice([3.0, 100.0]), look_s=2.0, save_s=1.0, settle_s=2 * LOOK_S + CALL_TIMEOUT
        ),
        follow=FollowOptions(look_s=LOOK_S, check_s=3 * LOOK_S),
    )


class SimWorker:
    """One process, from start to crash or stop.

    Attributes:
        wire: Everything it does in the world.
        clock: Its clock.
        task: Its life.
        resumed_at: When it last came back from a pause.
        sinks: Its way to each sink.
    """

    def __init__(self, world: SimWorld, name: str, metrics: Metrics) -> None:
        self.name = name
        self.rng = random.Random(f"{world.seed} {name}")
        self.wire = Wire(world.ether, self.rng, name)
        self.clock = VirtualClock(self.wire)  # all a clock asks of a gate is `sleep`
        # With a clock that is ahead, the first leader notes a LATEST that is still to come, and skips events.
        self.clock.skew_ms = self.rng.randint(-500, 0 if world.plan.latest else 500)
        if world.forgetting.clocks_behind_s:
            self.clock.skew_ms = -round(world.forgetting.clocks_behind_s * 1000)
        self.resumed_at = float("-inf")
        self._world = world
        self._metrics = metrics
        self._stop = asyncio.Event()
        self.reconciler: Reconciler | None = None
        self._known = (
            None if world.hands is None else hands.HandsIdentities(world.hands, self.wire, self.clock, self.rng)
        )
        self.sinks = [
            SimSink(name, held, self.wire, world.witness, world.tuning.sink_batch) for name, held in world.sinks.items()
        ]
        self.follower: StreamFollower | None = None
        self.coordinators: Sequence[StreamReader] = ()
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
        world, clock = self._world, self.clock
        port = DefinitionPort(lambda: world.ruled.rows(world.definitions, now()), self.wire)
        definitions = CurrentDefinitions(port, clock, self._metrics, refresh_s=world.tuning.refresh_s)
        await self._patiently(definitions.refresh)
        budget = ByteBudget()
        ingesting = await self._ingesting(definitions, budget)
        publisher, reconciler, self.follower = self._publishing(budget)
        await self._patiently(self.follower.open)
        self.reconciler, self.coordinators = reconciler, (ingesting, self.follower)
        async with asyncio.TaskGroup() as group:
            beside = [group.create_task(each.run()) for each in (definitions, publisher, reconciler)]
            beside.append(group.create_task(self._watch()))
            reading = [group.create_task(each.run()) for each in self.coordinators]
            beside.append(group.create_task(self._drain_when_told()))
            await asyncio.wait(reading)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(DRAIN_TIMEOUT_S):
                    await publisher.drained()
            for task in beside:
                task.cancel()

    async def _patiently(self, call: Callable[[], Awaitable[T]]) -> T:
        backoff = Backoff(self.rng)
        while True:
            try:
                return await call()
            except TransientError:
                await self.clock.sleep(backoff.failed())

    async def _ingesting(self, definitions: CurrentDefinitions, budget: ByteBudget) -> Coordinator[Any, Any]:
        world, tuning, clock, metrics, wire = self._world, self._world.tuning, self.clock, self._metrics, self.wire
        identities = IdentityPort(world.identities, world.owners, wire)
        known: Identities = identities if self._known is None else self._known
        letters, scores = LetterPort(world.letters, wire), ScorePort(world.scores, wire)
        former, settings = FormerPort(world.former, wire), IdentitySettings(unknown_ttl_s=2.0)
        resolver = IdentityResolver(known, former, identities, settings, clock, metrics)
        committer = Committer(scores, clock, metrics, AdaptiveLimit(), cache_entries=tuning.cache, rng=self.rng)
        port, lease_port = Port(wire, "ingest stream"), Port(wire, "leases")

        keeps = world.forgetting
        retention = Retention(trusted_s=DAY_S / 2, lowered_after_s=HOUR_S)

        async def read_retention() -> float:
            return await port.call(lambda: keeps.retention_s)

        asked_at = clock.monotonic()
        retention.saw(await self._patiently(read_retention), asked_at)
        self._watch = partial(watch_retention, read_retention, retention.saw, clock, every_s=EVERY_S)

        async def open_events() -> Opened[Any, Any]:
            incarnation = await self._patiently(lambda: port.call(lambda: world.events.incarnation))
            source = SimSource(world.events, EVENTS, port, incarnation)
            ingest = Ingest(
                CurrentSources(), definitions, resolver, committer, letters, clock, metrics, retention=retention
            )
            leases = FakeLeases(world.event_leases[incarnation], lease_port)
            return Opened(source, leases, leases, ingest)

        return Coordinator(
            pipeline="ingest",
            worker=self.name,
            opened=await open_events(),
            settings=tuning.ingest,
            clock=clock,
            rng=self.rng,
            metrics=metrics,
            budget=budget,
            start=tuning.start,
            reopen=open_events,
        )

    def _publishing(self, budget: ByteBudget) -> tuple[Publisher, Reconciler, StreamFollower]:
        world, tuning, clock, metrics, wire = self._world, self._world.tuning, self.clock, self._metrics, self.wire
        scores, lease_port, stream_port = (
            ScorePort(world.scores, wire),
            Port(wire, "leases"),
            Port(wire, "publish stream"),
        )
        sinks: list[Sink] = list(self.sinks)
        if world.hands is not None and self._known is not None:
            sinks.append(hands.sink(world.hands, self._known, wire, world.witness, clock, metrics))
        publisher = Publisher(
            sinks,
            scores,
            LetterPort(world.letters, wire),
            lambda shard_id: follower.holds(shard_id),  # noqa: PLW0108 - made below
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
        row = FakePipeline(world.pipeline, lease_port)  # all it asks is `call`
        reconciler = Reconciler(scores, row, lambda: follower.leading, clock, metrics, self.rng, tuning.reconcile)

        def read(arn: str) -> Coordinator[Any, Any]:
            rows = FakeLeases(world.score_leases[arn], lease_port)
            source = SimSource(world.score_streams[arn], score_stream(arn), stream_port, 0)
            return Coordinator(
                pipeline="publish",
                worker=self.name,
                opened=Opened(source, rows, rows, publisher),
                settings=tuning.publish,
                clock=clock,
                rng=self.rng,
                metrics=metrics,
                budget=budget,
                on_trimmed=reconciler.owe,
            )

        streams = SimScoreStreams(world.score_streams, lambda: world.latest, world.scores, stream_port)
        follower = StreamFollower(streams, row, read, publisher.forget, clock, self.rng, tuning.follow)
        return publisher, reconciler, follower

    async def _drain_when_told(self) -> None:
        await self._stop.wait()
        for coordinator in self.coordinators:
            coordinator.stop()
