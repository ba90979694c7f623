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
from tests.fakes.workers import Cluster

FIRST = "shardId-000000000000"
SECOND = "shardId-000000000001"


@pytest.mark.parametrize("seed", range(1, 9))
@pytest.mark.parametrize("read_before", [0, 20])
@in_virtual_time
async def test_every_record_of_a_stream_made_again_is_read_once(seed: int, read_before: int):
    """Survivors used to read it under the old stream's leases, and newcomers under its own: twice."""

    async with Cluster(FakeStream(2), seed=seed) as cluster:
        for name in ("a", "b"):
            cluster.start(name)
        await cluster.until(lambda: len(cluster.workers[0].shards) == len(cluster.workers[1].shards) == 1)
        cluster.stream.put_many(FIRST, [f"old {number}" for number in range(read_before)])
        await cluster.until(lambda: len(cluster.data()) == read_before)
        await asyncio.sleep(seed / 4)
        cluster.stream.recreate(2)
        cluster.stream.put_many(FIRST, range(20))
        cluster.start("c")
        await asyncio.sleep(seed / 2)
        cluster.stream.put_many(SECOND, range(20, 40))
        await cluster.until(lambda: {*range(40)} <= set(cluster.data()), within=30)
        await asyncio.sleep(30)
        assert Counter(cluster.data()).most_common(1)[0][1] == 1
        tags = {done.batch.stream.tag for done in cluster.committed if isinstance(done.batch.records[0].data, int)}
        assert len(tags) == 1
        owners = {row.owner.split(".")[0] for row in cluster.table.leases.values()}
        assert owners <= {"a", "b", "c"}
        assert len(owners) == 2


@in_virtual_time
async def test_a_worker_that_reads_nothing_turns_to_the_new_stream_too():
    async with Cluster(FakeStream(1)) as cluster:
        for name in ("a", "b", "c"):
            cluster.start(name)
        await cluster.until(lambda: sum(len(worker.shards) for worker in cluster.workers) == 1)
        await asyncio.sleep(5)
        cluster.stream.recreate(3)
        await cluster.until(lambda: [len(worker.shards) for worker in cluster.workers] == [1, 1, 1], within=60)
        assert not cluster.tables[0].members
        for worker in cluster.workers:
            assert worker.value("scoring_streams_replaced_total", pipeline="ingest") == 1


@in_virtual_time
async def test_what_was_read_of_the_old_stream_is_committed():
    async with Cluster(FakeStream(1)) as cluster:
        worker = cluster.start("a")
        await cluster.until(lambda: worker.shards == (FIRST,))
        await asyncio.sleep(3)
        worker.consumer.seconds = 8.0
        cluster.stream.put_many(FIRST, [f"old {number}" for number in range(3000)])
        await cluster.until(lambda: worker.consumer.prepared > 1)
        fetched = worker.value("scoring_records_read_total", pipeline="ingest", shard=FIRST)
        cluster.stream.recreate(1)
        cluster.stream.put(FIRST, "new")
        await cluster.until(lambda: "new" in cluster.data(), within=120)
        old = [data for data in cluster.data() if data != "new"]
        assert old == [f"old {number}" for number in range(int(fetched))]
        assert not cluster.tables[0].leases[FIRST].owner


@in_virtual_time
async def test_the_new_stream_is_read_from_its_start_whatever_was_configured():
    async with Cluster(FakeStream(1)) as cluster:
        worker = cluster.start("a", start=LATEST)
        await cluster.until(lambda: worker.shards == (FIRST,))
        await asyncio.sleep(2)
        cluster.stream.recreate(1)
        cluster.stream.put_many(FIRST, range(5))
        await cluster.until(lambda: cluster.data() == [*range(5)], within=30)
        assert cluster.table.leader is not None
        assert cluster.table.leader.initial == TRIM_HORIZON


@in_virtual_time
async def test_a_stream_recreated_before_the_list_gets_no_rows_of_the_first():
    async with Cluster(FakeStream(1)) as cluster:
        worker = cluster.start("a")
        cluster.stream.recreate(2)
        cluster.stream.put_many(FIRST, range(3))
        await cluster.until(lambda: len(worker.shards) == 2)
        await cluster.until(lambda: cluster.data() == [0, 1, 2])
        assert cluster.tables[0].leases == {}


@in_virtual_time
async def test_rows_of_a_version_that_kept_no_number_are_read_on_and_get_it():
    async with Cluster(FakeStream(1)) as cluster:
        cluster.table.leases[FIRST] = Lease(FIRST, TRIM_HORIZON)
        worker = cluster.start("a")
        cluster.stream.put_many(FIRST, range(3))
        await cluster.until(lambda: cluster.data() == [0, 1, 2])
        await worker.stop()
        assert cluster.table.leases[FIRST].starting == cluster.stream.shards[FIRST].starting
        cluster.stream.recreate(1)
        cluster.tables.append(cluster.tables[0])  # as a worker sees it that opened the stream just before
        other = cluster.start("b")
        cluster.stream.put(FIRST, "new")
        await asyncio.sleep(5)
        assert "new" not in cluster.data()
        assert other.value("scoring_streams_replaced_total", pipeline="ingest") == 1


@in_virtual_time
async def test_a_stop_is_obeyed_while_the_new_stream_is_awaited():
    async with Cluster(FakeStream(1)) as cluster:
        worker = cluster.start("a")
        await cluster.until(lambda: worker.shards == (FIRST,))
        never = asyncio.Event()
        worker.coordinator._reopen = never.wait  # the new stream cannot be opened
        cluster.stream.recreate(1)
        await cluster.until(lambda: not cluster.tables[0].members, within=60)
        assert await worker.stop() < 0.1


@in_virtual_time
async def test_a_stream_that_cannot_be_opened_yet_is_waited_for():
    async with Cluster(FakeStream(1)) as cluster:
        worker = cluster.start("a")
        await cluster.until(lambda: worker.shards == (FIRST,))
        reopen, failures = worker.coordinator._reopen, [SetupError("no such stream"), TransientError("busy")]
        assert reopen is not None

        async def late() -> object:
            if failures:
                raise failures.pop()
            return await reopen()

        worker.coordinator._reopen = late  # a fault
        cluster.stream.recreate(1)
        cluster.stream.put(FIRST, "new")
        await cluster.until(lambda: cluster.data() == ["new"], within=60)
        assert not failures


starts = st.dictionaries(st.integers(0, 5), st.sampled_from(["", "1", "2"]))


@given(starts, starts)
def test_a_list_is_judged_by_the_shards_that_both_know(listed: dict[int, str], known: dict[int, str]):
    shards = [Shard(f"shard {number}", starting=start) for number, start in listed.items()]
    both = [(start, known[number]) for number, start in listed.items() if start and known.get(number)]
    verdict = judge(shards, {f"shard {number}": start for number, start in known.items()})
    assert (verdict is Verdict.UNKNOWN) == (not both)
    assert (verdict is Verdict.OTHER) == any(here != there for here, there in both)
