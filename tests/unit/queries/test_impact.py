"""What a change of rules does to the scores there are."""

from __future__ import annotations

from decimal import Decimal

import msgspec

from service.queries.impact import Impact, impact_of
from service.scoring.fold import ABSENT, Origin, Scorable, ScoreState, UserKey, sequence_bytes
from service.scoring.marks import marking
from service.scoring.rules.decay import DAY_MS
from service.scoring.rules.evaluate import Facts, evaluate
from service.scoring.rules.fold import RuleEvent
from service.scoring.rules.load import load_rules
from service.scoring.rules.model import RuleSet
from service.scoring.rules.plan import plan
from service.scoring.rules.score import fold_by_rules
from tests.fakes.aio import run
from tests.fakes.scores import MemoryScores

DAY = 20_785
TEXT = """\
project: p
tiers: [{name: hot, enter: 90, leave: 80}]
rules: [{id: click, on: click, points: POINTS}]
"""


def rules(points: int, current: RuleSet | None = None) -> RuleSet:
    file, _ = load_rules(TEXT.replace("POINTS", str(points)), "rules.yml")
    assert file is not None
    made = plan(current, file, retroactive=True).rules
    assert made is not None
    return made


def scored(given: RuleSet, clicks: int) -> ScoreState:
    event = RuleEvent(DAY * DAY_MS, evaluate(given, Facts("click", DAY * DAY_MS)).hits)
    events = [Scorable(sequence_bytes(str(n + 1)), Decimal(0), DAY * DAY_MS, "click", event) for n in range(clicks)]
    folded = fold_by_rules(ABSENT, marking("s-0"), events, given, DAY)
    assert folded is not None
    return folded.after


def test_who_changes_tier_and_how_far_scores_move_is_found():
    old = rules(50)
    new = rules(30, old)
    scores = MemoryScores({UserKey(f"u{n}", "p"): scored(old, n) for n in (1, 2, 3)})
    scores.items[UserKey("other", "q")] = scored(old, 9)
    found = run(impact_of(scores, "p", old, new, DAY))
    assert (found.people, found.changed, found.up, found.down) == (3, 3, 0, -60)
    assert found.tiers == {("hot", ""): 1}
    assert found.bands_before == {"50-100": 1, "100-250": 2}
    assert found.bands_after == {"10-50": 1, "50-100": 2}


def test_a_score_from_before_the_rules_counts_as_what_it_is():
    impact = Impact()
    impact.add(ScoreState(Origin.OURS, Decimal(95), 1, {}, 0), None, rules(50), DAY)
    assert (impact.people, impact.changed, impact.tiers) == (1, 0, {("", "hot"): 1})


def test_a_state_that_cannot_be_read_is_counted():
    state = scored(rules(50), 1)
    assert state.by_rules is not None
    impact = Impact()
    broken = msgspec.structs.replace(state, by_rules=msgspec.structs.replace(state.by_rules, state=b"?"))
    impact.add(broken, None, rules(50), DAY)
    assert (impact.people, impact.unusable) == (0, 1)
