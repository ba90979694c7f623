"""Reading one shard: pace, batches, back-pressure, and the ways a position goes bad."""

from __future__ import annotations

import asyncio
from itertools import pairwise

import msgspec
import pytest
import structlog

from service.runtime.errors import TransientError
from service.stream.leases.lease import Lease, Member
from service.stream.position import SHARD_END
from service.stream.settings import MIB, ShardSettings
from service.stream.tail import reader
from service.stream.tail.budget import ByteBudget
from tests.fakes.aio import in_virtual_time
from tests.fakes.source import FakeStream
from tests.fakes.workers import World

FIRST = "shardId-000000000000"


@in_virtual_time
async def test_a_batch_closes_by_count_and_by_size():
    settings = ShardSettings(batch_max_records=100, batch_max_bytes=50_000)
    async with World(FakeStream(1), settings=settings) as world:
        world.start("a")
        world.stream.put_many(FIRST, range(5))
        await world.until(lambda: len(world.data()) == 5)
        world.stream.put_many(FIRST, range(250))
        world.stream.put_many(FIRST, range(20), size=20_000)
        await world.until(lambda: len(world.data()) == 275)
        sizes = [sum(record.size for record in done.batch.records) for done in world.committed]
        assert max(len(done.batch.records) for done in world.committed) == 100
        assert max(sizes) <= 50_000


@in_virtual_time
async def test_a_batch_at_the_tip_closes_by_the_age_of_its_first_record():
    async with World(FakeStream(1), settings=ShardSettings(batch_max_age=0.6)) as world:
        world.start("a")
        await put_and_wait(world, 0)  # the first batch is due at once
        for number in range(1, 30):
            await asyncio.sleep(0.77)
            waited = await put_and_wait(world, number)
            assert waited < 0.7


@in_virtual_time
async def test_a_busy_shard_at_its_tip_waits_for_no_more_than_enough():
    async with World(FakeStream(1), settings=ShardSettings(batch_max_age=5, poll_max=5)) as world:
        world.start("a")
        await put_and_wait(world, -1)
        for number in range(10_000):
            world.stream.put(FIRST, number)
            await asyncio.sleep(0.001)
        last = [done.at for done in world.committed if done.at > asyncio.get_running_loop().time() - 4]
        assert 6 <= len(last) <= 12


async def put_and_wait(world: World, number: int) -> float:
    """Put a record; return how many seconds it took until it was committed."""
    put_at = asyncio.get_running_loop().time()
    world.stream.put(FIRST, number)
    await world.until(lambda: number in world.data())
    return asyncio.get_running_loop().time() - put_at


@in_virtual_time
async def test_checkpoints_are_rare_and_never_ahead_of_commits():
    settings = ShardSettings(batch_max_age=0.05, checkpoint_interval=1)
    async with World(FakeStream(1), settings=settings) as world:
        world.start("a")
        for number in range(100):
            world.stream.put(FIRST, number)
            await asyncio.sleep(0.1)
        await asyncio.sleep(3)
        moved = [(at, row.checkpoint) for at, row in world.table.history if row.checkpoint.isdecimal()]
        assert 8 <= len(moved) <= 14
        committed = [(done.at, done.batch.records[-1].sequence) for done in world.committed]
        for at, checkpoint in moved:
            assert any(sequence == checkpoint and done_at <= at for done_at, sequence in committed)
        assert moved[-1][1] == committed[-1][1]


@in_virtual_time
async def test_a_checkpoint_waits_for_more_also_after_a_long_silence():
    async with World(FakeStream(1), settings=ShardSettings(checkpoint_interval=5)) as world:
        world.start("a")
        await asyncio.sleep(60)
        put_at = asyncio.get_running_loop().time()
        for number in range(4):
            world.stream.put(FIRST, number)
            await asyncio.sleep(1)
        await asyncio.sleep(60)
        moved = [(at, row.checkpoint) for at, row in world.table.history if row.checkpoint.isdecimal()]
        assert [checkpoint for _, checkpoint in moved] == [world.stream.shards[FIRST].records[-1].sequence]
        assert 5 <= moved[0][0] - put_at < 6.5


@in_virtual_time
async def test_an_expired_iterator_goes_on_after_what_was_read():
    stream = FakeStream(1, iterator_life=3)
    settings = ShardSettings(poll_max=5)
    async with World(stream, settings=settings) as world:
        worker = world.start("a")
        for number in range(6):
            stream.put(FIRST, number)
            await asyncio.sleep(1)
            worker.gate.pause()
            await asyncio.sleep(4)
            worker.gate.resume()
        await world.until(lambda: len(world.data()) == 6)
        assert world.data() == list(range(6))


@in_virtual_time
async def test_trimmed_records_are_told_counted_and_passed_over():
    stream = FakeStream(1, dynamodb=True)
    stream.put_many(FIRST, range(100))
    async with World(stream) as world:
        position = stream.shards[FIRST].records[9].sequence
        world.table.leases[FIRST] = Lease(shard_id=FIRST, checkpoint=position)
        stream.trim(FIRST, 50)
        worker = world.start("a")
        await world.until(lambda: len(world.data()) == 50)
        assert world.data() == list(range(50, 100))
        assert worker.trimmed == [FIRST]
        assert worker.value("scoring_records_trimmed_total", pipeline="ingest") == 1


