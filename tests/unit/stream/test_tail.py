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
from tests.fakes.workers import Cluster

FIRST = "shardId-000000000000"


@in_virtual_time
async def test_a_batch_closes_by_count_and_by_size():
    settings = ShardSettings(batch_max_records=100, batch_max_bytes=50_000)
    async with Cluster(FakeStream(1), settings=settings) as cluster:
        cluster.start("a")
        cluster.stream.put_many(FIRST, range(5))
        await cluster.until(lambda: len(cluster.data()) == 5)
        cluster.stream.put_many(FIRST, range(250))
        cluster.stream.put_many(FIRST, range(20), size=20_000)
        await cluster.until(lambda: len(cluster.data()) == 275)
        sizes = [sum(record.size for record in done.batch.records) for done in cluster.committed]
        assert max(len(done.batch.records) for done in cluster.committed) == 100
        assert max(sizes) <= 50_000


@in_virtual_time
async def test_a_batch_at_the_tip_closes_by_the_age_of_its_first_record():
    async with Cluster(FakeStream(1), settings=ShardSettings(batch_max_age=0.6)) as cluster:
        cluster.start("a")
        await put_and_wait(cluster, 0)  # the first batch is due at once
        for number in range(1, 30):
            await asyncio.sleep(0.77)
            waited = await put_and_wait(cluster, number)
            assert waited < 0.7


@in_virtual_time
async def test_a_busy_shard_at_its_tip_waits_for_no_more_than_enough():
    async with Cluster(FakeStream(1), settings=ShardSettings(batch_max_age=5, poll_max=5)) as cluster:
        cluster.start("a")
        await put_and_wait(cluster, -1)
        for number in range(10_000):
            cluster.stream.put(FIRST, number)
            await asyncio.sleep(0.001)
        last = [done.at for done in cluster.committed if done.at > asyncio.get_running_loop().time() - 4]
        gaps = [after - before for before, after in pairwise(last)]
        assert 0.3 <= min(gaps) <= max(gaps) <= 0.7


async def put_and_wait(cluster: Cluster, number: int) -> float:
    """Put a record; return how many seconds it took until it was committed."""
    put_at = asyncio.get_running_loop().time()
    cluster.stream.put(FIRST, number)
    await cluster.until(lambda: number in cluster.data())
    return asyncio.get_running_loop().time() - put_at


@in_virtual_time
async def test_checkpoints_are_rare_and_never_ahead_of_commits():
    settings = ShardSettings(batch_max_age=0.05, checkpoint_interval=1)
    async with Cluster(FakeStream(1), settings=settings) as cluster:
        cluster.start("a")
        for number in range(100):
            cluster.stream.put(FIRST, number)
            await asyncio.sleep(0.1)
        await asyncio.sleep(3)
        moved = [(at, row.checkpoint) for at, row in cluster.table.history if row.checkpoint.isdecimal()]
        assert 8 <= len(moved) <= 14
        committed = [(done.at, done.batch.records[-1].sequence) for done in cluster.committed]
        for at, checkpoint in moved:
            assert any(sequence == checkpoint and done_at <= at for done_at, sequence in committed)
        assert moved[-1][1] == committed[-1][1]


@in_virtual_time
async def test_a_checkpoint_waits_for_more_also_after_a_long_silence():
    async with Cluster(FakeStream(1), settings=ShardSettings(checkpoint_interval=5)) as cluster:
        cluster.start("a")
        await asyncio.sleep(60)
        put_at = asyncio.get_running_loop().time()
        for number in range(4):
            cluster.stream.put(FIRST, number)
            await asyncio.sleep(1)
        await asyncio.sleep(60)
        moved = [(at, row.checkpoint) for at, row in cluster.table.history if row.checkpoint.isdecimal()]
        assert [checkpoint for _, checkpoint in moved] == [cluster.stream.shards[FIRST].records[-1].sequence]
        assert 5 <= moved[0][0] - put_at < 6.5


