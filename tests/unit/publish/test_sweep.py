"""The daily sweep: what has faded is written once, by compare-and-set, whoever leads, and goes on where it was."""

from __future__ import annotations

import random
from collections.abc import Callable
from decimal import Decimal

import msgspec
import pytest

from service.ingest.stores import Change
from service.observability.metrics import Metrics
from service.publish.pipeline import PipelineState
from service.publish.sweep import Sweeper, SweepOptions, Swept, sweep
from service.runtime.errors import TransientError
from service.scoring.fold import ABSENT, Origin, Scorable, ScoreState, UserKey, sequence_bytes
from service.scoring.marks import marking
from service.scoring.rules.decay import DAY_MS
from service.scoring.rules.evaluate import Facts, evaluate
from service.scoring.rules.fold import RuleEvent
from service.scoring.rules.model import Group, Idle, Rule, RuleSet, Tier
from service.scoring.rules.score import fold_by_rules
from service.scoring.rules.sweep import moved
from tests.fakes.aio import EPOCH_MS, VirtualClock, run
from tests.fakes.pipeline import FakePipeline, PipelineRow
from tests.fakes.scores import MemoryScores

TODAY = EPOCH_MS // DAY_MS
RULES = RuleSet(
    "p",
    1,
    {"main": Group("main", half_life=30)},
    (Rule("click", 0, ("click",), points=Decimal(100), half_life=30),),
    tiers=(Tier("hot", Decimal(90), Decimal(80)),),
)


def scored(days_ago: int, clicks: int = 1, rules: RuleSet = RULES) -> ScoreState:
    day = TODAY - days_ago
    event = RuleEvent(day * DAY_MS, evaluate(rules, Facts("click", day * DAY_MS)).hits)
    events = [Scorable(sequence_bytes(str(n + 1)), Decimal(0), day * DAY_MS, "click", event) for n in range(clicks)]
    folded = fold_by_rules(ABSENT, marking("s-0"), events, rules, day)
    assert folded is not None
    return folded.after


def tier_of(state: ScoreState) -> str:
    assert state.by_rules is not None
    return state.by_rules.tier


def test_a_score_that_has_moved_is_written_with_its_marks():
    state = scored(30)
    folded = moved(state, RULES, TODAY)
    assert folded is not None
    assert (folded.after.score, folded.points, tier_of(folded.after)) == (50, -50, "")
    assert (folded.after.revision, folded.after.applied) == (state.revision + 1, state.applied)
    assert moved(folded.after, RULES, TODAY) is None


@pytest.mark.parametrize(("days_ago", "written"), [(0, False), (4, False), (5, True)])
def test_a_score_is_left_alone_until_it_has_moved_by_a_tenth(days_ago: int, *, written: bool):
    """2 ** (-4 / 30) is 0.912, and 2 ** (-5 / 30) is 0.891."""
    assert (moved(scored(days_ago), RULES, TODAY) is not None) is written


def test_a_tier_that_ends_is_written_however_little_the_score_has_moved():
    rules = msgspec.structs.replace(RULES, tiers=(Tier("hot", Decimal(100), Decimal(99)),))
    folded = moved(scored(1, rules=rules), rules, TODAY)
    assert folded is not None
    assert tier_of(folded.after) == ""


def test_a_score_of_less_than_a_point_is_not_written_again_and_again():
    state = scored(300)
    folded = moved(state, RULES, TODAY)
    assert folded is not None
    assert folded.after.score == Decimal("0.10")
    assert moved(folded.after, RULES, TODAY + 300) is None


def test_from_a_hundred_to_one_takes_at_most_44_writes():
    state, writes = scored(0), 0
    for day in range(TODAY, TODAY + 200):
        folded = moved(state, RULES, day)
        if folded is not None:
            state, writes = folded.after, writes + 1
    assert writes <= 44
    assert state.score is not None
    assert state.score < 2


def test_silence_is_seen_by_the_sweep():
    rules = msgspec.structs.replace(RULES, idles=(Idle("quiet", "main", 3, Decimal(-60)),))
    folded = moved(scored(3, rules=rules), rules, TODAY)
    assert folded is not None
    assert folded.after.score == Decimal("33.30")


@pytest.mark.parametrize(
    "state", [ABSENT, ScoreState(Origin.FOREIGN, Decimal(5), 0, {}, 0), ScoreState(Origin.OURS, Decimal(5), 1, {}, 0)]
)
def test_what_no_rule_has_scored_is_left_to_the_next_event(state: ScoreState):
    assert moved(state, RULES, TODAY) is None


