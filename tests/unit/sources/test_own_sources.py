"""What a mapping of one's own can say: fields, conditions, cases, translations, several people in one event."""

import json

import pytest

from service.scoring.event import MAX_ID_BYTES, Alias, AliasKind, Details, Event, Reason
from service.sources.outcomes import (
    Ambiguous,
    Anonymous,
    RejectedEvent,
)
from service.sources.plan import MAX_PARTS
from service.sources.registry import Registry
from tests.fakes.frames import kpl, notification
from tests.fakes.mappings import event_of, one, own, people, read, reason_of, ses

SHOP = """
sources:
  - name: shop
    when: {type: order}
    event_type: ["event.name", "=order.placed"]
    project: "=shop"
    user: user.id
    email: user.email
    time: [meta.ts, time]
    event_id: meta.id
    transactional: {path: meta.kind, is: receipt}
"""


def test_the_documented_example_reads_its_own_events():
    event = {
        "type": "order",
        "user": {"id": 17, "email": "Ada@Example.org"},
        "meta": {"ts": 1_795_168_800, "id": "o-1", "kind": "receipt"},
    }
    assert event_of(event, own(SHOP)) == Event(
        "order.placed",
        "shop",
        "",
        "17",
        1_795_168_800_000,
        attributed=False,
        transactional=True,
        source="shop",
        aliases=(Alias(AliasKind.EMAIL, "ada@example.org"),),
        event_id="o-1",
    )
    assert event_of({**event, "event": {"name": "order.paid"}}, own(SHOP)).event_type == "order.paid"
    assert reason_of(one({"type": "orders", "user": {"id": "u"}}, own(SHOP))) is Reason.UNKNOWN_FORMAT


def test_a_nameless_mail_is_anonymous_only_if_transactional():
    assert one({"type": "order", "meta": {"kind": "receipt"}}, own(SHOP)) == Anonymous("shop", "order.placed", "shop")
    assert reason_of(one({"type": "order"}, own(SHOP))) is Reason.NO_PERSON


@pytest.mark.parametrize(
    ("user", "reason"),
    [
        ({"id": True}, Reason.WRONG_TYPE),
        ({"id": 1.5}, Reason.WRONG_TYPE),
        ({"id": ["u"]}, Reason.WRONG_TYPE),
        ({"id": {}}, Reason.WRONG_TYPE),
        ({"email": 1.5}, Reason.WRONG_TYPE),
        ({"id": "u" * (MAX_ID_BYTES + 1)}, Reason.BAD_ID),
        ({"email": "é" * MAX_ID_BYTES}, Reason.BAD_ID),
        ({"id": ""}, Reason.NO_PERSON),
        ({"id": None, "email": "  "}, Reason.NO_PERSON),
        ("u", Reason.NO_PERSON),
    ],
)
def test_a_person_is_not_guessed(user: object, reason: Reason):
    outcome = one({"type": "order", "user": user}, own(SHOP))
    assert reason_of(outcome) is reason
    assert isinstance(outcome, RejectedEvent)
    assert "uuuu" not in outcome.detail
    assert outcome.source == "shop"


@pytest.mark.parametrize("odd", [[], {}, 1.5, True, None, "", "soon"])
def test_an_odd_time_or_event_id_costs_the_event_nothing(odd: object):
    event = event_of({"type": "order", "user": {"id": "u"}, "meta": {"ts": odd, "id": odd}}, own(SHOP))
    assert event.arrival_ms == 0
    assert event.event_id in ("", "soon")


CART = """
sources:
  - name: cart
    when: {kind: [cart, basket], v: {exists: true}}
    within: body
    event_type:
      path: name
      map: {"1": one}
      prefixes: {shop_: shop.}
    user: items[*].buyer
    email: items[*].mail
    event_id: {join: [id, "items[*].sku"]}
    campaign: $.campaign
    time: $.at
"""


