from __future__ import annotations

import json
from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.scoring.change import ScoreChange
from service.scoring.fold import UserKey
from service.sinks.webhook.template import (
    BUILT_IN,
    Failed,
    TemplateError,
    batch_id,
    body_bytes,
    change_id,
    failures_in,
    item_bytes,
    load_template,
)

OWN = """
batch: 10
bytes: 5000
body: {people: $items}
item: {who: $user, heat: $score}
"""


def change(user: str = "ann", score: str = "12.50", revision: int = 3, project: str = "shop") -> ScoreChange:
    return ScoreChange(UserKey(user, project), Decimal(score), revision, 1_700_000_000_000)


def body(name: str, *changes: ScoreChange, attribute: str = "engagement_score") -> dict:
    template = load_template(name)
    items = [item_bytes(template, each, place, attribute) for place, each in enumerate(changes)]
    return json.loads(body_bytes(template, items, 1_700_000_001_000))


def test_the_standard_message():
    message = body("standard", change())
    assert message == {
        "type": "scores.changed",
        "timestamp": "2023-11-14T22:13:21.000Z",
        "data": {
            "scores": [
                {
                    "id": change_id(change()),
                    "user": "ann",
                    "project": "shop",
                    "score": 12.5,
                    "tier": None,
                    "revision": 3,
                    "updated": "2023-11-14T22:13:20.000Z",
                }
            ]
        },
    }


def test_segments_batch():
    (call,) = body("segment", change())["batch"]
    assert call == {
        "type": "identify", "userId": "ann", "messageId": change_id(change()), "traits": {"engagement_score": 12.5},
    }  # fmt: skip


def test_brazes_attributes_name_the_project_where_the_attribute_does():
    first, second = body("braze", change(), change("bob", project="app"), attribute="score_{project}")["attributes"]
    assert first == {"external_id": "ann", "_update_existing_only": True, "score_shop": 12.5}
    assert second["score_app"] == 12.5


def test_hubspots_inputs_have_a_trace_id_each():
    inputs = body("hubspot", change("a@example.com"), change("b@example.com"))["inputs"]
    assert [each["objectWriteTraceId"] for each in inputs] == ["0", "1"]
    assert inputs[0] == {
        "idProperty": "email",
        "id": "a@example.com",
        "objectWriteTraceId": "0",
        "properties": {"engagement_score": 12.5},
    }


@pytest.mark.parametrize("name", BUILT_IN)
@given(user=st.text(min_size=1, max_size=50), project=st.text(min_size=1, max_size=20))
def test_no_user_id_changes_the_shape_of_a_request(name: str, user: str, project: str):
    found, plain = body(name, change(user, project=project)), body(name, change())
    found_items, plain_items = (next(iter(_lists(each))) for each in (found, plain))
    assert len(found_items) == len(plain_items) == 1
    assert found_items[0].keys() == plain_items[0].keys()
    assert user in found_items[0].values()


def _lists(tree: object):  # noqa: ANN202
    if isinstance(tree, list):
        yield tree
    elif isinstance(tree, dict):
        for each in tree.values():
            yield from _lists(each)


def test_a_score_is_a_number_to_its_last_digit():
    template = load_template("braze")
    digits = "12345678901234567890.123456789"
    assert f'"engagement_score":{digits}'.encode() in item_bytes(template, change(score=digits), 0, "engagement_score")


def test_an_id_is_the_same_for_every_attempt_and_another_for_every_change():
    ids = {change_id(each) for each in (change(), change(revision=4), change("bob"), change(project="app"))}
    assert len(ids) == 4
    assert change_id(change()) == change_id(change(score="0"))
    assert change_id(change("a", project="bc")) != change_id(change("ab", project="c"))
    assert batch_id(["a", "b"]) != batch_id(["b", "a"])


def test_ones_own_template(tmp_path: Path):
    path = tmp_path / "mine.yaml"
    path.write_text(OWN)
    assert body(str(path), change()) == {"people": [{"who": "ann", "heat": 12.5}]}
    assert load_template(str(path)).name == "mine.yaml"


@pytest.mark.parametrize(
    ("old", "new", "why"),
    [
        ("batch: 10", "batch: 1000", "batch is not from 1 to 100"),
        ("bytes: 5000", "bytes: 5", "bytes is not from 1000"),
        ("bytes: 5000", "bytes: 5000\nitem_bytes: 6000", "item_bytes is not from 0 to bytes"),
        ("$items", "$people", "body has $people"),
        ("body: {people: $items}", "body: {people: 1}", "body must have $items once"),
        ("body: {people: $items}", "body: {a: $items, b: $items}", "body must have $items once"),
        ("$user", "$email", "item has $email"),
        ("who: $user, ", "", "item must have $user"),
        (", heat: $score", "", "item must have $user, and $score"),
        ("batch: 10", "batch: 10\nfailures: {list: errors}", "failures.list needs failures.index"),
        ("batch: 10", "batch: 10\nfailures: {list: 'a b'}", "failures.list: "),
        ("batch: 10", "batch: ten", "batch"),
        ("batch: 10", "batch: 10\nurl: x", "unknown field `url`"),
        ("batch: 10", "batch: [", "line"),
    ],
)
def test_a_template_that_cannot_be_used_is_explained(tmp_path: Path, old: str, new: str, why: str):
    path = tmp_path / "mine.yaml"
    path.write_text(OWN.replace(old, new))
    with pytest.raises(TemplateError) as caught:
        load_template(str(path))
    assert str(path) in str(caught.value)
    assert why in str(caught.value)


def test_a_template_that_is_not_there_is_said(tmp_path: Path):
    with pytest.raises(TemplateError, match="No such file"):
        load_template(str(tmp_path / "none.yaml"))
    (tmp_path / "large.yaml").write_bytes(b"#" * 100_000)
    with pytest.raises(TemplateError, match="more than"):
        load_template(str(tmp_path / "large.yaml"))


def test_failures_are_found_where_the_services_put_them():
    braze = b'{"message":"success","errors":[{"type":"bad id","input_array":"attributes","index":1}]}'
    assert failures_in(load_template("braze"), braze) == [Failed(1, "bad id", again=False)]
    hubspot = b'{"errors":[{"category":"RATE_LIMITS","context":{"objectWriteTraceId":["7"]}},{"category":"OTHER"}]}'
    assert failures_in(load_template("hubspot"), hubspot) == [
        Failed(7, "RATE_LIMITS", again=True), Failed(None, "OTHER", again=False),
    ]  # fmt: skip
    assert failures_in(load_template("segment"), b'{"success": true}') == []
    assert failures_in(load_template("segment"), b'{"success": false}')[0].index is None
    assert failures_in(load_template("standard"), b"whatever") == []


@pytest.mark.parametrize("answer", [b"", b"<html>", b"\xff", b"[" * 5000, b"{"])
def test_an_answer_that_cannot_be_read_is_tried_again(answer: bytes):
    (failed,) = failures_in(load_template("braze"), answer)
    assert failed.again
    assert failed.index is None


@given(st.binary(max_size=200))
def test_no_answer_raises(answer: bytes):
    for name in BUILT_IN:
        failures_in(load_template(name), answer)