@in_virtual_time
async def test_trimmed_records_are_reported_also_after_failed_calls():
    """The simulation's seed 45718080: a partition, then the loss; nobody reported it, and nothing was reconciled."""

    stream = FakeStream(1, dynamodb=True)
    stream.put_many(FIRST, range(100))
    async with World(stream) as world:
        position = stream.shards[FIRST].records[9].sequence
        world.table.leases[FIRST] = Lease(shard_id=FIRST, checkpoint=position)
        stream.trim(FIRST, 50)
        stream.failing = 3
        worker = world.start("a")
        await world.until(lambda: len(world.data()) == 50)
        assert stream.failing == 0
        assert worker.trimmed == [FIRST]
        assert worker.value("scoring_records_trimmed_total", pipeline="ingest") == 1


@in_virtual_time
async def test_a_trimmed_answer_at_the_trim_horizon_is_not_a_loss():
    """DynamoDB Local gives it for an iterator taken while the stream was empty, once the first record comes."""

    stream = FakeStream(1, dynamodb=True)
    good = stream.iterator
    stream.iterator = lambda shard_id, position: (  # type: ignore[method-assign] # the first answer only
        good(shard_id, position) if stream.fetches else f"{shard_id}|-1|0.0|0"
    )
    async with World(stream) as world:
        worker = world.start("a")
        stream.put_many(FIRST, range(3))
        await world.until(lambda: world.data() == [0, 1, 2])
        assert worker.trimmed == []


@pytest.mark.parametrize("per_second", [50, 300, 1500])
@in_virtual_time
async def test_a_busy_tables_stream_is_read_below_five_times_a_second(per_second: int):
    """Its records' times are whole seconds, so it never seemed to be at the tip, and was read back to back."""

    settings = ShardSettings(fetch_limit=1000, batch_max_age=0.1, poll_min=0.5, read_gap=0.21)
    async with World(FakeStream(1, dynamodb=True), settings=settings) as world:
        world.start("a")
        await world.until(lambda: len(world.workers[0].shards) == 1)
        for number in range(20 * per_second):
            world.stream.put(FIRST, number)
            await asyncio.sleep(1 / per_second)
        await world.until(lambda: world.data() == [*range(20 * per_second)], within=2)
        at = world.stream.fetches[FIRST]
        assert min(later - earlier for earlier, later in pairwise(at)) > 0.2
        assert len(at) < 3 * 22


@in_virtual_time
async def test_a_log_line_tells_which_lease_it_is_about(monkeypatch: pytest.MonkeyPatch):
    # A logger keeps what it was bound to when first used, in whichever test that was.
    monkeypatch.setattr(reader, "log", structlog.get_logger())

    async with World(FakeStream(1)) as world:
        worker = world.start("a")
        await world.until(lambda: len(worker.shards) == 1)
        taken = next(row for _, row in world.table.history if row.owner == "a")
        with structlog.testing.capture_logs([structlog.contextvars.merge_contextvars]) as lines:
            worker.gate.fail = 1.0
            await asyncio.sleep(1)
        line = next(line for line in lines if line["event"] == "tail.fetch_failed")
        assert line["lease"] == f"a#{taken.counter}"
        assert (line["shard"], line["stream"], line["pipeline"]) == (FIRST, "events", "ingest")
        assert line["worker"] == "a"


@in_virtual_time
async def test_a_forgotten_shard_ends_loudly_and_its_children_start():
    async with World(FakeStream(1)) as world:
        worker = world.start("a")
        await world.until(lambda: len(worker.shards) == 1)
        child = world.stream.roll_over(FIRST)
        world.stream.put(child, "child")
        world.stream.forget(FIRST)
        await world.until(lambda: "child" in world.data(), within=30)
        assert world.checkpoint(FIRST) == SHARD_END
        assert worker.trimmed == [FIRST]


@in_virtual_time
async def test_a_slow_consumer_slows_the_reader_and_bounds_what_is_in_hand():
    stream = FakeStream(8)
    for shard_id in stream.shards:
        stream.put_many(shard_id, range(2000), size=20_000)
    budget = ByteBudget(8 * MIB, page=1 * MIB)
    settings = ShardSettings(batch_max_bytes=1 * MIB, page_bytes=1 * MIB)
    async with World(stream, settings=settings) as world:
        worker = world.start("a", budget=budget)
        worker.consumer.seconds = 0.5
        await world.until(lambda: len(world.data()) == 16_000, within=600)
        assert budget.peak <= (8 + 1) * MIB + 1 * MIB, "the limit, the spare page, and what pages are too large"
        assert all(world.data(shard_id) == list(range(2000)) for shard_id in stream.shards)
        await world.until(lambda: budget.used == 0, within=2)


@in_virtual_time
async def test_one_page_larger_than_the_whole_budget_still_passes():
    stream = FakeStream(3)
    for shard_id in stream.shards:
        stream.put_many(shard_id, range(10), size=1 * MIB)
    async with World(stream) as world:
        world.start("a", budget=ByteBudget(64 * 1024))
        await world.until(lambda: len(world.data()) == 30, within=60)


