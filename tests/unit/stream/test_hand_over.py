"""How soon others go on: successors are named while the leaving worker drains, and hear of it at once."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from service.runtime.errors import TransientError
from service.stream.ports import Shard
from tests.fakes.aio import in_virtual_time
from tests.fakes.leases import FakeLeases
from tests.fakes.source import FakeStream
from tests.fakes.workers import Cluster, FakeWorker

FIRST = "shardId-000000000000"


async def two(cluster: Cluster) -> None:
    """Start a leader and a follower, and wait until they share the shards."""
    cluster.start("a")
    await asyncio.sleep(0.5)
    cluster.start("b")
    half = len(cluster.stream.shards) // 2
    await cluster.until(lambda: [len(worker.shards) for worker in cluster.workers] == [half, half], within=20)
    assert cluster.workers[0].coordinator.leading


def assigned(cluster: Cluster, worker: FakeWorker) -> set[str]:
    return {entry.shard_id for entry in cluster.table.members[worker.name].assigned}


def give_work(cluster: Cluster, worker: FakeWorker, seconds: float) -> None:
    """Have every shard of a worker commit for so long."""
    worker.consumer.seconds = seconds
    for shard_id in worker.shards:
        cluster.stream.put(shard_id, shard_id)


@pytest.mark.parametrize("leaver", [0, 1])
@in_virtual_time
async def test_successors_are_named_before_the_leases_are_released(leaver: int):
    async with Cluster(FakeStream(8)) as cluster:
        await two(cluster)
        leaving, staying = cluster.workers[leaver], cluster.workers[1 - leaver]
        give_work(cluster, leaving, 3.0)
        await asyncio.sleep(2)
        held = set(leaving.shards)
        leaving.coordinator.stop()
        took = await cluster.until(lambda: assigned(cluster, staying) == set(cluster.stream.shards), within=2)
        assert took < 0.7
        assert {row.owner for row in cluster.table.leases.values()} == {"a", "b"}, "nothing is released yet"
        await cluster.until(lambda: len(staying.shards) == 8, within=5)
        history = [(at, row) for at, row in cluster.table.history if row.shard_id in held]
        released = {row.shard_id: at for at, row in history if not row.owner}
        taken = {row.shard_id: at for at, row in history if row.owner == staying.name}
        assert max(taken[shard_id] - released[shard_id] for shard_id in held) < 0.25
        assert sorted(cluster.data()) == sorted(held), "what was being committed was finished"


@in_virtual_time
async def test_an_old_worker_is_followed_once_it_has_released(
    monkeypatch: pytest.MonkeyPatch,
):
    beat = FakeLeases.beat

    async def silent(self: FakeLeases, worker: str, wall_ms: int, *, leaving: bool = False) -> object:
        del leaving
        return await beat(self, worker, wall_ms)

    monkeypatch.setattr(FakeLeases, "beat", silent)

    async with Cluster(FakeStream(8)) as cluster:
        await two(cluster)
        leaving, staying = cluster.workers[1], cluster.workers[0]
        leaving.coordinator.stop()
        assert await cluster.until(lambda: len(staying.shards) == 8, within=5) < 2


@in_virtual_time
async def test_nobody_is_given_what_a_leaving_worker_could_not_take_any_more():
    async with Cluster(FakeStream(8)) as cluster:
        await two(cluster)
        leaving = cluster.workers[1]
        give_work(cluster, leaving, 20.0)
        await asyncio.sleep(2)
        leaving.coordinator.stop()
        await asyncio.sleep(1)
        left, right = cluster.stream.split(cluster.workers[0].shards[0])
        await cluster.until(lambda: {left, right} <= set(cluster.workers[0].shards), within=5)
        assert not {left, right} & assigned(cluster, leaving)


@in_virtual_time
async def test_a_plan_is_heard_of_within_half_a_beat():
    async with Cluster(FakeStream(2)) as cluster:
        await two(cluster)
        for _ in range(5):
            await asyncio.sleep(3.3)
            before = assigned(cluster, cluster.workers[1])
            cluster.stream.split(cluster.workers[1].shards[0])
            await cluster.until(lambda before=before: assigned(cluster, cluster.workers[1]) != before, within=25)
            beats = cluster.table.members["b"].beats
            heard = await cluster.until(lambda beats=beats: cluster.table.members["b"].beats > beats, within=2)
            assert heard < 0.6


@in_virtual_time
async def test_a_stream_whose_list_fails_holds_up_no_take_over():
    def down() -> Sequence[Shard]:
        raise TransientError("the list is not to be had")

    async with Cluster(FakeStream(4)) as cluster:
        await two(cluster)
        cluster.stream.list_shards = down  # a fault
        cluster.workers[0].kill()
        await cluster.until(lambda: len(cluster.workers[1].shards) == 4, within=cluster.settings.lease_duration + 2)


@pytest.mark.parametrize(("victim", "paused"), [(0, False), (0, True), (1, False), (1, True)])
@in_virtual_time
async def test_silence_is_found_out_soon_after_the_lease_duration(victim: int, paused: bool):  # noqa: FBT001 - a parameter
    for wait in (5.0, 5.15, 5.3, 5.45, 5.6, 5.75, 5.9):
        async with Cluster(FakeStream(8)) as cluster:
            await two(cluster)
            await asyncio.sleep(wait)
            silent, survivor = cluster.workers[victim], cluster.workers[1 - victim]
            silent.gate.pause() if paused else silent.kill()
            took = await cluster.until(lambda worker=survivor: len(worker.shards) == 8, within=30)
            assert took <= cluster.settings.lease_duration + 1.2
