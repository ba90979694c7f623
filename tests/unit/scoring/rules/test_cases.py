"""Files of cases: events and expectations are read, played with the daily sweep, and every difference is reported."""

from __future__ import annotations

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from service.scoring.rules.cases import Case, load_cases, run_case, unknown_types
from service.scoring.rules.load import load_rules
from service.scoring.rules.model import RuleSet
from service.scoring.rules.plan import plan

DECAY = "groups: {g: {half_life: 30d}}\n"
OPEN = "  - {id: open, on: _email.open, points: 100, group: g}\n"


def rules(text: str) -> RuleSet:
    file, problems = load_rules("project: p\n" + text, "rules.yml")
    assert file is not None, [str(problem) for problem in problems]
    made = plan(None, file, retroactive=False).rules
    assert made is not None
    return made


def cases(text: str) -> list[Case]:
    found, problems = load_cases(text, "cases.yml")
    assert [str(problem) for problem in problems] == []
    return list(found)


def failures(rules_text: str, cases_text: str) -> list[str]:
    made = rules(rules_text)
    return [
        f"{failed.expected.line}: {difference}"
        for case in cases(f"cases:\n{cases_text}")
        for failed in run_case(made, case)
        for difference in failed.differences
    ]


@pytest.mark.parametrize(
    ("rules_text", "events", "expected"),
    [
        (
            DECAY + "rules:\n" + OPEN,
            "{type: _email.open, at: D0}",
            "{at: D1, score: 97.72}, {at: D30, score: 50}, {at: D45, score: 35.36}, {at: D60, score: 25}",
        ),
        (
            DECAY + "rules:\n" + OPEN,
            "{type: _email.open, at: 'D0 23:59:59.999'}, {type: _email.open, at: D1 00:00}",
            "{at: D1, score: 197.72}",
        ),
        (
            "groups: {g: {expire: 30d}}\nrules:\n  - {id: a, on: a, points: 10, group: g}",
            "{type: a, at: D0}",
            "{at: D29, score: 10}, {at: D30, score: 0}",
        ),
        (
            "rules:\n  - {id: a, on: a, points: 50, cap: {per: day, events: 3}}",
            "{type: a, at: D0, times: 5}, {type: a, at: D1}",
            "{at: D0, score: 150}, {at: D1, score: 200}",
        ),
        (
            "rules:\n  - {id: a, on: a, per: {path: v, factor: 0.1}, cap: {per: day, points: 20}}",
            "{type: a, at: D0, payload: {v: 129.50}}, {type: a, at: D0, payload: {v: 100.00}}",
            "{at: D0, score: 20}",
        ),
        (
            "rules:\n  - {id: a, on: o, points: 10, once: message}\n  - {id: b, on: c, points: 50, once: message}",
            "{type: o, at: D0, message: A, times: 2}, {type: o, at: D0, message: B}, {type: c, at: D0, message: A}",
            "{at: D0, score: 70}",
        ),
        (
            "score: {min: 0, max: 100}\nrules:\n  - {id: a, on: a, points: 80}\n  - {id: b, on: b, points: -100}",
            "{type: a, at: D0, times: 2}, {type: b, at: D1}",
            "{at: D0, score: 100}, {at: D1, score: 60}",
        ),
        (
            DECAY + "tiers: [{name: hot, enter: 120, leave: 80}]\nrules:\n"
            "  - {id: a, on: a, points: 120, group: g}\n  - {id: b, on: b, points: 1, group: g}",
            "{type: a, at: D0}, {type: b, at: D18}",
            "{at: D0, tier: hot}, {at: D17, score: 81.02, tier: hot}, {at: D18, score: 80.17, tier: ''}",
        ),
        (
            "rules:\n  - {id: a, on: a, per: {path: v, factor: 0.1, min: 0, max: 200}}",
            (
                "{type: a, at: D0, payload: {v: 129.5}}, {type: a, at: D1, payload: {v: 5000}}, "
                "{type: a, at: D2, payload: {v: -50}}, {type: a, at: D2, payload: {}}, "
                "{type: a, at: D2, payload: {v: NaN}}, {type: a, at: D2, payload: {v: abc}}"
            ),
            "{at: D0, score: 12.95}, {at: D1, score: 212.95}, {at: D2, score: 212.95}",
        ),
        (
            "rules:\n  - {id: a, on: a, points: 10, from: 2026-01-15, until: 2026-01-25}",
            "{type: a, at: 2026-01-24T23:59:59.999Z}, {type: a, at: 2026-01-25T00:00:00Z}, {type: a, at: 2026-01-14}",
            "{at: D19, score: 10}, {at: 2026-02-01, score: 10}",
        ),
        (
            "rules:\n  - {id: a, on: a, points: 10, when: [human]}",
            (
                "{type: a, at: D0, user_agent: Mozilla/5.0}, {type: a, at: D0, machine: true}, "
                "{type: a, at: D0, happened: D0 00:01, sent: D0 00:01}, {type: a, at: D0, happened: D0 00:01, sent: D0}"
            ),
            "{at: D0, score: 10}",
        ),
        (
            "rules:\n  - {id: a, on: a, points: 10}",
            "{type: a, at: D0, event_id: x, times: 3}, {at: D1, points: -2.5}",
            "{at: D0, score: 10}, {at: D1, score: 7.5}",
        ),
        (
            (
                "groups: {e: {}, m: {}}\nrules:\n"
                "  - {id: a, on: a, points: 10, group: e}\n  - {id: s, on: s, suppress: e}\n"
                "  - {id: r, on: r, resume: e}\n  - {id: i, idle: {days: 5, points: -3}, group: m}"
            ),
            "{type: a, at: D0}, {type: s, at: D1}, {type: a, at: D2}, {type: r, at: D3}",
            "{at: D1, groups: {e: 0}}, {at: D3, groups: {e: 20}}, {at: D7, score: 20}, {at: D8, score: 17}",
        ),
    ],
)
def test_what_is_expected_is_found(rules_text: str, events: str, expected: str):
    text = f"  - name: one\n    events: [{events}]\n    expect: [{expected}]\n"
    assert failures(rules_text, text) == []