@in_virtual_time
async def test_an_expired_iterator_goes_on_after_what_was_read():
    stream = FakeStream(1, iterator_life=3)
    settings = ShardSettings(poll_max=5)
    async with Cluster(stream, settings=settings) as cluster:
        worker = cluster.start("a")
        for number in range(6):
            stream.put(FIRST, number)
            await asyncio.sleep(1)
            worker.gate.pause()
            await asyncio.sleep(4)
            worker.gate.resume()
        await cluster.until(lambda: len(cluster.data()) == 6)
        assert cluster.data() == list(range(6))


@in_virtual_time
async def test_trimmed_records_are_told_counted_and_passed_over():
    stream = FakeStream(1, dynamodb=True)
    stream.put_many(FIRST, range(100))
    async with Cluster(stream) as cluster:
        position = stream.shards[FIRST].records[9].sequence
        cluster.table.leases[FIRST] = Lease(shard_id=FIRST, checkpoint=position)
        stream.trim(FIRST, 50)
        worker = cluster.start("a")
        await cluster.until(lambda: len(cluster.data()) == 50)
        assert cluster.data() == list(range(50, 100))
        assert worker.trimmed == [FIRST]
        assert worker.value("scoring_records_trimmed_total", pipeline="ingest") == 1


@in_virtual_time
async def test_trimmed_records_are_reported_also_after_failed_calls():
    """The simulation's seed 45718080: a partition, then the loss; nobody reported it, and nothing was reconciled."""

    stream = FakeStream(1, dynamodb=True)
    stream.put_many(FIRST, range(100))
    async with Cluster(stream) as cluster:
        position = stream.shards[FIRST].records[9].sequence
        cluster.table.leases[FIRST] = Lease(shard_id=FIRST, checkpoint=position)
        stream.trim(FIRST, 50)
        stream.failing = 3
        worker = cluster.start("a")
        await cluster.until(lambda: len(cluster.data()) == 50)
        assert stream.failing == 0
        assert worker.trimmed == [FIRST]
        assert worker.value("scoring_records_trimmed_total", pipeline="ingest") == 1


@in_virtual_time
async def test_a_trimmed_answer_at_the_trim_horizon_is_not_a_loss():
    """DynamoDB Local gives it for an iterator taken while the stream was empty, once the first record comes."""

    stream = FakeStream(1, dynamodb=True)
    good = stream.iterator
    stream.iterator = lambda shard_id, position: (  # the first answer only
        good(shard_id, position) if stream.fetches else f"{shard_id}|-1|0.0|0"
    )
    async with Cluster(stream) as cluster:
        worker = cluster.start("a")
        stream.put_many(FIRST, range(3))
        await cluster.until(lambda: cluster.data() == [0, 1, 2])
        assert worker.trimmed == []


@pytest.mark.parametrize("per_second", [50, 300, 1500])
@in_virtual_time
async def test_a_busy_tables_stream_is_read_below_five_times_a_second(per_second: int):
    """Its records' times are whole seconds, so it never seemed to be at the tip, and was read back to back."""

    settings = ShardSettings(fetch_limit=1000, batch_max_age=0.1, poll_min=0.5, read_gap=0.21)
    async with Cluster(FakeStream(1, dynamodb=True), settings=settings) as cluster:
        cluster.start("a")
        await cluster.until(lambda: len(cluster.workers[0].shards) == 1)
        for number in range(20 * per_second):
            cluster.stream.put(FIRST, number)
            await asyncio.sleep(1 / per_second)
        await cluster.until(lambda: cluster.data() == [*range(20 * per_second)], within=2)
        at = cluster.stream.fetches[FIRST]
        assert min(later - earlier for earlier, later in pairwise(at)) > 0.2
        assert len(at) < 3 * 22


