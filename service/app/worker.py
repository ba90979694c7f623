"""The worker: constructs all parts, starts them, watches them and ends them.

`scoring run` calls `serve` (`serve.py`); tests construct a `Worker`, which they can start on port 0 and stop.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import random
import secrets
import socket
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar

import msgspec
import structlog

from service.app.aws import worker_calls
from service.app.call_watch import CallWatch
from service.app.emf_log import log_emf
from service.app.ingesting import ingest_maker, own_sources
from service.app.publishing import CHANGES_PAGE, make_publishing
from service.app.retention import watch_retention
from service.aws import credentials
from service.aws.clients import Clients, clients
from service.aws.streams.kinesis import KinesisSource
from service.aws.tables.definitions import DefinitionTable
from service.aws.tables.identities import IdentityTable
from service.aws.tables.leases import LeaseTable
from service.aws.tables.pipeline import PipelineTable
from service.aws.tables.scores import ScoreTable, target_of
from service.aws.tables.undefined import UndefinedTable
from service.aws.translation import watched
from service.config.settings import Settings
from service.ingest.definition_book import CurrentDefinitions
from service.ingest.ingest import PIPELINE as INGEST
from service.ingest.prepared import PreparedEvents
from service.ingest.retention import Retention
from service.ingest.undefined import UndefinedTypes
from service.observability.http import Health, ObservabilityServer
from service.observability.logs import Stream
from service.observability.looplag import measure_loop_lag
from service.observability.metrics import Metrics, service_version
from service.publish.follow import StreamReader
from service.publish.publisher import PIPELINE as PUBLISH
from service.publish.publisher import Publisher
from service.publish.sweep import Sweeper, SweepOptions
from service.runtime.backoff import Backoff
from service.runtime.clock import SystemClock
from service.runtime.errors import SetupError, TransientError, Trouble
from service.scoring.marks import HOUR_MS
from service.scoring.rules.stored import FORMAT as RULES_FORMAT
from service.stream.coordinator import Coordinator, Opened
from service.stream.leases.share import FleetShare
from service.stream.settings import MIB, ShardSettings
from service.stream.tail.budget import ByteBudget

log = structlog.get_logger(__name__)

T = TypeVar("T")

SWEEP = "sweep"
"""Whose row of the lease table says how far the daily sweep is."""

PUBLISH_SHARE = 4
"""Publishing gets one of this many parts of the byte budget, if the worker has both roles."""

LOOPS_OF = {
    "definitions": INGEST,
    "sources": INGEST,
    "undefined types": INGEST,
    "retention": INGEST,
    "publisher": PUBLISH,
    "reconciler": PUBLISH,
    "silence watch": PUBLISH,
}
"""Pipelines by background loop."""

GC_ALLOCATIONS = 100_000
"""Allocations, less deallocations, between two collections of the youngest generation; Python's default is 700."""

CREDENTIALS_WAIT_S = 20.0
"""Seconds after the start during which a worker without credentials waits for those of its instance."""

SILENT_LEASES = 3.0
"""Lease durations without a heartbeat after which a worker is unhealthy: others have taken its shards by then."""


class _Parts(msgspec.Struct):
    """The parts of one run.

    Attributes:
        coordinators: Readers of streams, by pipeline.
        reach: By pipeline, a call that fails if its rows cannot be read.
        background: Endless loops that run beside them.
        publisher: Publishes scores.
    """

    coordinators: dict[str, StreamReader] = msgspec.field(default_factory=dict)
    reach: dict[str, Callable[[], Awaitable[object]]] = msgspec.field(default_factory=dict)
    background: dict[str, Callable[[], Awaitable[None]]] = msgspec.field(default_factory=dict)
    publisher: Publisher | None = None


