from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.aws.schema import KEY_NAMES, state_of, statement
from service.ingest.stores import Change
from service.scoring.change import ScoreChange
from service.scoring.event import Reason, Rejected
from service.scoring.fold import ABSENT, Origin, Scorable, UserKey, fold, sequence_bytes
from service.scoring.marks import marking
from tests.fakes.images import change_in, key_item

KEYS = {"UserId": {"S": "ann"}, "PinpointProjectId": {"S": "p1"}}
ANN = UserKey("ann", "p1")
GOOD = {**KEYS, "Score": {"N": "-2.5"}, "Revision": {"N": "3"}, "UpdatedAt": {"N": "77"}}

BROKEN = [
    {"Score": {"S": "12"}},
    {"Score": {"NULL": True}},
    {"Score": {"N": "NaN"}},
    {"Score": {"N": "many"}},
    {"Revision": {"S": "1"}},
    {"Revision": {"N": "1.5"}},
    {"Revision": {"N": "-1"}},
]

texts = st.text(min_size=1).filter(lambda text: text.isascii() or not any("\ud800" <= c <= "\udfff" for c in text))
decimals = st.decimals(allow_nan=False, allow_infinity=False, places=9, min_value=-(10**15) + 1, max_value=10**15 - 1)


def inserted(text: str, parameters: list[dict[str, Any]]) -> dict[str, Any]:
    """Read the item of an INSERT back from its statement."""
    names = [part.split("'")[1] for part in text.partition("VALUE")[2].split(",")]
    return dict(zip(names, parameters, strict=True))


@given(user=texts, project=texts, points=decimals, sequence=st.integers(1, 10**56), arrival=st.integers(0, 2**53))
def test_an_inserted_item_reads_as_the_state_it_was_made_of(
    user: str, project: str, points: Decimal, sequence: int, arrival: int
):
    key = UserKey(user, project)
    folded = fold(ABSENT, marking("tag:0"), [Scorable(sequence_bytes(str(sequence)), points, arrival)])
    assert folded is not None
    made = statement("scores", Change(key, folded))
    item = inserted(made["Statement"], made["Parameters"])
    assert {name: item[name] for name in KEY_NAMES} == key_item(key)
    assert state_of(item) == folded.after
    assert change_in({name: item[name] for name in KEYS}, item) == ScoreChange(key, points, 1, arrival)


@pytest.mark.parametrize(
    ("user_id", "fits"), [("u" * 2000, True), ("u" * 2001, False), ("ü" * 1000, True), ("ü" * 1001, False)]
)
def test_a_user_whose_id_fits_no_other_key_is_set_aside(user_id: str, fits: bool):  # noqa: FBT001
    keys = {**KEYS, "UserId": {"S": user_id}}
    change = change_in(keys, {**GOOD, **keys})
    assert isinstance(change, ScoreChange if fits else Rejected)


def test_every_update_has_a_parameter_for_each_question_mark():
    states = [
        state_of({**KEYS, **attributes}) for attributes in (GOOD, {"Score": {"N": "1"}}, {}, {"Revision": {"N": "4"}})
    ]
    for state in states:
        assert not isinstance(state, Rejected)
        folded = fold(state, marking("tag:0"), [Scorable(sequence_bytes("1"), Decimal(1), 1)])
        assert folded is not None
        made = statement("scores", Change(ANN, folded))
        assert made["Statement"].count("?") == len(made["Parameters"])
        assert ("Revision IS MISSING" in made["Statement"]) is (state.origin is Origin.FOREIGN)
        assert ("Score IS MISSING" in made["Statement"]) is (state.score is None)


@pytest.mark.parametrize("broken", [*BROKEN, {"Applied": {"S": "x"}}, {"Applied": {"M": {"t": {"B": b"short"}}}}])
def test_an_item_that_cannot_be_a_score_is_no_state(broken: dict[str, Any]):
    state = state_of({**GOOD, **broken})
    assert isinstance(state, Rejected)
    assert state.reason is Reason.BAD_SCORE_ITEM


@pytest.mark.parametrize("broken", BROKEN)
def test_an_image_that_cannot_be_a_score_is_no_change(broken: dict[str, Any]):
    change = change_in(KEYS, {**GOOD, **broken})
    assert isinstance(change, Rejected)
    assert change.reason is Reason.BAD_SCORE_ITEM


def test_an_image_without_a_score_says_nothing():
    assert change_in(KEYS, {**KEYS, "Name": {"S": "Ann"}}) is None


def test_a_removal_is_a_tombstone():
    change = change_in(KEYS, None)
    assert change == ScoreChange(ANN, None, 0, 0)
    assert change.is_removal


@pytest.mark.parametrize("keys", [{}, {"UserId": {"S": "ann"}}, {**KEYS, "UserId": {"N": "1"}}])
def test_an_image_of_another_kind_of_table_is_no_change(keys: dict[str, Any]):
    assert isinstance(change_in(keys, GOOD), Rejected)


@pytest.mark.parametrize("updated", [{"S": "2020-01-01"}, {"N": "1.5"}, {"N": "-5"}])
def test_a_foreign_time_of_update_counts_as_unknown(updated: dict[str, Any]):
    item = {**GOOD, "UpdatedAt": updated}
    assert change_in(KEYS, item) == ScoreChange(ANN, Decimal("-2.5"), 3, 0)
    assert state_of(item).updated_ms == 0