@in_virtual_time
async def test_a_log_line_tells_which_lease_it_is_about(monkeypatch: pytest.MonkeyPatch):
    # A logger keeps what it was bound to when first used, in whichever test that was.
    monkeypatch.setattr(reader, "log", structlog.get_logger())

    async with Cluster(FakeStream(1)) as cluster:
        worker = cluster.start("a")
        await cluster.until(lambda: len(worker.shards) == 1)
        taken = next(row for _, row in cluster.table.history if row.owner == "a")
        with structlog.testing.capture_logs([structlog.contextvars.merge_contextvars]) as lines:
            worker.gate.fail = 1.0
            await asyncio.sleep(1)
        line = next(line for line in lines if line["event"] == "tail.fetch_failed")
        assert line["lease"] == f"a#{taken.counter}"
        assert (line["shard"], line["stream"], line["pipeline"]) == (FIRST, "events", "ingest")
        assert line["worker"] == "a"


@in_virtual_time
async def test_a_forgotten_shard_ends_loudly_and_its_children_start():
    async with Cluster(FakeStream(1)) as cluster:
        worker = cluster.start("a")
        await cluster.until(lambda: len(worker.shards) == 1)
        child = cluster.stream.roll_over(FIRST)
        cluster.stream.put(child, "child")
        cluster.stream.forget(FIRST)
        await cluster.until(lambda: "child" in cluster.data(), within=30)
        assert cluster.checkpoint(FIRST) == SHARD_END
        assert worker.trimmed == [FIRST]


@in_virtual_time
async def test_a_slow_consumer_slows_the_reader_and_bounds_what_is_in_hand():
    stream = FakeStream(8)
    for shard_id in stream.shards:
        stream.put_many(shard_id, range(2000), size=20_000)
    budget = ByteBudget(8 * MIB, page=1 * MIB)
    settings = ShardSettings(batch_max_bytes=1 * MIB, page_bytes=1 * MIB)
    async with Cluster(stream, settings=settings) as cluster:
        worker = cluster.start("a", budget=budget)
        worker.consumer.seconds = 0.5
        await cluster.until(lambda: len(cluster.data()) == 16_000, within=600)
        assert budget.peak <= (8 + 1) * MIB + 1 * MIB, "the limit, the spare page, and what pages are too large"
        assert all(cluster.data(shard_id) == list(range(2000)) for shard_id in stream.shards)
        await cluster.until(lambda: budget.used == 0, within=2)


@in_virtual_time
async def test_one_page_larger_than_the_whole_budget_still_passes():
    stream = FakeStream(3)
    for shard_id in stream.shards:
        stream.put_many(shard_id, range(10), size=1 * MIB)
    async with Cluster(stream) as cluster:
        cluster.start("a", budget=ByteBudget(64 * 1024))
        await cluster.until(lambda: len(cluster.data()) == 30, within=60)


@in_virtual_time
async def test_a_commit_that_fails_for_now_is_tried_again():
    async with Cluster(FakeStream(1)) as cluster:
        worker = cluster.start("a")
        worker.consumer.error = TransientError("down")
        cluster.stream.put(FIRST, 1)
        await asyncio.sleep(40)
        assert cluster.data() == []
        assert worker.shards == (FIRST,)
        worker.consumer.error = None
        await cluster.until(lambda: cluster.data() == [1], within=10)


@in_virtual_time
async def test_a_lease_written_by_another_is_lost_without_a_checkpoint():
    async with Cluster(FakeStream(1)) as cluster:
        worker = cluster.start("a")
        await cluster.until(lambda: worker.shards == (FIRST,))
        cluster.table.members["b"] = Member(worker="b")
        row = cluster.table.leases[FIRST]
        cluster.table.put(msgspec.structs.replace(row, owner="b", counter=row.counter + 1))
        cluster.stream.put(FIRST, 1)
        await cluster.until(lambda: worker.shards == (), within=7)
        assert cluster.table.leases[FIRST].owner == "b"
        assert not cluster.checkpoint(FIRST).isdecimal()
        assert worker.value("scoring_lease_events_total", pipeline="ingest", event="lost") == 1