class Worker:
    """One worker process.

    Args:
        settings: All settings.
        metrics: The catalogue; a new one unless given.
        lines: Where the lines that CloudWatch turns into metrics go; standard output unless given.
    """

    def __init__(self, settings: Settings, metrics: Metrics | None = None, lines: Stream | None = None) -> None:
        self._settings = settings
        self.metrics = metrics or Metrics(max_shards=settings.metrics_max_shards, process=True)
        self._clock = SystemClock()
        self._rng = random.Random(secrets.randbits(64))  # noqa: S311 - jitter, not cryptography
        self._parts = _Parts()
        self._watch = CallWatch(self._clock, self.metrics)
        self._lines = lines
        self._stop = asyncio.Event()
        self._began = 0.0
        self._drained = True
        self._leave_by: float | None = None
        self.started = asyncio.Event()
        self.server = ObservabilityServer(
            settings.http_host, settings.http_port, self.metrics.registry, self._health, self._ready
        )

    def stop(self) -> None:
        """Ask `run` to finish what it has begun and return."""
        self._stop.set()

    async def run(self) -> bool:
        """Work until `stop`; return whether everything that was begun was finished in time.

        Raises:
            AwsSetupError: A stream, a table or a permission is missing; only at the start.
            NothingWorksError: No call to AWS has succeeded for minutes.
            ExceptionGroup: A bug; the next worker reads again what was not checkpointed.
        """
        self._began = self._clock.monotonic()
        worker = f"{socket.gethostname()}-{secrets.token_hex(4)}"
        log.info("worker.started", worker=worker, role=self._settings.role, version=service_version())
        with watched(self._watch):
            return await self._run(worker)

    async def _run(self, worker: str) -> bool:
        async with self.server, clients(worker_calls(self._settings), self.metrics) as aws:
            log.info("worker.server_started", url=self.server.url)
            if not await self._unless_stopped(self._wire(aws, worker), "wire"):
                log.info("worker.stopped", worker=worker, drained=True, why="the signal came before the start")
                return True
            self.started.set()
            _collect_rarely()
            await self._work()
        log.info("worker.stopped", worker=worker, drained=self._drained)
        return self._drained

    async def _unless_stopped(self, work: Coroutine[Any, Any, None], name: str) -> bool:
        """Do `work`; return False if `stop` came first and cancelled it."""
        async with asyncio.TaskGroup() as group:
            working = group.create_task(work, name=name)
            stopping = group.create_task(self._stop.wait(), name="stop requested")
            await asyncio.wait((working, stopping), return_when=asyncio.FIRST_COMPLETED)
            done = working.done()
            working.cancel()
            stopping.cancel()
        return done

    async def _work(self) -> None:
        coordinators = self._parts.coordinators
        async with asyncio.TaskGroup() as group:
            beside = [
                group.create_task(_forever(loop, LOOPS_OF.get(name, "")), name=name)
                for name, loop in self._parts.background.items()
            ]
            reading = [group.create_task(each.run(), name=name) for name, each in coordinators.items()]
            watchdog = group.create_task(self._drain_when_told(reading), name="drain")
            await asyncio.wait(reading)
            watchdog.cancel()
            if self._parts.publisher is not None:
                await self._republish(self._parts.publisher)
            for task in beside:
                task.cancel()

    async def _republish(self, publisher: Publisher) -> None:
        """Wait for sink calls in flight, 15 s at most, and publish again what they may overwrite.

        These include calls of a dead worker whose shards this one took.

        This is rare. Only this worker knows of it, and its leases are released already: no other worker waits.
        """
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout_at(self._leave_by):
                await publisher.drained()
                return
        self._drained = False
        log.error(
            "worker.left_uncertain",
            scores=publisher.uncertain,
            why="calls of this worker, or of one it took over from, may leave an older score in a sink",
            remedy="scoring reconcile",
        )

    async def _drain_when_told(self, reading: list[asyncio.Task[None]]) -> None:
        await self._stop.wait()
        self._leave_by = self._clock.monotonic() + self._settings.drain_timeout_s
        log.info("worker.drain_started", longest_s=self._settings.drain_timeout_s)
        for coordinator in self._parts.coordinators.values():
            coordinator.stop()
        await self._clock.sleep(self._settings.drain_timeout_s)
        self._drained = False
        log.error(
            "worker.drain_timed_out",
            why=f"not finished {self._settings.drain_timeout_s:g} s after the signal",
            consequence="another worker reads again what was not checkpointed; no event is lost or counted twice",
        )
        for task in reading:
            task.cancel()

    async def _wire(self, aws: Clients, worker: str) -> None:
        """Construct the parts; first reads from AWS run concurrently."""
        settings, parts = self._settings, self._parts
        # Separate budgets: otherwise one pipeline could use all of it, and no score would be published during a
        # backlog of events.
        total = settings.read_budget_mib * MIB
        publish = total // PUBLISH_SHARE if settings.ingests else total
        identities = IdentityTable(aws.dynamodb, settings.identities_table)
        async with asyncio.TaskGroup() as group:
            if settings.ingests:
                group.create_task(
                    self._wire_ingest(
                        aws, worker, ByteBudget(total - publish if settings.publishes else total), identities
                    )
                )
            if settings.publishes:
                group.create_task(self._wire_publish(aws, worker, ByteBudget(publish, page=CHANGES_PAGE), identities))
        parts.background["call watch"] = self._watch.run
        parts.background["loop lag"] = lambda: measure_loop_lag(self.metrics)
        if settings.emf_service:
            parts.background["emf"] = lambda: log_emf(settings.emf_service, self.metrics, self._clock, self._lines)

    async def _wire_ingest(self, aws: Clients, worker: str, budget: ByteBudget, identities: IdentityTable) -> None:
        structlog.contextvars.bind_contextvars(pipeline=INGEST)
        settings, metrics, clock = self._settings, self.metrics, self._clock
        rows = DefinitionTable(aws.dynamodb, settings.definitions_table)
        definitions = CurrentDefinitions(
            rows,
            clock,
            metrics,
            refresh_s=settings.definitions_refresh_s,
        )
        undefined = UndefinedTypes(UndefinedTable(aws.dynamodb, settings.identities_table), clock, metrics)
        share = FleetShare(clock.monotonic)
        retention = Retention(settings.marks_kept_hours * HOUR_MS or None)
        sources, source_book = own_sources(settings, rows, clock, metrics)
        make_ingest = await ingest_maker(
            settings, aws, identities, definitions, sources, undefined, clock, metrics, self._rng, retention, share
        )

        async def open_stream() -> Opened[bytes, PreparedEvents]:
            asked_at = clock.monotonic()
            source = await self._patiently("stream", lambda: KinesisSource.open(aws.kinesis, settings.stream))
            keeps(source.retention_s, asked_at)
            leases = LeaseTable(aws.leases, settings.leases_table, INGEST, source.stream)
            self._parts.reach[INGEST] = leases.leadership
            await self._patiently("lease table", leases.leadership)
            return Opened(source, leases, leases, make_ingest())

        async def read_retention() -> float:
            return (await KinesisSource.open(aws.kinesis, settings.stream)).retention_s

        def keeps(seconds: float, asked_at: float) -> None:
            metrics.retention.labels(INGEST).set(seconds)
            retention.saw(seconds, asked_at)

        async with asyncio.TaskGroup() as group:
            opening = group.create_task(open_stream())
            looking = group.create_task(
                self._patiently("score table", lambda: target_of(aws.dynamodb, settings.scores_table))
            )
            group.create_task(self._patiently("definitions", definitions.refresh))
        self._parts.background |= {"definitions": definitions.run, "undefined types": undefined.run}
        self._parts.background["sweep"] = self._sweeper(aws, definitions).run
        source_book.refresh()  # the definitions have been read, and the sources with them
        self._parts.background["sources"] = source_book.run
        self._parts.background["retention"] = lambda: watch_retention(read_retention, keeps, clock)
        self._parts.coordinators[INGEST] = Coordinator(
            pipeline=INGEST,
            worker=worker,
            opened=opening.result(),
            settings=_shard_settings(settings),
            clock=clock,
            rng=self._rng,
            metrics=metrics,
            budget=budget,
            start=settings.start,
            share=share,
            target=looking.result(),
            reopen=open_stream,
        )

    def _sweeper(self, aws: Clients, definitions: CurrentDefinitions) -> Sweeper:
        settings = self._settings
        return Sweeper(
            ScoreTable(aws.dynamodb, settings.scores_table, self.metrics),
            PipelineTable(aws.dynamodb, settings.leases_table, SWEEP, settings.scores_table),
            lambda: self._parts.coordinators[INGEST].leading,
            lambda: definitions.book.rules,
            self._clock,
            self.metrics,
            self._rng,
            SweepOptions(),
        )

    async def _wire_publish(self, aws: Clients, worker: str, budget: ByteBudget, identities: IdentityTable) -> None:
        structlog.contextvars.bind_contextvars(pipeline=PUBLISH)
        parts = self._parts
        made = await make_publishing(
            self._settings, aws, worker, identities, budget, self._clock, self.metrics, self._rng
        )
        await self._patiently("score stream", made.follower.open)
        parts.background |= made.background
        parts.publisher = made.publisher
        parts.coordinators[PUBLISH] = made.follower
        parts.reach[PUBLISH] = made.row.load

    async def _patiently(self, what: str, call: Callable[[], Awaitable[T]]) -> T:
        """Repeat `call` while AWS does not answer: a worker may start before its AWS."""
        backoff = Backoff(self._rng)
        while True:
            try:
                return await call()
            except TransientError as error:
                if isinstance(error, SetupError) and not self._may_pass(error):
                    raise  # the stream or a permission is missing: no work can begin
                log.warning("worker.start_delayed", what=what, why=str(error))
                self._watch.check()
                await self._clock.sleep(backoff.failed())

    def _may_pass(self, error: SetupError) -> bool:
        """Return whether waiting may help: an instance's metadata service may start later than the worker."""
        young = self._clock.monotonic() - self._began < CREDENTIALS_WAIT_S
        return error.kind is Trouble.CREDENTIALS and young and credentials.may_come_later()

    def _health(self) -> Health:
        now = self._clock.monotonic()
        limit = SILENT_LEASES * self._settings.lease_duration_s
        ages = {name: now - max(each.last_beat, self._began) for name, each in self._parts.coordinators.items()}
        if not ages:
            ages = {"start": now - self._began}
        silent = [name for name, age in ages.items() if age > limit]
        reason = f"no heartbeat for more than {limit:g} s: {', '.join(silent)}" if silent else ""
        return Health(ok=not silent, reason=reason, ages_s=ages)

    async def _ready(self) -> Health:
        if not self.started.is_set():
            return Health(ok=False, reason="stream, tables or definitions have not been reached yet")
        waiting = [name for name, each in self._parts.coordinators.items() if not each.first_sync_done]
        if waiting:
            return Health(ok=False, reason=f"the leases have not been read yet: {', '.join(waiting)}")
        for reach in self._parts.reach.values():
            await reach()
        return Health(ok=True)


def _collect_rarely() -> None:
    """Make Python collect cyclic garbage less often: there is little of it, and a batch creates many objects at once.

    Measured: with Python's default thresholds it took a third of the CPU (deploy/decisions/0004-fast-codec.md).
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(GC_ALLOCATIONS, 20, 50)


def _shard_settings(settings: Settings) -> ShardSettings:
    """Return how shards of the event stream are read."""
    return ShardSettings(
        lease_duration=settings.lease_duration_s,
        batch_max_age=settings.batch_max_age_ms / 1000,
        batch_max_records=settings.batch_max_records,
        checkpoint_interval=settings.checkpoint_interval_ms / 1000,
        poll_max=settings.poll_max_ms / 1000,
        capability=RULES_FORMAT,
    )


async def _forever(loop: Callable[[], Awaitable[None]], pipeline: str) -> None:
    """Run a loop, with its pipeline, if any, in its log lines."""
    if pipeline:
        structlog.contextvars.bind_contextvars(pipeline=pipeline)
    await loop()
