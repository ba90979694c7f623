"""What people write into the definition table: numbers as they are meant, typing errors named."""

from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.admin.definitions import (
    PINPOINT_TYPES,
    Known,
    UnreadableFileError,
    checked,
    in_force_s,
    points_of,
    remarks,
    rows_of,
    suspicions,
)
from service.scoring.definitions import DEFAULT_POINTS, Definition

KNOWN = Known(configured=["acme-shop"], projects=["acme-shop", "other"], event_types=["purchase"])


def definition(event_type: str = "purchase", project_id: str = "acme-shop") -> Definition:
    return Definition(event_type, project_id, Decimal(1))


@pytest.mark.parametrize(
    "text", ["1_000", " 5", "5 ", "", "x", "nan", "inf", "0x10", "1e", "1e9999", "\u0661", "1,5", "--1"]
)
def test_what_is_not_a_number_is_not_one(text: str):
    assert points_of(text) is None
    found = checked({"EventType": "t", "PinpointProjectId": "p", "ScoreOffset": text})
    assert isinstance(found, str)
    assert "ScoreOffset" in found


@given(st.decimals(allow_nan=False, allow_infinity=False, min_value=-(10**14), max_value=10**14, places=9))
def test_every_number_that_can_be_is_read_back(number: Decimal):
    assert points_of(f"{number:f}") == number
    assert checked({"EventType": "t", "PinpointProjectId": "p", "ScoreOffset": f"{number:f}"}) == Definition(
        "t", "p", number
    )


@pytest.mark.parametrize(
    ("event_type", "said"),
    [
        ("_sms.success", "_SMS.SUCCESS"),
        ("_EMAIL.OPEN", "_email.open"),
        ("Purchase", "purchase"),
        ("_email.opend", "_email.open"),
        (" t.ws ", "blanks"),
        ("t\n", "blanks"),
        ("a\x1b[31m", "not printable"),
        ("a\u202eb", "not printable"),
    ],
)
def test_a_mistyped_event_type_is_named(event_type: str, said: str):
    (found,) = suspicions(definition(event_type), KNOWN)
    assert said in found
    assert found.isprintable()


@pytest.mark.parametrize(
    "event_type", [*sorted(PINPOINT_TYPES), "purchase", "my.own", "_custom", "MY.OWN", "two words"]
)
def test_other_event_types_are_not_suspicious(event_type: str):
    assert suspicions(definition(event_type), KNOWN) == []


def test_a_mistyped_project_is_named_and_a_new_one_remarked():
    (found,) = suspicions(definition(project_id="acme-shpo"), KNOWN)
    assert "did you mean acme-shop?" in found
    assert suspicions(definition(project_id="brand-new"), KNOWN) == []
    assert suspicions(definition(project_id="brand-new"), Known()) == []
    assert remarks(["acme-shop"], KNOWN) == []
    assert "SCORING_PROJECT_IDS does not name" in remarks(["brand-new"], KNOWN)[0]
    assert "had no definition before" in remarks(["brand-new"], Known(projects=["other"]))[0]
    assert remarks(["brand-new"], Known()) == []


def test_the_defaults_are_known_types():
    assert DEFAULT_POINTS.keys() <= PINPOINT_TYPES


@pytest.mark.parametrize("data", [b"{", b"not json", b"\xff", b"[1", b"project\tevent_type\tpoints\na\tb\n"])
def test_a_file_that_holds_no_definitions_is_refused(data: bytes):
    with pytest.raises(UnreadableFileError):
        rows_of(data)


@given(st.binary(max_size=60))
def test_any_bytes_are_rows_or_refused(data: bytes):
    try:
        for row in rows_of(data):
            checked(row)
    except UnreadableFileError:
        pass


def test_a_change_just_missed_by_one_read_is_met_by_the_next():
    assert in_force_s(5.0) == 10.0
