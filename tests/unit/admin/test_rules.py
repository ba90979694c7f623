"""What `scoring rules` decides: the first file of a project, what an apply changes, and which workers forbid it."""

from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.admin.rules import SILENT_MS, changes_of, init_file, line_of, next_row, shadowed, unable
from service.scoring.definitions import DEFAULT_POINTS, Definition
from service.scoring.rules.load import RulesFile, load_rules
from service.scoring.rules.model import RuleSet
from service.scoring.rules.plan import plan
from service.scoring.rules.stored import FORMAT, RulesRow, decode_rules, unpack_history
from service.stream.leases.lease import Lease, Member, Snapshot

NOW = 1_795_000_000_000
FILE = """\
project: p
groups: {email: {half_life: 30d, max: 100}}
tiers: [{name: hot, enter: 120, leave: 80}]
rules:
  - {id: click, on: click, points: 10, group: email}
  - {id: quiet, idle: {days: 60, points: -20}}
"""


def loaded(text: str) -> RulesFile:
    file, problems = load_rules(text, "rules.yml")
    assert file is not None, [str(problem) for problem in problems]
    return file


def applied(text: str, current: RuleSet | None = None) -> RuleSet:
    made = plan(current, loaded(text), retroactive=False).rules
    assert made is not None
    return made


def changes(before: str, after: str, *, retroactive: bool = False) -> list[str]:
    current, file = applied(before), loaded(after)
    return [line_of(step) for step in changes_of(plan(current, file, retroactive=retroactive), current, file)]


def test_the_first_file_says_what_the_definitions_say():
    text = init_file("p", [Definition(name, "p", points) for name, points in DEFAULT_POINTS.items()])
    rules = {rule.on[0]: rule for rule in loaded(text).rules}
    assert rules.keys() == DEFAULT_POINTS.keys()
    for name, points in DEFAULT_POINTS.items():
        if points <= -500:
            assert (rules[name].suppress, rules[name].group) == (True, "sms" if "SMS" in name else "email")
            assert f"points: {points}" in text, "the definition stands in a comment"
        else:
            assert rules[name].points == points
    assert [name for name, rule in rules.items() if rule.human] == ["_campaign.opened_notification", "_email.open"]


@given(
    st.dictionaries(st.text(min_size=1, max_size=20), st.integers(-1000, 1000), min_size=1, max_size=8),
    st.text(min_size=1, max_size=20),
)
def test_the_first_file_can_be_read_whatever_the_definitions_are(points: dict[str, int], project: str):
    if any(0xD800 <= ord(char) < 0xE000 for char in "".join((*points, project))):
        return
    if not project.strip() or not all(name.strip() for name in points):
        return
    file = loaded(init_file(project, [Definition(name, project, Decimal(each)) for name, each in points.items()]))
    assert file.project_id == project
    assert {rule.on[0]: rule.points for rule in file.rules if not rule.suppress} == {
        name: each for name, each in points.items() if each > -500
    }


def test_a_file_that_is_in_force_changes_nothing():
    assert changes(FILE, "# a comment\n" + FILE) == []


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("points: 10", "points: 12", ["replaced click (slot 1): points"]),
        ("max: 100", "max: 200", ["setting group email: half_life 30d, max 100 -> half_life 30d, max 200"]),
        ("leave: 80", "leave: 70", ["setting tier hot: 1: from 120 until below 80 -> 1: from 120 until below 70"]),
        ("days: 60", "days: 61", ["setting idle quiet: -20 after 60 days in main -> -20 after 61 days in main"]),
        ("project: p", "project: p\nonce_entries: 8", ["setting once_entries: 16 -> 8"]),
        ("project: p", "project: p\nscore: {max: 9}", ["setting score: no bounds, scale 2 -> max 9, scale 2"]),
        (
            "30d, max",
            "60d, max",
            [
                "replaced click (slot 1): half_life",
                "setting group email: half_life 30d, max 100 -> half_life 60d, max 100",
            ],
        ),
    ],
)
def test_whatever_changes_is_reported(old: str, new: str, said: list[str]):
    assert changes(FILE, FILE.replace(old, new)) == said


def test_the_history_grows_with_every_version_and_keeps_the_file():
    first, second = loaded(FILE), loaded(FILE.replace("points: 10", "points: 12"))
    made = plan(None, first, retroactive=False)
    assert made.rules is not None
    row = next_row(None, made.rules, changes_of(made, None, first), FILE, NOW, retroactive=False)
    again = plan(decode_rules("p", row.text), second, retroactive=True)
    assert again.rules is not None
    steps = changes_of(again, made.rules, second)
    row = next_row(row, again.rules, steps, "second", NOW + 1, retroactive=True)
    assert row.version == 2
    one, two = unpack_history(row.history)
    assert (one.version, one.at_ms, one.retroactive, one.file) == (1, NOW, False, FILE)
    assert one.steps[0] == "added click (slot 0)"
    assert (two.version, two.retroactive, two.file, two.steps) == (
        2,
        True,
        "second",
        ("repriced click (slot 0): points",),
    )


def test_a_row_without_history_is_built_on():
    made = applied(FILE)
    assert unpack_history(next_row(RulesRow("p", 1, "{}"), made, [], FILE, NOW, retroactive=False).history)


def member(worker: str, *, capability: int = FORMAT, silent_ms: int = 0) -> Member:
    return Member(worker, beat_ms=NOW - silent_ms, capability=capability)


@pytest.mark.parametrize(
    ("snapshot", "found"),
    [
        (Snapshot((), (), None), []),
        (Snapshot((), (member("new"),), None), []),
        (Snapshot((), (member("new"), member("old", capability=0)), None), ["old"]),
        (Snapshot((), (member("dead", capability=0, silent_ms=SILENT_MS),), None), []),
        (Snapshot((Lease("s", "1", "ancient", checkpoint_ms=NOW - 5),), (), None), ["ancient"]),
        (Snapshot((Lease("s", "1", "gone", checkpoint_ms=NOW - SILENT_MS),), (), None), []),
        (Snapshot((Lease("s", "1", "new", checkpoint_ms=NOW),), (member("new"),), None), []),
    ],
)
def test_workers_that_would_score_otherwise_are_named(snapshot: Snapshot, found: list[str]):
    assert unable(snapshot, NOW) == found


def test_definitions_of_types_that_rules_name_do_not_count():
    definitions = [Definition(name, project, Decimal(1)) for name in ("click", "open") for project in ("p", "q")]
    assert shadowed(applied(FILE), definitions) == ["click"]
