"""What no order of events, batches or shards may change; and the state's bytes."""

from __future__ import annotations

import random
from collections.abc import Callable
from datetime import date
from decimal import Decimal
from fractions import Fraction as Exact

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.scoring.rules.decay import DAY_MS, MAX_BUCKETS
from service.scoring.rules.evaluate import Facts, amount_of, evaluate, holds
from service.scoring.rules.fold import RuleEvent, absorb, adopt_foreign, packed, window_of
from service.scoring.rules.model import (
    FOREIGN_SLOT,
    MICRO,
    Amount,
    Cap,
    Condition,
    Group,
    Once,
    Op,
    Rule,
    RuleSet,
    Window,
)
from service.scoring.rules.state import (
    EMPTY,
    EPOCH_DAY,
    MAX_STATE_BYTES,
    PersonState,
    Slot,
    StateFormatError,
    Used,
    once_days,
    pack,
    unpack,
)
from service.scoring.rules.view import explain, view

TODAY = 20_785

RULES = RuleSet(
    "p",
    1,
    {
        "main": Group("main"),
        "fast": Group("fast", half_life=1),
        "slow": Group("slow", half_life=30),
        "window": Group("window", expire=90),
    },
    (
        Rule("plain", 0, ("a",), points=Decimal(3)),
        Rule("fast", 1, ("a", "b"), "fast", Decimal(7), half_life=1),
        Rule("slow", 2, ("b", "c"), "slow", Decimal("1.5"), half_life=30),
        Rule("window", 3, ("c",), "window", Decimal(5), expire=90),
        Rule("daily", 4, ("a",), "slow", Decimal(2), half_life=30, cap=Cap(Window.DAY, 2, in_points=False)),
        Rule("monthly", 5, ("b",), points=Decimal(4), cap=Cap(Window.MONTH, 9 * MICRO, in_points=True)),
        Rule("message", 6, ("a", "c"), points=Decimal(9), once=Once.MESSAGE),
        Rule("gone", 7, ("stop",), "slow", suppress=True),
        Rule("back", 8, ("go",), "slow", resume=True),
    ),
    once_entries=64,
)
"""Every kind of rule; the cap over more than a day does not decay, as order would matter then."""

days = st.sampled_from([TODAY - 40, TODAY - 31, TODAY - 30, TODAY - 1, TODAY])
moments = st.builds(lambda day, ms: day * DAY_MS + ms, days, st.integers(0, DAY_MS - 1))
events = st.lists(
    st.builds(
        Facts,
        st.sampled_from(["a", "b", "c", "stop", "go", "unknown"]),
        moments,
        message=st.sampled_from(["", "m1", "m2", "m3"]),
    ),
    max_size=30,
)


def fold(state: PersonState, facts: list[Facts]) -> PersonState:
    return absorb(state, [RuleEvent(each.arrival_ms, evaluate(RULES, each).hits) for each in facts], 64).state


