"""Pinpoint's event records, field by field as in `tests/samples/pinpoint-events.jsonl`.

Shapes: https://docs.aws.amazon.com/pinpoint/latest/developerguide/event-streams-data.html. Also the
malformed records: one for each mistake of a producer that has a reason of its own.
"""

from __future__ import annotations

import base64
import gzip
from collections.abc import Callable, Mapping
from random import Random
from typing import Any

import msgspec

from service.local.population import PROJECT_ID, Endpoint, chance

ACCOUNT_ID = "111122223333"
"""The account AWS's documentation uses in examples."""

OTHER_PROJECT_ID = "0b1d7c44e2f64a8f9d3356a1c07e5b92"
"""A project that shares the stream but has no definitions."""

Json = dict[str, Any]

CAMPAIGN = {
    "campaign_id": "f552cc5023d8319aea1181f76f3adcbd",
    "campaign_activity_id": "c189941acf780de956fe5d1483d7a598",
    "treatment_id": "0",
}
JOURNEY = {
    "journey_id": "ac5d960c71f2731a0ce76f67ca8980aa",
    "journey_run_id": "b6ae4bc13d2a43a6ada270691286d33c",
    "journey_activity_id": "hQ7mEr2kPz",
}
CAUSES: Mapping[str, Mapping[str, str]] = {"campaign": CAMPAIGN, "journey": JOURNEY, "": {}}


class Draft(msgspec.Struct, frozen=True, gc=False):
    """An event to be: all but its times and random ids.

    Attributes:
        event_type: Pinpoint's name for it.
        endpoint: Where it happens.
        cause: `campaign`, `journey`, or empty.
        names_user: Whether the record carries the user's id (where its shape has a place for it).
        whole: For an SDK event, whether it carries the endpoint at all.
        project_id: The `app_id` it comes with.
        newline: Whether the record ends in one.
    """

    event_type: str
    endpoint: Endpoint
    cause: str = ""
    names_user: bool = True
    whole: bool = True
    project_id: str = PROJECT_ID
    newline: bool = False


def render(draft: Draft, rng: Random, now_ms: int) -> bytes:
    """Return the record that Pinpoint would put on the stream.

    Args:
        draft: What happened.
        rng: For the ids that mean nothing.
        now_ms: When it arrives, epoch milliseconds.
    """
    kind = draft.event_type
    if kind.startswith("_email."):
        record = _email(draft, rng, now_ms)
    elif kind.startswith("_SMS."):
        record = _sms(draft, rng, now_ms)
    elif kind in {"_campaign.send", "_journey.send"}:
        record = _send(draft, rng, now_ms)
    elif kind == "_test.event_stream":
        record = _service_event(draft, now_ms, now_ms, {})
    else:
        record = _app_event(draft, rng, now_ms)
    data = msgspec.json.encode(record)
    return data + b"\n" if draft.newline else data


def _service_event(draft: Draft, happened_ms: int, now_ms: int, attributes: Json) -> Json:
    return {
        "event_type": draft.event_type,
        "event_timestamp": happened_ms,
        "arrival_timestamp": now_ms,
        "event_version": "3.1",
        "application": {"app_id": draft.project_id, "sdk": {}},
        "client": {"client_id": draft.endpoint.endpoint_id},
        "device": {"platform": {}},
        "session": {},
        "attributes": attributes,
        "awsAccountId": ACCOUNT_ID,
    }


def _send(draft: Draft, rng: Random, now_ms: int) -> Json:
    status = "DAILY_CAP" if chance(rng, 0.02) else "SUCCESS"
    attributes: Json
    if draft.cause == "journey":
        attributes = {**JOURNEY, "journey_activity_type": draft.endpoint.channel, "journey_send_status": status}
    else:
        attributes = {**CAMPAIGN, "delivery_type": draft.endpoint.channel, "campaign_send_status": status}
        if chance(rng, 0.5):
            attributes["campaign_type"] = None
    user = {"UserId": draft.endpoint.user_id, "UserAttributes": {"plan": [rng.choice(("gold", "basic"))]}}
    snapshot = {
        "ChannelType": draft.endpoint.channel,
        "EndpointStatus": "ACTIVE" if draft.endpoint.active else "INACTIVE",
        "OptOut": "ALL" if draft.endpoint.opted_out else "NONE",
        "RequestId": _uuid(rng),
        "EffectiveDate": "2026-09-20T10:00:00.000Z",
        "Attributes": {"interests": rng.sample(("ski", "travel", "music", "books"), 2)},
        "Location": {},
        "Demographic": {"Timezone": "Europe/Oslo"},
        "User": user if draft.names_user and draft.endpoint.user_id else {},
    }
    record = _service_event(draft, now_ms - rng.randrange(100, 900), now_ms, attributes)
    record["client_context"] = {"custom": {"endpoint": msgspec.json.encode(snapshot).decode()}}
    return record


