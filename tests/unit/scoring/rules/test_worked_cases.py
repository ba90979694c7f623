"""The worked cases of the rules, with the numbers that were calculated by hand."""

from __future__ import annotations

from collections.abc import Iterable
from decimal import Decimal

import pytest

from service.scoring.rules.decay import DAY_MS
from service.scoring.rules.evaluate import Facts, evaluate
from service.scoring.rules.fold import RuleEvent, absorb
from service.scoring.rules.model import (
    ABSENT_VALUE,
    MICRO,
    Amount,
    Cap,
    Condition,
    Group,
    Once,
    Op,
    Rule,
    RuleSet,
    Tier,
    Window,
)
from service.scoring.rules.state import EMPTY, PersonState
from service.scoring.rules.view import next_fall, view

D0 = 20_777
"""An ordinary day: 2026-11-20."""

OPEN, CLICK, BUY = "_email.open", "_email.click", "_monetization.purchase"


def at(day: float, ms: int = 0) -> int:
    return int((D0 + day) * DAY_MS) + ms


def amount(payload: object) -> object:
    return payload.get("amount", ABSENT_VALUE) if isinstance(payload, dict) else ABSENT_VALUE


def ruleset(*rules: Rule, half_life: int = 0, expire: int = 0, **more: object) -> RuleSet:
    group = Group("main", half_life=half_life, expire=expire)
    return RuleSet("p", 1, {"main": group}, rules, **more)


def fed(rules: RuleSet, facts: Iterable[Facts], state: PersonState = EMPTY) -> PersonState:
    events = [RuleEvent(each.arrival_ms, evaluate(rules, each).hits) for each in facts]
    return absorb(state, events, rules.once_entries).state


def shown(rules: RuleSet, state: PersonState, day: int, tier: str = "") -> str:
    return str(view(rules, state, tier, at(0), D0 + day).score)


def points(value: int, event_type: str = OPEN, slot: int = 0, **more: object) -> Rule:
    return Rule(f"r{slot}", slot, (event_type,), points=Decimal(value), **more)


def test_a_hundred_points_halve_in_thirty_days():
    rules = ruleset(points(100, half_life=30), half_life=30)
    state = fed(rules, [Facts(OPEN, at(0))])
    assert [shown(rules, state, day) for day in (0, 1, 30, 45, 60)] == ["100.00", "97.72", "50.00", "35.36", "25.00"]


def test_a_later_event_does_not_restart_the_decay():
    rules = ruleset(points(100, half_life=30), points(1, CLICK, 1, half_life=30), half_life=30)
    state = fed(rules, [Facts(OPEN, at(0)), Facts(CLICK, at(30))])
    assert [shown(rules, state, day) for day in (30, 60)] == ["51.00", "25.50"]


def test_decay_counts_whole_days():
    rules = ruleset(points(100, half_life=30), half_life=30)
    state = fed(rules, [Facts(OPEN, at(1) - 1), Facts(OPEN, at(1))])
    assert shown(rules, state, 1) == "197.72"


@pytest.mark.parametrize("offset", range(4))
def test_expiry_is_exact_to_the_day(offset: int):
    rules = ruleset(points(10, expire=30), expire=30)
    state = fed(rules, [Facts(OPEN, at(offset))])
    assert [shown(rules, state, offset + day) for day in (29, 30)] == ["10.00", "0.00"]


def test_a_cap_of_three_clicks_a_day():
    rules = ruleset(points(50, CLICK, cap=Cap(Window.DAY, 3, in_points=False)))
    state = fed(rules, [Facts(CLICK, at(0.5))] * 5)
    assert shown(rules, state, 0) == "150.00"
    assert shown(rules, fed(rules, [Facts(CLICK, at(1))], state), 1) == "200.00"


@pytest.mark.parametrize("order", [(129.50, 100.00), (100.00, 129.50)])
def test_a_cap_in_points_is_filled_in_any_order(order: tuple[float, float]):
    rule = Rule(
        "order",
        0,
        (BUY,),
        amount=Amount("amount", Decimal("0.1"), Decimal(0), None, amount),
        cap=Cap(Window.DAY, 20 * MICRO, in_points=True),
    )
    rules = ruleset(rule)
    state = fed(rules, [Facts(BUY, at(0), {"amount": value}) for value in order])
    assert shown(rules, state, 0) == "20.00"