def old_windows(facts: list[Facts]) -> bool:
    """Whether some event may be late for its cap: which one is depends on the order."""
    spans = [window_of(window, each.arrival_ms // DAY_MS) for each in facts for window in (Window.DAY,)]
    months = [window_of(Window.MONTH, each.arrival_ms // DAY_MS) for each in facts]
    return bool(facts) and (max(spans) - min(spans) > 1 or max(months) - min(months) > 1)


@given(events, st.integers(0, 30))
def test_any_split_into_batches_gives_the_same_bytes(facts: list[Facts], cut: int):
    assert pack(fold(fold(EMPTY, facts[:cut]), facts[cut:])) == pack(fold(EMPTY, facts))


@given(events, st.randoms(use_true_random=False))
def test_any_order_gives_the_same_bytes(facts: list[Facts], rng: random.Random):
    facts = [each for each in facts if not old_windows([*facts, each])] if old_windows(facts) else facts
    shuffled = facts.copy()
    rng.shuffle(shuffled)
    assert pack(fold(EMPTY, shuffled)) == pack(fold(EMPTY, facts))


@given(events)
def test_the_view_is_the_sum_of_exact_fractions(facts: list[Facts]):
    """Against weights as real powers of two: the table's rounding stays far below the last digit shown."""
    plain = [each for each in facts if each.event_type == "b"]
    state = fold(EMPTY, plain)
    seen = view(RULES, state, "", max((each.arrival_ms for each in plain), default=0), TODAY)
    ages = [TODAY - each.arrival_ms // DAY_MS for each in plain]
    fast = sum((Exact(7, 2**age) for age in ages), Exact(0))
    slow = sum(1.5 * 2 ** (-age / 30) for age in ages)
    assert abs(seen.groups["fast"] - Decimal(round(float(fast), 2))) <= Decimal("0.01")
    assert abs(float(seen.groups["slow"]) - slow) < 0.0051


slots = st.builds(
    Slot,
    st.just(1),
    st.dictionaries(st.integers(0, 700), st.integers(-(2**80), 2**80), max_size=2),
    st.none() | st.builds(Used, st.integers(0, 30_000), st.integers(0, 2**40), st.integers(0, 9)),
)
states = st.builds(
    PersonState,
    st.dictionaries(st.integers(0, 255), slots, max_size=8),
    st.lists(st.binary(min_size=8, max_size=8), max_size=16).map(b"".join),
    st.lists(st.binary(min_size=5, max_size=5), max_size=5).map(b"".join),
    st.none() | st.decimals(allow_nan=False, allow_infinity=False, places=3, min_value=-(10**12), max_value=10**12),
    st.just(0) | st.integers(EPOCH_DAY + 1, EPOCH_DAY + 65_000),
    st.integers(0, 10**6),
)


@given(states)
def test_bytes_tell_the_whole_state(state: PersonState):
    assert unpack(pack(state)) == state


@given(states, st.data())
def test_damaged_bytes_are_a_named_error_or_another_state(state: PersonState, data: st.DataObject):
    raw = bytearray(pack(state))
    cut = data.draw(st.integers(0, len(raw)))
    if cut < len(raw):
        raw[cut] ^= data.draw(st.integers(1, 255))
    for damaged in (bytes(raw), bytes(raw[:cut])):
        try:
            unpack(damaged)
        except StateFormatError:
            continue


def test_a_state_beyond_its_bound_drops_the_oldest_entries():
    rules = RuleSet(
        "p", 1, {"main": Group("main")}, (Rule("m", 0, ("a",), points=Decimal(1), once=Once.MESSAGE),), once_entries=60
    )
    facts = [Facts("a", (TODAY + n // 10) * DAY_MS, message=f"m{n}") for n in range(60)]
    done = absorb(EMPTY, [RuleEvent(each.arrival_ms, evaluate(rules, each).hits) for each in facts], 60)
    state, data, evicted = packed(done.state)
    assert len(data) <= MAX_STATE_BYTES
    assert unpack(data) == state
    assert state.last == b""
    days = once_days(state.once)
    assert evicted == state.evictions == 60 - len(days)
    assert min(days.values()) > TODAY
    assert state.slots[0].sums == {0: 60}


def test_a_typical_person_takes_few_bytes():
    """Six slots, two of them capped, eight once entries, five last events: DESIGN counts on 300 bytes at most."""
    rules = RuleSet(
        "p",
        1,
        {"email": Group("email", half_life=30), "buying": Group("buying", half_life=90)},
        tuple(
            Rule(f"r{n}", n, ("a",), "email", Decimal(10), half_life=30, once=Once.MESSAGE if n < 2 else None,
                 cap=Cap(Window.DAY, 3, in_points=False) if n in (2, 3) else None)
            for n in range(6)
        ),
    )  # fmt: skip
    facts = [Facts("a", (TODAY - n) * DAY_MS, message=f"m{n}") for n in reversed(range(4))]
    state = absorb(EMPTY, [RuleEvent(each.arrival_ms, evaluate(rules, each).hits) for each in facts], 16).state
    assert len(state.slots) == 6
    assert len(once_days(state.once)) == 8
    assert len(pack(state)) <= 250


@pytest.mark.parametrize(
    ("day", "month"),
    [(0, 1970 * 12 + 1), (30, 1970 * 12 + 1), (31, 1970 * 12 + 2), (18_321, 2020 * 12 + 2), (18_322, 2020 * 12 + 3)],
)
def test_months_follow_the_calendar(day: int, month: int):
    assert window_of(Window.MONTH, day) == month


def test_weeks_begin_on_monday():
    monday = date(2026, 11, 23).toordinal() - date(1970, 1, 1).toordinal()
    assert (
        window_of(Window.WEEK, monday - 1) + 1 == window_of(Window.WEEK, monday) == window_of(Window.WEEK, monday + 6)
    )


def test_a_late_event_is_counted_as_late_and_not_in_the_score():
    rule = Rule("daily", 0, ("a",), points=Decimal(1), cap=Cap(Window.DAY, 5, in_points=False))
    rules = RuleSet("p", 1, {"main": Group("main")}, (rule,))
    facts = [Facts("a", day * DAY_MS) for day in (TODAY, TODAY - 1, TODAY - 2)]
    done = absorb(EMPTY, [RuleEvent(each.arrival_ms, evaluate(rules, each).hits) for each in facts], 16)
    assert (done.late, done.state.slots[0].sums) == (1, {0: 2})


def test_many_active_days_are_merged_close_to_the_truth():
    rule = Rule("w", 0, ("a",), points=Decimal(1), expire=90)
    rules = RuleSet("p", 1, {"main": Group("main", expire=90)}, (rule,))
    facts = [Facts("a", (TODAY - 89 + day) * DAY_MS) for day in range(90)]
    state = absorb(EMPTY, [RuleEvent(each.arrival_ms, evaluate(rules, each).hits) for each in facts], 16).state
    assert len(state.slots[0].sums) <= MAX_BUCKETS + 1
    for later in range(90):
        score = view(rules, state, "", TODAY * DAY_MS, TODAY + later).score
        assert 0 <= score - (90 - later) <= 8


def test_what_others_add_counts_undecayed_in_main():
    state = adopt_foreign(adopt_foreign(EMPTY, Decimal("12.5")), Decimal(-2))
    assert state.slots[FOREIGN_SLOT].sums == {0: 10_500_000_000}
    assert view(RULES, state, "", 0, TODAY).groups["main"] == Decimal("10.50")


def test_a_duplicate_of_a_sender_counts_once():
    hits = evaluate(RULES, Facts("a", TODAY * DAY_MS)).hits
    event = RuleEvent(TODAY * DAY_MS, hits, b"123456")
    done = absorb(EMPTY, [event, event], 16)
    assert done.duplicates == 1
    assert done.state.slots[0].sums == {0: 1}


def test_a_suppressed_group_shows_nothing_until_it_is_resumed():
    facts = [Facts("b", TODAY * DAY_MS), Facts("stop", TODAY * DAY_MS + 5), Facts("b", TODAY * DAY_MS + 6)]
    state = fold(EMPTY, facts)
    hidden = explain(RULES, state, "", TODAY * DAY_MS, TODAY).groups["slow"]
    assert (hidden.score, hidden.unclamped, hidden.suppressed_ms) == (0, 3, TODAY * DAY_MS + 5)
    resumed = explain(RULES, fold(state, [Facts("go", TODAY * DAY_MS + 7)]), "", TODAY * DAY_MS, TODAY).groups["slow"]
    assert (resumed.score, resumed.suppressed_ms) == (3, 0)


@pytest.mark.parametrize("written", ["1e999999999", "-1e999999999", "1e-999999999", "9" * 5000, "inf"])
@pytest.mark.parametrize("kind", [str, float, lambda _: 10**5000])
def test_a_monstrous_amount_is_bounded_and_ends_nothing(written: str, kind: Callable[[str], object]):
    value = kind(written)
    amount = Amount("v", Decimal("0.1"), Decimal(0), Decimal(200), lambda _: value)
    assert amount_of(amount, None) in (None, 0, 200 * MICRO)
    for op in (Op.LT, Op.GE, Op.EQ):
        assert holds(Condition("v", op, 5, lambda _: value), None) in (True, False)
