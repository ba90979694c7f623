"""What the stream of the score table says of scores by rules."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import msgspec
import pytest

from service.scoring.change import ScoreChange, change_of
from service.scoring.fold import UserKey

KEYS = {"UserId": {"S": "ann"}, "PinpointProjectId": {"S": "p"}}
ITEM: dict[str, Any] = KEYS | {"Score": {"N": "120.5"}, "Revision": {"N": "3"}, "UpdatedAt": {"N": "9"}}
ANN = UserKey("ann", "p")


def read(**more: object) -> object:
    return change_of(msgspec.json.encode(KEYS), msgspec.json.encode(ITEM | more))


def test_tier_and_day_travel_with_the_score():
    expected = ScoreChange(ANN, Decimal("120.5"), 3, 9, "hot", 20_785)
    by_rules = {"Tier": {"S": "hot"}, "AsOf": {"N": "20785"}, "State": {"B": "AAEC"}}
    assert read(**by_rules) == expected


def test_a_score_without_rules_has_neither():
    assert read() == ScoreChange(ANN, Decimal("120.5"), 3, 9)


@pytest.mark.parametrize(
    "odd",
    [{"Tier": {"N": "1"}}, {"Tier": {"L": []}}, {"AsOf": {"S": "x"}}, {"AsOf": {"N": "-1"}}, {"AsOf": {"NULL": True}}],
)
def test_what_something_else_wrote_there_counts_as_not_known(odd: dict[str, object]):
    assert read(**odd) == ScoreChange(ANN, Decimal("120.5"), 3, 9)
