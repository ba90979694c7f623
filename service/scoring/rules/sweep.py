"""What a person's score shows today, where that differs enough from what was published to be written."""

from __future__ import annotations

from decimal import Decimal

from service.scoring.fold import Folded, Origin, ScoreState
from service.scoring.rules.fold import Absorbed
from service.scoring.rules.model import RuleSet
from service.scoring.rules.score import knows, person_of, shown
from service.scoring.rules.state import EXACT

LEAST = Decimal(1)
SHARE = Decimal("0.1")
"""A score is written again once it has moved by a point and by a tenth: from 100 to 1 that is 44 writes at most."""


def moved(state: ScoreState, rules: RuleSet, day: int) -> Folded | None:
    """Return what to write of a person without further events, or None where nothing has moved far enough.

    Args:
        state: As stored. A score that no rule has made yet is left alone: the person's next event takes it over. So is
            one of rules that came after `rules`: the next sweep knows them.
        rules: Of the project.
        day: Today, counted from 1970-01-01.

    Raises:
        StateFormatError: The state stored cannot be read.
    """
    by_rules, before = state.by_rules, state.score
    if by_rules is None or before is None or state.origin is not Origin.OURS:
        return None
    person = person_of(state)
    if not knows(rules, person):
        return None
    after, score, _ = shown(rules, person, by_rules, state.updated_ms, day)
    far = EXACT.subtract(score, before).copy_abs()
    if after.tier == by_rules.tier and (far < LEAST or far < EXACT.multiply(before.copy_abs(), SHARE)):
        return None
    next_state = ScoreState(Origin.OURS, score, state.revision + 1, state.applied, state.updated_ms, after)
    return Folded(state, next_state, EXACT.subtract(score, before), 0, Absorbed(person))
