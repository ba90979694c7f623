"""A score stream that lost changes: the real coordinator, tail, publisher and reconciler, in virtual time."""

from __future__ import annotations

import asyncio
import contextlib
import random
from decimal import Decimal
from typing import Any

import msgspec

from service.observability.metrics import Metrics
from service.publish.publisher import Publisher
from service.publish.reconcile import ReconcileOptions, Reconciler
from service.scoring.change import StreamImage
from service.scoring.fold import Origin, ScoreState, UserKey
from service.stream.coordinator import Coordinator, Opened
from service.stream.leases.lease import Lease
from service.stream.settings import ShardSettings
from service.stream.tail.budget import ByteBudget
from tests.fakes.aio import Gate, VirtualClock, in_virtual_time
from tests.fakes.dead_letters import MemoryDeadLetters
from tests.fakes.images import stream_image
from tests.fakes.leases import FakeLeases, LeaseTable
from tests.fakes.pipeline import FakePipeline, PipelineRow
from tests.fakes.scores import MemoryScores
from tests.fakes.sinks import MemorySink
from tests.fakes.source import FakeSource, FakeStream

USERS = 450
PER_S = 50.0
SHARD = "shardId-000000000000"


def key(number: int) -> UserKey:
    return UserKey(f"u{number}", "p")


def image(of: UserKey, score: Decimal | None, revision: int) -> StreamImage:
    keys = {"UserId": {"S": of.user_id}, "PinpointProjectId": {"S": of.project_id}}
    new = {**keys, "Score": {"N": str(score)}, "Revision": {"N": str(revision)}, "UpdatedAt": {"N": "1"}}
    return stream_image(keys, new)


class StreamedScores(MemoryScores):
    """A score table whose changes go to a stream."""

    def __init__(self, stream: FakeStream) -> None:
        super().__init__({key(number): ScoreState(Origin.OURS, Decimal(number), 1, {}, 1) for number in range(USERS)})
        self._stream = stream

    def _keep(self, of: UserKey, after: ScoreState, score: Decimal | None) -> None:
        super()._keep(of, msgspec.structs.replace(after, score=score), score)
        self._stream.put(SHARD, image(of, score, after.revision))


class TrimmedStream:
    """A stream that lost all but its last ten records, and workers."""

    def __init__(self) -> None:
        self.stream, self.table, self.row, self.sink = (
            FakeStream(dynamodb=True),
            LeaseTable(),
            PipelineRow(),
            MemorySink(),
        )
        self.scores = StreamedScores(self.stream)
        for number in range(USERS):
            self.stream.put(SHARD, image(key(number), Decimal(number), 1))
        self.table.put(Lease(SHARD, self.stream.shards[SHARD].records[0].sequence))
        self.stream.trim(SHARD, USERS - 10)
        self.metrics = Metrics()

    @contextlib.asynccontextmanager
    async def worker(self, name: str) -> Any:  # noqa: ANN401 - a context manager
        gate = Gate()
        clock, rng, leases = VirtualClock(gate), random.Random(name), FakeLeases(self.table, gate)
        publisher = Publisher(
            [self.sink], self.scores, MemoryDeadLetters(), lambda shard: coordinator.holds(shard),  # noqa: PLW0108 - made below
            clock, self.metrics, rng,
        )  # fmt: skip
        reconciler = Reconciler(
            self.scores, FakePipeline(self.row, gate), lambda: coordinator.leading, clock, self.metrics, rng,
            ReconcileOptions(per_s=PER_S, look_s=1, save_s=1),
        )  # fmt: skip
        coordinator = Coordinator(
            pipeline="publish", worker=name, opened=Opened(FakeSource(self.stream, gate), leases, leases, publisher),
            settings=ShardSettings(checkpoint_interval=1, call_timeout=1), clock=clock, rng=rng,
            metrics=self.metrics, budget=ByteBudget(), on_trimmed=reconciler.owe,
        )  # fmt: skip
        tasks = [asyncio.create_task(each.run()) for each in (publisher, reconciler, coordinator)]
        try:
            yield
        finally:
            gate.pause()
            for task in tasks:
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await task

    async def done(self, scores: int) -> None:
        loop = asyncio.get_running_loop()
        while len(self.sink.values) < scores:
            assert loop.time() < 120
            await asyncio.sleep(0.1)

    @property
    def published(self) -> dict[UserKey, Decimal | None]:
        return {told: change.score for told, change in self.sink.values.items()}


EVERYBODY = {key(number): Decimal(number) for number in range(USERS)}


@in_virtual_time
async def test_what_the_stream_lost_is_published_at_a_limited_rate():
    setup = TrimmedStream()
    async with setup.worker("a"):
        await setup.done(USERS)
        assert asyncio.get_running_loop().time() > (USERS - 50) / PER_S
        assert setup.published == EVERYBODY
        await asyncio.sleep(5)
        assert setup.row.state is not None
        assert not setup.row.state.owes
        assert setup.table.leases[SHARD].checkpoint == setup.stream.shards[SHARD].records[-1].sequence
    trimmed = setup.metrics.registry.get_sample_value("scoring_records_trimmed_total", {"pipeline": "publish"})
    assert trimmed == 1


@in_virtual_time
async def test_a_worker_that_dies_leaves_its_reconciliation_to_the_next_leader():
    setup = TrimmedStream()
    async with setup.worker("a"):
        await setup.done(USERS // 2)
    written = len(setup.stream.shards[SHARD].records) - USERS
    assert 4 * PER_S < written < USERS * 2 / 3
    async with setup.worker("b"):
        await setup.done(USERS)
        assert setup.published == EVERYBODY
        await asyncio.sleep(10)
    # It went on where the dead worker was: but for what that had not noted yet, and what a seized shard brings.
    assert len(setup.stream.shards[SHARD].records) - USERS < USERS + 4 * PER_S < USERS + written
