from decimal import Decimal

import pytest

from service.scoring.definitions import (
    DEFAULT_POINTS,
    RULES_TYPE,
    Definition,
    DefinitionBook,
    Malformed,
    points_fault,
)
from service.scoring.rules.model import Rule, RuleSet
from service.scoring.rules.stored import RulesRow, StoredRulesError, encode_rules


def test_points_are_by_type_and_project():
    book = DefinitionBook().refreshed([Definition("a", "p1", Decimal(1)), Definition("a", "p2", Decimal("-0.5"))])
    assert book.points("a", "p1") == 1
    assert book.points("a", "p2") == Decimal("-0.5")
    assert book.points("a", "p3") is None
    assert book.points("b", "p1") is None
    assert len(book) == 2
    assert [d.project_id for d in book.definitions()] == ["p1", "p2"]


def test_a_malformed_row_keeps_the_last_good_value():
    book = DefinitionBook().refreshed([Definition("a", "p", Decimal(1)), Definition("b", "p", Decimal(2))])
    book = book.refreshed([Malformed("a", "p", "ScoreOffset is a string"), Malformed("c", "p", "no ScoreOffset")])
    assert book.points("a", "p") == 1
    assert book.points("b", "p") is None
    assert book.points("c", "p") is None


@pytest.mark.parametrize("value", ["0", "1", "-1000", "0.5", "999999999999999", "0.000000001", "1E+3"])
def test_sensible_points_pass(value: str):
    assert points_fault(Decimal(value)) is None


@pytest.mark.parametrize("value", ["NaN", "Infinity", "1E+15", "1e-10", "0.1234567891"])
def test_points_that_could_break_a_sum_are_refused_with_their_name(value: str):
    assert "ScoreOffset" in (points_fault(Decimal(value)) or "")


def test_the_fifteen_defaults_are_there():
    assert len(DEFAULT_POINTS) == 15
    assert all(points_fault(points) is None for points in DEFAULT_POINTS.values())


def row(project_id: str, version: int, points: int = 1) -> RulesRow:
    rule = Rule("r", 0, ("a",), points=Decimal(points))
    return RulesRow(project_id, version, encode_rules(RuleSet(project_id, version, {}, (rule,), slots_given=1)))


def test_rules_are_by_project_and_gone_with_their_row():
    first = DefinitionBook().refreshed([Definition("a", "p", Decimal(1)), row("p", 3)])
    assert {project: rules.version for project, rules in first.rules.items()} == {"p": 3}
    again = first.refreshed([row("p", 3), row("q", 1)])
    assert again.rules["p"] is first.rules["p"], "what did not change is not read again"
    assert again.rules.keys() == {"p", "q"}
    assert again.refreshed([]).rules == {}


@pytest.mark.parametrize("bad", [RulesRow("p", 4, '{"format": 99}'), Malformed(RULES_TYPE, "p", "Rules is missing")])
def test_rules_that_cannot_be_used_leave_the_last_good_ones_in_force(bad: RulesRow | Malformed):
    book = DefinitionBook().refreshed([row("p", 3)]).refreshed([bad])
    assert book.rules["p"].version == 3
    assert [fault.project_id for fault in book.faults] == ["p"]
    assert book.refreshed([row("p", 5)]).rules["p"].version == 5


@pytest.mark.parametrize("bad", [RulesRow("p", 4, '{"format": 99}'), Malformed(RULES_TYPE, "p", "Rules is missing")])
def test_nothing_is_scored_without_the_rules_of_a_project_that_has_some(bad: RulesRow | Malformed):
    with pytest.raises(StoredRulesError, match="project p cannot be used"):
        DefinitionBook().refreshed([bad])
