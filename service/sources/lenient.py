"""Pinpoint records read leniently: for those whose fields are not of the documented types, or not in the usual place.

The typed decoder of `pinpoint.py` reads nearly every record. This one is three times slower and reads the rest: a field
that decides nothing (a time, attributes, the client of an event whose user is named) never costs the event, and a field
that decides something is accepted where its meaning is plain: numbers as ids, `userId` for `UserId`, an object that is
quoted as text. What is accepted inside the endpoint's snapshot is accepted outside it, and the other way round.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from enum import Enum
from typing import Any, TypeVar

import msgspec
from msgspec import Raw, field

MAX_ARRIVAL_MS = 253_402_300_799_999
"""The end of the year 9999: a later time cannot be shown, and is not meant."""

T = TypeVar("T")


class Snapshot(Enum):
    """What a snapshot of an endpoint says of its user, where it names none."""

    ABSENT = "absent"
    """There is none, or it is not one of an endpoint that Pinpoint stores."""
    LEAVES_OUT = "leaves_out"
    """Nothing: an SDK's event, whose endpoint has no `User` at all."""
    STATES_NONE = "states_none"
    """The endpoint has no user."""


class Fields(msgspec.Struct, frozen=True):
    """What a record says.

    Attributes:
        event_type: None where it is not a text.
        project_id: Empty where the record names none.
        endpoint_id: Likewise.
        user_id: Likewise.
        arrival_ms: Epoch milliseconds; 0 where not stated, or not readable as a time.
        caused: Whether attributes name a campaign or journey.
        snapshot: What the endpoint's snapshot says of its user, where it names none.
        project_fault: What is wrong with a field that should name the project; empty: nothing.
        person_fault: Likewise, the user or the endpoint.
    """

    event_type: str | None
    project_id: str
    endpoint_id: str
    user_id: str
    arrival_ms: int
    caused: bool
    snapshot: Snapshot
    project_fault: str
    person_fault: str


class _Application(msgspec.Struct, gc=False):
    app_id: Raw = Raw()
    application_key: Raw = Raw()


class _Client(msgspec.Struct, gc=False):
    client_id: Raw = Raw()


class _ClientContext(msgspec.Struct, gc=False):
    custom: Raw = Raw()


class _Custom(msgspec.Struct, gc=False):
    endpoint: Raw = Raw()


class _Attributes(msgspec.Struct, gc=False):
    campaign_id: Raw = Raw()
    journey_id: Raw = Raw()
    customer_context: Raw = Raw()


class _Stored(msgspec.Struct, gc=False):
    user: Raw = field(name="User", default_factory=Raw)
    lower_user: Raw = field(name="user", default_factory=Raw)
    # In every endpoint that Pinpoint stores: an object without it, and without a user, is not a snapshot.
    status: Raw = field(name="EndpointStatus", default_factory=Raw)


class _User(msgspec.Struct, gc=False):
    pascal: Raw = field(name="UserId", default_factory=Raw)
    camel: Raw = field(name="userId", default_factory=Raw)
    lower: Raw = field(name="userid", default_factory=Raw)
    snake: Raw = field(name="user_id", default_factory=Raw)


class _Record(msgspec.Struct, gc=False):
    event_type: Raw = Raw()
    arrival_timestamp: Raw = Raw()
    application: Raw = Raw()
    app_id: Raw = Raw()
    application_key: Raw = Raw()
    client: Raw = Raw()
    client_context: Raw = Raw()
    attributes: Raw = Raw()
    endpoint: Raw = Raw()


class _Snapshots(msgspec.Struct, gc=False):
    client_context: Raw = Raw()
    endpoint: Raw = Raw()


_record = msgspec.json.Decoder(_Record)
_snapshots = msgspec.json.Decoder(_Snapshots)
_text = msgspec.json.Decoder(str)
_number = msgspec.json.Decoder(float)
_DECODERS: dict[type, msgspec.json.Decoder[Any]] = {
    each: msgspec.json.Decoder(each)
    for each in (_Application, _Client, _ClientContext, _Custom, _Attributes, _Stored, _User)
}
_NOTHING = frozenset({b"", b"null", b'""'})
_NO_DIGITS = b"-0123456789"


def read(data: bytes) -> Fields:
    """Return what a record says, whatever the types of its fields.

    Args:
        data: A JSON object.
    """
    record = _record.decode(data)
    of_project: list[str] = []
    of_person: list[str] = []
    application = _object(_Application, record.application, "application", of_project)
    client = _object(_Client, record.client, "client", of_person)
    attributes = _object(_Attributes, record.attributes, "", [])
    user_id, snapshot = _person(record.endpoint, record.client_context, of_person)
    if not user_id:
        user_id = user_in_context(attributes.customer_context)
    return Fields(
        event_type=_event_type(record.event_type),
        project_id=_first(
            (
                (application.app_id, "application.app_id"),
                (record.app_id, "app_id"),
                (application.application_key, "application.application_key"),
                (record.application_key, "application_key"),
            ),
            of_project,
        ),
        endpoint_id=_first(((client.client_id, "client.client_id"),), of_person),
        user_id=user_id,
        arrival_ms=_arrival_ms(record.arrival_timestamp),
        caused=is_given(attributes.campaign_id) or is_given(attributes.journey_id),
        snapshot=Snapshot.ABSENT if user_id else snapshot,
        project_fault=", ".join(of_project),
        person_fault=", ".join(of_person),
    )


