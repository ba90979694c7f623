"""From the bytes of a Kinesis record to what they mean: framing, then the first source that recognises each event.

The user's own sources come first, then the built-in ones: Pinpoint with its typed decoder, then those in `builtin/`.
What none recognises is rejected as `unknown_format`, never dropped. The usual record, one JSON object, is not framed
first: it is decoded at once, and taken apart only where that fails.
"""

from __future__ import annotations

from collections.abc import Container, Sequence
from functools import cache
from importlib import resources

import msgspec

from service.scoring.event import Event, Reason, Rejected, Skipped
from service.sources import pinpoint
from service.sources.decoding import MAX_RECORD_BYTES, JsonObject, decode_object
from service.sources.framing import MAX_EVENTS, Empty, Fault, frames, is_notification
from service.sources.load import load_sources
from service.sources.mapping import Source
from service.sources.outcomes import Outcome, RejectedEvent, SkippedEvent
from service.sources.pinpoint_details import detailed
from service.sources.plan import Context
from service.sources.undecodable import disguise, wrapped_by_aws

PINPOINT = pinpoint.NAME
"""Name of the source that has a decoder instead of a file."""

BUILTIN_FILES = ("ses", "sms", "whatsapp", "connect-campaigns", "segment", "cloudevents")
"""Files of the built-in sources, in the order in which they are asked."""

BUILTIN_NAMES = (PINPOINT, *BUILTIN_FILES)
"""Names that a user's own source cannot have."""

_UNKNOWN = "no source recognises the event: `scoring dry-run` shows it, `scoring sources apply` adds a source for it"
_NO_PROJECT = (
    "the event names no project: application.app_id (or app_id, application_key) is missing, and "
    "SCORING_DEFAULT_PROJECT is not set"
)
_PROBE = "Pinpoint's test event"
_TOO_MANY = f"the record holds more than {MAX_EVENTS} events, counting each person of an event"
_PINPOINT_KEYS = frozenset({"application", "client", "app_id", "application_key"})
"""An event of Pinpoint's has at least one of these beside `event_type`: what `pinpoint.decode` finds projects and
endpoints in."""

_LIKE_PINPOINT = b'{"event_type"'
"""Pinpoint writes the event's type first. Where it stands later, the event is read all the same, a little slower."""


@cache
def builtin_sources() -> tuple[Source, ...]:
    """Return the built-in sources that are declared in files, in the order in which they are asked."""
    sources: list[Source] = []
    for name in BUILTIN_FILES:
        loaded = load_sources(builtin_text(name) or "", f"{name}.yaml")
        if loaded.problems:
            raise RuntimeError("\n".join(map(str, loaded.problems)))
        sources += map(Source, loaded.specs)
    return tuple(sources)


def builtin_text(name: str) -> str | None:
    """Return the file of a built-in source; None where it has none."""
    if name not in BUILTIN_FILES:
        return None
    return (resources.files("service.sources") / "builtin" / f"{name}.yaml").read_text("utf-8")


