"""From the bytes of a Kinesis record to what they mean: framing, then the first source that recognises each event.

The user's own sources come first, then the built-in ones: Pinpoint with its typed decoder, then those in `builtin/`.
What none recognises is rejected as `unknown_format`, never dropped. The usual record, one JSON object, is not framed
first: it is decoded at once, and taken apart only where that fails.
"""

from __future__ import annotations

from collections.abc import Container, Sequence
from functools import cache
from importlib import resources

from service.scoring.event import Event, Reason, Rejected, Skipped
from service.sources import pinpoint
from service.sources.decoding import MAX_RECORD_BYTES, JsonObject, decode_object
from service.sources.framing import Empty, Fault, frames, is_notification
from service.sources.load import load_sources
from service.sources.mapping import Source
from service.sources.outcomes import Details, Outcome, RejectedEvent, SkippedEvent, SourcedEvent
from service.sources.plan import Context

PINPOINT = "pinpoint"
"""Name of the source that has a decoder instead of a file."""

BUILTIN_FILES = ("ses", "sms", "whatsapp", "connect-campaigns", "segment", "cloudevents")
"""Files of the built-in sources, in the order in which they are asked."""

BUILTIN_NAMES = (PINPOINT, *BUILTIN_FILES)
"""Names that a user's own source cannot have."""

_UNKNOWN = "no source recognises the event: `scoring dry-run` shows it, `scoring sources apply` adds a source for it"
_PROBE = "Pinpoint's test event"
_LIKE_PINPOINT = b'{"event_type"'
"""Pinpoint writes the event's type first. Where it stands later, the event is read all the same, a little slower."""


@cache
def builtin_sources() -> tuple[Source, ...]:
    """Return the built-in sources that are declared in files, in the order in which they are asked."""
    folder = resources.files("service.sources") / "builtin"
    sources: list[Source] = []
    for name in BUILTIN_FILES:
        file = f"{name}.yaml"
        loaded = load_sources((folder / file).read_text("utf-8"), file)
        if loaded.problems:
            raise RuntimeError("\n".join(map(str, loaded.problems)))
        sources += map(Source, loaded.specs)
    return tuple(sources)


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
        if data.startswith(_LIKE_PINPOINT) and not self._own:
            event = pinpoint.decode(data)
            if type(event) is Event and (event.project_id or event.endpoint_id):
                return [self._of_event(event, data, 0)]
        if data.startswith(b"{") and len(data) <= MAX_RECORD_BYTES:
            top = decode_object(data)
            if not (isinstance(top, Rejected) or is_notification(top)):
                return self._recognised(top, data, 0)
        outcomes: list[Outcome] = []
        for index, frame in enumerate(frames(data)):
            if isinstance(frame, Fault):
                outcomes.append(RejectedEvent(frame.why.reason, frame.why.detail, frame.payload, "", index))
            elif isinstance(frame, Empty):
                outcomes.append(SkippedEvent("", frame.reason, "", index))
            else:
                outcomes += self._event(frame, index)
        return outcomes

    def payload(self, data: bytes, index: int, part: int) -> bytes:
        """Return one event of a record by itself, for a dead letter that is written later than `read`.

        Args:
            data: The record's payload.
            index: As in the event's outcome.
            part: As in the event's outcome.
        """
        found = frames(data)
        frame = found[index] if index < len(found) else data
        if not isinstance(frame, bytes):
            return frame.payload if isinstance(frame, Fault) else data
        top = decode_object(frame)
        if isinstance(top, Rejected):
            return frame
        for source in self._own if _is_pinpoint(top) else (*self._own, *self._builtin):
            if source.recognises(top):
                return source.part_payload(top, frame, part)
        return frame

    def _event(self, data: bytes, index: int) -> list[Outcome]:
        top = decode_object(data)
        if isinstance(top, Rejected):
            return [RejectedEvent(top.reason, top.detail, data, "", index)]
        return self._recognised(top, data, index)

    def _recognised(self, top: JsonObject, data: bytes, index: int) -> list[Outcome]:
        for source in self._own:
            if source.recognises(top):
                return source.read(top, data, index, self._context)
        if _is_pinpoint(top):
            return [self._of_pinpoint(pinpoint.decode(data), data, index)]
        for source in self._builtin:
            if source.recognises(top):
                return source.read(top, data, index, self._context)
        return [RejectedEvent(Reason.UNKNOWN_FORMAT, _UNKNOWN, data, "", index)]

    def _of_pinpoint(self, decoded: Event | Skipped | Rejected, data: bytes, index: int) -> Outcome:
        match decoded:
            case Event():
                return self._of_event(decoded, data, index)
            case Skipped():
                return SkippedEvent(decoded.event_type, _PROBE, PINPOINT, index)
            case Rejected():
                return RejectedEvent(decoded.reason, decoded.detail, data, PINPOINT, index)

    def _of_event(self, event: Event, data: bytes, index: int) -> SourcedEvent:
        return SourcedEvent(
            event.event_type,
            event.project_id,
            event.endpoint_id,
            event.user_id,
            event.arrival_ms,
            event.attributed,
            event.transactional,
            event.anonymous,
            event.unnamed,
            PINPOINT,
            (),
            "",
            "",
            "",
            self._details(data) if event.event_type in self._context.detailed else None,
            index,
        )

    def _details(self, data: bytes) -> Details | None:
        top = decode_object(data)
        return None if isinstance(top, Rejected) else Details(top)


def _is_pinpoint(top: JsonObject) -> bool:
    return "event_type" in top and ("application" in top or "client" in top)