def person_in(data: bytes) -> tuple[str, Snapshot, str]:
    """Return what the snapshot of a record says, for those that the typed decoder found no user in.

    Args:
        data: A JSON object.

    Returns:
        The user; what the snapshot says where it names none; what is wrong with the field that should name one.
    """
    snapshots = _snapshots.decode(data)
    faults: list[str] = []
    user_id, snapshot = _person(snapshots.endpoint, snapshots.client_context, faults)
    return user_id, snapshot, ", ".join(faults)


def is_given(raw: Raw) -> bool:
    """Return whether a field is there, and neither null nor an empty text."""
    return bytes(raw) not in _NOTHING


def user_in_context(raw: Raw) -> str:
    """Return the user that the context of a message sent by API names; empty where it names none.

    `attributes.customer_context` holds the `Context` map of the request that sent the message, as JSON in a string
    (https://docs.aws.amazon.com/pinpoint/latest/developerguide/event-streams-data-sms.html). What is in it is the
    sender's affair: an entry that is not an id does not make the event invalid.
    """
    return _user_id(_object(_User, raw, "", []), []) if is_given(raw) else ""


def _person(endpoint: Raw, client_context: Raw, faults: list[str]) -> tuple[str, Snapshot]:
    """Return the user that the endpoint's snapshot names, and what a snapshot says that names none."""
    context = _object(_ClientContext, client_context, "", [])
    custom = _object(_Custom, context.custom, "", [])
    said = Snapshot.ABSENT
    # What Pinpoint takes along with a send is complete; what an SDK's event carries may come without its user.
    for raw, without in ((custom.endpoint, Snapshot.STATES_NONE), (endpoint, Snapshot.LEAVES_OUT)):
        if not is_given(raw):
            continue
        stored = _object(_Stored, raw, "", [])
        name = "User" if bytes(stored.user) else "user"
        user = stored.user if bytes(stored.user) else stored.lower_user
        before = len(faults)
        user_id = _user_id(_object(_User, user, name, faults), faults)
        if user_id:
            return user_id, Snapshot.ABSENT
        if len(faults) > before or said is Snapshot.STATES_NONE:
            continue
        if bytes(user):
            said = Snapshot.STATES_NONE
        elif is_given(stored.status):
            said = without
    return "", said


def _user_id(user: _User, faults: list[str]) -> str:
    return _first(
        ((user.pascal, "UserId"), (user.camel, "userId"), (user.lower, "userid"), (user.snake, "user_id")), faults
    )


def _first(places: Iterable[tuple[Raw, str]], faults: list[str]) -> str:
    """Return the id in the first place that holds one: a text, or a whole number."""
    for raw, name in places:
        if not is_given(raw):
            continue
        data = bytes(raw)
        if data[:1] == b'"':
            return _text.decode(data)
        if not data.strip(_NO_DIGITS):
            return data.decode()
        faults.append(f"{name} is neither text nor a whole number")
    return ""


def _event_type(raw: Raw) -> str | None:
    data = bytes(raw)
    if not is_given(raw):
        return ""
    return _text.decode(data) if data[:1] == b'"' else None


def _object(of: type[T], raw: Raw, name: str, faults: list[str]) -> T:
    """Return an object, also where it is quoted as text; without fields where it is neither."""
    data: bytes | str = bytes(raw)
    if data in _NOTHING:
        return of()
    quoted = data[:1] == b'"'
    try:
        if quoted:
            data = _text.decode(data)
        found: T = _DECODERS[of].decode(data)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        if name:
            faults.append(f"{name} is not an object")
        return of()
    return found


def _arrival_ms(raw: Raw) -> int:
    """Return a time in epoch milliseconds: a number, a number as text, or ISO 8601 (UTC where it names no zone)."""
    data: bytes | str = bytes(raw)
    try:
        if data[:1] == b'"':
            data = _text.decode(data).strip()
            if not data.removeprefix("-").isdecimal():
                moment = datetime.fromisoformat(data)
                return arrival_of((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() * 1000)
        return arrival_of(_number.decode(data))
    except (ValueError, OverflowError, msgspec.DecodeError):
        return 0


def arrival_of(value: float) -> int:
    """Return a time in epoch milliseconds, or 0 where it is before 1970 or after the year 9999."""
    return int(value) if 0 <= value <= MAX_ARRIVAL_MS else 0