def test_a_message_counts_once_for_each_rule():
    rules = ruleset(points(10, once=Once.MESSAGE), points(50, CLICK, 1, once=Once.MESSAGE))
    events = [Facts(OPEN, at(0), message=m) for m in ("A", "A", "B")] + [Facts(CLICK, at(0), message="A")]
    state = EMPTY
    for event in events:
        state = fed(rules, [event], state)
    assert shown(rules, state, 0) == "70.00"


def test_repeats_use_no_quota():
    rules = ruleset(points(10, once=Once.MESSAGE, cap=Cap(Window.DAY, 2, in_points=False)))
    state = fed(rules, [Facts(OPEN, at(0), message=m) for m in "AABC"])
    assert shown(rules, state, 0) == "20.00"


def test_clamps_bound_what_is_shown_and_not_what_is_kept():
    rules = ruleset(
        points(80), points(-100, CLICK, 1), points(-1000, "x", 2), points(10, "y", 3),
        minimum=Decimal(0), maximum=Decimal(100),
    )  # fmt: skip
    state, seen = EMPTY, []
    for event_type in (OPEN, OPEN, CLICK, "x", "y"):
        state = fed(rules, [Facts(event_type, at(0))], state)
        seen.append(shown(rules, state, 0))
    assert seen == ["80.00", "100.00", "60.00", "0.00", "0.00"]


def test_a_tier_is_left_below_its_leaving_score_only():
    tiers = (Tier("hot", Decimal(120), Decimal(80)),)
    rules = ruleset(
        points(120, half_life=30), points(1, CLICK, 1, half_life=30), half_life=30, tiers=tiers,
    )  # fmt: skip
    state = fed(rules, [Facts(OPEN, at(0))])
    assert view(rules, state, "", at(0), D0).tier == "hot"
    d17, d18 = (view(rules, state, "hot", at(0), D0 + day) for day in (17, 18))
    assert (str(d17.score), d17.tier) == ("81.02", "hot")
    assert (str(d18.score), d18.tier) == ("79.17", "")
    assert next_fall(rules, state, "hot", at(0), D0) == (D0 + 18, "")
    later = view(rules, fed(rules, [Facts(CLICK, at(18))], state), "", at(18), D0 + 18)
    assert (str(later.score), later.tier) == ("80.17", "")


def test_just_below_the_entering_score_is_not_the_tier():
    rules = ruleset(points(0), tiers=(Tier("hot", Decimal(120), Decimal(80)),))
    rules_ = ruleset(Rule("r", 0, (OPEN,), points=Decimal("119.99")), tiers=rules.tiers)
    assert view(rules_, fed(rules_, [Facts(OPEN, at(0))]), "", at(0), D0).tier == ""


@pytest.mark.parametrize(
    ("value", "expected", "odd"),
    [
        (129.5, "12.95", 0),
        (5000, "200.00", 0),
        (-50, "0.00", 1),
        (None, "0.00", 1),
        ("NaN", "0.00", 1),
        ("abc", "0.00", 1),
    ],
)
def test_an_odd_amount_counts_nothing(value: object, expected: str, odd: int):
    rule = Rule("order", 0, (BUY,), amount=Amount("amount", Decimal("0.1"), Decimal(0), Decimal(200), amount))
    rules = ruleset(rule)
    facts = Facts(BUY, at(0), {} if value is None else {"amount": value})
    assert evaluate(rules, facts).odd == odd
    assert shown(rules, fed(rules, [facts]), 0) == expected


@pytest.mark.parametrize("op", [Op.GT, Op.NE, Op.LT, Op.EQ, Op.IN, Op.PREFIX])
def test_no_comparison_holds_for_an_absent_field(op: Op):
    rules = ruleset(points(10, when=(Condition("amount", op, 1, amount),)))
    assert evaluate(rules, Facts(OPEN, at(0), {})).hits == ()


def test_dates_go_by_arrival_from_inclusive_until_exclusive():
    rules = ruleset(points(10, from_ms=at(10), until_ms=at(20)))
    assert evaluate(rules, Facts(OPEN, at(10) - 1)).hits == ()
    assert evaluate(rules, Facts(OPEN, at(10))).hits
    assert evaluate(rules, Facts(OPEN, at(20) - 1)).hits
    assert evaluate(rules, Facts(OPEN, at(20))).hits == ()
    late = fed(rules, [Facts(OPEN, at(15))])  # committed whenever: only its arrival counts
    assert shown(rules, late, 25) == "10.00"
