"""Reconciliations: owed in a row that all workers share, carried out by the leader, resumed where they stopped."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator
from decimal import Decimal

from hypothesis import given
from hypothesis import strategies as st

from service.observability.metrics import Metrics
from service.publish import reconcile
from service.publish.pipeline import PipelineState
from service.publish.reconcile import ReconcileOptions, Reconciler, restated
from service.runtime.errors import TransientError
from service.scoring.fold import Origin, ScoreState, UserKey
from tests.fakes.aio import Gate, VirtualClock, in_virtual_time
from tests.fakes.pipeline import FakePipeline, PipelineRow
from tests.fakes.scores import MemoryScores

PEOPLE = 100


class ReconcileSetup:
    """A score table, the row, and as many workers as wanted."""

    def __init__(self, **options: object) -> None:
        self.scores = MemoryScores(
            {
                UserKey(f"u{number}", f"p{number % 2}"): ScoreState(Origin.OURS, Decimal(number), 1, {}, 1)
                for number in range(PEOPLE)
            }
        )
        self.row = PipelineRow()
        self.leading = True
        self.options = ReconcileOptions(**{"per_s": 50.0, "look_s": 1.0, "save_s": 1.0, **options})  # a test's own

    def worker(self) -> Reconciler:
        rng = random.Random(1)
        store = FakePipeline(self.row, Gate(rng))
        return Reconciler(self.scores, store, lambda: self.leading, VirtualClock(), Metrics(), rng, self.options)

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[Reconciler]:
        worker = self.worker()
        task = asyncio.create_task(worker.run())
        try:
            yield worker
        finally:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task

    @property
    def revisions(self) -> list[int]:
        return sorted(state.revision for state in self.scores.items.values() if isinstance(state, ScoreState))


@in_virtual_time
async def test_every_score_gets_its_next_revision_and_nothing_else():
    setup = ReconcileSetup()
    before = dict(setup.scores.items)
    async with setup.running() as worker:
        await worker.owe("a test")
        await asyncio.sleep(PEOPLE / 50 + 2)
    for key, state in setup.scores.items.items():
        old = before[key]
        assert isinstance(state, ScoreState)
        assert isinstance(old, ScoreState)
        assert (state.score, state.revision) == (old.score, old.revision + 1)
    assert setup.row.state is not None
    assert not setup.row.state.owes


@in_virtual_time
async def test_only_the_leader_carries_it_out():
    setup = ReconcileSetup()
    setup.leading = False
    async with setup.running() as worker:
        await worker.owe("a test")
        await asyncio.sleep(30)
        assert setup.scores.written == 0
        setup.leading = True
        await asyncio.sleep(10)
        assert setup.scores.written == PEOPLE


@in_virtual_time
async def test_a_leader_deposed_in_the_middle_stops_and_the_next_one_goes_on():
    setup = ReconcileSetup(per_s=20.0)
    async with setup.running() as worker:
        await worker.owe("a test")
        await asyncio.sleep(3)
        setup.leading = False
        await asyncio.sleep(10)
    done = setup.scores.written
    assert 0 < done < PEOPLE
    setup.leading = True
    async with setup.running():
        await asyncio.sleep(20)
    assert PEOPLE <= setup.scores.written <= PEOPLE + reconcile.CHUNK
    assert setup.revisions[0] == 2


@in_virtual_time
async def test_a_loss_found_in_the_middle_has_everything_published_once_more():
    setup = ReconcileSetup(per_s=20.0)
    async with setup.running() as worker:
        await worker.owe("the first")
        await asyncio.sleep(3)
        await worker.owe("the second")
        await asyncio.sleep(30)
    assert setup.revisions == [3] * PEOPLE
    assert setup.row.state is not None
    assert not setup.row.state.owes


@in_virtual_time
async def test_losses_found_before_it_begins_are_one_reconciliation():
    setup = ReconcileSetup(settle_s=5.0)
    async with setup.running() as worker:
        for why in ("one shard", "another", "a third"):
            await worker.owe(why)
        await asyncio.sleep(30)
    assert setup.revisions == [2] * PEOPLE


@in_virtual_time
async def test_a_scan_that_breaks_off_is_resumed():
    setup = ReconcileSetup(per_s=20.0)
    async with setup.running() as worker:
        await worker.owe("a test")
        await asyncio.sleep(2.5)
        setup.scores.faults.append(TransientError("no page"))  # the next load, which is repeated
        await asyncio.sleep(0.5)
        setup.scores.faults.append(TransientError("no page"))
        await asyncio.sleep(30)
    assert setup.revisions == [2] * PEOPLE


@in_virtual_time
async def test_other_projects_are_left_alone():
    setup = ReconcileSetup(project_ids=frozenset({"p1"}))
    async with setup.running() as worker:
        await worker.owe("a test")
        await asyncio.sleep(10)
    assert setup.revisions == [1] * (PEOPLE // 2) + [2] * (PEOPLE // 2)


@in_virtual_time
async def test_a_table_that_throttles_slows_it_down_and_nothing_is_left_out():
    setup = ReconcileSetup()
    setup.scores.throttled = 70
    scores = setup.scores
    found = restated(scores.scan(), scores, VirtualClock(), Metrics(), random.Random(1), 1000.0)
    assert sum([len(done) async for done in found]) == PEOPLE
    assert asyncio.get_running_loop().time() > PEOPLE / 1000 + 0.5
    assert setup.revisions == [2] * PEOPLE


@given(st.lists(st.sampled_from(["owe", "begin", "progress", "complete"]), max_size=30))
def test_what_is_owed_after_one_began_stays_owed(steps: list[str]):
    state, running, owed_since = PipelineState(), 0, False
    for step in steps:
        before = state
        match step:
            case "owe":
                state, owed_since = state.owing(), True
            case "begin":
                running, owed_since = state.owed, False
            case "progress":
                state = state.progressed(running, UserKey("u", "p"))
            case "complete" if running:
                state = state.completed(running)
        assert state == before or state.counter == before.counter + 1
        if owed_since:
            assert state.owes
            assert state.resume_after is None
