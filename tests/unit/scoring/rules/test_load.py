"""Rules files: what is right is read, and every fault is a sentence with its line."""

from __future__ import annotations

from decimal import Decimal

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from service.scoring.rules.evaluate import Facts, evaluate
from service.scoring.rules.load import RulesFile, load_rules
from service.scoring.rules.model import MICRO, Cap, Group, Idle, Once, Op, RuleSet, Tier, Window

EXAMPLE = """\
project: shop
groups:
  email:  {half_life: 30d, max: 100}
  buying: {expire: 90d}
score: {min: 0, max: 1000, scale: 1}
tiers:
  - {name: warm, enter: 40}
  - {name: hot, enter: 120, leave: 80}
rules:
  - {id: click, on: _email.click, points: 50, group: email, once: message, cap: {per: day, events: 3}, when: [human]}
  - {id: order, on: [buy, rebuy], group: buying, per: {path: metrics.price, factor: 0.1, max: 200}, from: 2026-11-01}
  - {id: big, on: buy, points: 5, when: [{path: metrics.price, op: ge, value: 100}], cap: {per: week, points: 7.5}}
  - {id: gone, on: [_email.unsubscribe], suppress: email}
  - {id: first, on: _session.start, points: 1, once: life}
  - {id: quiet, idle: {days: 60, points: -20}, group: email}
"""


def sound(text: str) -> RulesFile:
    found, problems = load_rules(text, "rules.yml")
    assert [str(problem) for problem in problems] == []
    assert found is not None
    return found


def faults(text: str) -> list[str]:
    found, problems = load_rules(text, "rules.yml")
    assert found is None
    return [str(problem) for problem in problems]


