"""What people read: nothing that a terminal acts on, no value broken inside a word."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.runtime.text import printable, printable_json, table, width_of, wrapped

ANY_TEXT = st.text(st.characters(codec=None), max_size=60)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain é 漢字", "plain é 漢字"),
        ("\x1b]0;title\x07\x1b[31mred", r"\x1b]0;title\x07\x1b[31mred"),
        ("a\nb\r\tc\x7f", r"a\nb\r\tc\x7f"),
        ("\x9b31m", r"\x9b31m"),
        ("a\u202eb\u2028\U000e0001", r"a\u202eb\u2028\U000e0001"),
        ("\ud800", r"\ud800"),
    ],
)
def test_what_a_terminal_would_act_on_is_escaped(text: str, shown: str):
    assert printable(text) == shown


def test_line_feeds_stay_only_where_they_are_ours():
    assert printable("a\nb\x1b", lines=True) == "a\nb\\x1b"


@given(ANY_TEXT)
def test_nothing_unprintable_is_left(text: str):
    assert printable(text).isprintable()


@given(ANY_TEXT)
def test_json_stays_the_same_document(text: str):
    try:
        text.encode()
    except UnicodeEncodeError:
        return  # an encoder refuses a lone surrogate
    document = json.dumps({"text": text}, ensure_ascii=False)
    assert printable_json(document).isprintable()
    assert json.loads(printable_json(document)) == {"text": text}


ID = "S-UJ0sti-0.000000000000000000000002x9wek4ldcledc3"


def test_ids_stay_whole_on_a_narrow_terminal():
    columns = ("Id", "Set aside", "Reason", "State")
    rows = [(ID, "2026-11-27T17:06:42.806Z", "not_json", "new")]
    lines, left_out = table(columns, rows, 120, optional=("Set aside",))
    assert left_out == []
    assert lines[1].split() == list(rows[0])
    lines, left_out = table(columns, rows, 80, optional=("Set aside",))
    assert left_out == ["Set aside"]
    assert lines[1].split() == [ID, "not_json", "new"]
    lines, left_out = table(columns, rows, 60, optional=("Set aside",))
    assert left_out == []
    assert f"Id:        {ID}" in lines
    assert "Set aside: 2026-11-27T17:06:42.806Z" in lines


def test_the_last_column_wraps_between_words():
    lines, _ = table(("What", "Found"), [("table scores", "has the keys UserId, PinpointProjectId")], 40)
    assert lines == ["What          Found", "table scores  has the keys UserId,", "              PinpointProjectId"]


@given(
    st.lists(st.tuples(ANY_TEXT, ANY_TEXT, ANY_TEXT), min_size=1, max_size=5),
    st.integers(1, 100),
    st.lists(st.sampled_from(("A", "B")), unique=True),
)
def test_every_word_of_a_table_is_there_whole(rows: list[tuple[str, str, str]], width: int, optional: list[str]):
    columns = ("A", "B", "C")
    lines, left_out = table(columns, rows, width, optional=optional)
    words = " ".join(lines).split()
    for row in rows:
        for name, cell in zip(columns, row, strict=True):
            assert name in left_out or set(printable(cell).split()) <= set(words)
    assert all(line.isprintable() for line in lines)


def test_wide_characters_take_two_cells():
    lines, _ = table(("A", "B"), [("漢字", "x"), ("ab", "y")], 40)
    assert lines == ["A     B", "漢字  x", "ab    y"]
    assert width_of("e\u0301") == 1


def test_columns_of_numbers_are_aligned_to_the_right():
    lines, _ = table(("A", "Count"), [("x", "1"), ("y", "1,000")], 40, right=("Count",))
    assert lines == ["A  Count", "x      1", "y  1,000"]


def test_a_long_word_is_not_broken():
    assert wrapped("a https://example.com/long b", 10) == ["a", "https://example.com/long", "b"]
