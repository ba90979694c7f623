"""What sources make of events, by examples: built-in sources beyond the samples, and a user's own."""

import json
from collections.abc import Container
from typing import Any

import pytest

from service.scoring.event import MAX_ID_BYTES, Alias, AliasKind, Details, Event, Reason
from service.sources.load import load_sources
from service.sources.mapping import Source
from service.sources.outcomes import (
    Ambiguous,
    Anonymous,
    Outcome,
    RejectedEvent,
    SkippedEvent,
    Teaches,
)
from service.sources.plan import MAX_PARTS
from service.sources.registry import Registry
from tests.fakes.frames import kpl, notification

Json = dict[str, Any]


def own(text: str, detailed: Container[str] = ()) -> Registry:
    loaded = load_sources(text, "sources.yml")
    assert loaded.problems == ()
    return Registry(list(map(Source, loaded.specs)), default_project="p", detailed=detailed)


def read(event: Json, registry: Registry | None = None) -> list[Outcome]:
    return (registry or Registry(default_project="p")).read(json.dumps(event).encode())


def one(event: Json, registry: Registry | None = None) -> Outcome:
    (outcome,) = read(event, registry)
    return outcome


def event_of(event: Json, registry: Registry | None = None) -> Event:
    outcome = one(event, registry)
    assert isinstance(outcome, Event), outcome
    return outcome


def reason_of(outcome: Outcome) -> Reason:
    assert isinstance(outcome, RejectedEvent), outcome
    return outcome.reason


def people(outcomes: list[Outcome]) -> list[str]:
    """The people of several events: user, else first alias."""
    found = []
    for outcome in outcomes:
        assert isinstance(outcome, Event), outcome
        found.append(outcome.user_id or outcome.aliases[0].value)
    return found


def ses(event_type: str, part: Json, *, to: tuple[str, ...] = ("a@x.org",), tags: Json | None = None) -> Json:
    mail = {"messageId": "m", "timestamp": "2026-11-20T09:00:00Z", "destination": list(to), "tags": tags or {}}
    return {
        "source": "aws.ses",
        "time": "2026-11-20T10:00:00Z",
        "detail": {"eventType": event_type, "mail": mail, **part},
    }


TWO = ("a@x.org", "B@x.org")
LISTED = [{"emailAddress": address} for address in TWO]
AT = {"timestamp": "2026-11-20T10:00:00Z"}


# SES


@pytest.mark.parametrize("kind", ["Open", "Click", "Subscription"])
def test_an_event_of_a_whole_message_with_two_recipients_is_ambiguous(kind: str):
    outcome = one(ses(kind, {kind.lower(): {"timestamp": "2026-11-20T10:00:00Z"}}, to=TWO))
    assert isinstance(outcome, Ambiguous)
    tagged = event_of(ses(kind, {kind.lower(): {}}, to=TWO, tags={"user_id": ["u"]}))
    assert (tagged.user_id, tagged.aliases) == ("u", ())  # known by the tag; neither address is taught to be u's


@pytest.mark.parametrize(
    ("kind", "part", "event_type"),
    [
        ("Send", {"send": {}}, "_email.send"),
        ("Reject", {"reject": {"reason": "Bad content"}}, "_email.rejected"),
        ("Rendering Failure", {"failure": {}}, "_email.rendering_failure"),
        ("Delivery", {"delivery": {**AT, "recipients": list(TWO)}}, "_email.delivered"),
        ("Complaint", {"complaint": {**AT, "complainedRecipients": LISTED}}, "_email.complaint"),
        ("DeliveryDelay", {"deliveryDelay": {**AT, "delayedRecipients": LISTED}}, "_email.delivery_delay"),
        ("Bounce", {"bounce": {**AT, "bounceType": "Undetermined", "bouncedRecipients": LISTED}}, "_email.softbounce"),
        ("Bounce", {"bounce": {**AT, "bounceType": "Permanent", "bouncedRecipients": LISTED}}, "_email.hardbounce"),
    ],
)  # fmt: skip
def test_an_event_that_lists_recipients_is_one_event_for_each(kind: str, part: Json, event_type: str):
    outcomes = read(ses(kind, part, to=TWO))
    assert people(outcomes) == ["a@x.org", "b@x.org"]
    assert [(outcome.index, getattr(outcome, "part", -1)) for outcome in outcomes] == [(0, 1), (0, 2)]
    events = [outcome for outcome in outcomes if isinstance(outcome, Event)]
    assert {event.event_type for event in events} == {event_type}
    assert len({event.event_id for event in events if event.event_id}) == 2  # each is counted once, by itself


