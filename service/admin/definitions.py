"""Definitions from people: reading them, checking them, and comparing them with the existing ones. Pure.

A definition with a typing error looks valid, matches no event, and nothing reports it. So a definition that looks like
a typing error is only written with `--anyway`.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Mapping, Sequence
from decimal import Decimal
from typing import Any

import msgspec

from service.runtime.text import printable
from service.scoring.definitions import DEFAULT_POINTS, RESERVED, Definition, Malformed, points_fault
from service.scoring.event import MAX_PROJECT_BYTES, Rejected, id_fault

PINPOINT_TYPES = frozenset(DEFAULT_POINTS) | {
    "_SMS.BUFFERED",
    "_SMS.FAILURE",
    "_email.rejected",
    "_email.rendering_failure",
    "_email.send",
    "_email.softbounce",
    "_session.pause",
    "_session.resume",
    "_session.stop",
    "_userauth.auth_fail",
    "_userauth.sign_in",
}
"""Event types of Pinpoint itself
(https://docs.aws.amazon.com/pinpoint/latest/developerguide/event-streams-data-email.html and the pages beside it)."""

COLUMNS = ("Project", "Event type", "Points")
_HEADER = "\t".join(column.lower().replace(" ", "_") for column in COLUMNS)

_CLOSE = 0.8
"""Similarity, from 0 to 1, above which two names look like one with a typing error."""

_NUMBER = re.compile(r"[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]{1,3})?")
"""Numbers as in JSON, also with a sign or without a digit before the point. `Decimal` accepts `1_000` as well."""


class Known(msgspec.Struct, frozen=True):
    """What exists already.

    Attributes:
        configured: Projects of `SCORING_PROJECT_IDS`; empty if all projects count.
        projects: Projects with definitions.
        event_types: Event types with a definition, of any project.
    """

    configured: Collection[str] = ()
    projects: Collection[str] = ()
    event_types: Collection[str] = ()


class UnreadableFileError(ValueError):
    """A file without readable definitions; the message has the reason."""


def known_of(rows: Sequence[Definition | Malformed], configured: Collection[str]) -> Known:
    """Return what exists according to a table's rows."""
    return Known(configured, {row.project_id for row in rows}, {row.event_type for row in rows})


def points_of(text: str) -> Decimal | None:
    """Return the number of a text; None if it is not one, such as `1_000` or ` 5`."""
    return Decimal(text) if _NUMBER.fullmatch(text) else None


def checked(row: object) -> Definition | str:
    """Return the definition of `row`, or what is wrong with it."""
    if not isinstance(row, Mapping):
        return "is not an object"
    event_type, project_id, points = (row.get(name) for name in ("EventType", "PinpointProjectId", "ScoreOffset"))
    if not isinstance(event_type, str) or not event_type:
        return "EventType is missing or not a text"
    if not isinstance(project_id, str) or not project_id:
        return "PinpointProjectId is missing or not a text: name it, or give --project"
    if event_type.startswith(RESERVED):
        return f"EventType {event_type!r} starts with {RESERVED}, which marks rows that are not definitions"
    for fault in (id_fault("EventType", event_type), id_fault("PinpointProjectId", project_id, MAX_PROJECT_BYTES)):
        if isinstance(fault, Rejected):
            return fault.detail
    if isinstance(points, bool) or not isinstance(points, str | int | Decimal):
        return f"ScoreOffset of {event_type} is missing or not a number"
    number = points_of(points) if isinstance(points, str) else Decimal(points)
    if number is None:
        return f"ScoreOffset of {event_type} is not a number: {points!r}"
    return points_fault(number) or Definition(event_type, project_id, number)


def suspicions(definition: Definition, known: Known) -> list[str]:
    """Return why a definition looks like a typing error; empty if it does not."""
    found = []
    for name, text in (("event type", definition.event_type), ("project", definition.project_id)):
        if text != text.strip():
            found.append(f"the {name} {text!r} has blanks around it: events are compared exactly")
        elif printable(text) != text:
            found.append(f"the {name} {text!r} holds characters that are not printable")
    event_type, project_id = definition.event_type, definition.project_id
    types = PINPOINT_TYPES | set(known.event_types)
    if not found and event_type not in types:
        cases = [other for other in sorted(types) if other.casefold() == event_type.casefold()]
        if not cases and event_type.startswith("_"):  # Pinpoint's own
            cases = difflib.get_close_matches(event_type, sorted(PINPOINT_TYPES), 1, _CLOSE)
        if cases:
            found.append(f"no event has the type {event_type}: did you mean {cases[0]}? Events are compared exactly")
    projects = set(known.projects) | set(known.configured)
    if not found and project_id not in projects:
        close = difflib.get_close_matches(project_id, sorted(projects), 1, _CLOSE)
        if close:
            found.append(f"there is nothing yet of project {project_id}: did you mean {close[0]}?")
    return found


def remarks(project_ids: Collection[str], known: Known) -> list[str]:
    """Return notes about unknown projects, which may be intended."""
    said = []
    for project_id in sorted(project_ids):
        if known.configured and project_id not in known.configured:
            said.append(f"SCORING_PROJECT_IDS does not name {project_id}: workers with this setting do not score it")
        elif known.projects and project_id not in known.projects:
            others = ", ".join(sorted(known.projects)[:5])
            said.append(f"project {project_id} had no definition before; there are definitions of: {others}")
    return said


def rows_of(data: bytes) -> list[Any]:
    """Return the rows of a file: a JSON array, one JSON object per line, or the output of `definitions list`.

    Raises:
        UnreadableFileError: It is none of these.
    """
    try:
        if data.lstrip()[:1] == b"[":
            return _ARRAY.decode(data)
        lines = data.splitlines()
        if lines and lines[0].decode() == _HEADER:
            return [_listed(line.decode()) for line in lines[1:] if line.strip()]
        return [_OBJECT.decode(line) for line in lines if line.strip()]
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise UnreadableFileError(f"it is not JSON: {error}") from None


def _listed(line: str) -> dict[str, str]:
    cells = line.split("\t")
    if len(cells) != len(COLUMNS) or "\\" in line:
        raise UnreadableFileError(f"the line {line!r} cannot be read back: list them with --json")
    return dict(zip(("PinpointProjectId", "EventType", "ScoreOffset"), cells, strict=True))


_OBJECT: msgspec.json.Decoder[Any] = msgspec.json.Decoder(Any, float_hook=Decimal)
_ARRAY: msgspec.json.Decoder[list[Any]] = msgspec.json.Decoder(list[Any], float_hook=Decimal)


def in_force_s(refresh_s: float) -> float:
    """Return the seconds until every worker uses a change: a read may just miss it, the next one does not."""
    return 2 * refresh_s
