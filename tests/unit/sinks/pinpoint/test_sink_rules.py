from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.ingest.stores import DirectoryEntry
from service.scoring.change import ScoreChange, format_score
from service.scoring.fold import UserKey
from service.sinks.pinpoint.endpoints import batch_items, choose_endpoint


def endpoint(endpoint_id: str, channel: str = "EMAIL", status: str = "ACTIVE", opt_out: str = "NONE") -> dict[str, Any]:
    return {"Id": endpoint_id, "ChannelType": channel, "EndpointStatus": status, "OptOut": opt_out}


@pytest.mark.parametrize(
    ("endpoints", "kept", "chosen"),
    [
        ([], "", None),
        ([endpoint("b"), endpoint("a")], "", "a"),
        ([endpoint("a"), endpoint("b")], "b", "b"),
        ([endpoint("a"), endpoint("b", status="INACTIVE")], "b", "a"),
        ([endpoint("a", opt_out="ALL"), endpoint("b")], "", "b"),
        ([endpoint("a", opt_out="ALL"), endpoint("b")], "a", "a"),
        ([endpoint("a", "GCM"), endpoint("b", "SMS"), endpoint("c", "NEW_CHANNEL")], "", "b"),
        ([endpoint("b", status="INACTIVE"), endpoint("a", status="INACTIVE")], "", "a"),
        ([{"Id": "bare"}], "", "bare"),
    ],
)
def test_one_endpoint_is_chosen(endpoints: list[dict[str, Any]], kept: str, chosen: str | None):
    choice = choose_endpoint(endpoints, kept)
    assert (choice and choice.endpoint_id) == chosen


def test_an_inactive_endpoint_keeps_its_status():
    choice = choose_endpoint([endpoint("a", status="INACTIVE")])
    assert choice is not None
    assert choice.status == "INACTIVE"


@given(
    st.lists(
        st.builds(
            endpoint,
            st.text("abc", min_size=1, max_size=3),
            st.sampled_from(["EMAIL", "SMS", "GCM", "CUSTOM"]),
            st.sampled_from(["ACTIVE", "INACTIVE"]),
            st.sampled_from(["ALL", "NONE"]),
        ),
        min_size=1,
        max_size=6,
        unique_by=lambda made: made["Id"],
    ),
    st.randoms(use_true_random=False),
)
def test_the_choice_does_not_depend_on_the_order_and_stays_once_made(endpoints: list[dict[str, Any]], rng: Any):  # noqa: ANN401 - Hypothesis names no type
    first = choose_endpoint(endpoints)
    rng.shuffle(endpoints)
    assert choose_endpoint(endpoints) == first
    assert first is not None
    assert choose_endpoint(endpoints, first.endpoint_id) == first


@pytest.mark.parametrize(
    ("score", "text"),
    [
        ("12", "12"),
        ("12.50", "12.5"),
        ("1E+3", "1000"),
        ("1.20E+2", "120"),
        ("1E-9", "0.000000001"),
        ("-0.0", "0"),
        ("0E+5", "0"),
        ("-1000", "-1000"),
        ("100", "100"),
    ],
)
def test_a_score_is_a_plain_decimal(score: str, text: str):
    assert format_score(Decimal(score)) == text


@given(st.decimals(allow_nan=False, allow_infinity=False, places=9, min_value=-(10**20), max_value=10**20))
def test_a_written_score_reads_as_the_same_number(score: Decimal):
    text = format_score(score)
    assert Decimal(text) == score
    assert "E" not in text.upper()
    assert not (text.endswith("0") and "." in text)


def test_an_item_says_the_score_the_status_and_nothing_else():
    change = ScoreChange(UserKey("u", "p"), Decimal("2.50"), 1, 0)
    target = DirectoryEntry("e", "INACTIVE", "EMAIL", 1, (("f", "ACTIVE"), ("g", "INACTIVE")))
    first = {
        "Id": "e",
        "EndpointStatus": "INACTIVE",
        "User": {"UserId": "u", "UserAttributes": {"EngagementScore": ["2.5"]}},
    }
    assert batch_items(change, target, "EngagementScore", "") == [first]
    metrics = {"Metrics": {"Score": 2.5}}
    assert batch_items(change, target, "EngagementScore", "Score") == [
        first | metrics,
        {"Id": "f", "EndpointStatus": "ACTIVE", **metrics},
        {"Id": "g", "EndpointStatus": "INACTIVE", **metrics},
    ]


def test_the_endpoint_kept_so_far_is_recognized_whatever_its_case():
    choice = choose_endpoint([endpoint("a"), endpoint("B")], "b")
    assert choice is not None
    assert choice.endpoint_id == "B"