@in_virtual_time
async def test_a_commit_that_fails_for_now_is_tried_again():
    async with World(FakeStream(1)) as world:
        worker = world.start("a")
        worker.consumer.error = TransientError("down")
        world.stream.put(FIRST, 1)
        await asyncio.sleep(40)
        assert world.data() == []
        assert worker.shards == (FIRST,)
        worker.consumer.error = None
        await world.until(lambda: world.data() == [1], within=10)


@in_virtual_time
async def test_a_lease_written_by_another_is_lost_without_a_checkpoint():
    async with World(FakeStream(1)) as world:
        worker = world.start("a")
        await world.until(lambda: worker.shards == (FIRST,))
        world.table.members["b"] = Member(worker="b")
        row = world.table.leases[FIRST]
        world.table.put(msgspec.structs.replace(row, owner="b", counter=row.counter + 1))
        world.stream.put(FIRST, 1)
        await world.until(lambda: worker.shards == (), within=7)
        assert world.table.leases[FIRST].owner == "b"
        assert not world.checkpoint(FIRST).isdecimal()
        assert worker.value("scoring_lease_events_total", pipeline="ingest", event="lost") == 1


@in_virtual_time
async def test_a_seized_shards_batches_say_until_when_late_calls_may_land():
    async with World(FakeStream(1)) as world:
        dead = world.start("a")
        await world.until(lambda: dead.shards == (FIRST,))
        world.start("b")
        await asyncio.sleep(2)
        dead.kill()
        await world.until(lambda: world.workers[1].shards == (FIRST,), within=20)
        seized_at = asyncio.get_running_loop().time()
        for number in range(20):
            world.stream.put(FIRST, number)
            await asyncio.sleep(1)
        (until,) = {done.batch.unsettled_until for done in world.committed}
        assert until == pytest.approx(seized_at + ShardSettings().call_timeout, abs=0.5)


@pytest.mark.parametrize("later", [1.0, ShardSettings().call_timeout])
@in_virtual_time
async def test_who_takes_over_a_shard_seized_a_moment_before_is_told_so(later: float):
    async with World(FakeStream(1)) as world:
        dead = world.start("a")
        await world.until(lambda: dead.shards == (FIRST,))
        seizer = world.start("b")
        await asyncio.sleep(2)
        dead.kill()
        await world.until(lambda: seizer.shards == (FIRST,), within=20)
        successor = world.start("c")
        await asyncio.sleep(later)
        seizer.coordinator.stop()
        await world.until(lambda: successor.shards == (FIRST,), within=5)
        taken_at = asyncio.get_running_loop().time()
        world.stream.put(FIRST, "x")
        await world.until(lambda: world.data() == ["x"], within=5)
        until = world.committed[-1].batch.unsettled_until
        known = taken_at + ShardSettings().call_timeout if later == 1.0 else float("-inf")
        assert until == pytest.approx(known, abs=0.5)
        assert not world.table.leases[FIRST].unsettled


@pytest.mark.parametrize("in_flight", [1, 2, 5])
@in_virtual_time
async def test_batches_of_a_shard_commit_one_after_another(in_flight: int):
    settings = ShardSettings(in_flight=in_flight, batch_max_records=10)
    async with World(FakeStream(1), settings=settings) as world:
        world.stream.put_many(FIRST, range(200))
        worker = world.start("a")
        worker.consumer.seconds = 0.1
        await asyncio.sleep(1.0)
        ahead = worker.consumer.prepared - len(world.committed)
        assert ahead <= in_flight
        await world.until(lambda: len(world.data()) == 200)
        assert world.data() == list(range(200))


@in_virtual_time
async def test_lag_is_the_age_of_what_is_not_durable():
    async with World(FakeStream(1)) as world:
        worker = world.start("a")
        await asyncio.sleep(5)
        assert worker.value("scoring_lag_seconds", pipeline="ingest", shard=FIRST) == 0
        worker.consumer.error = TransientError("down")
        world.stream.put(FIRST, 1)
        await asyncio.sleep(10)
        assert worker.value("scoring_lag_seconds", pipeline="ingest", shard=FIRST) == pytest.approx(10, abs=1.5)


@in_virtual_time
async def test_batches_may_be_replays_up_to_the_first_tip_whatever_the_clock():
    async with World(FakeStream(1)) as world:
        world.stream.put_many(FIRST, ["old", "old"])
        worker = world.start("a", skew_ms=-3_600_000)
        await world.until(lambda: len(world.data()) == 2)
        await asyncio.sleep(3)
        world.stream.put(FIRST, "young")
        await world.until(lambda: len(world.data()) == 3)
        await worker.stop()
        world.stream.put(FIRST, "old for b")
        world.start("b", skew_ms=3_600_000)
        await world.until(lambda: len(world.data()) == 4)
        batches = [done.batch for done in world.committed]
    replayed = [(record.data, batch.replayed) for batch in batches for record in batch.records]
    assert replayed == [("old", True), ("old", True), ("young", False), ("old for b", True)]
