"""Adding a user's events of one shard to the user's score. Pure.

`fold` sums the points of events that the score does not contain yet. What an event is worth is decided before
(`definitions.py`); a project with rules has a fold of its own (`rules/score.py`), which shares the marks with this one.

Why each event counts once: a state stores, for every shard that could still give one of its events again, the sequence
number up to which that shard's events are in the score (the mark; `marks.py` says when one is not needed any more).
Sequence numbers of a shard only grow, and a shard is committed in order. So an event at or below the mark is in the
score already, and an event above it is not. A state is written only if the stored state is still the one that was
folded (compare-and-set on `revision`), so a mark and its points are always written together.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from decimal import Context, Decimal
from enum import Enum

import msgspec

from service.scoring.marks import SEQUENCE_BYTES, Mark, Marking
from service.scoring.rules.fold import Absorbed, RuleEvent

_EXACT = Context(prec=38)


class UserKey(msgspec.Struct, frozen=True, gc=False, order=True, cache_hash=True):
    """Whose score: a user of a project. Neither part is ever empty."""

    user_id: str
    project_id: str


class Origin(Enum):
    """What the table holds for a user, which decides how the next state is written."""

    ABSENT = "absent"
    """No item: the next state is inserted."""
    FOREIGN = "foreign"
    """An item without `Revision`, written by something else: the next state adopts it."""
    OURS = "ours"
    """An item with `Revision`."""


class ByRules(msgspec.Struct, frozen=True, gc=False):
    """What an item holds beside the score where its project has rules.

    Attributes:
        state: The sums that the score is a view of (`service/scoring/rules/state.py`).
        day: The day that the score was viewed for, counted from 1970-01-01.
        tier: The tier then; empty: none.
    """

    state: bytes
    day: int
    tier: str


class ScoreState(msgspec.Struct, frozen=True, gc=False):
    """A user's score as stored.

    Attributes:
        origin: Whether there is an item, and whose.
        score: Running total; None where a foreign item has no `Score` yet.
        revision: Grows by 1 with every committed change; 0 before the first.
        applied: Shard tag to the mark of the last record of that shard in the score (see `marks.py`).
        updated_ms: The newest `arrival_ms` in the score, epoch milliseconds.
        by_rules: None where the score was never made by rules.
    """

    origin: Origin
    score: Decimal | None
    revision: int
    applied: Mapping[str, Mark]
    updated_ms: int
    by_rules: ByRules | None = None


ABSENT = ScoreState(Origin.ABSENT, None, 0, {}, 0)


class Scorable(msgspec.Struct, frozen=True, gc=False):
    """One event of one user, worth points.

    Attributes:
        sequence: Its sequence number as `SEQUENCE_BYTES` big-endian bytes.
        points: What its definition gives it.
        arrival_ms: When its sender received it, epoch milliseconds.
        event_type: What it was; statistics are kept by it.
        rules: What the rules of its project make of it; None where the project has none.
    """

    sequence: bytes
    points: Decimal
    arrival_ms: int
    event_type: str = ""
    rules: RuleEvent | None = None


class Folded(msgspec.Struct, frozen=True, gc=False):
    """The outcome of a fold that has something to write.

    Attributes:
        before: The state folded on; the write must find it unchanged.
        after: The state to write.
        points: `after.score` less `before.score`: what is added, so that foreign increments survive.
        counted: How many events the points come from: the last ones given; those before were in the score.
        absorbed: What rules made of the events: then the score is set, where the stored one is still the one before.
    """

    before: ScoreState
    after: ScoreState
    points: Decimal
    counted: int
    absorbed: Absorbed | None = None


def sequence_bytes(sequence: str) -> bytes:
    """Return a decimal sequence number in the form that marks are compared in.

    Raises:
        OverflowError: More than 24 bytes; no AWS service sends such a number.
        ValueError: Not a decimal number.
    """
    return int(sequence).to_bytes(SEQUENCE_BYTES, "big")


def fold(state: ScoreState, marking: Marking, events: Sequence[Scorable]) -> Folded | None:
    """Add to `state` those of `events` that are not in it yet.

    Args:
        state: The user's stored state.
        marking: The one shard all the events come from, and what their batch means for marks.
        events: The user's events, in the shard's order.

    Returns:
        What to write, or None when every event is in the score already.

    Raises:
        UncertainError: Nothing tells whether the events are in the score.
    """
    fresh = unapplied(state, marking, events)
    if not fresh:
        return None
    points, updated_ms = fresh[0].points, state.updated_ms
    for event in fresh[1:]:
        points = _EXACT.add(points, event.points)
    for event in fresh:
        updated_ms = max(updated_ms, event.arrival_ms)
    score = points if state.score is None else _EXACT.add(state.score, points)
    applied = marks_after(state, marking, fresh)
    after = ScoreState(Origin.OURS, score, state.revision + 1, applied, updated_ms, state.by_rules)
    return Folded(state, after, points, len(fresh))


def unapplied(state: ScoreState, marking: Marking, events: Sequence[Scorable]) -> Sequence[Scorable]:
    """Return those of `events` that are not in the score yet; the arguments and errors are those of `fold`."""
    marks = state.applied
    mark = marks.get(marking.tag)
    if mark is not None:
        upto = marking.applied_up_to(mark)
        # In order: where the first is not in the score yet, none is.
        if events[0].sequence <= upto:
            return [event for event in events if event.sequence > upto]
    elif marks:
        marking.check(marks)
    return events


def marks_after(state: ScoreState, marking: Marking, fresh: Sequence[Scorable]) -> dict[str, Mark]:
    """Return the marks once `fresh` (at least one event) is in the score."""
    applied = marking.kept(state.applied) if state.applied else {}
    applied[marking.tag] = marking.set_at(fresh[-1].sequence)
    return applied
