"""The event as scoring sees it, and the reasons why a record cannot be scored.

Nothing here knows which system sent the record: `service/sources/` has one decoder per event format, and every
decoder returns one of the types below, or one of `service/sources/outcomes.py`.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Any

import msgspec

MAX_ID_BYTES = 2000
"""Longest user id, endpoint id or event type accepted, in UTF-8 bytes.

A DynamoDB partition key holds 2,048
(https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/Constraints.html), and the identity
table puts a short prefix before the id.
"""

MAX_PROJECT_BYTES = 1024
"""Longest project id accepted, in UTF-8 bytes: project ids are sort keys (same page)."""


class Reason(StrEnum):
    """Why something was dead-lettered: a closed set, because it is a metric label.

    `HAS_...` and `IS_...` name what the bytes are where they are not one JSON object; `NO_...` name what an otherwise
    valid event lacks.
    """

    NOT_UTF8 = "not_utf8"
    NOT_JSON = "not_json"
    NOT_AN_OBJECT = "not_an_object"
    NO_EVENT_TYPE = "no_event_type"
    WRONG_TYPE = "wrong_type"
    TOO_DEEP = "too_deep"
    TOO_LARGE = "too_large"
    TOO_MANY_EVENTS = "too_many_events"
    BAD_ID = "bad_id"
    BAD_ENVELOPE = "bad_envelope"
    UNKNOWN_FORMAT = "unknown_format"
    HAS_BOM = "has_bom"
    IS_UTF16 = "is_utf16"
    IS_GZIP = "is_gzip"
    IS_KPL_AGGREGATE = "is_kpl_aggregate"
    IS_BASE64 = "is_base64"
    IS_JSON_LINES = "is_json_lines"
    IS_FIREHOSE_ENVELOPE = "is_firehose_envelope"
    IS_LAMBDA_ENVELOPE = "is_lambda_envelope"
    NO_PROJECT = "no_project"
    NO_PERSON = "no_person"
    UNRESOLVED_USER = "unresolved_user"
    LOOKUP_OVERDUE = "lookup_overdue"
    BAD_SCORE_ITEM = "bad_score_item"
    SCORE_REFUSED = "score_refused"
    MARK_EXPIRED = "mark_expired"
    SINK_REJECTED = "sink_rejected"


class Rejected(msgspec.Struct, frozen=True):
    """A record, or work derived from it, that no retry can help: it goes to the dead letters.

    Attributes:
        reason: The class of fault.
        detail: One sentence for a person, free of payload (payloads hold e-mail addresses).
    """

    reason: Reason
    detail: str


class Skipped(msgspec.Struct, frozen=True):
    """A well-formed record that scoring ignores, such as the probe that a new event stream sends."""

    event_type: str


class AliasKind(StrEnum):
    """What kind of name an alias is."""

    EMAIL = "email"
    PHONE = "phone"
    PROFILE = "profile"
    ANONYMOUS = "anonymous"
    ENDPOINT = "endpoint"


class Alias(msgspec.Struct, frozen=True, gc=False, order=True):
    """Another name of a person, beside the user id.

    Attributes:
        kind: What it is.
        value: Normalised: an e-mail address is in lower case without display name; other names are as sent,
            without surrounding white space (a phone number is expected in E.164 form, and is not converted).
    """

    kind: AliasKind
    value: str


class Details(msgspec.Struct, frozen=True):
    """What conditions and amounts of rules may ask of an event; kept only for event types where a rule does.

    Attributes:
        payload: The decoded event (what the source's `within` names, for example an EventBridge `detail`).
        user_agent: Of an open or click; empty: not known.
        machine: Whether the sender itself says that a machine did it.
        sent_ms: When the message that it follows was sent, epoch milliseconds; 0: not known.
    """

    payload: dict[str, Any]
    user_agent: str = ""
    machine: bool = False
    sent_ms: int = 0


class Event(msgspec.Struct, frozen=True, gc=False):
    """One thing that one person did.

    `user_id`, `endpoint_id` or `aliases` says who it was. Where there is a user as well as an endpoint or aliases, the
    event teaches that they belong together.

    Attributes:
        event_type: As its sender names it, for example `_email.open`.
        project_id: The project whose definitions and users apply; empty when the record names none.
        endpoint_id: The address or device it happened on, in the form that its source compares ids in (Pinpoint: lower
            case); empty when the record names none.
        user_id: The person, where the record names one; empty otherwise.
        arrival_ms: When the sending system received it, epoch milliseconds (0: not stated).
        attributed: Whether a campaign or journey caused it: then it has a user, who must be found.
        transactional: Whether it is about a single message sent without campaign or journey: its endpoint id is mostly
            random and belongs to nobody, so asking the owner of the endpoints for its user is usually a waste.
        anonymous: Whether the record states that the endpoint has no user.
        unnamed: Whether the record carries the endpoint as its owner stores it, and just does not mention a user: then
            what was learned of the endpoint holds, but asking its owner is a waste.
        source: Name of the source that recognised it.
        aliases: Other names of the person than the endpoint.
        event_id: The sender's id of this event, for dropping duplicates of an at-least-once sender; empty: none.
            It is unique within its source.
        message: What `once: message` counts by; empty: not known.
        campaign: What `once: campaign` counts by; empty: not known.
        details: The decoded event, where a rule reads it.
        index: Which event of its record it is, from 1; 0 where the record holds one event.
        part: Which person of that event, from 1; 0 where the event concerns one person.
    """

    event_type: str
    project_id: str
    endpoint_id: str
    user_id: str
    arrival_ms: int
    attributed: bool
    transactional: bool
    anonymous: bool = False
    unnamed: bool = False
    source: str = ""
    aliases: tuple[Alias, ...] = ()
    event_id: str = ""
    message: str = ""
    campaign: str = ""
    details: Details | None = None
    index: int = 0
    part: int = 0


ADDRESSES = frozenset({AliasKind.EMAIL, AliasKind.PHONE, AliasKind.PROFILE})
"""Kinds of names that are one person's for long enough to have a score themselves. An anonymous id is a browser's."""


def address_of(event: Event) -> str:
    """Return the name that stands for the person where no user is known: the first address; empty: there is none."""
    return next((alias.value for alias in event.aliases if alias.kind in ADDRESSES), "")


Decoded = Event | Skipped | Rejected


def id_fault(name: str, value: str, limit: int = MAX_ID_BYTES) -> Rejected | None:
    r"""Return why `value` cannot be part of a DynamoDB key of `limit` bytes, or None when it can.

    Lone surrogates (legal in JSON as `\ud800`) have no UTF-8 form; over-long ids have no key.
    """
    if len(value) <= limit and value.isascii():
        return None
    try:
        size = len(value.encode())
    except UnicodeEncodeError:
        return Rejected(Reason.BAD_ID, f"{name} holds a lone surrogate, which UTF-8 cannot carry")
    if size > limit:
        return Rejected(Reason.BAD_ID, f"{name} has {size} bytes; at most {limit} fit a table key")
    return None