_FEEDBACK = {
    "_email.send": "received",
    "_email.delivered": "delivered",
    "_email.open": "opened",
    "_email.click": "https://shop.example.com/ski",
    "_email.unsubscribe": "https://shop.example.com/bye",
    "_email.softbounce": "softbounce",
    "_email.hardbounce": "hardbounce",
    "_email.complaint": "complaint",
    "_email.rendering_failure": "rendering_failure",
}


def _email(draft: Draft, rng: Random, now_ms: int) -> Json:
    # The event's time is the time of the send, whatever happened since: what depends on time uses the arrival.
    sent_ms = now_ms - rng.randrange(2_000, 90_000)
    feedback = _FEEDBACK.get(draft.event_type, "other")
    record = _service_event(draft, sent_ms, now_ms, {"feedback": feedback, **CAUSES[draft.cause]})
    record["client_context"] = {"custom": {"legacy_identifier": draft.project_id}}
    to = draft.endpoint.address
    mail = {
        "message_id": f"0100{rng.getrandbits(48):012x}-{_uuid(rng)}-000000",
        "message_send_timestamp": sent_ms,
        "from_address": "news@example.com",
        "destination": [to],
        "headers_truncated": False,
        "headers": [
            {"name": "From", "value": "news@example.com"},
            {"name": "To", "value": to},
            {"name": "Subject", "value": "September offers"},
        ],
        "common_headers": {"from": "news@example.com", "to": [to], "subject": "September offers"},
    }
    name, detail = _email_detail(draft.event_type, to)
    record["facets"] = {"email_channel": {"mail_event": {"mail": mail, name: detail}}}
    return record


def _email_detail(event_type: str, to: str) -> tuple[str, Json]:
    reader = {"ip_address": "192.0.2.10", "user_agent": "Mozilla/5.0 (X11; Linux x86_64)"}
    match event_type.removeprefix("_email."):
        case "delivered":
            relay = {"smtp_response": "250 ok", "reporting_mta": "a1-2.smtp-out.example.net"}
            return "delivery", {**relay, "recipients": [to], "processing_time_millis": 812}
        case "open":
            return "open", reader
        case "click":
            return "click", {**reader, "link": "https://shop.example.com/ski", "link_tags": {}}
        case "unsubscribe":
            tags = {"unsubscribeLinkTag": ["optout"]}
            return "click", {**reader, "link": "https://shop.example.com/bye", "link_tags": tags}
        case "softbounce" | "hardbounce" as kind:
            soft = kind == "softbounce"
            bounced = [{"email_address": to, "action": "failed", "status": "4.2.2" if soft else "5.1.1"}]
            return "bounce", {
                "bounce_type": "Transient" if soft else "Permanent",
                "bounce_sub_type": "MailboxFull" if soft else "General",
                "bounced_recipients": bounced,
            }
        case "complaint":
            return "complaint", {"complained_recipients": [{"email_address": to}], "complaint_feedback_type": "abuse"}
        case "rendering_failure":
            return "rendering_failure", {"template_name": "september", "error_message": "missing variable"}
        case other:
            return other, {}


_SMS_STATUS = {"BUFFERED": "SUCCESSFUL", "SUCCESS": "DELIVERED", "FAILURE": "UNREACHABLE", "OPTOUT": "OPTED_OUT"}


def _sms(draft: Draft, rng: Random, now_ms: int) -> Json:
    attributes: Json = {
        "sender_request_id": _uuid(rng),
        "message_id": _uuid(rng),
        "record_status": _SMS_STATUS[draft.event_type.removeprefix("_SMS.")],
        "destination_phone_number": draft.endpoint.address,
        "origination_phone_number": "+12065550100",
        "iso_country_code": "US",
        "number_of_message_parts": "1",
        "message_type": "Promotional",
        **CAUSES[draft.cause],
    }
    record = _service_event(draft, now_ms - rng.randrange(100, 900), now_ms, attributes)
    record["metrics"] = {"price_in_millicents_usd": 645.0}
    return record