def test_only_the_recipients_of_the_notification_count_not_all_of_the_message():
    part = {"bounce": {"bounceType": "Permanent", "bouncedRecipients": [{"emailAddress": "B@x.org"}]}}
    assert people(read(ses("Bounce", part, to=TWO))) == ["b@x.org"]


@pytest.mark.parametrize(
    ("preferences", "event_type"),
    [
        ({"unsubscribeAll": True, "topicSubscriptionStatus": []}, "_email.unsubscribe"),
        ({"topicSubscriptionStatus": [{"subscriptionStatus": "OptOut"}]}, "_email.unsubscribe"),
        ({"topicSubscriptionStatus": [{"subscriptionStatus": "OptIn"}]}, "_email.subscription"),
        # One topic left, which may be long ago, another chosen.
        ({"topicSubscriptionStatus": [{"subscriptionStatus": "OptOut"}, {"subscriptionStatus": "OptIn"}]},
         "_email.subscription"),
        ({}, "_email.subscription"),
    ],
)  # fmt: skip
def test_an_opt_out_is_an_unsubscription_and_another_change_is_not(preferences: Json, event_type: str):
    assert (
        event_of(ses("Subscription", {"subscription": {"newTopicPreferences": preferences}})).event_type == event_type
    )


def test_account_events_of_ses_are_skipped_and_an_unknown_type_is_a_dead_letter():
    advisor = {"source": "aws.ses", "detail-type": "Advisor Recommendation Status Open", "detail": {"version": "1.0"}}
    assert one(advisor) == SkippedEvent("", "not an e-mail event", "ses")
    assert one({"notificationType": "AmazonSnsSubscriptionSucceeded", "message": "x"}) == SkippedEvent(
        "", "SES's test of a new SNS topic", "ses"
    )
    rejected = one(ses("Sleep", {}))
    assert isinstance(rejected, RejectedEvent)
    assert (rejected.reason, rejected.source) == (Reason.UNKNOWN_FORMAT, "ses")


def test_the_time_of_the_sending_is_never_that_of_an_open():
    late = event_of(ses("Open", {"open": {"timestamp": "soon"}}))
    assert late.arrival_ms == 0  # what cannot be read is not replaced by `mail.timestamp`
    assert event_of(ses("Open", {"open": {}})).arrival_ms == 1_795_168_800_000  # the envelope's


def test_an_empty_list_of_recipients_names_nobody():
    assert reason_of(one(ses("Delivery", {"delivery": {"recipients": []}}))) is Reason.NO_PERSON
    tagged = event_of(ses("Delivery", {"delivery": {}}, tags={"user_id": ["u"]}))
    assert tagged.user_id == "u"


def test_a_project_tag_comes_before_the_default_and_without_either_the_event_is_a_dead_letter():
    part = {"open": {}}
    assert event_of(ses("Open", part, tags={"project_id": ["mine"]})).project_id == "mine"
    assert event_of(ses("Open", part)).project_id == "p"
    assert reason_of(one(ses("Open", part), Registry())) is Reason.NO_PROJECT
    assert event_of(ses("Open", part, tags={"project_id": ["mine"]}), Registry()).project_id == "mine"


# SMS, WhatsApp, Connect, CloudEvents, Segment


def sms(event_type: str, **detail: object) -> Json:
    return {"source": "aws.sms-voice", "detail": {"eventType": event_type, "messageId": "m", **detail}}