def test_a_star_makes_one_event_per_element():
    event = {
        "kind": "basket",
        "v": 0,
        "campaign": "c",
        "at": "2026-11-20T10:00:00Z",
        "body": {
            "name": "shop_bought",
            "id": 5,
            "items": [
                {"buyer": "u", "mail": "U@x.org", "sku": "s1"},
                {"mail": "v@x.org", "sku": "s2"},
                {"sku": "s3"},
                {"buyer": {"odd": True}, "sku": "s4"},
                "not an object",
            ],
        },
    }
    registry = own(CART)
    outcomes = read(event, registry)
    first, second, *others = outcomes
    assert isinstance(first, Event)
    assert isinstance(second, Event)
    assert (first.user_id, first.aliases[0].value, first.event_id) == ("u", "u@x.org", "5\x1fs1")
    assert (second.user_id, second.aliases[0].value, second.event_id) == ("", "v@x.org", "5\x1fs2")
    assert {(e.event_type, e.campaign, e.arrival_ms) for e in (first, second)} == {
        ("shop.bought", "c", 1_795_168_800_000)
    }
    assert [reason_of(outcome) for outcome in others] == [Reason.NO_PERSON, Reason.WRONG_TYPE, Reason.NO_PERSON]
    assert [getattr(outcome, "part", -1) for outcome in outcomes] == [1, 2, 3, 4, 5]


def test_a_dead_letter_of_one_person_holds_and_redrives_only_that_one():
    registry = own(CART)
    event = {
        "kind": "cart",
        "v": 1,
        "body": {"name": "n", "items": [{"buyer": "u"}, {"buyer": 1.5}, {"buyer": "w"}, {"buyer": []}]},
    }
    data = json.dumps(event).encode()
    whole = kpl([json.dumps({"kind": "other"}).encode(), data])
    letters = [outcome for outcome in registry.read(whole) if isinstance(outcome, RejectedEvent)]
    assert [(letter.index, letter.part) for letter in letters] == [(1, 0), (2, 2), (2, 4)]
    assert json.loads(letters[0].payload) == {"kind": "other"}
    assert json.loads(letters[1].payload)["body"]["items"] == [{"buyer": 1.5}]
    assert json.loads(letters[2].payload)["body"]["items"] == [{"buyer": []}]
    for letter in letters:
        (again,) = registry.read(letter.payload)
        assert isinstance(again, RejectedEvent)
        assert (again.reason, again.payload) == (letter.reason, letter.payload)
        assert registry.payload(whole, letter.index, letter.part) == letter.payload
    alone = registry.payload(whole, 2, 3)
    assert alone is not None
    assert json.loads(alone) == {**event, "body": {"name": "n", "items": [{"buyer": "w"}]}}
    assert people(registry.read(alone)) == ["w"]


def test_the_payload_of_an_event_of_one_person_is_its_bytes():
    line = json.dumps(ses("Open", {"open": {}})).encode()
    pinpoint = b'{"event_type":"_email.open","client":{"client_id":"e"}}'
    record = b"[" + line + b"," + pinpoint + b",7]"
    registry = Registry(default_project="p")
    assert [registry.payload(record, index, 0) for index in range(4)] == [record, line, pinpoint, b"7"]
    assert registry.payload(notification(line.decode()), 1, 0) == line
    assert registry.payload(b"[]", 0, 0) == b"[]"
    assert registry.payload(b"{x", 0, 0) == b"{x"
    assert registry.payload(b"{}", 5, 0) is None
    assert registry.payload(b"{}", 0, 1) is None
    assert registry.payload(b"[]", 1, 0) is None
    assert registry.payload(b"{x", 0, 1) is None


def test_an_event_of_too_many_people_is_one_dead_letter():
    event = {"kind": "cart", "v": 1, "body": {"name": "n", "items": [{"buyer": "u"}] * (MAX_PARTS + 1)}}
    assert reason_of(one(event, own(CART))) is Reason.TOO_MANY_EVENTS