@in_virtual_time
async def test_a_seized_shards_batches_say_until_when_late_calls_may_land():
    async with Cluster(FakeStream(1)) as cluster:
        dead = cluster.start("a")
        await cluster.until(lambda: dead.shards == (FIRST,))
        cluster.start("b")
        await asyncio.sleep(2)
        dead.kill()
        await cluster.until(lambda: cluster.workers[1].shards == (FIRST,), within=20)
        seized_at = asyncio.get_running_loop().time()
        for number in range(20):
            cluster.stream.put(FIRST, number)
            await asyncio.sleep(1)
        (until,) = {done.batch.unsettled_until for done in cluster.committed}
        assert until == pytest.approx(seized_at + ShardSettings().call_timeout, abs=0.5)


@pytest.mark.parametrize("later", [1.0, ShardSettings().call_timeout])
@in_virtual_time
async def test_who_takes_over_a_shard_seized_a_moment_before_is_told_so(later: float):
    async with Cluster(FakeStream(1)) as cluster:
        dead = cluster.start("a")
        await cluster.until(lambda: dead.shards == (FIRST,))
        seizer = cluster.start("b")
        await asyncio.sleep(2)
        dead.kill()
        await cluster.until(lambda: seizer.shards == (FIRST,), within=20)
        successor = cluster.start("c")
        await asyncio.sleep(later)
        seizer.coordinator.stop()
        await cluster.until(lambda: successor.shards == (FIRST,), within=5)
        taken_at = asyncio.get_running_loop().time()
        cluster.stream.put(FIRST, "x")
        await cluster.until(lambda: cluster.data() == ["x"], within=5)
        until = cluster.committed[-1].batch.unsettled_until
        known = taken_at + ShardSettings().call_timeout if later == 1.0 else float("-inf")
        assert until == pytest.approx(known, abs=0.5)
        assert not cluster.table.leases[FIRST].unsettled


@pytest.mark.parametrize("in_flight", [1, 2, 5])
@in_virtual_time
async def test_batches_of_a_shard_commit_one_after_another(in_flight: int):
    settings = ShardSettings(in_flight=in_flight, batch_max_records=10)
    async with Cluster(FakeStream(1), settings=settings) as cluster:
        cluster.stream.put_many(FIRST, range(200))
        worker = cluster.start("a")
        worker.consumer.seconds = 0.1
        await asyncio.sleep(1.0)
        ahead = worker.consumer.prepared - len(cluster.committed)
        assert ahead <= in_flight
        await cluster.until(lambda: len(cluster.data()) == 200)
        assert cluster.data() == list(range(200))


@in_virtual_time
async def test_lag_is_the_age_of_what_is_not_durable():
    async with Cluster(FakeStream(1)) as cluster:
        worker = cluster.start("a")
        await asyncio.sleep(5)
        assert worker.value("scoring_lag_seconds", pipeline="ingest", shard=FIRST) == 0
        worker.consumer.error = TransientError("down")
        cluster.stream.put(FIRST, 1)
        await asyncio.sleep(10)
        assert worker.value("scoring_lag_seconds", pipeline="ingest", shard=FIRST) == pytest.approx(10, abs=1.5)


@in_virtual_time
async def test_batches_may_be_replays_up_to_the_first_tip_whatever_the_clock():
    async with Cluster(FakeStream(1)) as cluster:
        cluster.stream.put_many(FIRST, ["old", "old"])
        worker = cluster.start("a", skew_ms=-3_600_000)
        await cluster.until(lambda: len(cluster.data()) == 2)
        await asyncio.sleep(3)
        cluster.stream.put(FIRST, "young")
        await cluster.until(lambda: len(cluster.data()) == 3)
        await worker.stop()
        cluster.stream.put(FIRST, "old for b")
        cluster.start("b", skew_ms=3_600_000)
        await cluster.until(lambda: len(cluster.data()) == 4)
        batches = [done.batch for done in cluster.committed]
    replayed = [(record.data, batch.replayed) for batch in batches for record in batch.records]
    assert replayed == [("old", True), ("old", True), ("young", False), ("old for b", True)]