@pytest.mark.parametrize(
    ("sent", "event_type"),
    [
        ("TEXT_SUCCESSFUL", "_SMS.SUCCESS"),
        ("TEXT_PENDING", "_SMS.BUFFERED"),
        ("TEXT_TTL_EXPIRED", "_SMS.TTL_EXPIRED"),
        ("MEDIA_DELIVERED", "_MMS.DELIVERED"),
        ("VOICE_COMPLETED", "_VOICE.COMPLETED"),
        ("RCS_DELIVERED", "_RCS.DELIVERED"),
    ],
)
def test_message_events_have_pinpoint_s_names(sent: str, event_type: str):
    assert event_of(sms(sent, destinationPhoneNumber="+1425")).event_type == event_type
    assert event_of({"eventType": sent, "messageId": "m", "context": {"user_id": "u"}}).event_type == event_type


def test_a_message_event_that_names_nobody_is_anonymous_only_where_it_is_transactional():
    assert one(sms("TEXT_DELIVERED", messageType="TRANSACTIONAL")) == Anonymous("sms", "_SMS.SUCCESS", "p")
    assert reason_of(one(sms("TEXT_DELIVERED", messageType="PROMOTIONAL"))) is Reason.NO_PERSON
    registration = {"source": "aws.sms-voice", "detail-type": "Registration Status Change", "detail": {"x": 1}}
    assert one(registration) == SkippedEvent("", "not a message event", "sms")


def whatsapp(detail_type: str, **detail: object) -> Json:
    return {
        "source": "aws.social-messaging",
        "detail-type": detail_type,
        "time": "2025-10-03T04:34:24Z",
        "detail": {"messageId": "m", "eventTimestamp": "1759466063", **detail},
    }


def test_whatsapp_s_documented_events_name_nobody_and_are_counted():
    assert one(whatsapp("WhatsApp Message Delivered")) == Anonymous("whatsapp", "_whatsapp.delivered", "p")
    read_by = event_of(whatsapp("WhatsApp Message Read", context={"user_id": "u"}))
    assert (read_by.event_type, read_by.user_id, read_by.arrival_ms) == ("_whatsapp.read", "u", 1_759_466_063_000)
    assert isinstance(one(whatsapp("WhatsApp Message Handover Failed")), SkippedEvent)


def connect(object_type: str, event_type: str = "CREATED", **fields: object) -> Json:
    return {
        "EventType": event_type,
        "DomainName": "main",
        "ObjectTypeName": object_type,
        "AssociatedProfileId": "p-1",
        "EventTimestamp": "2026-11-20T10:00:00Z",
        "Object": fields,
    }


def test_campaign_objects_are_events_and_deleted_ones_are_not():
    bounce = {"campaign_event_type": "Bounce", "endpoint_address": "a@x.org"}
    assert event_of(connect("Campaign-Email", **bounce)).event_type == "_email.softbounce"
    hard = connect("Campaign-Email", **bounce, bounce={"bounceType": "Permanent"})
    assert event_of(hard).event_type == "_email.hardbounce"
    text = event_of(connect("Campaign-SMS", campaign_event_type="TEXT_DELIVERED", endpoint_address="+1"))
    assert (text.event_type, text.aliases[0]) == ("_SMS.SUCCESS", Alias(AliasKind.PHONE, "+1"))
    orchestration = event_of(connect("Campaign-Orchestration", campaign_event_type="Started"))
    assert (orchestration.event_type, orchestration.aliases) == ("Started", (Alias(AliasKind.PROFILE, "p-1"),))
    assert one(connect("Campaign-Email", "DELETED", **bounce)) == SkippedEvent(
        "", "not a new campaign event", "connect-campaigns"
    )


def test_a_cloudevent_without_source_or_id_has_no_event_id():
    base = {"specversion": "1.0", "type": "t", "subject": "u"}
    assert event_of({**base, "source": "s", "id": "1"}).event_id == "s\x1f1"
    assert event_of({**base, "source": "s"}).event_id == ""
    assert event_of({**base, "id": "1"}).event_id == ""


def test_a_message_that_a_person_sent_is_that_person_s():
    inbound = {
        "specversion": "1.0",
        "type": "com.twilio.messaging.inbound-message.received",
        "data": {"from": "+1", "to": "+2"},
    }
    assert event_of(inbound).aliases == (Alias(AliasKind.PHONE, "+1"),)


