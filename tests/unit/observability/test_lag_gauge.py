"""`scoring_lag_seconds` of a shard that stands still, for whatever reason: it rises until the shard moves."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import pytest

from service.ingest.stores import SinkOutcome
from service.observability.metrics import Metrics
from service.publish.publisher import Publisher
from service.runtime.errors import TransientError
from service.scoring.change import ScoreChange, StreamImage
from service.stream.coordinator import Coordinator, Opened
from service.stream.ports import Page
from service.stream.settings import ShardSettings
from service.stream.tail.budget import ByteBudget
from tests.fakes.aio import VirtualClock, in_virtual_time, run
from tests.fakes.dead_letters import MemoryDeadLetters
from tests.fakes.images import stream_image
from tests.fakes.leases import FakeLeases, LeaseTable
from tests.fakes.scores import MemoryScores
from tests.fakes.sinks import MemorySink
from tests.fakes.source import FakeSource, FakeStream
from tests.fakes.workers import Cluster, FakeWorker

FIRST = "shardId-000000000000"
THROTTLED = TransientError("injected: throttled", throttled=True)


def lag_of(metrics: Metrics, pipeline: str = "ingest", shard: str = FIRST) -> float | None:
    return metrics.registry.get_sample_value("scoring_lag_seconds", {"pipeline": pipeline, "shard": shard})


async def assert_rises(lag: Callable[[], float | None], at_least: float, *, seconds: int = 600) -> None:
    """Look every ten seconds: it never falls, and it keeps pace with the time."""
    seen = []
    for _ in range(seconds // 10):
        await asyncio.sleep(10)
        seen.append(lag() or 0.0)
    assert seen == sorted(seen)
    assert seen[-1] - seen[0] == pytest.approx(seconds - 10, abs=2)
    assert seen[-1] >= at_least


def a_worker_at_its_tip(story: Callable[[Cluster, FakeWorker], Awaitable[None]], **options: Any) -> None:  # noqa: ANN401 - passed on
    async def main() -> None:
        async with Cluster(FakeStream(2), settings=ShardSettings(**options)) as cluster:
            worker = cluster.start("a")
            await asyncio.sleep(10)
            assert lag_of(worker.metrics) == 0
            await story(cluster, worker)

    run(main())


def test_while_commits_are_always_throttled():
    async def story(cluster: Cluster, worker: FakeWorker) -> None:
        worker.consumer.error = THROTTLED
        cluster.stream.put(FIRST, 1)
        await assert_rises(lambda: lag_of(worker.metrics), 598)
        assert lag_of(worker.metrics, shard="shardId-000000000001") == 0
        worker.consumer.error = None
        await cluster.until(lambda: lag_of(worker.metrics) == 0, within=20)

    a_worker_at_its_tip(story)


def test_while_commits_are_always_throttled_and_more_keeps_coming():
    async def story(cluster: Cluster, worker: FakeWorker) -> None:
        worker.consumer.error = THROTTLED

        async def produce() -> None:
            while True:
                cluster.stream.put_many(FIRST, range(10))
                await asyncio.sleep(0.5)

        producing = asyncio.create_task(produce())
        await assert_rises(lambda: lag_of(worker.metrics), 598)
        producing.cancel()

    a_worker_at_its_tip(story, batch_max_records=100)


def test_while_its_lease_is_kept_but_no_page_comes(monkeypatch: pytest.MonkeyPatch):
    async def story(cluster: Cluster, worker: FakeWorker) -> None:
        async def throttled(_: FakeSource, _iterator: str, _limit: int) -> Page[Any]:
            raise THROTTLED

        with monkeypatch.context() as fault:
            fault.setattr(FakeSource, "fetch", throttled)
            await assert_rises(lambda: lag_of(worker.metrics), 598)
            assert len(worker.shards) == 2
        await cluster.until(lambda: lag_of(worker.metrics) == 0, within=30)

    a_worker_at_its_tip(story)


@in_virtual_time
async def test_from_the_first_read_on(monkeypatch: pytest.MonkeyPatch):
    async def throttled(_: FakeSource, _iterator: str, _limit: int) -> Page[Any]:
        raise THROTTLED

    async with Cluster(FakeStream(1)) as cluster:
        monkeypatch.setattr(FakeSource, "fetch", throttled)
        worker = cluster.start("a")
        await assert_rises(lambda: lag_of(worker.metrics), 598)


@pytest.mark.parametrize("poll_max", [0.2, 1.0, 60.0])
def test_a_shard_without_records_has_none_however_rarely_it_is_read(poll_max: float):
    async def story(_: Cluster, worker: FakeWorker) -> None:
        for _ in range(300):
            await asyncio.sleep(1)
            assert lag_of(worker.metrics) == 0

    a_worker_at_its_tip(story, poll_max=poll_max)


@in_virtual_time
async def test_while_the_sink_is_down():
    sink = MemorySink()
    up = sink.decide

    def down(_: ScoreChange) -> SinkOutcome | TransientError:
        raise TransientError("the sink is down")

    sink.decide = down
    stream, metrics, clock, rng = FakeStream(1), Metrics(), VirtualClock(), random.Random(1)
    leases = FakeLeases(LeaseTable())
    sinks: Sequence[MemorySink] = (sink,)
    publisher = Publisher(sinks, MemoryScores(), MemoryDeadLetters(), lambda _: True, clock, metrics, rng)
    coordinator: Coordinator[Any, Any] = Coordinator(
        pipeline="publish",
        worker="a",
        opened=Opened(FakeSource(stream), leases, leases, publisher),
        settings=ShardSettings(batch_max_age=0.1, in_flight=8),
        clock=clock,
        rng=rng,
        metrics=metrics,
        budget=ByteBudget(),
    )
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(coordinator.run()), group.create_task(publisher.run())]
        stream.put(FIRST, image("a", 1))
        await assert_rises(lambda: lag_of(metrics, "publish"), 598)
        sink.decide = up
        await asyncio.sleep(90)
        assert lag_of(metrics, "publish") == 0
        for task in tasks:
            task.cancel()


def image(user: str, revision: int) -> StreamImage:
    keys = {"UserId": {"S": user}, "PinpointProjectId": {"S": "p"}}
    new = {**keys, "Score": {"N": "1"}, "Revision": {"N": str(revision)}, "UpdatedAt": {"N": "1000"}}
    return stream_image(keys, new)


def test_the_series_of_a_shard_given_back_is_gone():
    async def story(_: Cluster, worker: FakeWorker) -> None:
        await worker.stop()
        assert lag_of(worker.metrics) is None

    a_worker_at_its_tip(story)