class World:
    """A score table, the row, and workers that sweep."""

    def __init__(self, count: int) -> None:
        self.scores = MemoryScores({UserKey(f"u{n}", "p"): scored(30) for n in range(count)})
        self.row = PipelineRow()
        self.metrics = Metrics()
        self.leading = True
        self.clock = VirtualClock()

    def sweeper(self, **options: float) -> Sweeper:
        return Sweeper(
            self.scores,
            FakePipeline(self.row),
            lambda: self.leading,
            lambda: {"p": RULES},
            self.clock,
            self.metrics,
            random.Random(1),
            SweepOptions(**options),
        )

    def swept(self, outcome: str) -> float:
        return self.metrics.registry.get_sample_value("scoring_swept_total", {"outcome": outcome}) or 0

    def all_are(self, score: int) -> bool:
        return all(isinstance(state, ScoreState) and state.score == score for state in self.scores.items.values())


def test_the_leader_sweeps_once_a_day():
    world = World(250)

    async def main() -> None:
        sweeper = world.sweeper()
        await sweeper._look()
        assert world.all_are(50)
        assert world.row.state is not None
        assert (world.row.state.done, world.row.state.cursor) == (TODAY, None)
        await sweeper._look()

    run(main())
    assert (world.swept("seen"), world.swept("written")) == (250, 250)
    assert world.metrics.registry.get_sample_value("scoring_sweep_completed_timestamp_seconds") is not None


def test_who_does_not_lead_sweeps_nothing():
    world = World(3)
    world.leading = False
    run(world.sweeper()._look())
    assert world.swept("seen") == 0
    assert world.row.state is None


def test_the_next_leader_goes_on_where_the_last_one_was():
    world = World(450)

    def give_up(after: int) -> Callable[[object], None]:
        def look(_: object) -> None:
            if world.scores.written >= after:
                world.leading = False

        return look

    world.scores.before_commit = give_up(200)

    async def main() -> None:
        await world.sweeper(save_s=0.0)._look()
        assert world.row.state is not None
        assert world.row.state.cursor is not None
        written = world.scores.written
        assert 200 <= written < 450
        world.leading, world.scores.before_commit = True, None
        await world.sweeper()._look()
        assert world.scores.written == 450, "what was written is not written again"

    run(main())
    assert world.swept("seen") < 450 + 200
    assert world.all_are(50)


def test_a_sweep_of_yesterday_is_not_gone_on_with():
    world = World(120)
    last = max(world.scores.items)
    world.row.state = PipelineState(counter=1, owed=TODAY - 1, running=TODAY - 1, cursor=last)
    run(world.sweeper()._look())
    assert world.swept("seen") == 120


async def swept_by(world: World, *, dry_run: bool = False) -> Swept:
    rules = {"p": RULES}
    swept = sweep(world.scores, lambda: rules, TODAY, world.clock, random.Random(1), 1e9, dry_run=dry_run)
    return [each async for each in swept][-1]


def test_a_score_that_an_event_has_written_meanwhile_is_not_overwritten():
    world = World(1)
    (key,) = world.scores.items

    def event(_: object) -> None:
        world.scores.before_commit = None
        world.scores.items[key] = msgspec.structs.replace(scored(0), revision=7)

    world.scores.before_commit = event
    found = run(swept_by(world))
    assert (found.counts["written"], found.counts["conflict"]) == (0, 1)
    state = world.scores.items[key]
    assert isinstance(state, ScoreState)
    assert (state.score, state.revision) == (100, 7)


def test_two_sweeps_at_once_write_each_score_once():
    world = World(1)
    (key,) = world.scores.items
    state = world.scores.items[key]
    assert isinstance(state, ScoreState)
    folded = moved(state, RULES, TODAY)
    assert folded is not None
    for _ in range(2):
        run(world.scores.commit([Change(key, folded)]))
    assert world.scores.written == 1


def test_throttled_writes_are_tried_again():
    world = World(30)
    world.scores.throttled = 40
    assert run(swept_by(world)).counts["written"] == 30


def test_a_table_that_does_not_answer_ends_the_try_and_not_the_worker():
    world = World(1)
    world.scores.faults.append(TransientError("no answer"))
    with pytest.raises(TransientError):
        run(swept_by(world))


def test_a_dry_run_writes_nothing():
    world = World(30)
    assert run(swept_by(world, dry_run=True)).counts["written"] == 30
    assert world.scores.written == 0


def test_a_state_that_cannot_be_read_is_counted_and_skipped():
    world = World(1)
    (key,) = world.scores.items
    state = world.scores.items[key]
    assert isinstance(state, ScoreState)
    assert state.by_rules is not None
    world.scores.items[key] = msgspec.structs.replace(
        state, by_rules=msgspec.structs.replace(state.by_rules, state=b"?")
    )
    assert run(swept_by(world)).counts == {"seen": 1, "unusable": 1}


def test_the_pace_is_kept():
    world = World(500)

    async def main() -> float:
        began = world.clock.monotonic()
        async for _ in sweep(world.scores, dict, TODAY, world.clock, random.Random(1), 100.0):
            pass
        return world.clock.monotonic() - began

    assert run(main()) == pytest.approx(5.0, abs=0.1)
