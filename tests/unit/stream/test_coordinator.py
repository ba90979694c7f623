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
from service.stream.leases.lease import Lease
from service.stream.position import LATEST, SHARD_END, timestamp_of
from service.stream.settings import ShardSettings
from tests.fakes.aio import EPOCH_MS, run
from tests.fakes.source import FakeStream
from tests.fakes.workers import World

FIRST = "shardId-000000000000"
SECOND = "shardId-000000000001"
LEASE = ShardSettings().lease_duration


def settled(world: World) -> bool:
    """Whether every worker reads its share, and the table says so too."""
    loads = [len(worker.shards) for worker in world.workers if not worker.task.done()]
    unfinished = [lease for lease in world.table.leases.values() if not lease.finished]
    return sum(loads) == len(unfinished) == len([1 for lease in unfinished if lease.owner]) > 0 and (
        max(loads) - min(loads) <= 1
    )


def test_one_worker_reads_all_and_checkpoints():
    async def story() -> None:
        async with World(FakeStream(2)) as world:
            world.stream.put_many(FIRST, range(1000))
            last = world.stream.put(SECOND, "x")
            worker = world.start("a")
            await world.until(lambda: len(world.data()) == 1001, within=4)
            await world.until(lambda: world.checkpoint(SECOND) == last, within=7)
            assert world.data(FIRST) == list(range(1000))
            assert worker.coordinator.first_sync_done
            assert worker.coordinator.leading
            assert worker.coordinator.holds(FIRST)
            assert worker.value("scoring_leases_owned", pipeline="ingest") == 2

    run(story())


def test_fifty_shards_of_one_process_are_read_within_a_second():
    async def story() -> None:
        async with World(FakeStream(50)) as world:
            worker = world.start("a")
            assert await world.until(lambda: len(world.stream.fetches) == 50, within=5) <= 1.0
            assert len(worker.shards) == 50

    run(story())


def test_at_the_tip_a_shard_is_read_at_most_five_times_a_second():
    async def story() -> None:
        async with World(FakeStream(1)) as world:
            world.start("a")
            for number in range(200):
                await asyncio.sleep(0.05)
                world.stream.put(FIRST, number)
            gaps = [late - early for early, late in itertools.pairwise(world.stream.fetches[FIRST])]
            assert min(gaps) > 0.19
            await asyncio.sleep(20)
            quiet = world.stream.fetches[FIRST][-5:]
            assert min(late - early for early, late in itertools.pairwise(quiet)) > 0.7

    run(story())


def test_two_workers_share():
    async def story() -> None:
        async with World(FakeStream(10)) as world:
            world.start("a")
            await world.until(lambda: len(world.workers[0].shards) == 10, within=3)
            world.start("b")
            await world.until(lambda: settled(world), within=10)
            assert [len(worker.shards) for worker in world.workers] == [5, 5]
            taken = sum(bool(lease.owner) for _, lease in world.table.history if lease.owner_switches)
            await asyncio.sleep(120)
            assert settled(world)
            assert sum(bool(lease.owner) for _, lease in world.table.history if lease.owner_switches) == taken

    run(story())


@pytest.mark.parametrize("leaver", [0, 1])
def test_a_stopped_worker_hands_over_within_two_seconds(leaver: int):
    async def story() -> None:
        async with World(FakeStream(8)) as world:
            world.start("a")
            await asyncio.sleep(0.5)
            world.start("b")
            await world.until(lambda: settled(world), within=20)
            leaving, staying = world.workers[leaver], world.workers[1 - leaver]
            started = asyncio.get_running_loop().time()
            took = await leaving.stop()
            await world.until(lambda: len(staying.shards) == 8, within=5)
            assert took < 2
            assert asyncio.get_running_loop().time() - started < 2
            assert set(world.table.members) == {staying.name}
            await world.until(lambda: staying.coordinator.leading, within=2)

    run(story())


def test_a_stopped_worker_finishes_what_is_in_hand():
    async def story() -> None:
        async with World(FakeStream(1)) as world:
            worker = world.start("a")
            await world.until(lambda: len(worker.shards) == 1)
            worker.consumer.seconds = 0.5
            world.stream.put_many(FIRST, range(100))
            tail = worker.coordinator._session.tails[FIRST]
            await world.until(lambda: tail.in_hand == 10_000)
            assert await worker.stop() < 2
            assert world.data() == list(range(100))
            row = world.table.leases[FIRST]
            assert row.owner == ""
            assert row.checkpoint == world.stream.shards[FIRST].records[-1].sequence
            assert world.table.members == {}
            assert world.table.leader is not None
            assert world.table.leader.leader == ""
            assert worker.budget.used == 0

    run(story())