def test_the_documented_example_is_read():
    file = sound(EXAMPLE)
    assert file.groups == {
        "email": Group("email", 30, 0, None, Decimal(100)),
        "buying": Group("buying", 0, 90),
        "main": Group("main"),
    }
    assert file.tiers == (Tier("warm", Decimal(40), Decimal(40)), Tier("hot", Decimal(120), Decimal(80)))
    assert (file.minimum, file.maximum, file.scale) == (0, 1000, 1)
    click, order, big, gone, first = file.rules
    assert (click.once, click.cap, click.human, click.half_life) == (
        Once.MESSAGE,
        Cap(Window.DAY, 3, in_points=False),
        True,
        30,
    )
    assert order.amount is not None
    assert (order.amount.factor, order.amount.minimum, order.amount.maximum) == (Decimal("0.1"), 0, 200)
    assert order.from_ms == 1_793_491_200_000
    assert (big.when[0].op, big.when[0].value, big.cap) == (
        Op.GE,
        100,
        Cap(Window.WEEK, 7 * MICRO + MICRO // 2, in_points=True),
    )
    assert (gone.suppress, gone.group, gone.half_life) == (True, "email", 0)
    assert (first.once, first.cap) == (None, Cap(Window.LIFE, 1, in_points=False))
    assert file.idles == (Idle("quiet", "email", 60, Decimal(-20)),)


def test_paths_of_a_file_reach_into_the_payload():
    file = sound(EXAMPLE)
    rules = RuleSet(file.project_id, 1, file.groups, file.rules)
    hits = evaluate(rules, Facts("buy", 1_795_000_000_000, {"metrics": {"price": 129.5}})).hits
    assert [(hit.rule.rule_id, hit.value) for hit in hits] == [("order", 12_950_000), ("big", MICRO)]


RULE = "project: p\nrules:\n  - "


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("rules: []", "rules.yml:1: `project` is missing"),
        ("project: p\nrule: []", "did you mean `rules`?"),
        (RULE + "{on: a, points: 1}", "rules.yml:3: rules[0]: `id` is missing"),
        (RULE + "{id: a, points: 1}", "`on` is missing"),
        (RULE + "{id: a, on: a}", "one of `points`, `per`, `suppress`, `resume`; it has none"),
        (RULE + "{id: a, on: a, points: 1, suppress: main}", "it has `points` and `suppress`"),
        (RULE + "{id: a, on: a, points: yes}", "YAML reads 'yes' as true or false"),
        (RULE + "{id: a, on: a, points: .nan}", "as a number in a special form"),
        (RULE + "{id: a, on: a, points: 1_000}", "rules[0].points"),
        (RULE + "{id: a, on: a, points: 0.0000000001}", "more than 9 digits after the point"),
        (RULE + "{id: a, on: a, points: 1, group: nope}", "there is no group 'nope'; groups are `main`"),
        (RULE + "{id: a, on: a, points: 1, once: mesage}", "write `message`, `campaign` or `life`"),
        (RULE + "{id: a, on: a, points: 1, cap: {per: hour, events: 1}}", "'hour' is not known"),
        (RULE + "{id: a, on: a, points: 1, cap: {per: day}}", "write {per: day, events: 3}"),
        (RULE + "{id: a, on: a, points: 1, when: [robot]}", "'robot' is not known; write `human`"),
        (RULE + "{id: a, on: a, points: 1, when: [{path: x, op: gt}]}", "`value` is missing"),
        (RULE + "{id: a, on: a, points: 1, when: [{path: x, op: exists, value: 1}]}", "`exists` takes no `value`"),
        (RULE + "{id: a, on: a, points: 1, when: [{path: 'x[', op: exists}]}", "rules[0].when[0].path"),
        (RULE + "{id: a, on: a, points: 1, when: [{path: x, op: gt, value: abc}]}", "compares with a number"),
        (RULE + "{id: a, on: a, points: 1, from: 2026-12-02, until: 2026-12-01}", "would never count"),
        (RULE + "{id: a, on: a, points: 1, from: tomorrow}", "write a day or a time"),
        (RULE + "{id: a, on: a, points: 1}\n  - {id: a, on: b, points: 1}", "rules.yml:4: rules[1].id: another rule"),
        (RULE + "{id: a, on: a, suppress: main, once: message}", "`once` has no meaning beside `suppress`"),
        (RULE + "{id: a, idle: {days: 0, points: 1}}", "a whole number from 1 to"),
        (RULE + "{id: a, on: a, points: 1}\ngroups: {g: {half_life: 30}}", "a number of days such as `30d`"),
        (RULE + "{id: a, on: a, points: 1}\ngroups: {g: {half_life: 1d, expire: 2d}}", "not both"),
        (RULE + "{id: a, on: a, points: 1}\nscore: {min: 5, max: 1}", "min 5 is above max 1"),
        (RULE + "{id: a, on: a, points: 1}\ntiers: [{name: h, enter: 1, leave: 2}]", "leave at once"),
        (RULE + "{id: a, on: a, points: 1}\ntiers: [{name: h, enter: 2}, {name: i, enter: 1}]", "rising order"),
        (RULE + "{id: a, on: a, per: {path: x, min: -1}, cap: {per: day, points: 1}}", "not negative"),
    ],
)
def test_every_fault_is_a_sentence_that_names_what_is_right(text: str, said: str):
    assert any(said in fault for fault in faults(text)), faults(text)


scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)
KEYS = (
    "project groups score tiers rules id on points per group once cap when from until suppress resume idle half_life "
    "expire min max scale name enter leave path op value factor days events human message life day main 30d"
)
words = st.sampled_from(KEYS.split())
trees = st.recursive(
    scalars | words,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(words, inner, max_size=6),
    max_leaves=25,
)


@given(st.dictionaries(words, trees, max_size=6).map(yaml.safe_dump) | st.text(max_size=60) | st.binary(max_size=60))
def test_whatever_a_file_holds_it_is_read_or_refused_in_sentences(text: str | bytes):
    found, problems = load_rules(text, "rules.yml")
    assert (found is None) == bool(problems)
    assert all("\n" not in str(problem) for problem in problems)