def test_conditions_compare_texts_numbers_and_truth_as_json_has_them():
    registry = own("""
sources:
  - {name: a, when: {x: true}, event_type: =a, user: u}
  - {name: b, when: {x: 1}, event_type: =b, user: u}
  - {name: c, when: {x: "1"}, event_type: =c, user: u}
  - {name: d, when: {x: {prefix: [pre, un]}}, event_type: =d, user: u}
  - {name: e, when: {"x[*]": e}, event_type: =e, user: u}
  - {name: f, when: {"x.y[*]": {not: z}, x.y: {exists: true}}, event_type: =f, user: u}
""")
    found = {
        repr(x): getattr(one({"x": x, "u": "u"}, registry), "source", "")
        for x in (True, 1, 1.0, "1", "under", ["a", "e"], {"y": ["a", "b"]}, {"y": ["a", "z"]}, False, 0, None, [])
    }
    assert found == {
        "True": "a",
        "1": "b",
        "1.0": "b",
        "'1'": "c",
        "'under'": "d",
        "['a', 'e']": "e",
        "{'y': ['a', 'b']}": "f",
        "{'y': ['a', 'z']}": "",
        "False": "",
        "0": "",
        "None": "",
        "[]": "",
    }


def test_cases_are_chosen_by_text_then_by_beginning_then_by_the_star():
    registry = own("""
sources:
  - name: a
    when: {k: {exists: true}}
    user: u
    by: [k.of, k]
    cases:
      exact: {event_type: =exact}
      "7": {event_type: =seven}
      ex*: {event_type: =beginning}
      "*": {event_type: =star, user: other}
""")
    types = [
        event_of({"k": k, "u": "u", "other": "o"}, registry).event_type for k in ("exact", 7, "extra", "no", 1.5, [])
    ]
    assert types == ["exact", "seven", "beginning", "star", "star", "star"]
    assert event_of({"k": {"of": "exact"}, "u": "u"}, registry).event_type == "exact"
    assert event_of({"k": "no", "u": "u", "other": "o"}, registry).user_id == "o"


def test_details_are_kept_only_for_event_types_that_a_rule_reads():
    event = ses("Open", {"open": {"userAgent": "Mozilla/5.0", "timestamp": "2026-11-20T10:00:00Z"}})
    assert event_of(event).details is None
    registry = Registry(default_project="p", detailed=frozenset({"_email.open"}))
    assert event_of(event, registry).details == Details(event["detail"], "Mozilla/5.0", sent_ms=1_795_165_200_000)
    pinpoint = {"event_type": "_email.open", "client": {"client_id": "e"}}
    assert event_of(pinpoint, registry).details == Details(pinpoint)
    machine = own(
        "sources: [{name: a, when: {k: a}, event_type: =x, user: u, machine: {path: bot, is: true}}]",
        detailed=("x",),
    )
    flags = [event_of({"k": "a", "u": "u", "bot": bot}, machine).details for bot in (True, False)]
    assert [details.machine for details in flags if details is not None] == [True, False]


def test_a_translation_goes_by_text_then_beginning_then_otherwise():
    registry = own("""
sources:
  - name: a
    when: {k: a}
    event_type: {path: [t, =constant], map: {one: "1", constant: c}, prefixes: {x_: X.}}
    user: u
  - name: b
    when: {k: b}
    event_type: {path: t, map: {one: "1"}, otherwise: other}
    user: {path: u, map: {"7": seven}}
""")
    event = {"k": "a", "u": "u"}
    assert [event_of({**event, "t": t}, registry).event_type for t in ("one", "x_y", "as sent", "", None)] == [
        "1", "X.y", "as sent", "c", "c",
    ]  # fmt: skip
    event = {"k": "b", "u": 7}
    assert [event_of({**event, "t": t}, registry).event_type for t in ("one", "two", "", None)] == [
        "1", "other", "other", "other",
    ]  # fmt: skip
    assert event_of(event, registry).user_id == "seven"
    assert reason_of(one({**event, "t": ["one"]}, registry)) is Reason.WRONG_TYPE


def test_an_array_without_people_leaves_each_element_ambiguous():
    registry = own("""
sources:
  - {name: a, when: {k: a}, event_type: =x, email: "to[0]", recipients: to, event_id: "lines[*].id"}
""")
    outcomes = read({"k": "a", "to": ["a", "b"], "lines": [{"id": 1}, {"id": 2}]}, registry)
    assert outcomes == [Ambiguous("a", "x", "p", 0, 1), Ambiguous("a", "x", "p", 0, 2)]
