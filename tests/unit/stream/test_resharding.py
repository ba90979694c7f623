"""Shards that split, merge, roll over and end: children wait for their parents, and rows go when nothing needs them."""

from __future__ import annotations

import asyncio

from service.stream.position import LATEST, SHARD_END, timestamp_of
from service.stream.settings import ShardSettings
from tests.fakes.aio import EPOCH_MS, in_virtual_time
from tests.fakes.source import FakeStream
from tests.fakes.workers import Cluster

FIRST = "shardId-000000000000"
SECOND = "shardId-000000000001"


@in_virtual_time
async def test_children_are_read_only_after_all_of_their_parents():
    async with Cluster(FakeStream(2)) as cluster:
        cluster.start("a")
        cluster.start("b")
        cluster.stream.put_many(FIRST, ["first"] * 50)
        cluster.stream.put_many(SECOND, ["second"] * 50)
        await cluster.until(cluster.settled, within=20)
        left, right = cluster.stream.split(FIRST)
        cluster.stream.put(left, "left")
        cluster.stream.put(right, "right")
        merged = cluster.stream.merge(right, SECOND)
        cluster.stream.put(merged, "merged")
        await cluster.until(lambda: "merged" in cluster.data(), within=30)
        await cluster.until(lambda: "left" in cluster.data(), within=30)
        written = [(lease.shard_id, lease.finished, bool(lease.owner)) for _, lease in cluster.table.history]

        def ended(shard_id: str) -> int:
            return next(i for i, (shard, done, _) in enumerate(written) if shard == shard_id and done)

        def taken(shard_id: str) -> int:
            return next(i for i, (shard, _, owned) in enumerate(written) if shard == shard_id and owned)

        assert taken(left) > ended(FIRST)
        assert taken(merged) > max(ended(right), ended(SECOND))
        assert sorted(set(cluster.data())) == ["first", "left", "merged", "right", "second"]
        assert cluster.table.leases[FIRST].children == (left, right)


@in_virtual_time
async def test_a_rolling_stream_without_named_children_is_followed():
    settings = ShardSettings(keep_ended_ms=30_000, absent_lists=2)
    async with Cluster(FakeStream(1, dynamodb=True), settings=settings) as cluster:
        worker = cluster.start("a")
        shard_id = FIRST
        for number in range(4):
            cluster.stream.put(shard_id, number)
            child = cluster.stream.roll_over(shard_id, close=False)
            cluster.stream.put(child, f"child {number}")
            await asyncio.sleep(2)
            assert f"child {number}" not in cluster.data()
            cluster.stream.hidden = {child}
            cluster.stream.shards[shard_id].closed = True
            await asyncio.sleep(1.5)
            cluster.stream.hidden = set()
            await cluster.until(lambda number=number: f"child {number}" in cluster.data(), within=10)
            shard_id = child
        cluster.stream.forget(FIRST)
        await cluster.until(lambda: FIRST not in cluster.table.leases, within=120)
        assert worker.trimmed == []


@in_virtual_time
async def test_a_stream_has_ended_once_several_lists_show_no_open_shard():
    settings = ShardSettings(absent_lists=3)
    async with Cluster(FakeStream(2, dynamodb=True), settings=settings) as cluster:
        worker = cluster.start("a")
        await cluster.until(lambda: len(worker.shards) == 2)
        assert not worker.coordinator.ended
        worker.consumer.seconds = 30
        cluster.stream.put(FIRST, "last words")
        for shard in cluster.stream.shards.values():
            shard.closed = True
        await asyncio.sleep(25)
        assert not worker.coordinator.ended, "the last batch is not committed"
        await cluster.until(lambda: cluster.checkpoint(FIRST) == cluster.checkpoint(SECOND) == SHARD_END)
        lists = cluster.stream.lists
        await cluster.until(lambda: worker.coordinator.ended, within=60)
        assert cluster.stream.lists >= lists + 2  # one may have been under way
        child = cluster.stream.roll_over(FIRST)
        await cluster.until(lambda: worker.shards == (child,), within=60)
        assert not worker.coordinator.ended


@in_virtual_time
async def test_latest_loses_nothing_before_the_first_read_nor_in_children():
    async with Cluster(FakeStream(1)) as cluster:
        cluster.stream.put(FIRST, "old")
        await asyncio.sleep(1)
        cluster.start("a", start=LATEST)
        await cluster.until(lambda: cluster.table.leader is not None)
        cluster.stream.put(FIRST, "new")
        left, _ = cluster.stream.split(FIRST)
        cluster.stream.put(left, "newer")
        await cluster.until(lambda: "newer" in cluster.data(), within=10)
        assert cluster.data() == ["new", "newer"]
        assert timestamp_of(cluster.table.leader.initial) - EPOCH_MS < 1100


@in_virtual_time
async def test_finished_rows_stay_until_the_stream_forgets_the_shard():
    settings = ShardSettings(discovery_interval=2, absent_lists=2)
    async with Cluster(FakeStream(1), settings=settings) as cluster:
        cluster.start("a")
        await cluster.until(lambda: FIRST in cluster.table.leases)
        left, right = cluster.stream.split(FIRST)
        await cluster.until(lambda: cluster.checkpoint(FIRST) == SHARD_END)
        await asyncio.sleep(20)
        assert FIRST in cluster.table.leases
        cluster.stream.forget(FIRST)
        await asyncio.sleep(20)
        assert FIRST in cluster.table.leases, "its children are not finished"
        for shard_id in (left, right):
            cluster.stream.roll_over(shard_id)
        await cluster.until(lambda: FIRST not in cluster.table.leases, within=30)
