import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.sources.values import MAX_TIME_MS, email_of, text_of, time_ms

TEN = 1_795_168_800_000  # 2026-11-20T10:00:00Z


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("2026-11-20T10:00:00Z", TEN),
        ("2026-11-20T10:00:00.512Z", TEN + 512),
        ("2026-11-20T10:00:00.512999999Z", TEN + 512),
        ("2026-11-20T12:00:00+02:00", TEN),
        ("2026-11-20T10:00:00", TEN),
        ("2026-11-20 10:00:00", TEN),
        ("2026-11-20", TEN - 36_000_000),
        ("20261120", TEN - 36_000_000),
        (TEN, TEN),
        (TEN // 1000, TEN),
        (TEN / 1000 + 0.5, TEN + 500),
        (str(TEN), TEN),
        (str(TEN // 1000), TEN),
        ("1795168800.5", TEN + 500),
        ("1712101112131", 1_712_101_112_131),  # the digits could be read as a date of the year 1712, too
        ("9999-12-31T23:59:59.999Z", MAX_TIME_MS),
        ("soon", 0),
        ("", 0),
        ("1e12", 0),
        ("²" * 10, 0),
        ("1900-01-01", 0),
        ("0001-01-01T00:00:00+23:59", 0),
        (-5, 0),
        (1.5, 0),
        (99_999_999, 0),
        (100_000_000, 100_000_000_000),
        (0, 0),
        (10**40, 0),
        (float("nan"), 0),
        (float("inf"), 0),
        (True, 0),
        (None, 0),
        ([TEN], 0),
    ],
)
def test_times_are_epoch_milliseconds_and_what_is_not_a_time_is_0(value: object, expected: int):
    assert time_ms(value) == expected


@given(st.text(max_size=30) | st.integers() | st.floats() | st.datetimes().map(lambda moment: moment.isoformat()))
def test_any_value_is_a_time_within_bounds(value: object):
    assert 0 <= time_ms(value) <= MAX_TIME_MS


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Ada@Example.ORG", "ada@example.org"),
        (" ada@example.org\n", "ada@example.org"),
        ("Ada Lovelace <Ada@Example.org>", "ada@example.org"),
        ('"Ada <the first>" <ada@example.org>', "ada@example.org"),
        ("ada+news@example.org", "ada+news@example.org"),
        ("<>", ""),
        (">", ">"),
        ("  ", ""),
    ],
)
def test_addresses_are_in_lower_case_and_without_display_name(text: str, expected: str):
    assert email_of(text) == expected


@given(st.text(max_size=40))
def test_an_address_is_normalised_once_and_for_all(text: str):
    once = email_of(text)
    if "<" not in once:
        assert email_of(once) == once


def test_names_are_texts_or_whole_numbers():
    assert [text_of(value) for value in ("u", "", 17, -1, 10**29)] == ["u", "", "17", "-1", str(10**29)]
    assert [text_of(value) for value in (None, True, 1.0, 10**30, [], {}, ["u"])] == [None] * 7