class Registry:
    """The sources in force: immutable; a change of the user's sources makes a new one.

    Args:
        own: The user's sources, in the order in which they are asked.
        default_project: The project of events that name none; empty: such events are dead letters.
        detailed: Event types whose decoded event is kept in the outcome, because a rule reads it. Others are not: the
            decoded events of a batch of thousands would take tens of megabytes.
    """

    def __init__(self, own: Sequence[Source] = (), *, default_project: str = "", detailed: Container[str] = ()) -> None:
        self._own = tuple(own)
        self._builtin = builtin_sources()
        self._context = Context(default_project, detailed)
        self._detailed = detailed
        # A user's own source may claim what looks like Pinpoint's: then nothing can be decoded before it is asked.
        self._shortcut = _LIKE_PINPOINT if not self._own else b"\0"

    @property
    def detailed(self) -> Container[str]:
        """Event types whose payload is kept in `Event.details`."""
        return self._detailed

    def with_details(self, detailed: Container[str]) -> Registry:
        """Return the same sources with other event types whose payload is kept."""
        return Registry(self._own, default_project=self._context.default_project, detailed=detailed)

    def names(self) -> list[str]:
        """Return the sources' names, in the order in which they are asked."""
        return [
            *(source.name for source in self._own),
            PINPOINT,
            *(source.name for source in self._builtin),
        ]

    def read(self, data: bytes) -> list[Outcome]:
        """Return what the events of a record come to, at least one outcome, ordered by index and part. Never raises.

        Args:
            data: The record's payload.
        """
        if data.startswith(self._shortcut):
            event = pinpoint.decode(data)
            if type(event) is Event and event.project_id and event.event_type not in self._detailed:
                return [event]
        if data.startswith(b"{") and len(data) <= MAX_RECORD_BYTES:
            top = decode_object(data)
            if not (isinstance(top, Rejected) or is_notification(top)):
                return self._recognised(top, data, 0)
        found = frames(data)
        outcomes: list[Outcome] = []
        for index, frame in enumerate(found, 1 if len(found) > 1 else 0):
            if isinstance(frame, Fault):
                why = disguise(frame.payload, frame.why) or frame.why
                outcomes.append(RejectedEvent(why.reason, why.detail, frame.payload, "", index))
            elif isinstance(frame, Empty):
                outcomes.append(SkippedEvent("", frame.reason, "", index))
            else:
                outcomes += self._event(frame, index)
            if len(outcomes) > MAX_EVENTS:
                return [RejectedEvent(Reason.TOO_MANY_EVENTS, _TOO_MANY, data)]
        return outcomes

    def payload(self, data: bytes, index: int, part: int) -> bytes | None:
        """Return one event of a record by itself, for a dead letter, or for a redrive that has only the record.

        Args:
            data: The record's payload.
            index: As in the event's outcome; 0: all of the record.
            part: As in the event's outcome; 0: all of the event.

        Returns:
            None where the record does not hold such an event, or no source divides it into people.
        """
        if not index and not part:
            return data
        found = frames(data)
        if max(index, 1) > len(found):
            return None
        frame = found[max(index, 1) - 1]
        if not isinstance(frame, bytes):
            return frame.payload if isinstance(frame, Fault) and not part else None
        if not part:
            return frame
        top = decode_object(frame)
        if isinstance(top, Rejected):
            return None
        source = next((each for each in (*self._own, *self._builtin) if each.recognises(top)), None)
        return source.part_payload(top, frame, part) if source is not None else None

    def _event(self, data: bytes, index: int) -> list[Outcome]:
        top = decode_object(data)
        if isinstance(top, Rejected):
            return [RejectedEvent(top.reason, top.detail, data, "", index)]
        return self._recognised(top, data, index)

    def _recognised(self, top: JsonObject, data: bytes, index: int) -> list[Outcome]:
        for source in self._own:
            if source.recognises(top):
                return source.read(top, data, index, self._context)
        if "event_type" in top and not _PINPOINT_KEYS.isdisjoint(top):
            return [self._of_pinpoint(pinpoint.decode(data), top, data, index)]
        for source in self._builtin:
            if source.recognises(top):
                return source.read(top, data, index, self._context)
        why = wrapped_by_aws(top)
        if why is not None:
            return [RejectedEvent(why.reason, why.detail, data, "", index)]
        return [RejectedEvent(Reason.UNKNOWN_FORMAT, _UNKNOWN, data, "", index)]

    def _of_pinpoint(self, decoded: Event | Skipped | Rejected, top: JsonObject, data: bytes, index: int) -> Outcome:
        match decoded:
            case Event():
                project_id = decoded.project_id or self._context.default_project
                if not project_id:
                    return RejectedEvent(Reason.NO_PROJECT, _NO_PROJECT, data, PINPOINT, index)
                event = msgspec.structs.replace(decoded, project_id=project_id, index=index)
                return detailed(event, top) if event.event_type in self._detailed else event
            case Skipped():
                return SkippedEvent(decoded.event_type, _PROBE, PINPOINT, index)
            case Rejected():
                return RejectedEvent(decoded.reason, decoded.detail, data, PINPOINT, index)
