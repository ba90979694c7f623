"""A user's own sources as rows: what is in force after each reading."""

from __future__ import annotations

from service.sources.stored import MAX_OWN, OwnSources, SourceRow

SHOP = "sources: [{name: shop, when: {type: order}, event_type: =order, user: u}]"


def row(name: str, position: int = 0) -> SourceRow:
    return SourceRow(name, SHOP.replace("shop", name), position)


def names(own: OwnSources) -> list[str]:
    return [source.name for source in own.sources]


def test_sources_are_asked_by_position_then_by_name():
    own = OwnSources().refreshed([row("b", 1), row("c"), row("a", 1)])
    assert (names(own), own.faulty) == (["c", "a", "b"], ())


def test_a_row_that_is_as_before_is_not_compiled_again():
    before = OwnSources().refreshed([row("a"), row("b")])
    after = before.refreshed([row("a"), row("b", 5)])
    assert after.sources[0] is before.sources[0]
    assert after.sources[1] is not before.sources[1]


def test_a_faulty_row_keeps_its_last_good_version_and_is_reported():
    before = OwnSources().refreshed([row("a")])
    after = before.refreshed([SourceRow("a", "sources: [{name: a, whenn: {}}]"), SourceRow("b", "")])
    assert after.sources == before.sources
    assert [(each.name, each.kept) for each in after.faulty] == [("a", True), ("b", False)]
    assert "did you mean `when`?" in after.faulty[0].why
    assert after.refreshed([]).sources == ()


def test_a_row_with_another_source_or_a_reserved_name_is_faulty():
    own = OwnSources().refreshed([SourceRow("a", SHOP), SourceRow("ses", SHOP.replace("shop", "ses"))])
    assert [each.name for each in own.faulty] == ["a", "ses"]
    assert "exactly this source" in own.faulty[0].why


def test_more_sources_than_can_be_told_apart_are_faulty():
    own = OwnSources().refreshed([row(f"s{number:03}") for number in range(MAX_OWN + 1)])
    assert (len(own.sources), [each.name for each in own.faulty]) == (MAX_OWN, [f"s{MAX_OWN:03}"])
