"""Shards that split, merge, roll over and end: children wait for their parents, and rows go when nothing needs them."""

from __future__ import annotations

import asyncio

from service.stream.position import LATEST, SHARD_END, timestamp_of
from service.stream.settings import ShardSettings
from tests.fakes.aio import EPOCH_MS, in_virtual_time
from tests.fakes.source import FakeStream
from tests.fakes.workers import World

FIRST = "shardId-000000000000"
SECOND = "shardId-000000000001"


@in_virtual_time
async def test_children_are_read_only_after_all_of_their_parents():
    async with World(FakeStream(2)) as world:
        world.start("a")
        world.start("b")
        world.stream.put_many(FIRST, ["first"] * 50)
        world.stream.put_many(SECOND, ["second"] * 50)
        await world.until(world.settled, within=20)
        left, right = world.stream.split(FIRST)
        world.stream.put(left, "left")
        world.stream.put(right, "right")
        merged = world.stream.merge(right, SECOND)
        world.stream.put(merged, "merged")
        await world.until(lambda: "merged" in world.data(), within=30)
        await world.until(lambda: "left" in world.data(), within=30)
        written = [(lease.shard_id, lease.finished, bool(lease.owner)) for _, lease in world.table.history]

        def ended(shard_id: str) -> int:
            return next(i for i, (shard, done, _) in enumerate(written) if shard == shard_id and done)

        def taken(shard_id: str) -> int:
            return next(i for i, (shard, _, owned) in enumerate(written) if shard == shard_id and owned)

        assert taken(left) > ended(FIRST)
        assert taken(merged) > max(ended(right), ended(SECOND))
        assert sorted(set(world.data())) == ["first", "left", "merged", "right", "second"]
        assert world.table.leases[FIRST].children == (left, right)


@in_virtual_time
async def test_a_rolling_stream_without_named_children_is_followed():
    settings = ShardSettings(keep_ended_ms=30_000, absent_lists=2)
    async with World(FakeStream(1, dynamodb=True), settings=settings) as world:
        worker = world.start("a")
        shard_id = FIRST
        for number in range(4):
            world.stream.put(shard_id, number)
            child = world.stream.roll_over(shard_id, close=False)
            world.stream.put(child, f"child {number}")
            await asyncio.sleep(2)
            assert f"child {number}" not in world.data()
            world.stream.hidden = {child}
            world.stream.shards[shard_id].closed = True
            await asyncio.sleep(1.5)
            world.stream.hidden = set()
            await world.until(lambda number=number: f"child {number}" in world.data(), within=10)
            shard_id = child
        world.stream.forget(FIRST)
        await world.until(lambda: FIRST not in world.table.leases, within=120)
        assert worker.trimmed == []


@in_virtual_time
async def test_a_stream_has_ended_once_several_lists_show_no_open_shard():
    settings = ShardSettings(absent_lists=3)
    async with World(FakeStream(2, dynamodb=True), settings=settings) as world:
        worker = world.start("a")
        await world.until(lambda: len(worker.shards) == 2)
        assert not worker.coordinator.ended
        worker.consumer.seconds = 30
        world.stream.put(FIRST, "last words")
        for shard in world.stream.shards.values():
            shard.closed = True
        await asyncio.sleep(25)
        assert not worker.coordinator.ended, "the last batch is not committed"
        await world.until(lambda: world.checkpoint(FIRST) == world.checkpoint(SECOND) == SHARD_END)
        lists = world.stream.lists
        await world.until(lambda: worker.coordinator.ended, within=60)
        assert world.stream.lists >= lists + 2  # one may have been under way
        child = world.stream.roll_over(FIRST)
        await world.until(lambda: worker.shards == (child,), within=60)
        assert not worker.coordinator.ended


@in_virtual_time
async def test_latest_loses_nothing_before_the_first_read_nor_in_children():
    async with World(FakeStream(1)) as world:
        world.stream.put(FIRST, "old")
        await asyncio.sleep(1)
        world.start("a", start=LATEST)
        await world.until(lambda: world.table.leader is not None)
        world.stream.put(FIRST, "new")
        left, _ = world.stream.split(FIRST)
        world.stream.put(left, "newer")
        await world.until(lambda: "newer" in world.data(), within=10)
        assert world.data() == ["new", "newer"]
        assert timestamp_of(world.table.leader.initial) - EPOCH_MS < 1100


@in_virtual_time
async def test_finished_rows_stay_until_the_stream_forgets_the_shard():
    settings = ShardSettings(discovery_interval=2, absent_lists=2)
    async with World(FakeStream(1), settings=settings) as world:
        world.start("a")
        await world.until(lambda: FIRST in world.table.leases)
        left, right = world.stream.split(FIRST)
        await world.until(lambda: world.checkpoint(FIRST) == SHARD_END)
        await asyncio.sleep(20)
        assert FIRST in world.table.leases
        world.stream.forget(FIRST)
        await asyncio.sleep(20)
        assert FIRST in world.table.leases, "its children are not finished"
        for shard_id in (left, right):
            world.stream.roll_over(shard_id)
        await world.until(lambda: FIRST not in world.table.leases, within=30)
