"""What sources make of events, by examples: built-in sources beyond the samples, and a user's own."""

import pytest

from service.scoring.event import Alias, AliasKind, Event, Reason
from service.sources.outcomes import (
    Ambiguous,
    Anonymous,
    RejectedEvent,
    SkippedEvent,
    Teaches,
)
from service.sources.registry import Registry
from tests.fakes.mappings import AT, LISTED, TWO, Json, event_of, one, own, people, read, reason_of, ses

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


def test_only_the_recipients_of_the_notification_count():
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


def test_account_events_of_ses_are_skipped_but_not_unknown_types():
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


def test_a_project_tag_comes_before_the_default_else_a_dead_letter():
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


def test_a_nameless_message_is_anonymous_only_if_transactional():
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


def test_an_identify_call_without_a_name_is_counted():
    call = {"type": "identify", "messageId": "m"}
    assert isinstance(one({**call, "userId": "u", "anonymousId": "a"}), Teaches)
    for names in ({"userId": "u"}, {"anonymousId": "a", "traits": {"email": "a@x.org"}}, {}):
        assert one({**call, **names}) == SkippedEvent(
            "", "it does not name a user together with another name", "segment"
        )
    assert isinstance(one({**call, "type": "alias", "userId": "u", "previousId": "a"}), SkippedEvent)


# One's own


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
