"""A person's events folded by rules: each once, whatever is replayed, with everything that was in the score before."""

from __future__ import annotations

from decimal import Decimal

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.scoring.fold import ABSENT, ByRules, Origin, Scorable, ScoreState, fold, sequence_bytes
from service.scoring.marks import Marking, marking
from service.scoring.rules.decay import DAY_MS
from service.scoring.rules.evaluate import Facts, evaluate, plain_hit, remembered
from service.scoring.rules.fold import RuleEvent
from service.scoring.rules.model import Cap, Group, Once, Rule, RuleSet, Tier, Window
from service.scoring.rules.score import fold_by_rules, person_of
from service.scoring.rules.state import StateFormatError, unpack
from service.scoring.rules.sweep import moved

DAY = 20_785
RULES = RuleSet(
    "p",
    1,
    {"main": Group("main"), "email": Group("email", half_life=30)},
    (
        Rule("open", 0, ("open",), "email", Decimal(10), half_life=30, once=Once.MESSAGE),
        Rule("click", 1, ("click",), points=Decimal(50), cap=Cap(Window.DAY, 3, in_points=False)),
        Rule("visit", 2, ("visit",), points=Decimal("0.5")),
    ),
    tiers=(Tier("hot", Decimal(100), Decimal(80)),),
    minimum=Decimal(0),
    maximum=Decimal(120),
)


def event(number: int, event_type: str, *, message: str = "", event_id: bytes = b"") -> Scorable:
    at = DAY * DAY_MS + number
    hits = evaluate(RULES, Facts(event_type, at, message=message)).hits
    return Scorable(sequence_bytes(str(number + 1)), Decimal(0), at, event_type, RuleEvent(at, hits, event_id))


def folded(state: ScoreState, *events: Scorable, shard: Marking | None = None, day: int = DAY) -> ScoreState:
    outcome = fold_by_rules(state, shard or marking("s-0"), events, RULES, day)
    return state if outcome is None else outcome.after


def test_a_replayed_batch_is_nothing_to_write():
    events = [event(n, "click") for n in range(2)]
    state = folded(ABSENT, *events)
    assert fold_by_rules(state, marking("s-0"), events, RULES, DAY) is None


def test_a_worker_with_older_rules_keeps_what_newer_rules_counted():
    """The next write viewed sums that only the newer rules knew as nothing: the score fell until the next event."""
    old = msgspec.structs.replace(RULES, rules=RULES.rules[2:], slots_given=3)
    call = Rule("call", 3, ("call",), points=Decimal(7))
    new = msgspec.structs.replace(old, version=2, rules=(*old.rules, call), slots_given=4)
    called = Scorable(sequence_bytes("1"), Decimal(7), 1, "call", RuleEvent(1, evaluate(new, Facts("call", 1)).hits))
    first = fold_by_rules(ABSENT, marking("s-0"), [called], new, DAY)
    assert first is not None
    second = fold_by_rules(first.after, marking("s-0"), [event(1, "visit")], old, DAY)
    assert second is not None
    assert (second.after.score, second.points) == (Decimal("7.50"), Decimal("0.50"))
    assert moved(second.after, old, DAY + 1) is None, "nor does the sweep of a leader with older rules"
    third = fold_by_rules(second.after, marking("s-0"), [event(2, "visit")], new, DAY)
    assert third is not None
    assert third.after.score == 8


def test_older_rules_give_the_tier_of_the_whole_score():
    old = msgspec.structs.replace(RULES, rules=RULES.rules[2:], slots_given=3)
    call = Rule("call", 3, ("call",), points=Decimal(110))
    new = msgspec.structs.replace(old, version=2, rules=(*old.rules, call), slots_given=4)
    called = Scorable(sequence_bytes("1"), Decimal(7), 1, "call", RuleEvent(1, evaluate(new, Facts("call", 1)).hits))
    first = fold_by_rules(ABSENT, marking("s-0"), [called], new, DAY)
    assert first is not None
    second = fold_by_rules(first.after, marking("s-0"), [event(1, "visit")], old, DAY)
    assert second is not None
    assert second.after.by_rules is not None
    assert second.after.by_rules.tier == "hot"


def test_of_a_batch_that_overlaps_only_the_tail_counts():
    events = [event(n, "visit") for n in range(4)]
    outcome = fold_by_rules(folded(ABSENT, *events[:3]), marking("s-0"), events, RULES, DAY)
    assert outcome is not None
    assert (outcome.counted, outcome.after.score, outcome.points) == (1, Decimal("2.00"), Decimal("0.50"))


def test_the_tier_and_the_day_it_was_entered_are_kept():
    state = folded(ABSENT, *(event(n, "click") for n in range(2)))
    assert state.by_rules is not None
    assert (state.by_rules.tier, state.by_rules.day, unpack(state.by_rules.state).tier_day) == ("hot", DAY, DAY)
    later = folded(state, event(2, "visit"), day=DAY + 3)
    assert later.by_rules is not None
    assert (later.by_rules.tier, later.by_rules.day, unpack(later.by_rules.state).tier_day) == ("hot", DAY + 3, DAY)


