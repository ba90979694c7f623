"""Shards that cannot be read: trouble of that shard, until it is readable again or certainly lost."""

from __future__ import annotations

import asyncio

import pytest
import structlog

from service.runtime.errors import RecordsTrimmedError
from service.stream.ports import Shard
from service.stream.position import SHARD_END
from service.stream.tail import reader
from service.stream.tail.refusals import GONE_LISTS, LOST_AFTER_S, LOST_REFUSALS, UNREADABLE_AFTER_S, Refusals
from tests.fakes.aio import in_virtual_time
from tests.fakes.source import FakeStream
from tests.fakes.workers import Cluster

FIRST = "shardId-000000000000"
SECOND = "shardId-000000000001"


@pytest.fixture
def lines(monkeypatch: pytest.MonkeyPatch):
    # A logger keeps what it was bound to when first used, in whichever test that was.
    monkeypatch.setattr(reader, "log", structlog.get_logger())
    with structlog.testing.capture_logs() as lines:
        yield lines


@in_virtual_time
async def test_a_shard_whose_iterator_is_refused_stops_no_other(lines: list[dict[str, object]]):
    """It used to end every worker in turn: 12 restarts in 45 s, and the other shards starved."""

    async with Cluster(FakeStream(4)) as cluster:
        cluster.stream.refused.add(FIRST)
        workers = [cluster.start("a"), cluster.start("b")]
        await cluster.until(lambda: all(len(worker.shards) == 2 for worker in workers))
        calls = sum(worker.gate.calls for worker in workers)
        for number in range(120):
            cluster.stream.put(SECOND, number)
            cluster.stream.put(FIRST, number)
            await asyncio.sleep(1)
        await cluster.until(lambda: cluster.data(SECOND) == [*range(120)], within=3)
        assert cluster.data(FIRST) == []
        assert not any(worker.task.done() for worker in workers)
        assert [worker.coordinator.worker for worker in workers] == ["a", "b"]
        assert sum(worker.gate.calls for worker in workers) - calls < 2_000
        unreadable = [worker.value("scoring_unreadable_shards", pipeline="ingest") for worker in workers]
        assert sorted(unreadable) == [0, 1]
        failures = sum(
            worker.value("scoring_read_failures_total", pipeline="ingest", kind="trouble") for worker in workers
        )
        assert 20 < failures < 120, "backed off"
        said = [line for line in lines if line["event"] == "tail.shard_blocked"]
        assert [line["log_level"] for line in said] == ["error"]
        lag = [worker.value("scoring_lag_seconds", pipeline="ingest", shard=FIRST) for worker in workers]
        assert max(lag) > 100
        cluster.stream.refused.clear()
        await cluster.until(lambda: cluster.data(FIRST) == [*range(120)], within=10)
        await asyncio.sleep(2)
        assert not any(worker.value("scoring_unreadable_shards", pipeline="ingest") for worker in workers)
        assert any(line["event"] == "tail.recovered" for line in lines)


@in_virtual_time
async def test_an_unreadable_closed_shard_does_not_block_its_children(lines: list[dict[str, object]]):
    """DescribeStream lists it, GetShardIterator says that it does not exist."""

    async with Cluster(FakeStream(1, dynamodb=True)) as cluster:
        child = cluster.stream.roll_over(FIRST)
        cluster.stream.unknown.add(FIRST)
        cluster.stream.put(child, "child")
        worker = cluster.start("a")
        await asyncio.sleep(LOST_AFTER_S - 5)
        assert cluster.data() == []
        assert worker.trimmed == []
        took = await cluster.until(lambda: cluster.data() == ["child"], within=30)
        assert took < 20
        assert cluster.checkpoint(FIRST) == SHARD_END
        assert worker.trimmed == [FIRST]
        assert worker.value("scoring_records_trimmed_total", pipeline="ingest") == 1
        first = next(line for line in lines if line["event"] == "tail.shard_refused")
        assert (first["listed"], first["closed"]) == (True, True)
        assert any(line["event"] == "tail.records_trimmed" for line in lines)


@in_virtual_time
async def test_a_closed_shard_whose_trim_horizon_is_refused_for_good_ends_too():
    async with Cluster(FakeStream(1, dynamodb=True)) as cluster:
        child = cluster.stream.roll_over(FIRST)
        cluster.stream.put(child, "child")
        fetch = cluster.stream.fetch

        def refuse(iterator: str, limit: int) -> object:
            if iterator.startswith(FIRST):
                raise RecordsTrimmedError(FIRST)
            return fetch(iterator, limit)

        cluster.stream.fetch = refuse  # a fault
        worker = cluster.start("a")
        await cluster.until(lambda: cluster.data() == ["child"], within=LOST_AFTER_S + 30)
        assert worker.trimmed == [FIRST]


@in_virtual_time
async def test_an_unknown_open_shard_is_tried_while_it_is_listed():
    async with Cluster(FakeStream(1)) as cluster:
        cluster.stream.put(FIRST, 1)
        cluster.stream.unknown.add(FIRST)
        worker = cluster.start("a")
        await asyncio.sleep(600)
        assert worker.trimmed == []
        assert worker.value("scoring_unreadable_shards", pipeline="ingest") == 1
        cluster.stream.unknown.clear()
        await cluster.until(lambda: cluster.data() == [1], within=10)


LISTED = Shard(FIRST, closed=True)


def test_a_closed_shard_is_lost_after_several_refusals_over_a_minute():
    refusals = Refusals()
    for second in range(LOST_REFUSALS - 1):
        refusals.refuse(second)
        assert not refusals.lost(FIRST, [LISTED], second)
    assert not refusals.lost(FIRST, [LISTED], 10 * LOST_AFTER_S), "a worker that stood still has not tried"
    refusals.refuse(LOST_AFTER_S)
    assert "closed" in refusals.lost(FIRST, [LISTED], LOST_AFTER_S)
    assert not refusals.lost(FIRST, [Shard(FIRST)], LOST_AFTER_S), "open"
    assert not refusals.lost(FIRST, [], LOST_AFTER_S), "a list without shards says nothing"


def test_a_shard_is_lost_once_lists_in_a_row_do_not_name_it():
    refusals, others = Refusals(), [Shard(SECOND)]
    for second in range(GONE_LISTS - 1):
        refusals.refuse(second)
        assert not refusals.lost(FIRST, others, second)
    assert not refusals.lost(FIRST, [Shard(FIRST)], 5)
    assert not refusals.lost(FIRST, others, 6)
    assert not refusals.lost(FIRST, [], 6)
    assert not refusals.lost(FIRST, others, 7)
    assert "no longer knows" in refusals.lost(FIRST, others, 8)


def test_a_shard_is_reported_unreadable_once_a_minute():
    refusals = Refusals()
    assert not refusals.unreadable(1e9)
    said = []
    for second in range(300):
        refusals.failed(second)
        if refusals.to_be_said(second):
            said.append(second)
    assert said == [60, 120, 180, 240]
    assert refusals.unreadable(UNREADABLE_AFTER_S)
    assert not refusals.unreadable(UNREADABLE_AFTER_S - 0.1)
