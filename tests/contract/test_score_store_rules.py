"""Scores by rules in the score table: the state travels with the score, and what others add is never lost."""

from __future__ import annotations

from decimal import Decimal

import pytest

from service.ingest.stores import Change, Committed, Conflict
from service.scoring.fold import ABSENT, Folded, Origin, Scorable, ScoreState, sequence_bytes
from service.scoring.marks import marking
from service.scoring.rules.decay import DAY_MS
from service.scoring.rules.evaluate import Facts, evaluate
from service.scoring.rules.fold import RuleEvent
from service.scoring.rules.model import FOREIGN_SLOT, Group, Rule, RuleSet, Tier
from service.scoring.rules.score import fold_by_rules, person_of
from tests.contract.test_score_store import ANN, SEQUENCE, TAG, DynamoStore, Store, commit, folded, stored
from tests.contract.test_score_store import subject as world_of_scores
from tests.fakes.embedded import Run

subject = world_of_scores

pytestmark = pytest.mark.usefixtures("fast_calls")

DAY = 20_785
RULES = RuleSet(
    "p1",
    1,
    {"main": Group("main")},
    (Rule("click", 0, ("click",), points=Decimal(50)),),
    tiers=(Tier("hot", Decimal(100), Decimal(80)),),
)


def by_rules(state: ScoreState, step: int = 0, day: int = DAY) -> Folded:
    hits = evaluate(RULES, Facts("click", DAY * DAY_MS)).hits
    event = RuleEvent(DAY * DAY_MS, hits)
    scorable = Scorable(sequence_bytes(str(SEQUENCE + step)), Decimal(50), DAY * DAY_MS, "click", event)
    outcome = fold_by_rules(state, marking(TAG), [scorable], RULES, day)
    assert outcome is not None
    return outcome


def test_a_score_by_rules_is_read_back_with_its_state(subject: Store, run: Run):
    first = by_rules(ABSENT)
    assert commit(subject, run, Change(ANN, first)) == [Committed()]
    assert stored(subject, run) == first.after
    second = by_rules(first.after, 1)
    assert commit(subject, run, Change(ANN, second)) == [Committed()]
    state = stored(subject, run)
    assert state == second.after
    assert state.by_rules is not None
    assert (state.score, state.by_rules.tier, state.by_rules.day) == (100, "hot", DAY)


def test_points_that_something_else_added_are_kept_in_a_score_by_rules(subject: Store, run: Run):
    first = by_rules(ABSENT)
    commit(subject, run, Change(ANN, first))
    subject.increment(ANN, Decimal("2.5"))
    (outcome,) = commit(subject, run, Change(ANN, by_rules(first.after, 1)))
    assert isinstance(outcome, Conflict)
    current = outcome.current or stored(subject, run)
    assert current.score == Decimal("52.5")
    assert commit(subject, run, Change(ANN, by_rules(current, 1))) == [Committed()]
    state = stored(subject, run)
    assert state.score == Decimal("102.5")
    assert person_of(state).slots[FOREIGN_SLOT].sums == {0: 2_500_000_000}


def test_an_item_from_before_the_project_had_rules_keeps_its_points(subject: Store, run: Run):
    commit(subject, run, Change(ANN, folded(ABSENT, "17", SEQUENCE)))
    outcome = by_rules(stored(subject, run), 1)
    assert commit(subject, run, Change(ANN, outcome)) == [Committed()]
    assert stored(subject, run).score == 67


@pytest.mark.parametrize("score", [Decimal("12.5"), None])
def test_an_item_of_something_else_becomes_ours(subject: Store, run: Run, score: Decimal | None):
    subject.put_foreign(ANN, score)
    outcome = by_rules(stored(subject, run))
    assert commit(subject, run, Change(ANN, outcome)) == [Committed()]
    state = stored(subject, run)
    assert (state.origin, state.score) == (Origin.OURS, (score or 0) + 50)


@pytest.mark.parametrize("score", [Decimal(1), None])
def test_an_item_of_something_else_that_changed_meanwhile_is_a_conflict(
    subject: Store, run: Run, score: Decimal | None
):
    subject.put_foreign(ANN, score)
    outcome = by_rules(stored(subject, run))
    subject.put_foreign(ANN, Decimal(9))
    assert isinstance(commit(subject, run, Change(ANN, outcome))[0], Conflict)


def test_the_same_write_again_is_a_conflict(subject: Store, run: Run):
    change = Change(ANN, by_rules(ABSENT))
    commit(subject, run, change)
    assert isinstance(commit(subject, run, change)[0], Conflict)
    second = Change(ANN, by_rules(stored(subject, run), 1))
    commit(subject, run, second)
    assert isinstance(commit(subject, run, second)[0], Conflict)


def test_plain_points_on_an_item_with_state_keep_the_state(subject: Store, run: Run):
    commit(subject, run, Change(ANN, by_rules(ABSENT)))
    state = stored(subject, run)
    commit(subject, run, Change(ANN, folded(state, "7", SEQUENCE + 1)))
    after = stored(subject, run)
    assert (after.score, after.by_rules) == (57, state.by_rules)
    again = by_rules(after, 2)
    commit(subject, run, Change(ANN, again))
    assert stored(subject, run).score == 107


def test_a_state_that_is_no_binary_is_no_score(subject: Store, run: Run):
    if not isinstance(subject, DynamoStore):
        pytest.skip("the fake holds states, not items")
    commit(subject, run, Change(ANN, by_rules(ABSENT)))
    subject.put({**subject.raw(ANN), "State": {"S": "x"}})
    assert "State is not a binary" in str(run(subject.store.load([ANN]))[ANN])
