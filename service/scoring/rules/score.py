"""A person's events folded by the rules of their project: sums first, then the score as a view of them.

What else there is in `Score` is kept: the score of an item from before its project had rules, and what something else
added since the last write, is whatever differs from the score last published, which stands in the state. It counts in
a slot of its own, undecayed.
"""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal

import msgspec

from service.scoring.fold import ByRules, Folded, Origin, Scorable, ScoreState, marks_after, unapplied
from service.scoring.marks import Marking
from service.scoring.rules.evaluate import plain_hit
from service.scoring.rules.fold import RuleEvent, absorb, adopt_foreign, packed
from service.scoring.rules.model import MAX_SLOTS, RuleSet
from service.scoring.rules.state import EMPTY, EXACT, PersonState, unpack
from service.scoring.rules.view import score_of, tier_of

_ZERO = Decimal(0)


def person_of(state: ScoreState) -> PersonState:
    """Return a person's sums, with everything in that is in the stored score.

    Raises:
        StateFormatError: The state stored cannot be read.
    """
    person = EMPTY if state.by_rules is None else unpack(state.by_rules.state)
    score = _ZERO if state.score is None else state.score
    published = _ZERO if person.published is None else person.published
    return adopt_foreign(person, EXACT.subtract(score, published)) if score != published else person


def fold_by_rules(
    state: ScoreState, marking: Marking, events: Sequence[Scorable], rules: RuleSet, day: int
) -> Folded | None:
    """Add to `state` those of `events` that are not in it yet, as `rules` say.

    Args:
        state: The person's stored state.
        marking: The one shard all the events come from, and what their batch means for marks.
        events: The person's events, in the shard's order.
        rules: The rules of the project.
        day: Today, counted from 1970-01-01: what the score is viewed for.

    Returns:
        What to write, or None when every event is in the score already.

    Raises:
        StateFormatError: The state stored cannot be read.
        UncertainError: Nothing tells whether the events are in the score.
    """
    fresh = unapplied(state, marking, events)
    if not fresh:
        return None
    updated_ms = state.updated_ms
    for event in fresh:
        updated_ms = max(updated_ms, event.arrival_ms)
    person = person_of(state)
    absorbed = absorb(person, [_rule_event(event) for event in fresh], rules.once_entries)
    unseen = _ZERO if knows(rules, person) else _unseen(rules, person, state, day)
    by_rules, score, evicted = shown(rules, absorbed.state, state.by_rules, updated_ms, day, unseen)
    if evicted:
        absorbed = msgspec.structs.replace(absorbed, evicted=absorbed.evicted + evicted)
    after = ScoreState(Origin.OURS, score, state.revision + 1, marks_after(state, marking, fresh), updated_ms, by_rules)
    return Folded(state, after, EXACT.subtract(score, state.score or _ZERO), len(fresh), absorbed)


def knows(rules: RuleSet, person: PersonState) -> bool:
    """Return whether no sum is of a rule that came after `rules`: a worker may not have read the newest ones yet."""
    return all(number < rules.slots_given or number >= MAX_SLOTS or number in rules.by_slot for number in person.slots)


def _unseen(rules: RuleSet, person: PersonState, state: ScoreState, day: int) -> Decimal:
    """Return what is in the stored score of rules that came after `rules`, which do not say what their sums are worth.

    It stays in the score as it is. A write with the newer rules views all of it again.
    """
    tier = "" if state.by_rules is None else state.by_rules.tier
    seen, _ = score_of(rules, person, tier, state.updated_ms, day)
    return EXACT.subtract(state.score or _ZERO, seen)


def shown(
    rules: RuleSet,
    person: PersonState,
    before: ByRules | None,
    updated_ms: int,
    day: int,
    unseen: Decimal = _ZERO,
) -> tuple[ByRules, Decimal, int]:
    """Return what is stored of a person, the score, and how many once entries were dropped to stay within the bound.

    Args:
        rules: The rules of the project.
        person: The sums.
        before: What was stored; None: nothing.
        updated_ms: Newest arrival in the sums, epoch milliseconds; 0: none.
        day: What the score is viewed for, counted from 1970-01-01.
        unseen: Points in the score that are of rules that came after these.
    """
    tier_before = "" if before is None else before.tier
    score, tier = score_of(rules, person, tier_before, updated_ms, day)
    if unseen:
        score = EXACT.add(score, unseen)
        tier = tier_of(rules.tiers, tier_before, score)
    tier_day = person.tier_day if tier == tier_before else day if tier else 0
    person = PersonState(person.slots, person.once, person.last, score, tier_day, person.evictions)
    _, data, evicted = packed(person)
    return ByRules(data, day, tier), score, evicted


def _rule_event(event: Scorable) -> RuleEvent:
    # Without: it was matched before the project had rules.
    return event.rules or RuleEvent(event.arrival_ms, (plain_hit(event.points),))