def test_the_score_is_clamped_without_losing_what_others_add():
    state = folded(ABSENT, *(event(n, "click") for n in range(3)))
    assert state.score == 120
    assert state.score is not None
    added = ScoreState(state.origin, state.score - 50, state.revision, state.applied, state.updated_ms, state.by_rules)
    assert folded(added, event(3, "visit")).score == Decimal("100.50"), "150 counted, 50 taken by others, and a visit"


@pytest.mark.parametrize("origin", [Origin.OURS, Origin.FOREIGN])
def test_the_score_from_before_the_rules_counts_on(origin: Origin):
    before = ScoreState(origin, Decimal("12.345"), 3 if origin is Origin.OURS else 0, {}, 0)
    state = folded(before, event(0, "click"))
    assert (state.score, state.revision) == (Decimal("62.34"), before.revision + 1)
    assert folded(state, event(1, "visit")).score == Decimal("62.84")


def test_a_score_of_38_digits_is_kept_exactly():
    before = ScoreState(Origin.OURS, Decimal("12345678901234567890123456789.123456789"), 1, {}, 0)
    slots = person_of(before).slots
    assert [slot.sums for slot in slots.values()] == [{0: 12345678901234567890123456789123456789}]


def test_an_event_matched_before_the_rules_counts_as_its_definition_said():
    scorable = Scorable(sequence_bytes("1"), Decimal("2.5"), DAY * DAY_MS, "old")
    assert folded(ABSENT, scorable).score == Decimal("2.50")
    assert plain_hit(Decimal("2.5")).value == 2_500_000_000


def test_a_state_that_cannot_be_read_is_an_error_and_never_an_empty_one():
    broken = ScoreState(Origin.OURS, Decimal(1), 1, {}, 0, ByRules(b"\x00", DAY, ""))
    with pytest.raises(StateFormatError):
        fold_by_rules(broken, marking("s-0"), [event(0, "click")], RULES, DAY)


def test_plain_points_leave_the_state_alone():
    state = folded(ABSENT, event(0, "click"))
    outcome = fold(state, marking("s-1"), [Scorable(sequence_bytes("9"), Decimal(7), DAY * DAY_MS)])
    assert outcome is not None
    assert (outcome.after.score, outcome.after.by_rules, outcome.absorbed) == (57, state.by_rules, None)


KINDS = st.sampled_from(["open", "click", "visit"])
stream = st.lists(st.tuples(KINDS, st.sampled_from(["", "m1", "m2"]), st.booleans()), max_size=12)


def events_of(kinds: list[tuple[str, str, bool]]) -> list[Scorable]:
    """Return events, some of them with an id: those that are alike are duplicates of their sender's."""
    return [
        event(n, kind, message=message, event_id=remembered(kind, message) if has_id else b"")
        for n, (kind, message, has_id) in enumerate(kinds)
    ]


@given(stream, st.lists(st.integers(1, 5), max_size=12))
def test_any_split_and_any_replay_give_the_same_score_and_state(kinds: list[tuple[str, str, bool]], cuts: list[int]):
    """Batches overlap as after a crash: reading goes on somewhere before what was written last."""
    events = events_of(kinds)
    if not events:
        return
    whole = folded(ABSENT, *events)
    state, at = ABSENT, 0
    for cut in [*cuts, len(events)]:
        start = max(0, at - cut)
        state = folded(state, *events[start : at + cut])
        at = min(len(events), at + cut)
    state = folded(state, *events[max(0, at - 1) :])
    assert (state.score, state.applied, state.updated_ms) == (whole.score, whole.applied, whole.updated_ms)
    assert state.by_rules is not None
    assert whole.by_rules is not None
    assert state.by_rules.state == whole.by_rules.state


@given(stream, st.integers(0, 2**12))
def test_any_interleaving_of_shards_gives_the_same_sums(kinds: list[tuple[str, str, bool]], choice: int):
    events = events_of(kinds)
    shards = {"s-0": events[0::2], "s-1": events[1::2]}
    one = two = ABSENT
    for tag, own in shards.items():
        if own:
            one = folded(one, *own, shard=marking(tag))
    left = {tag: list(own) for tag, own in shards.items()}
    while any(left.values()):
        tag = "s-0" if (choice & 1 and left["s-0"]) or not left["s-1"] else "s-1"
        choice >>= 1
        two = folded(two, left[tag].pop(0), shard=marking(tag))
    assert (one.score, one.applied) == (two.score, two.applied)
    if one.by_rules is not None and two.by_rules is not None:
        assert one.by_rules.state == two.by_rules.state
