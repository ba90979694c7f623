"""What applying a rules file changes: slots, prices, and what people's states show afterwards."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.scoring.rules.decay import DAY_MS
from service.scoring.rules.evaluate import Facts, evaluate
from service.scoring.rules.fold import RuleEvent, absorb
from service.scoring.rules.load import load_rules
from service.scoring.rules.model import MAX_SLOTS, RuleSet
from service.scoring.rules.plan import Kind, Plan, plan
from service.scoring.rules.state import EMPTY, PersonState
from service.scoring.rules.view import view

TODAY = 20_785


def planned(current: RuleSet | None, rules: str, *, retroactive: bool = False) -> Plan:
    file, problems = load_rules(f"project: p\ngroups: {{g: {{half_life: 30d}}}}\nrules:\n{rules}", "rules.yml")
    assert file is not None, [str(problem) for problem in problems]
    return plan(current, file, retroactive=retroactive)


def applied(current: RuleSet | None, rules: str, *, retroactive: bool = False) -> RuleSet:
    made = planned(current, rules, retroactive=retroactive)
    assert made.rules is not None
    return made.rules


def fed(rules: RuleSet, state: PersonState, *types: str) -> PersonState:
    facts = [Facts(each, TODAY * DAY_MS) for each in types]
    return absorb(state, [RuleEvent(each.arrival_ms, evaluate(rules, each).hits) for each in facts], 16).state


def score(rules: RuleSet, state: PersonState) -> str:
    return str(view(rules, state, "", TODAY * DAY_MS, TODAY).score)


CLICK = "  - {id: click, on: click, points: 10}\n"
OPEN = "  - {id: open, on: open, points: 1}\n"


def test_a_rule_that_did_not_change_keeps_its_slot():
    first = applied(None, OPEN + CLICK)
    made = planned(first, CLICK + OPEN)
    assert [(step.rule_id, step.kind, step.slot) for step in made.steps] == [
        ("click", Kind.KEPT, 1),
        ("open", Kind.KEPT, 0),
    ]
    assert made.rules is not None
    assert (made.rules.version, made.rules.slots_given) == (2, 2)


def test_a_price_changes_from_now_on_by_a_new_slot():
    first = applied(None, CLICK)
    state = fed(first, EMPTY, "click", "click")
    second = applied(first, CLICK.replace("10", "100"))
    assert score(second, state) == "20.00"
    assert score(second, fed(second, state, "click")) == "120.00"


def test_a_price_changes_retroactively_for_everybody_without_any_history():
    first = applied(None, CLICK)
    state = fed(first, EMPTY, "click", "click")
    made = planned(first, CLICK.replace("10", "100"), retroactive=True)
    assert [(step.kind, step.slot, step.why) for step in made.steps] == [(Kind.REPRICED, 0, ("points",))]
    assert made.rules is not None
    assert score(made.rules, state) == "200.00"


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        ("{id: click, on: [click, tap], points: 10}", "on"),
        ("{id: click, on: click, points: 10, once: message}", "once"),
        ("{id: click, on: click, points: 10, cap: {per: day, events: 1}}", "cap"),
        ("{id: click, on: click, points: 10, when: [human]}", "when"),
        ("{id: click, on: click, points: 10, group: g}", "half_life"),
        ("{id: click, on: click, points: 10, from: 2026-01-01}", "from"),
        ("{id: click, on: click, per: {path: x}}", "per"),
        ("{id: click, on: click, suppress: g}", "suppress"),
    ],
)
@pytest.mark.parametrize("retroactive", [False, True])
def test_another_way_of_counting_takes_a_new_slot_and_old_points_stay(changed: str, why: str, *, retroactive: bool):
    first = applied(None, CLICK)
    state = fed(first, EMPTY, "click")
    made = planned(first, f"  - {changed}\n", retroactive=retroactive)
    assert [(step.kind, step.slot) for step in made.steps] == [(Kind.REPLACED, 1)]
    assert why in made.steps[0].why
    assert made.rules is not None
    assert score(made.rules, state) == "10.00"


def test_a_rule_that_is_gone_leaves_its_points_unless_they_are_withdrawn():
    first = applied(None, OPEN + CLICK)
    state = fed(first, EMPTY, "click", "open")
    assert score(applied(first, OPEN), state) == "11.00"
    withdrawn = applied(first, OPEN, retroactive=True)
    assert score(withdrawn, state) == "1.00"
    again = applied(withdrawn, OPEN + CLICK)
    assert again.by_slot.keys() == {0, 2}, "the slot of what was withdrawn is not given to anybody"
    assert score(again, state) == "1.00"


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(1, 5), st.booleans()), max_size=12))
def test_no_slot_is_ever_given_twice(history: list[tuple[str, int, bool]]):
    current = None
    owner: dict[int, tuple[str, object]] = {}
    for rule_id, points, retroactive in history:
        text = f"  - {{id: {rule_id}, on: [x{points % 2}], points: {points}}}\n"
        current = applied(current, text, retroactive=retroactive)
        for rule in current.rules:
            assert owner.setdefault(rule.slot, (rule.rule_id, rule.on)) == (rule.rule_id, rule.on)
        assert len({rule.slot for rule in current.rules}) == len(current.rules)


def test_a_project_that_has_given_out_its_slots_is_told_what_to_do():
    current = applied(None, CLICK)
    for points in range(MAX_SLOTS + 1):
        made = planned(current, f"  - {{id: click, on: click, points: {points + 1000}}}\n")
        if made.rules is None:
            assert "--retroactive" in made.refused
            assert points == MAX_SLOTS - 1
            return
        current = made.rules
    raise AssertionError("it was never refused")
