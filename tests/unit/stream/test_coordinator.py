"""Workers, leases and shards in virtual time: what starts, stops, hangs, dies or moves loses nothing."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Coroutine
from typing import Any

import msgspec
import pytest
import structlog

from service.runtime.errors import TransientError
from service.stream.leases.lease import Lease, Member
from service.stream.settings import ShardSettings
from tests.fakes.aio import in_virtual_time, run
from tests.fakes.source import FakeStream
from tests.fakes.workers import Cluster

FIRST = "shardId-000000000000"
SECOND = "shardId-000000000001"
LEASE = ShardSettings().lease_duration


@in_virtual_time
async def test_one_worker_reads_all_and_checkpoints():
    async with Cluster(FakeStream(2)) as cluster:
        cluster.stream.put_many(FIRST, range(1000))
        last = cluster.stream.put(SECOND, "x")
        worker = cluster.start("a")
        await cluster.until(lambda: len(cluster.data()) == 1001, within=4)
        await cluster.until(lambda: cluster.checkpoint(SECOND) == last, within=7)
        assert cluster.data(FIRST) == list(range(1000))
        assert worker.coordinator.first_sync_done
        assert worker.coordinator.leading
        assert worker.coordinator.holds(FIRST)
        assert worker.value("scoring_leases_owned", pipeline="ingest") == 2


@in_virtual_time
async def test_fifty_shards_of_one_process_are_read_within_a_second():
    async with Cluster(FakeStream(50)) as cluster:
        worker = cluster.start("a")
        assert await cluster.until(lambda: len(cluster.stream.fetches) == 50, within=5) <= 1.0
        assert len(worker.shards) == 50


@in_virtual_time
async def test_at_the_tip_a_shard_is_read_at_most_five_times_a_second():
    async with Cluster(FakeStream(1)) as cluster:
        cluster.start("a")
        for number in range(200):
            await asyncio.sleep(0.05)
            cluster.stream.put(FIRST, number)
        gaps = [late - early for early, late in itertools.pairwise(cluster.stream.fetches[FIRST])]
        assert min(gaps) > 0.19
        await asyncio.sleep(20)
        quiet = cluster.stream.fetches[FIRST][-5:]
        assert min(late - early for early, late in itertools.pairwise(quiet)) > 0.7


@in_virtual_time
async def test_two_workers_share():
    async with Cluster(FakeStream(10)) as cluster:
        cluster.start("a")
        await cluster.until(lambda: len(cluster.workers[0].shards) == 10, within=3)
        cluster.start("b")
        await cluster.until(cluster.settled, within=10)
        assert [len(worker.shards) for worker in cluster.workers] == [5, 5]
        taken = sum(bool(lease.owner) for _, lease in cluster.table.history if lease.owner_switches)
        await asyncio.sleep(120)
        assert cluster.settled()
        assert sum(bool(lease.owner) for _, lease in cluster.table.history if lease.owner_switches) == taken


@pytest.mark.parametrize("leaver", [0, 1])
@in_virtual_time
async def test_a_stopped_worker_hands_over_within_two_seconds(leaver: int):
    async with Cluster(FakeStream(8)) as cluster:
        cluster.start("a")
        await asyncio.sleep(0.5)
        cluster.start("b")
        await cluster.until(cluster.settled, within=20)
        leaving, staying = cluster.workers[leaver], cluster.workers[1 - leaver]
        started = asyncio.get_running_loop().time()
        took = await leaving.stop()
        await cluster.until(lambda: len(staying.shards) == 8, within=5)
        assert took < 2
        assert asyncio.get_running_loop().time() - started < 2
        assert set(cluster.table.members) == {staying.name}
        await cluster.until(lambda: staying.coordinator.leading, within=2)


@in_virtual_time
async def test_a_stopped_worker_finishes_what_is_in_hand():
    async with Cluster(FakeStream(1)) as cluster:
        worker = cluster.start("a")
        await cluster.until(lambda: len(worker.shards) == 1)
        worker.consumer.seconds = 0.5
        cluster.stream.put_many(FIRST, range(100))
        tail = worker.coordinator._session.tails[FIRST]
        await cluster.until(lambda: tail.in_hand == 10_000)
        assert await worker.stop() < 2
        assert cluster.data() == list(range(100))
        row = cluster.table.leases[FIRST]
        assert row.owner == ""
        assert row.checkpoint == cluster.stream.shards[FIRST].records[-1].sequence
        assert cluster.table.members == {}
        assert cluster.table.leader is not None
        assert cluster.table.leader.leader == ""
        assert worker.budget.used == 0


@in_virtual_time
async def test_a_leader_steps_down_also_after_a_lost_renewal():
    async with Cluster(FakeStream(1)) as cluster:
        worker = cluster.start("a")
        await cluster.until(lambda: worker.coordinator.leading)
        row = cluster.table.leader
        assert row is not None
        cluster.table.leader = msgspec.structs.replace(row, counter=row.counter + 1)
        election = worker.coordinator._session.election
        worker.gate.fail = 1.0
        with pytest.raises(TransientError):
            await election.step_down()
        worker.gate.fail = 0.0
        await election.step_down()
        assert cluster.table.leader.leader == ""
        assert not worker.coordinator.leading


@pytest.mark.parametrize("closed", [False, True])
@in_virtual_time
async def test_a_stopped_worker_that_is_behind_leaves_what_it_has_not_begun(closed: bool):  # noqa: FBT001 - a parameter
    settings = ShardSettings(batch_max_records=100, fetch_limit=150)
    async with Cluster(FakeStream(1), settings=settings) as cluster:
        cluster.stream.put_many(FIRST, range(350))
        if closed:
            cluster.stream.split(FIRST)
        worker = cluster.start("a")
        worker.consumer.seconds = 0.8
        await cluster.until(lambda: len(cluster.data()) == 100)
        await asyncio.sleep(0.2)
        assert await worker.stop() < 1
        assert len(cluster.data()) == 200, "the second batch was being committed, the third only prepared"
        row = cluster.table.leases[FIRST]
        assert row.owner == ""
        assert row.checkpoint == cluster.stream.shards[FIRST].records[199].sequence
        assert worker.consumer.released == [FIRST]
        assert worker.budget.used == 0
        cluster.start("b")
        await cluster.until(lambda: len(cluster.data()) == 350)
        assert cluster.data(FIRST) == list(range(350))


@pytest.mark.parametrize("victim", [0, 1])
@in_virtual_time
async def test_a_killed_workers_shards_are_taken_over_in_time(victim: int):
    async with Cluster(FakeStream(8)) as cluster:
        cluster.start("a")
        await asyncio.sleep(0.5)
        cluster.start("b")
        await cluster.until(cluster.settled, within=20)
        await asyncio.sleep(7.3)
        assert cluster.workers[0].coordinator.leading
        cluster.workers[victim].kill()
        survivor = cluster.workers[1 - victim]
        assert await cluster.until(lambda: len(survivor.shards) == 8, within=30) <= LEASE + 2
        assert set(cluster.table.members) == {survivor.name}
        assert survivor.value("scoring_lease_events_total", pipeline="ingest", event="seized") == 4


@pytest.mark.parametrize("victim", [0, 1])
@in_virtual_time
async def test_a_worker_paused_beyond_its_lease_writes_nothing_more(victim: int):
    async with Cluster(FakeStream(4)) as cluster:
        cluster.start("a")
        await asyncio.sleep(0.5)
        cluster.start("b")
        await cluster.until(cluster.settled, within=20)
        zombie, other = cluster.workers[victim], cluster.workers[1 - victim]
        number = 0

        async def feed(seconds: float) -> None:
            nonlocal number
            for _ in range(round(seconds / 0.1)):
                for shard_id in cluster.stream.shards:
                    cluster.stream.put(shard_id, number)
                    number += 1
                await asyncio.sleep(0.1)

        await feed(5)
        zombie.gate.pause()
        await feed(LEASE + 5)
        assert len(other.shards) == 4
        woken = asyncio.get_running_loop().time()
        writes = len(cluster.table.history)
        zombie.gate.resume()
        await feed(3)
        owned_by_zombie = [row for _, row in cluster.table.history[writes:] if row.owner == zombie.name]
        assert owned_by_zombie == []
        late = [done for done in cluster.committed if done.worker == zombie.name and done.at > woken]
        # What was on its way when the pause began may land late; nothing new is begun under the old leases.
        assert all(done.batch.deadline < woken or done.batch.deadline > woken + LEASE - 1 for done in late)
        await cluster.until(cluster.settled, within=20)
        assert zombie.coordinator.worker != zombie.name
        # What only a leader knows is shown by the leader alone.
        members = zombie.metrics.registry.get_sample_value("scoring_members", {"pipeline": "ingest"})
        assert zombie.value("scoring_leading", pipeline="ingest") == zombie.coordinator.leading
        assert (members is not None) == zombie.coordinator.leading
        await cluster.until(lambda: len(set(cluster.data())) == number, within=10)


@in_virtual_time
async def test_throttles_errors_and_lost_answers_only_delay():
    async with Cluster(FakeStream(6), seed=3) as cluster:
        for name in "ab":
            cluster.start(name)
        for worker in cluster.workers:
            worker.gate.fail = worker.gate.lose = 0.1
        expected = set()
        for number in range(300):
            for shard_id in list(cluster.stream.shards):
                if not cluster.stream.shards[shard_id].closed:
                    cluster.stream.put(shard_id, (shard_id, number))
                    expected.add((shard_id, number))
            if number == 150:
                cluster.stream.split(FIRST)
            await asyncio.sleep(0.1)
        await cluster.until(lambda: set(cluster.data()) == expected, within=60)
        assert all(worker.gate.faults > 20 for worker in cluster.workers)
        assert not any(worker.task.done() for worker in cluster.workers)


@in_virtual_time
async def test_a_worker_under_a_new_id_does_not_count_as_silent():
    """Its liveness, which `/healthz` shows, does not begin again with it."""

    async with Cluster(FakeStream(1)) as cluster:
        worker = cluster.start("a")
        await cluster.until(lambda: len(worker.shards) == 1)
        beaten = worker.coordinator.last_beat
        cluster.table.members.clear()
        await cluster.until(lambda: worker.coordinator.worker == "a.2")
        worker.gate.fail = 1.0
        await asyncio.sleep(1)
        assert worker.coordinator.last_beat >= beaten > float("-inf")


@in_virtual_time
async def test_a_skewed_wall_clock_kills_nobody():
    async with Cluster(FakeStream(6)) as cluster:
        cluster.start("a")
        await asyncio.sleep(0.3)
        cluster.start("b", skew_ms=-3_600_000)
        cluster.start("c", skew_ms=3_600_000)
        await cluster.until(cluster.settled, within=20)
        cluster.workers[0].kill()
        await cluster.until(cluster.settled, within=30)
        assert {worker.coordinator.worker for worker in cluster.workers[1:]} == {"b", "c"}


@in_virtual_time
async def test_a_tail_cancelled_before_its_first_step_is_read_again():
    class Hasty:
        """Cancels the first tail as it is made, as a deadline that passes in that moment does."""

        def __init__(self, group: asyncio.TaskGroup) -> None:
            self.group = group
            self.cancelled = 0

        def create_task(self, coro: Coroutine[Any, Any, None], *, name: str) -> asyncio.Task[None]:
            task = self.group.create_task(coro, name=name)
            if not self.cancelled:
                self.cancelled += task.cancel()
            return task

    async with Cluster(FakeStream(1)) as cluster:
        cluster.stream.put(FIRST, "x")
        worker = cluster.start("a")
        session = worker.coordinator._session
        while session._group is None:  # noqa: ASYNC110 - there is no event for it
            await asyncio.sleep(0.0001)
        session._group = hasty = Hasty(session._group)
        await cluster.until(lambda: cluster.data() == ["x"], within=5)
        assert hasty.cancelled == 1


@in_virtual_time
async def test_the_lease_table_is_out_of_reach_for_a_while():
    async with Cluster(FakeStream(3)) as cluster:
        worker = cluster.start("a")
        await cluster.until(lambda: len(worker.shards) == 3)
        worker.gate.fail = 1.0
        await asyncio.sleep(LEASE + 1)
        assert worker.shards == ()
        assert not worker.coordinator.holds(FIRST)
        worker.gate.fail = 0.0
        await cluster.until(lambda: len(worker.shards) == 3, within=LEASE + 8)


@in_virtual_time
async def test_a_bug_in_the_consumer_ends_the_process_with_its_traceback():
    cluster = Cluster(FakeStream(1))
    with pytest.raises(ExceptionGroup) as raised:  # noqa: PT012 - the end of the cluster is what raises
        async with cluster:
            worker = cluster.start("a")
            worker.consumer.error = ZeroDivisionError("bug")
            cluster.stream.put(FIRST, 1)
            await asyncio.sleep(30)
    assert raised.value.subgroup(ZeroDivisionError) is not None
    assert cluster.table.leases[FIRST].checkpoint != cluster.stream.shards[FIRST].records[0].sequence


def test_the_same_seed_gives_the_same_run():
    async def story() -> list[tuple[float, Lease]]:
        async with Cluster(FakeStream(5), seed=7) as cluster:
            for name in "abc":
                cluster.start(name)
            for worker in cluster.workers:
                worker.gate.fail = 0.05
            await asyncio.sleep(20)
            cluster.workers[1].kill()
            await asyncio.sleep(20)
            return list(cluster.table.history)

    assert run(story()) == run(story())


@in_virtual_time
async def test_every_line_of_a_pipeline_names_it():
    """A worker reads two streams: `worker.joined`, `leader.elected` and the like came twice and said the same."""
    with structlog.testing.capture_logs(processors=[structlog.contextvars.merge_contextvars]) as lines:
        async with Cluster(FakeStream(1)) as cluster:
            cluster.start("a")
            await cluster.until(cluster.settled, within=5)
            await cluster.workers[0].stop()
    events = {line["event"] for line in lines}
    assert {"worker.joined", "leader.elected", "leader.shards_discovered", "lease.taken", "worker.left"} <= events
    assert [line for line in lines if line.get("pipeline") != "ingest"] == []


@pytest.mark.parametrize("past", ["join", "assign"])
@in_virtual_time
async def test_a_request_of_the_past_that_lands_late_leaves_no_shard_unread(past: str):
    async with Cluster(FakeStream(4)) as cluster:
        for name in ("a", "b"):
            cluster.start(name)
        await cluster.until(lambda: sum(len(worker.shards) for worker in cluster.workers) == 4)
        follower = next(worker for worker in cluster.workers if not worker.coordinator.leading)
        early = cluster.table.members[follower.name]
        for _ in range(3):
            cluster.stream.split(follower.shards[0])
            await asyncio.sleep(10)
        row = cluster.table.members[follower.name]
        assert row.version > early.version + 2
        assigned = early.assigned if past == "assign" else ()
        cluster.table.members[follower.name] = Member(worker=follower.name, beats=row.beats, assigned=assigned)
        await asyncio.sleep(10)
        cluster.stream.split(follower.shards[0])
        await asyncio.sleep(10)
        reading = sorted(shard_id for worker in cluster.workers for shard_id in worker.shards)
        assert reading == sorted(name for name, shard in cluster.stream.shards.items() if not shard.closed)