def test_a_leader_that_leaves_lets_another_lead_at_once_whatever_its_last_renewal_came_to():
    async def story() -> None:
        async with World(FakeStream(1)) as world:
            worker = world.start("a")
            await world.until(lambda: worker.coordinator.leading)
            row = world.table.leader
            assert row is not None
            world.table.leader = msgspec.structs.replace(row, counter=row.counter + 1)
            election = worker.coordinator._session.election
            worker.gate.fail = 1.0
            with pytest.raises(TransientError):
                await election.step_down()
            worker.gate.fail = 0.0
            await election.step_down()
            assert world.table.leader.leader == ""
            assert not worker.coordinator.leading

    run(story())


@pytest.mark.parametrize("closed", [False, True])
def test_a_stopped_worker_that_is_behind_leaves_what_it_has_not_begun(closed: bool):  # noqa: FBT001 - a parameter
    async def story() -> None:
        settings = ShardSettings(batch_max_records=100, fetch_limit=150)
        async with World(FakeStream(1), settings=settings) as world:
            world.stream.put_many(FIRST, range(350))
            if closed:
                world.stream.split(FIRST)
            worker = world.start("a")
            worker.consumer.seconds = 0.8
            await world.until(lambda: len(world.data()) == 100)
            await asyncio.sleep(0.2)
            assert await worker.stop() < 1
            assert len(world.data()) == 200, "the second batch was being committed, the third only prepared"
            row = world.table.leases[FIRST]
            assert row.owner == ""
            assert row.checkpoint == world.stream.shards[FIRST].records[199].sequence
            assert worker.consumer.let_gone == [FIRST]
            assert worker.budget.used == 0
            world.start("b")
            await world.until(lambda: len(world.data()) == 350)
            assert world.data(FIRST) == list(range(350))

    run(story())


@pytest.mark.parametrize("victim", [0, 1])
def test_a_killed_workers_shards_are_taken_over_within_the_lease_and_two_seconds(victim: int):
    async def story() -> None:
        async with World(FakeStream(8)) as world:
            world.start("a")
            await asyncio.sleep(0.5)
            world.start("b")
            await world.until(lambda: settled(world), within=20)
            await asyncio.sleep(7.3)
            assert world.workers[0].coordinator.leading
            world.workers[victim].kill()
            survivor = world.workers[1 - victim]
            assert await world.until(lambda: len(survivor.shards) == 8, within=30) <= LEASE + 2
            assert set(world.table.members) == {survivor.name}
            assert survivor.value("scoring_lease_events_total", pipeline="ingest", event="seized") == 4

    run(story())


@pytest.mark.parametrize("victim", [0, 1])
def test_a_worker_paused_beyond_its_lease_writes_nothing_after_and_comes_back(victim: int):
    async def story() -> None:
        async with World(FakeStream(4)) as world:
            world.start("a")
            await asyncio.sleep(0.5)
            world.start("b")
            await world.until(lambda: settled(world), within=20)
            zombie, other = world.workers[victim], world.workers[1 - victim]
            number = 0

            async def feed(seconds: float) -> None:
                nonlocal number
                for _ in range(round(seconds / 0.1)):
                    for shard_id in world.stream.shards:
                        world.stream.put(shard_id, number)
                        number += 1
                    await asyncio.sleep(0.1)

            await feed(5)
            zombie.gate.pause()
            await feed(LEASE + 5)
            assert len(other.shards) == 4
            woken = asyncio.get_running_loop().time()
            writes = len(world.table.history)
            zombie.gate.resume()
            await feed(3)
            owned_by_zombie = [row for _, row in world.table.history[writes:] if row.owner == zombie.name]
            assert owned_by_zombie == []
            late = [done for done in world.committed if done.worker == zombie.name and done.at > woken]
            # What was on its way when the pause began may land late; nothing new is begun under the old leases.
            assert all(done.batch.deadline < woken or done.batch.deadline > woken + LEASE - 1 for done in late)
            await world.until(lambda: settled(world), within=20)
            assert zombie.coordinator.worker != zombie.name
            # What only a leader knows is shown by the leader alone.
            members = zombie.metrics.registry.get_sample_value("scoring_members", {"pipeline": "ingest"})
            assert zombie.value("scoring_leading", pipeline="ingest") == zombie.coordinator.leading
            assert (members is not None) == zombie.coordinator.leading
            await world.until(lambda: len(set(world.data())) == number, within=10)

    run(story())


def test_children_are_read_only_after_all_of_their_parents():
    async def story() -> None:
        async with World(FakeStream(2)) as world:
            world.start("a")
            world.start("b")
            world.stream.put_many(FIRST, ["first"] * 50)
            world.stream.put_many(SECOND, ["second"] * 50)
            await world.until(lambda: settled(world), within=20)
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

    run(story())


def test_a_rolling_stream_that_names_no_children_and_lists_late_is_followed():
    async def story() -> None:
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

    run(story())


def test_a_stream_without_an_open_shard_has_ended_once_it_is_read_and_several_lists_agree():
    async def story() -> None:
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

    run(story())


def test_latest_loses_nothing_that_arrives_before_the_first_read_nor_in_children():
    async def story() -> None:
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

    run(story())


