"""Amazon Pinpoint's event stream: one JSON object per Kinesis record.

Shapes: https://docs.aws.amazon.com/pinpoint/latest/developerguide/event-streams-data.html (app,
campaign, journey, e-mail, SMS) and the records in `tests/samples/pinpoint-events.jsonl`. Two places
can name the user: `endpoint.User.UserId` (events an SDK sends) and the same path inside
`client_context.custom.endpoint`, which is JSON in a *string* (campaign and journey sends). All other
e-mail and SMS events name only the endpoint, as `client.client_id`.
"""

from __future__ import annotations

from sys import intern

import msgspec

from service.scoring.event import (
    MAX_PROJECT_BYTES,
    Decoded,
    Event,
    Reason,
    Rejected,
    Skipped,
    id_fault,
)
from service.sources.decoding import (
    MAX_RECORD_BYTES,
    NOT_AN_OBJECT,
    byte_fault,
    may_be_too_deep,
    why_not_json,
)

PROBE_TYPE = "_test.event_stream"
"""Pinpoint sends one of these when an event stream is switched on."""


class _User(msgspec.Struct, gc=False):
    user_id: str | None = msgspec.field(name="UserId", default=None)


class _Endpoint(msgspec.Struct, gc=False):
    user: _User | None = msgspec.field(name="User", default=None)


class _Custom(msgspec.Struct, gc=False):
    # A string by the documentation; an object is what a sender who skips the quoting means.
    endpoint: str | _Endpoint | None = None


class _ClientContext(msgspec.Struct, gc=False):
    custom: _Custom | None = None


class _Client(msgspec.Struct, gc=False):
    client_id: str | None = None


class _Application(msgspec.Struct, gc=False):
    app_id: str | None = None


class _Attributes(msgspec.Struct, gc=False):
    # Values are not read, only whether they are there: a strange one must not reject the event.
    campaign_id: msgspec.Raw = msgspec.Raw()
    journey_id: msgspec.Raw = msgspec.Raw()


class _Record(msgspec.Struct, gc=False):
    event_type: str | None = None
    arrival_timestamp: int | float | None = None
    application: _Application | None = None
    client: _Client | None = None
    client_context: _ClientContext | None = None
    attributes: _Attributes | None = None
    endpoint: _Endpoint | None = None


_record = msgspec.json.Decoder(_Record)
_endpoint = msgspec.json.Decoder(_Endpoint)

_ATTRIBUTED_BY_TYPE = ("_campaign.", "_journey.")
_MESSAGE_TYPES = ("_email.", "_SMS.")
_NOT_GIVEN = frozenset({b"", b"null", b'""'})
_MAX_ARRIVAL_MS = 253_402_300_799_999
"""The end of the year 9999: no later time can be shown, and none is meant."""


def decode(data: bytes) -> Decoded:
    """Return the event in one Kinesis record, or why there is none.

    Args:
        data: The record's payload; a trailing newline is accepted.

    Never raises for any input: what is no event comes back as `Rejected`.
    """
    if len(data) > MAX_RECORD_BYTES:
        return Rejected(Reason.TOO_LARGE, f"{len(data)} bytes; Kinesis carries at most {MAX_RECORD_BYTES}")
    try:
        record = _record.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        return _why_undecodable(data, error)
    if not data.isascii() or may_be_too_deep(data):
        fault = byte_fault(data)
        if fault is not None:
            return fault
    event_type = record.event_type
    if not event_type:
        return Rejected(Reason.NO_EVENT_TYPE, "the object has no event_type")
    if event_type == PROBE_TYPE:
        return Skipped(event_type)
    project_id = (record.application.app_id if record.application else None) or ""
    endpoint_id = (record.client.client_id if record.client else None) or ""
    user_id = _user_id(record) if record.endpoint or record.client_context else ""
    # A project and a type are said in every record: one text of each serves all.
    event_type, project_id = intern(event_type), intern(project_id)
    ids = f"{event_type}{project_id}{endpoint_id}{user_id}"
    # Whatever is this short in all has no part that is too long: one look instead of four.
    if len(ids) > MAX_PROJECT_BYTES or not ids.isascii():
        fault = _id_fault(event_type, project_id, endpoint_id, user_id)
        if fault is not None:
            return fault
    arrival_ms = record.arrival_timestamp
    attributes = record.attributes
    attributed = event_type.startswith(_ATTRIBUTED_BY_TYPE) or (
        attributes is not None
        and (bytes(attributes.campaign_id) not in _NOT_GIVEN or bytes(attributes.journey_id) not in _NOT_GIVEN)
    )
    return Event(
        event_type,
        project_id,
        endpoint_id,
        user_id,
        int(arrival_ms) if arrival_ms is not None and 0 <= arrival_ms <= _MAX_ARRIVAL_MS else 0,
        attributed,
        not attributed and event_type.startswith(_MESSAGE_TYPES),
    )


def _user_id(record: _Record) -> str:
    if record.endpoint is not None and record.endpoint.user is not None and record.endpoint.user.user_id:
        return record.endpoint.user.user_id
    context = record.client_context
    if context is None or context.custom is None or not context.custom.endpoint:
        return ""
    endpoint = context.custom.endpoint
    if isinstance(endpoint, str):
        try:
            endpoint = _endpoint.decode(endpoint)
        except (msgspec.DecodeError, UnicodeError, RecursionError):
            # The snapshot is a convenience of the sender's; the endpoint id still says who it was.
            return ""
    return (endpoint.user.user_id if endpoint.user else None) or ""


def _id_fault(event_type: str, project_id: str, endpoint_id: str, user_id: str) -> Rejected | None:
    return (
        id_fault("event_type", event_type)
        or id_fault("application.app_id", project_id, MAX_PROJECT_BYTES)
        or id_fault("client.client_id", endpoint_id)
        or id_fault("UserId", user_id)
    )


def _why_undecodable(data: bytes, error: Exception) -> Rejected:
    """Name the fault: the typed decoder says only that something was off."""
    why = why_not_json(data, error)
    if why.reason is Reason.WRONG_TYPE and not data.lstrip().startswith(b"{"):
        return NOT_AN_OBJECT
    return why