def test_an_identify_call_without_user_or_other_name_teaches_nothing_and_is_counted():
    call = {"type": "identify", "messageId": "m"}
    assert isinstance(one({**call, "userId": "u", "anonymousId": "a"}), Teaches)
    for names in ({"userId": "u"}, {"anonymousId": "a", "traits": {"email": "a@x.org"}}, {}):
        assert one({**call, **names}) == SkippedEvent(
            "", "it does not name a user together with another name", "segment"
        )
    assert isinstance(one({**call, "type": "alias", "userId": "u", "previousId": "a"}), SkippedEvent)


# One's own


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


def test_nobody_is_anonymous_where_the_mail_is_transactional_else_a_dead_letter():
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


def test_a_star_makes_one_event_per_element_and_other_fields_are_the_same_for_all():
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


def test_a_dead_letter_of_one_person_holds_only_that_person_and_redriving_it_gives_only_its_outcome():
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


def test_a_translation_goes_by_text_then_beginning_then_otherwise_which_is_also_for_what_is_absent():
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


def test_an_array_that_does_not_name_people_leaves_each_element_ambiguous_by_itself():
    registry = own("""
sources:
  - {name: a, when: {k: a}, event_type: =x, email: "to[0]", recipients: to, event_id: "lines[*].id"}
""")
    outcomes = read({"k": "a", "to": ["a", "b"], "lines": [{"id": 1}, {"id": 2}]}, registry)
    assert outcomes == [Ambiguous("a", "x", "p", 0, 1), Ambiguous("a", "x", "p", 0, 2)]


# The order of sources, and Pinpoint


def test_one_s_own_sources_come_first_then_pinpoint_then_the_others():
    event = {"event_type": "x", "client": {"client_id": "e"}, "user_id": "u", "specversion": "1.0", "type": "t"}
    assert event_of(event).source == "pinpoint"
    mine = own("sources: [{name: mine, when: {event_type: x}, event_type: event_type, user: user_id}]")
    assert event_of(event, mine).source == "mine"
    assert mine.names() == [
        "mine", "pinpoint", "ses", "sms", "whatsapp", "connect-campaigns", "segment", "cloudevents",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("data", "reason", "source"),
    [
        (b'{"event_type":7,"client":{}}', Reason.WRONG_TYPE, "pinpoint"),
        (b'{"event_type":"","client":{}}', Reason.NO_EVENT_TYPE, "pinpoint"),
        (b'{"event_type":"a","client":[]}', Reason.WRONG_TYPE, "pinpoint"),
        (b'{"event_type":"a"}', Reason.UNKNOWN_FORMAT, ""),
        (b"{}", Reason.UNKNOWN_FORMAT, ""),
        (b"7", Reason.NOT_AN_OBJECT, ""),
        (b'{"event_type":"a","client":{"client_id":"\xff"}}', Reason.NOT_UTF8, ""),
        (b'{"a":' * 65 + b"1" + b"}" * 65, Reason.TOO_DEEP, ""),
        (b'{"a":"\\ud800"}', Reason.NOT_JSON, ""),
        (b'{"a":1e999}', Reason.WRONG_TYPE, ""),
        (b"", Reason.NOT_JSON, ""),
    ],
)
def test_what_is_no_event_says_why(data: bytes, reason: Reason, source: str):
    (outcome,) = Registry(default_project="p").read(data)
    assert isinstance(outcome, RejectedEvent)
    assert (outcome.reason, outcome.source, outcome.payload) == (reason, source, data)


def test_pinpoint_s_event_is_found_wherever_its_keys_stand():
    late = b'{"client":{"client_id":"e"},"event_type":"x"}'
    empty = b'{"event_type":"x","client":{}}'
    for data in (late, empty, b" " + late, b"[" + late + b"]"):
        (outcome,) = Registry(default_project="p").read(data)
        assert isinstance(outcome, Event)
        assert (outcome.event_type, outcome.source) == ("x", "pinpoint")
