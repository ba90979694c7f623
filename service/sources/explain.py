"""What a record comes to, as rows for a person: the pure half of `scoring dry-run`.

A row holds foreign text (names, types, ids): the caller escapes it before printing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from datetime import UTC, datetime
from enum import StrEnum

import msgspec

from service.scoring.event import Alias, AliasKind, Event, Reason, Rejected
from service.sources.decoding import decode_object
from service.sources.outcomes import (
    Ambiguous,
    Anonymous,
    Outcome,
    RejectedEvent,
    SkippedEvent,
    Teaches,
)
from service.sources.registry import Registry

MAX_KEYS = 10
"""Most keys of an unknown event that a row names."""

MAX_KEY_LENGTH = 40
"""Most characters of such a key."""


class Kind(StrEnum):
    """What became of an event, in one word."""

    EVENT = "event"
    TEACHES = "teaches"
    SKIPPED = "skipped"
    AMBIGUOUS = "ambiguous"
    ANONYMOUS = "anonymous"
    REJECTED = "rejected"


class Row(msgspec.Struct, frozen=True):
    """One outcome.

    Attributes:
        index: Which event of the record, from 1; 0 where it holds one.
        part: Which person of the event, from 1; 0 where it concerns one.
        kind: What became of it.
        source: Name of the source that recognised it; empty: none.
        event_type: Empty: none, or not known.
        project: Empty: none, or not known.
        person: The user id, else the best of the other names; empty: nobody.
        found_by: How the person was found, in words; empty: nobody.
        also: Other names of the person that the event gives; with a user, they are learned.
        time: When, ISO 8601 in UTC; empty: the event says no time, so the record's arrival counts.
        detail: Why it is not scored, or what is missing; empty where nothing is.
    """

    index: int
    part: int
    kind: Kind
    source: str = ""
    event_type: str = ""
    project: str = ""
    person: str = ""
    found_by: str = ""
    also: tuple[str, ...] = ()
    time: str = ""
    detail: str = ""


_FOUND_BY = {
    AliasKind.EMAIL: "e-mail address",
    AliasKind.PHONE: "phone number",
    AliasKind.ANONYMOUS: "anonymous id",
    AliasKind.PROFILE: "profile id",
}
_NOBODY = "the event names nobody, so no score changes"
_AMBIGUOUS = "several people received the message, and the event does not say whose it is"
_ANONYMOUS = "the event names nobody, as is to be expected of its source"
_TEACHES = "not scored: it says which names belong to the user"


def explain(registry: Registry, data: bytes) -> list[Row]:
    """Return one row for each outcome of a record; at least one. Never raises."""
    return [_row(outcome) for outcome in registry.read(data)]


def summary(rows: Iterable[Row]) -> Counter[tuple[str, str, Kind]]:
    """Return how many rows there are of each source, event type and kind."""
    return Counter((row.source, row.event_type, row.kind) for row in rows)


def _row(outcome: Outcome) -> Row:
    match outcome:
        case Event():
            person, found_by, also = _person(outcome.user_id, outcome.endpoint_id, outcome.aliases)
            return Row(
                outcome.index,
                outcome.part,
                Kind.EVENT,
                outcome.source,
                outcome.event_type,
                outcome.project_id,
                person,
                found_by,
                also,
                _shown_time(outcome.arrival_ms),
                "" if person else _NOBODY,
            )
        case Teaches():
            person, found_by, also = _person(outcome.user_id, outcome.endpoint_id, outcome.aliases)
            return Row(
                outcome.index,
                outcome.part,
                Kind.TEACHES,
                outcome.source,
                "",
                outcome.project_id,
                person,
                found_by,
                also,
                detail=_TEACHES,
            )
        case SkippedEvent():
            return Row(
                outcome.index, outcome.part, Kind.SKIPPED, outcome.source, outcome.event_type, detail=outcome.reason
            )
        case Ambiguous():
            return _nobody(outcome, Kind.AMBIGUOUS, _AMBIGUOUS)
        case Anonymous():
            return _nobody(outcome, Kind.ANONYMOUS, _ANONYMOUS)
        case RejectedEvent():
            detail = f"{outcome.reason}: {outcome.detail}{_keys(outcome)}"
            return Row(outcome.index, outcome.part, Kind.REJECTED, outcome.source, detail=detail)


def _nobody(outcome: Ambiguous | Anonymous, kind: Kind, why: str) -> Row:
    return Row(outcome.index, outcome.part, kind, outcome.source, outcome.event_type, outcome.project_id, detail=why)


def _person(user_id: str, endpoint_id: str, aliases: tuple[Alias, ...]) -> tuple[str, str, tuple[str, ...]]:
    """Return who it is, how that is known, and the other names."""
    names = [(alias.value, _FOUND_BY[alias.kind]) for alias in aliases]
    if endpoint_id:
        names.append((endpoint_id, "endpoint"))
    if user_id:
        names.insert(0, (user_id, "user id"))
    if not names:
        return "", "", ()
    (person, found_by), *others = names
    return person, found_by, tuple(f"{how} {name}" for name, how in others)


def _shown_time(time_ms: int) -> str:
    if not time_ms:
        return ""
    return datetime.fromtimestamp(time_ms / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _keys(outcome: RejectedEvent) -> str:
    """Return the names that an unknown event has at its top: what a source could recognise it by."""
    if outcome.reason is not Reason.UNKNOWN_FORMAT or outcome.source:
        return ""
    top = decode_object(outcome.payload)
    if isinstance(top, Rejected) or not top:
        return ""
    keys = [key if len(key) <= MAX_KEY_LENGTH else f"{key[:MAX_KEY_LENGTH]}..." for key in list(top)[:MAX_KEYS]]
    return f" (it has {', '.join(keys)}{' and others' if len(top) > MAX_KEYS else ''})"
