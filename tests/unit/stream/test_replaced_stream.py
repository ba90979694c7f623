"""A stream that is deleted and created again under its name, while workers live."""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.runtime.errors import SetupError, TransientError
from service.stream.identity import Verdict, judge
from service.stream.leases.lease import Lease
from service.stream.ports import Shard
from service.stream.position import LATEST, TRIM_HORIZON
from tests.fakes.aio import in_virtual_time
from tests.fakes.source import FakeStream
from tests.fakes.workers import World

FIRST = "shardId-000000000000"
SECOND = "shardId-000000000001"


@pytest.mark.parametrize("seed", range(1, 9))
@pytest.mark.parametrize("read_before", [0, 20])
@in_virtual_time
async def test_every_record_of_a_stream_made_again_is_read_once(seed: int, read_before: int):
    """Survivors used to read it under the old stream's leases, and newcomers under its own: twice."""

    async with World(FakeStream(2), seed=seed) as world:
        for name in ("a", "b"):
            world.start(name)
        await world.until(lambda: len(world.workers[0].shards) == len(world.workers[1].shards) == 1)
        world.stream.put_many(FIRST, [f"old {number}" for number in range(read_before)])
        await world.until(lambda: len(world.data()) == read_before)
        await asyncio.sleep(seed / 4)
        world.stream.recreate(2)
        world.stream.put_many(FIRST, range(20))
        world.start("c")
        await asyncio.sleep(seed / 2)
        world.stream.put_many(SECOND, range(20, 40))
        await world.until(lambda: {*range(40)} <= set(world.data()), within=30)
        await asyncio.sleep(30)
        assert Counter(world.data()).most_common(1)[0][1] == 1
        tags = {done.batch.stream.tag for done in world.committed if isinstance(done.batch.records[0].data, int)}
        assert len(tags) == 1
        owners = {row.owner.split(".")[0] for row in world.table.leases.values()}
        assert owners <= {"a", "b", "c"}
        assert len(owners) == 2


@in_virtual_time
async def test_a_worker_that_reads_nothing_turns_to_the_new_stream_too():
    async with World(FakeStream(1)) as world:
        for name in ("a", "b", "c"):
            world.start(name)
        await world.until(lambda: sum(len(worker.shards) for worker in world.workers) == 1)
        await asyncio.sleep(5)
        world.stream.recreate(3)
        await world.until(lambda: [len(worker.shards) for worker in world.workers] == [1, 1, 1], within=60)
        assert not world.tables[0].members
        for worker in world.workers:
            assert worker.value("scoring_streams_replaced_total", pipeline="ingest") == 1


@in_virtual_time
async def test_what_was_read_of_the_old_stream_is_committed():
    async with World(FakeStream(1)) as world:
        worker = world.start("a")
        await world.until(lambda: worker.shards == (FIRST,))
        await asyncio.sleep(3)
        worker.consumer.seconds = 8.0
        world.stream.put_many(FIRST, [f"old {number}" for number in range(3000)])
        await world.until(lambda: worker.consumer.prepared > 1)
        fetched = worker.value("scoring_records_read_total", pipeline="ingest", shard=FIRST)
        world.stream.recreate(1)
        world.stream.put(FIRST, "new")
        await world.until(lambda: "new" in world.data(), within=120)
        old = [data for data in world.data() if data != "new"]
        assert old == [f"old {number}" for number in range(int(fetched))]
        assert not world.tables[0].leases[FIRST].owner


@in_virtual_time
async def test_the_new_stream_is_read_from_its_start_whatever_was_configured():
    async with World(FakeStream(1)) as world:
        worker = world.start("a", start=LATEST)
        await world.until(lambda: worker.shards == (FIRST,))
        await asyncio.sleep(2)
        world.stream.recreate(1)
        world.stream.put_many(FIRST, range(5))
        await world.until(lambda: world.data() == [*range(5)], within=30)
        assert world.table.leader is not None
        assert world.table.leader.initial == TRIM_HORIZON


@in_virtual_time
async def test_a_stream_recreated_before_the_list_gets_no_rows_of_the_first():
    async with World(FakeStream(1)) as world:
        worker = world.start("a")
        world.stream.recreate(2)
        world.stream.put_many(FIRST, range(3))
        await world.until(lambda: len(worker.shards) == 2)
        await world.until(lambda: world.data() == [0, 1, 2])
        assert world.tables[0].leases == {}


@in_virtual_time
async def test_rows_of_a_version_that_kept_no_number_are_read_on_and_get_it():
    async with World(FakeStream(1)) as world:
        world.table.leases[FIRST] = Lease(FIRST, TRIM_HORIZON)
        worker = world.start("a")
        world.stream.put_many(FIRST, range(3))
        await world.until(lambda: world.data() == [0, 1, 2])
        await worker.stop()
        assert world.table.leases[FIRST].starting == world.stream.shards[FIRST].starting
        world.stream.recreate(1)
        world.tables.append(world.tables[0])  # as a worker sees it that opened the stream just before
        other = world.start("b")
        world.stream.put(FIRST, "new")
        await asyncio.sleep(5)
        assert "new" not in world.data()
        assert other.value("scoring_streams_replaced_total", pipeline="ingest") == 1


@in_virtual_time
async def test_a_stop_is_obeyed_while_the_new_stream_is_awaited():
    async with World(FakeStream(1)) as world:
        worker = world.start("a")
        await world.until(lambda: worker.shards == (FIRST,))
        never = asyncio.Event()
        worker.coordinator._reopen = never.wait  # type: ignore[assignment] # the new stream cannot be opened
        world.stream.recreate(1)
        await world.until(lambda: not world.tables[0].members, within=60)
        assert await worker.stop() < 0.1


@in_virtual_time
async def test_a_stream_that_cannot_be_opened_yet_is_waited_for():
    async with World(FakeStream(1)) as world:
        worker = world.start("a")
        await world.until(lambda: worker.shards == (FIRST,))
        reopen, failures = worker.coordinator._reopen, [SetupError("no such stream"), TransientError("busy")]
        assert reopen is not None

        async def late() -> object:
            if failures:
                raise failures.pop()
            return await reopen()

        worker.coordinator._reopen = late  # type: ignore[assignment] # a fault
        world.stream.recreate(1)
        world.stream.put(FIRST, "new")
        await world.until(lambda: world.data() == ["new"], within=60)
        assert not failures


starts = st.dictionaries(st.integers(0, 5), st.sampled_from(["", "1", "2"]))


@given(starts, starts)
def test_a_list_is_judged_by_the_shards_that_both_know(listed: dict[int, str], known: dict[int, str]):
    shards = [Shard(f"shard {number}", starting=start) for number, start in listed.items()]
    both = [(start, known[number]) for number, start in listed.items() if start and known.get(number)]
    verdict = judge(shards, {f"shard {number}": start for number, start in known.items()})
    assert (verdict is Verdict.UNKNOWN) == (not both)
    assert (verdict is Verdict.OTHER) == any(here != there for here, there in both)
