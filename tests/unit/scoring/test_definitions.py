from decimal import Decimal

import pytest

from service.scoring.definitions import DEFAULT_POINTS, Definition, DefinitionBook, Malformed, points_fault


def test_points_are_by_type_and_project():
    book = DefinitionBook().refreshed([Definition("a", "p1", Decimal(1)), Definition("a", "p2", Decimal("-0.5"))])
    assert book.points("a", "p1") == 1
    assert book.points("a", "p2") == Decimal("-0.5")
    assert book.points("a", "p3") is None
    assert book.points("b", "p1") is None
    assert len(book) == 2
    assert [d.project_id for d in book.definitions()] == ["p1", "p2"]


def test_a_malformed_row_keeps_the_last_good_value_and_a_removed_row_is_gone():
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