def test_every_difference_is_reported_with_its_line_and_the_reason():
    made = rules(DECAY + "tiers: [{name: hot, enter: 90, leave: 80}]\nrules:\n" + OPEN)
    text = (
        "cases:\n  - name: wrong\n    events: [{type: _email.open, at: D0}]\n    expect:\n"
        "      - {at: D0, score: 99, groups: {g: 1, nope: 2}, tier: ''}\n"
        "      - {at: D30, score: 50, tier: hot}\n"
    )
    first, second = run_case(made, cases(text)[0])
    assert (first.case, first.expected.line, first.expected.written) == ("wrong", 5, "D0")
    assert first.differences == (
        "score is 100.00, expected 99",
        "group g is 100.00, expected 1",
        "the rules have no group 'nope'",
        "tier is hot, expected none",
    )
    assert second.differences == ("tier is none, expected hot",)
    assert [part.rule_id for part in first.explanation.contributions] == ["open"]


def test_a_type_that_no_rule_names_is_found():
    found = cases("cases: [{name: a, events: [{type: _email.opn, at: D0}], expect: [{at: D0, score: 0}]}]")
    assert unknown_types(rules("rules:\n  - {id: a, on: _email.open, points: 1}"), found) == ["_email.opn"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("case: []", "did you mean `cases`?"),
        ("cases: [{name: a}]", "cases.yml:1: cases[0]: `expect` is missing"),
        ("cases: [{name: a, expect: [{at: D0}]}]", "with one or more of `score`, `groups`, `tier`"),
        ("cases: [{name: a, events: [{at: D0}], expect: [{at: D0, score: 1}]}]", "`type` is missing"),
        ("cases: [{name: a, events: [{type: a}], expect: [{at: D0, score: 1}]}]", "`at` is missing"),
        ("cases: [{name: a, events: [{type: a, at: D0 24:00}], expect: [{at: D0, score: 1}]}]", "a time of day"),
        ("cases: [{name: a, events: [{type: a, at: soon}], expect: [{at: D0, score: 1}]}]", "write a day or a time"),
        (
            "cases: [{name: a, events: [{type: a, at: D0, points: 1}], expect: [{at: D0, score: 1}]}]",
            "leave out",
        ),
        ("cases: [{name: a, events: [{type: a, at: D0}], expect: [{at: D9999, score: 1}]}]", "more than 4000 days"),
    ],
)
def test_a_fault_of_the_file_is_a_sentence_with_its_line(text: str, said: str):
    found = [str(problem) for problem in load_cases(text, "cases.yml")[1]]
    assert any(said in each for each in found), found


KEYS = "cases name events expect type at score groups tier payload times points D0 D1 message machine"
words = st.sampled_from(KEYS.split())
scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | words
trees = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(words, inner, max_size=6), max_leaves=25
)


@given(st.dictionaries(words, trees, max_size=6).map(yaml.safe_dump) | st.text(max_size=60) | st.binary(max_size=60))
def test_whatever_a_file_holds_it_is_read_or_refused_in_sentences(text: str | bytes):
    _, problems = load_cases(text, "cases.yml")
    assert all("\n" not in str(problem) for problem in problems)
