"""Amazon Pinpoint's event stream: one JSON object per Kinesis record.

Shapes: https://docs.aws.amazon.com/pinpoint/latest/developerguide/event-streams-data.html (app, campaign, journey,
e-mail, SMS) and the records in `tests/samples/pinpoint-events.jsonl`. Three places can name the user:

1. `endpoint.User.UserId`: events that an SDK sends.
2. The same path inside `client_context.custom.endpoint`, which is JSON in a *string*: sends of campaigns and journeys.
3. `userId` inside `attributes.customer_context`, JSON in a string as well: the `Context` of a message sent by API.

All other e-mail and SMS events name only the endpoint, as `client.client_id`. The first two places hold a snapshot of
the endpoint as Pinpoint stores it. One with an empty `User`, as documented, states that the endpoint has no user.
Endpoint ids are case-insensitive (https://docs.aws.amazon.com/pinpoint/latest/apireference/apps-application-id-endpoints-endpoint-id.html):
they are compared, and remembered, in lower case.

The typed decoder reads the documented shapes; what it refuses, and what names nobody, is read by `lenient.py`.
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
from service.sources import lenient
from service.sources.decoding import MAX_RECORD_BYTES, byte_fault, may_be_too_deep
from service.sources.lenient import Snapshot
from service.sources.undecodable import why_undecodable, without_event_type

NAME = "pinpoint"
"""Name of this source."""

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


_ABSENT = msgspec.Raw()


class _Attributes(msgspec.Struct, gc=False):
    # Values are not read, only whether they are there: a strange one must not reject the event.
    campaign_id: msgspec.Raw = _ABSENT
    journey_id: msgspec.Raw = _ABSENT
    customer_context: msgspec.Raw = _ABSENT


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


def decode(data: bytes) -> Decoded:  # noqa: C901, PLR0912 - the hot path: every further call costs 3 % of it
    """Return the event in one Kinesis record, or why there is none.

    Args:
        data: The record's payload; a trailing newline is accepted.

    Never raises for any input: a malformed record is returned as `Rejected`.
    """
    if len(data) > MAX_RECORD_BYTES:
        return Rejected(Reason.TOO_LARGE, f"{len(data)} bytes; Kinesis carries at most {MAX_RECORD_BYTES}")
    try:
        record = _record.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        return why_undecodable(data, error) or _leniently(data)
    if not data.isascii() or may_be_too_deep(data):
        fault = byte_fault(data)
        if fault is not None:
            return fault
    event_type = record.event_type
    if not event_type:
        return without_event_type(data)
    if event_type == PROBE_TYPE:
        return Skipped(event_type)
    project_id = record.application.app_id if record.application else None
    user_id = _user_id(record) if record.endpoint or record.client_context else ""
    attributes, caused = record.attributes, False
    if attributes is not None:
        # A field that is not there is the default itself: identity is a quicker test than the bytes.
        if attributes.customer_context is not _ABSENT and not user_id:
            return _leniently(data)
        caused = (attributes.campaign_id is not _ABSENT and bytes(attributes.campaign_id) not in _NOT_GIVEN) or (
            attributes.journey_id is not _ABSENT and bytes(attributes.journey_id) not in _NOT_GIVEN
        )
    if not project_id:
        return _leniently(data)
    anonymous = unnamed = False
    if user_id is None:
        user_id, snapshot, wrong_type = lenient.person_in(data)
        anonymous, unnamed = snapshot is Snapshot.STATES_NONE, snapshot is Snapshot.LEAVES_OUT
        if wrong_type and not user_id:
            return Rejected(Reason.WRONG_TYPE, wrong_type)
    endpoint_id = (record.client.client_id if record.client else None) or ""
    # A project and a type are said in every record: one text of each serves all.
    event_type, project_id, endpoint_id = intern(event_type), intern(project_id), endpoint_id.lower()
    ids = f"{event_type}{project_id}{endpoint_id}{user_id}"
    # Whatever is this short in all has no part that is too long: one look instead of four.
    if len(ids) > MAX_PROJECT_BYTES or not ids.isascii():
        fault = _id_fault(event_type, project_id, endpoint_id, user_id)
        if fault is not None:
            return fault
    arrival_ms = record.arrival_timestamp
    attributed = caused or event_type.startswith(_ATTRIBUTED_BY_TYPE)
    return Event(
        event_type,
        project_id,
        endpoint_id,
        user_id,
        int(arrival_ms) if arrival_ms is not None and 0 <= arrival_ms <= lenient.MAX_ARRIVAL_MS else 0,
        attributed,
        not attributed and event_type.startswith(_MESSAGE_TYPES),
        anonymous,
        unnamed,
        NAME,
    )


def _leniently(data: bytes) -> Decoded:
    """Return the event in a JSON object that the typed decoder cannot read, or reads nobody from."""
    fields = lenient.read(data)
    if fields.event_type is None:
        return Rejected(Reason.WRONG_TYPE, "event_type is not text")
    if not fields.event_type:
        return without_event_type(data)
    if fields.event_type == PROBE_TYPE:
        return Skipped(fields.event_type)
    wrong_type = "" if fields.project_id else fields.project_fault
    if not fields.user_id and fields.snapshot is Snapshot.ABSENT:
        wrong_type = wrong_type or fields.person_fault
    if wrong_type:
        return Rejected(Reason.WRONG_TYPE, wrong_type)
    endpoint_id = fields.endpoint_id.lower()
    fault = _id_fault(fields.event_type, fields.project_id, endpoint_id, fields.user_id)
    if fault is not None:
        return fault
    attributed = fields.caused or fields.event_type.startswith(_ATTRIBUTED_BY_TYPE)
    return Event(
        intern(fields.event_type),
        intern(fields.project_id),
        endpoint_id,
        fields.user_id,
        fields.arrival_ms,
        attributed,
        not attributed and fields.event_type.startswith(_MESSAGE_TYPES),
        anonymous=fields.snapshot is Snapshot.STATES_NONE,
        unnamed=fields.snapshot is Snapshot.LEAVES_OUT,
        source=NAME,
    )


def _user_id(record: _Record) -> str | None:
    """Return the user that the snapshot names; empty without a snapshot; None where `lenient.py` must look."""
    if record.endpoint is not None and record.endpoint.user is not None and record.endpoint.user.user_id:
        return record.endpoint.user.user_id
    context = record.client_context
    if context is None or context.custom is None or not context.custom.endpoint:
        return None if record.endpoint is not None else ""
    endpoint = context.custom.endpoint
    if isinstance(endpoint, str):
        try:
            endpoint = _endpoint.decode(endpoint)
        except (msgspec.DecodeError, UnicodeError, RecursionError):
            return None
    return (endpoint.user.user_id if endpoint.user else None) or None


def _id_fault(event_type: str, project_id: str, endpoint_id: str, user_id: str) -> Rejected | None:
    return (
        id_fault("event_type", event_type)
        or id_fault("application.app_id", project_id, MAX_PROJECT_BYTES)
        or id_fault("client.client_id", endpoint_id)
        or id_fault("UserId", user_id)
    )