def _app_event(draft: Draft, rng: Random, now_ms: int) -> Json:
    attributes: Json = dict(CAUSES[draft.cause])
    metrics: Json = {}
    match draft.event_type:
        case "_monetization.purchase":
            attributes |= {"_currency": "USD", "_product_id": f"sku-{rng.randrange(1, 90)}"}
            metrics = {"_item_price": rng.randrange(500, 20_000) / 100, "_quantity": 1.0}
        case "webinar.attended":
            attributes["webinar"] = "spring-launch"
            metrics["minutes"] = float(rng.randrange(5, 90))
        case "quiz.finished":
            attributes["quiz"] = "style"
            metrics["score"] = float(rng.randrange(11))
    apple = draft.endpoint.channel == "APNS"
    sdk = {"name": "aws-sdk-ios" if apple else "aws-sdk-android", "version": "2.75.0"}
    platform = {"name": "ios" if apple else "android", "version": "18.1" if apple else "15"}
    began_ms = now_ms - rng.randrange(50, 900)
    record: Json = {
        "event_type": draft.event_type,
        "event_timestamp": began_ms,
        "arrival_timestamp": now_ms,
        "event_version": "3.0",
        "application": {
            "app_id": draft.project_id,
            "cognito_identity_pool_id": f"us-east-1:{_uuid(rng)}",
            "package_name": "com.example.shop",
            "sdk": sdk,
            "title": "Shop",
            "version_name": "4.2",
            "version_code": "420",
        },
        "client": {"client_id": draft.endpoint.endpoint_id, "cognito_id": f"us-east-1:{_uuid(rng)}"},
        "device": {
            "locale": {"code": "en_US", "country": "US", "language": "en"},
            "make": "Apple" if apple else "Google",
            "model": "iPhone 16" if apple else "Pixel 8",
            "platform": platform,
        },
        "session": {"session_id": f"{rng.getrandbits(64):016x}", "start_timestamp": began_ms},
        "attributes": attributes,
        "metrics": metrics,
        "awsAccountId": ACCOUNT_ID,
    }
    if draft.whole:
        record["endpoint"] = _app_endpoint(draft, rng, platform["name"])
    return record


def _app_endpoint(draft: Draft, rng: Random, platform: str) -> Json:
    endpoint: Json = {
        "ChannelType": draft.endpoint.channel,
        "Address": draft.endpoint.address,
        "EndpointStatus": "ACTIVE" if draft.endpoint.active else "INACTIVE",
        "OptOut": "ALL" if draft.endpoint.opted_out else "NONE",
        "RequestId": _uuid(rng),
        "Location": {"Country": "USA"},
        "Demographic": {"Platform": platform},
        "EffectiveDate": "2026-09-20T10:00:00.000Z",
        "Attributes": {},
        "Metrics": {},
        "ApplicationId": draft.project_id,
        "Id": draft.endpoint.endpoint_id,
        "CohortId": "13",
        "CreationDate": "2026-09-01T10:00:00.000Z",
    }
    if draft.names_user and draft.endpoint.user_id:
        endpoint["User"] = {"UserId": draft.endpoint.user_id, "UserAttributes": {}}
    return endpoint


def _uuid(rng: Random) -> str:
    digits = f"{rng.getrandbits(128):032x}"
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"


def _with(**changes: object) -> Callable[[Json], bytes]:
    return lambda record: msgspec.json.encode(record | changes)


SPOILERS: Mapping[str, tuple[str, Callable[[Json], bytes]]] = {
    "latin-1 text": ("not_utf8", lambda record: msgspec.json.encode(record | {"note": "Zo@"}).replace(b"@", b"\xeb")),
    "cut short": ("not_json", lambda record: msgspec.json.encode(record)[:-25]),
    "plain text": ("not_json", lambda _: b"2026-09-20,_email.open,member"),
    "number": ("not_an_object", lambda record: msgspec.json.encode(record["event_timestamp"])),
    "string": ("not_an_object", lambda _: b'"_email.open"'),
    "no type": ("no_event_type", lambda record: msgspec.json.encode({**record, "event_type": None})),
    "type missing": (
        "unknown_format",
        lambda record: msgspec.json.encode({key: value for key, value in record.items() if key != "event_type"}),
    ),
    "numeric type": ("wrong_type", _with(event_type=42)),
    "user a list": ("wrong_type", _with(endpoint={"User": {"UserId": ["someone"]}})),
    "application a string": ("wrong_type", _with(application="shop")),
    "no project": ("no_project", _with(application={})),
    "own shape": ("unknown_format", lambda _: b'{"event_type":"cart.abandoned","user_id":"ben","project_id":"shop"}'),
    "nobody": ("no_person", _with(client={}, endpoint={}, user_id="ben")),
    "compressed and cut": ("bad_envelope", lambda record: gzip.compress(msgspec.json.encode(record), mtime=0)[:-9]),
    "base64": ("is_base64", lambda record: base64.b64encode(msgspec.json.encode(record))),
    "another encoding": ("is_utf16", lambda record: msgspec.json.encode(record).decode().encode("utf-16")),
    "event of a Lambda function": ("is_lambda_envelope", lambda record: msgspec.json.encode({"Records": [record]})),
    "too deep": (
        "too_deep",
        lambda record: msgspec.json.encode(record)[:-1] + b',"nest":' + b"[" * 100 + b"]" * 100 + b"}",
    ),
    "endless id": ("bad_id", _with(client={"client_id": "e" * 2_100})),
}
"""Ways to spoil a record: name -> the reason it must be dead-lettered with, and how it is done."""


def spoil(name: str, endpoint: Endpoint, rng: Random, now_ms: int, project_id: str = PROJECT_ID) -> bytes:
    """Return a record that cannot be scored, spoiled as `SPOILERS[name]` says."""
    record = _app_event(Draft("_session.start", endpoint, project_id=project_id), rng, now_ms)
    return SPOILERS[name][1](record)
