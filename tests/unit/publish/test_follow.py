"""Which stream of the score table is read, and when all workers change over to another."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator

import pytest
import structlog

from service.publish import follow
from service.publish.follow import FollowOptions, StreamFollower
from service.publish.pipeline import PipelineState
from service.runtime.errors import SetupError
from tests.fakes.aio import VirtualClock, in_virtual_time
from tests.fakes.pipeline import FakePipeline, PipelineRow

LOOK_S = 15.0


class Streams:
    """`ScoreStreams` of a table, and what becomes of them."""

    def __init__(self, *arns: str, scores: bool = False) -> None:
        self.readable = list(arns)
        self.scores = scores

    async def latest(self) -> str:
        if self.readable[-1] == "":
            raise SetupError("run `scoring setup`")
        return self.readable[-1]

    async def exists(self, stream_arn: str) -> bool:
        return stream_arn in self.readable

    async def scores_exist(self) -> bool:
        return self.scores


class Stream:
    """What reads one stream."""

    def __init__(self, arn: str) -> None:
        self.arn = arn
        self.leading = True
        self.ended = False
        self.first_sync_done = True
        self.last_beat = 0.0 if arn == "one" else float("-inf")
        self.error: Exception | None = None
        self._stop = asyncio.Event()
        self.running = False

    def holds(self, shard_id: str) -> bool:
        return self.running and shard_id == self.arn

    def stop(self) -> None:
        self._stop.set()

    async def run(self) -> None:
        self.running = True
        await self._stop.wait()
        self.running = False
        if self.error is not None:
            raise self.error


class FollowingWorker:
    """A follower, and what it has read."""

    def __init__(self, streams: Streams, row: PipelineRow, *, leading: bool = True) -> None:
        self.read: list[Stream] = []
        self.switched = 0

        def make(arn: str) -> Stream:
            self.read.append(Stream(arn))
            self.read[-1].leading = leading
            return self.read[-1]

        def switched() -> None:
            assert not self.read[-1].running
            self.switched += 1

        store, rng = FakePipeline(row), random.Random(1)
        self.follower = StreamFollower(
            streams, store, make, switched, VirtualClock(), rng, FollowOptions(look_s=LOOK_S, check_s=300.0)
        )

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        await self.follower.open()
        task = asyncio.create_task(self.follower.run())
        await asyncio.sleep(1)
        yield
        self.follower.stop()
        await task

    @property
    def arns(self) -> list[str]:
        return [stream.arn for stream in self.read]


@in_virtual_time
async def test_the_first_worker_notes_the_tables_stream_and_owes_nothing():
    row = PipelineRow()
    worker = FollowingWorker(Streams("one"), row)
    async with worker.running():
        assert row.state is not None
        assert (row.state.stream_arn, row.state.owes) == ("one", False)
        assert worker.follower.holds("one")
    assert not worker.read[0].running


@in_virtual_time
async def test_scores_older_than_the_first_worker_cause_one_reconciliation():
    row, streams = PipelineRow(), Streams("one", scores=True)
    first, second = FollowingWorker(streams, row), FollowingWorker(streams, row, leading=False)
    with structlog.testing.capture_logs() as lines:
        async with first.running(), second.running():
            assert row.state is not None
            assert (row.state.stream_arn, row.state.owed, row.state.owes) == ("one", 1, True)
    assert len(row.history) == 1
    assert [line["event"] for line in lines].count("reconcile.owed") == 1


@in_virtual_time
async def test_a_restart_owes_nothing_though_there_are_scores():
    row = PipelineRow()
    async with FollowingWorker(Streams("one"), row).running():
        pass
    async with FollowingWorker(Streams("one", scores=True), row).running():
        assert row.state is not None
        assert not row.state.owes


@in_virtual_time
async def test_a_table_without_a_stream_is_said_at_the_first_start():
    with pytest.raises(SetupError):
        await FollowingWorker(Streams(""), PipelineRow()).follower.open()


@in_virtual_time
async def test_a_stream_switched_off_and_on_is_followed_and_reconciled():
    row, streams = PipelineRow(), Streams("one")
    leader, other = FollowingWorker(streams, row), FollowingWorker(streams, row, leading=False)
    async with leader.running(), other.running():
        streams.readable = ["one", "two"]
        await asyncio.sleep(900)
        assert leader.arns == ["one"], "what it still holds is published before anything newer"
        leader.read[0].ended = True
        await asyncio.sleep(2 * LOOK_S + 1)
        assert leader.arns == other.arns == ["one", "two"]
        assert (leader.switched, other.switched) == (1, 1)
        assert leader.follower.holds("two")
        assert leader.follower.last_beat == 0.0, "no heartbeat yet, but no silence either"
        assert not leader.read[0].running
        assert row.state is not None
        assert row.state.owes


@in_virtual_time
async def test_a_stream_that_is_gone_is_left_though_it_was_not_read_to_its_end():
    row, streams = PipelineRow(), Streams("one")
    worker = FollowingWorker(streams, row)
    async with worker.running():
        streams.readable = ["two"]
        await asyncio.sleep(400)
        assert worker.arns == ["one", "two"]
        assert row.state is not None
        assert row.state.owes


@in_virtual_time
async def test_a_worker_that_starts_while_the_old_stream_is_read_reads_it_too():
    row, streams = PipelineRow(), Streams("one", "two")
    row.state = PipelineState(counter=1, stream_arn="one")
    worker = FollowingWorker(streams, row)
    async with worker.running():
        assert worker.arns == ["one"]


@in_virtual_time
async def test_only_the_leader_changes_over_and_only_at_the_end():
    row, streams = PipelineRow(), Streams("one", "two")
    row.state = PipelineState(counter=1, stream_arn="one")
    follower = FollowingWorker(streams, row, leading=False)
    follower_ended = FollowingWorker(streams, row, leading=False)
    async with follower.running(), follower_ended.running():
        follower_ended.read[0].ended = True
        await asyncio.sleep(900)
        assert row.state.stream_arn == "one"


@in_virtual_time
async def test_a_stream_that_is_off_is_waited_for_and_reported_now_and_then(monkeypatch: pytest.MonkeyPatch):
    # A logger keeps what it was bound to when first used, in whichever test that was.
    monkeypatch.setattr(follow, "log", structlog.get_logger())
    row, streams = PipelineRow(), Streams("one")
    worker = FollowingWorker(streams, row)
    with structlog.testing.capture_logs() as lines:
        async with worker.running():
            streams.readable.append("")
            worker.read[0].ended = True
            await asyncio.sleep(1800)
            assert worker.arns == ["one"]
            streams.readable.append("two")
            await asyncio.sleep(3 * LOOK_S)
            assert worker.arns == ["one", "two"]
    said = [line["event"] for line in lines]
    assert 2 <= said.count("publish.stream_not_found") <= 30
    assert said.count("publish.stream_switched") == 1


@in_virtual_time
async def test_a_failure_while_it_reads_is_raised():
    worker = FollowingWorker(Streams("one"), PipelineRow())
    await worker.follower.open()
    task = asyncio.create_task(worker.follower.run())
    await asyncio.sleep(1)
    worker.read[0].error = RuntimeError("a bug")
    worker.read[0].stop()
    with pytest.raises(ExceptionGroup) as raised:
        await task
    assert isinstance(raised.value.exceptions[0], RuntimeError)


@in_virtual_time
async def test_workers_that_start_together_agree():
    row = PipelineRow()
    workers = [FollowingWorker(Streams("one"), row), FollowingWorker(Streams("one", "two"), row)]
    await asyncio.gather(*(worker.follower.open() for worker in workers))
    assert workers[0].arns == workers[1].arns
    assert len(row.history) == 1