def test_throttles_errors_and_lost_answers_only_delay():
    async def story() -> None:
        async with World(FakeStream(6), seed=3) as world:
            for name in "ab":
                world.start(name)
            for worker in world.workers:
                worker.gate.fail = worker.gate.lose = 0.1
            expected = set()
            for number in range(300):
                for shard_id in list(world.stream.shards):
                    if not world.stream.shards[shard_id].closed:
                        world.stream.put(shard_id, (shard_id, number))
                        expected.add((shard_id, number))
                if number == 150:
                    world.stream.split(FIRST)
                await asyncio.sleep(0.1)
            await world.until(lambda: set(world.data()) == expected, within=60)
            assert all(worker.gate.faults > 20 for worker in world.workers)
            assert not any(worker.task.done() for worker in world.workers)

    run(story())


def test_a_worker_that_begins_again_under_another_id_was_not_silent_before():
    """Its liveness, which `/healthz` shows, does not begin again with it."""

    async def story() -> None:
        async with World(FakeStream(1)) as world:
            worker = world.start("a")
            await world.until(lambda: len(worker.shards) == 1)
            beaten = worker.coordinator.last_beat
            world.table.members.clear()
            await world.until(lambda: worker.coordinator.worker == "a.2")
            worker.gate.fail = 1.0
            await asyncio.sleep(1)
            assert worker.coordinator.last_beat >= beaten > float("-inf")

    run(story())


def test_a_skewed_wall_clock_kills_nobody():
    async def story() -> None:
        async with World(FakeStream(6)) as world:
            world.start("a")
            await asyncio.sleep(0.3)
            world.start("b", skew_ms=-3_600_000)
            world.start("c", skew_ms=3_600_000)
            await world.until(lambda: settled(world), within=20)
            world.workers[0].kill()
            await world.until(lambda: settled(world), within=30)
            assert {worker.coordinator.worker for worker in world.workers[1:]} == {"b", "c"}

    run(story())


def test_a_tail_cancelled_before_its_first_step_is_read_again():
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

    async def story() -> None:
        async with World(FakeStream(1)) as world:
            world.stream.put(FIRST, "x")
            worker = world.start("a")
            session = worker.coordinator._session
            while session._group is None:  # noqa: ASYNC110 - there is no event for it
                await asyncio.sleep(0.0001)
            session._group = hasty = Hasty(session._group)  # type: ignore[assignment]
            await world.until(lambda: world.data() == ["x"], within=5)
            assert hasty.cancelled == 1

    run(story())


def test_the_lease_table_is_out_of_reach_for_a_while():
    async def story() -> None:
        async with World(FakeStream(3)) as world:
            worker = world.start("a")
            await world.until(lambda: len(worker.shards) == 3)
            worker.gate.fail = 1.0
            await asyncio.sleep(LEASE + 1)
            assert worker.shards == ()
            assert not worker.coordinator.holds(FIRST)
            worker.gate.fail = 0.0
            await world.until(lambda: len(worker.shards) == 3, within=LEASE + 8)

    run(story())


def test_a_bug_in_the_consumer_ends_the_process_with_its_traceback():
    async def story() -> None:
        world = World(FakeStream(1))
        with pytest.raises(ExceptionGroup) as raised:  # noqa: PT012 - the world's end is what raises
            async with world:
                worker = world.start("a")
                worker.consumer.error = ZeroDivisionError("bug")
                world.stream.put(FIRST, 1)
                await asyncio.sleep(30)
        assert raised.value.subgroup(ZeroDivisionError) is not None
        assert world.table.leases[FIRST].checkpoint != world.stream.shards[FIRST].records[0].sequence

    run(story())


def test_finished_rows_stay_until_the_stream_forgets_the_shard():
    async def story() -> None:
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

    run(story())


def test_the_same_seed_gives_the_same_run():
    async def story() -> list[tuple[float, Lease]]:
        async with World(FakeStream(5), seed=7) as world:
            for name in "abc":
                world.start(name)
            for worker in world.workers:
                worker.gate.fail = 0.05
            await asyncio.sleep(20)
            world.workers[1].kill()
            await asyncio.sleep(20)
            return list(world.table.history)

    assert run(story()) == run(story())


def test_every_line_of_a_pipeline_names_it():
    """A worker reads two streams: `worker.joined`, `leader.elected` and the like came twice and said the same."""

    async def story() -> None:
        async with World(FakeStream(1)) as world:
            world.start("a")
            await world.until(lambda: settled(world), within=5)
            await world.workers[0].stop()

    with structlog.testing.capture_logs(processors=[structlog.contextvars.merge_contextvars]) as lines:
        run(story())
    events = {line["event"] for line in lines}
    assert {"worker.joined", "leader.elected", "leader.shards_discovered", "lease.taken", "worker.left"} <= events
    assert [line for line in lines if line.get("pipeline") != "ingest"] == []
