"""What reading a record can come to: one explicit type per outcome, so that nothing is dropped in silence.

Every outcome says which event of its record it is about: `index` counts the events that framing found, from 0;
`part` counts the people that one such event concerns, from 0 (a delivery notification lists several recipients).
Both are 0 for the usual record that holds one event of one person. The pair does not change when the record is
read again, so it can be part of a dead letter's id.
"""

from __future__ import annotations

from enum import StrEnum

import msgspec

from service.scoring.event import Event, Rejected, Skipped
from service.sources.decoding import JsonObject


class AliasKind(StrEnum):
    """What kind of name an alias is. Endpoints are not listed: `Event.endpoint_id` has them."""

    EMAIL = "email"
    PHONE = "phone"
    ANONYMOUS = "anonymous"
    PROFILE = "profile"


class Alias(msgspec.Struct, frozen=True, gc=False, order=True):
    """Another name of a person.

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

    payload: JsonObject
    user_agent: str = ""
    machine: bool = False
    sent_ms: int = 0


class SourcedEvent(Event, frozen=True, gc=False):
    """An event, with what its source says beyond `Event`.

    `user_id`, `endpoint_id` or `aliases` says who it was. Where there is a user as well as an endpoint or aliases,
    the event teaches that they belong together (`teaches`).

    Attributes:
        source: Name of the source that recognised it.
        aliases: Other names of the person.
        event_id: The sender's id of this event, for dropping duplicates of an at-least-once sender; empty: none.
            It is unique within its source.
        message: What `once: message` counts by; empty: not known.
        campaign: What `once: campaign` counts by; empty: not known.
        details: The decoded event, where it was asked for.
        index: Which event of the record it is.
        part: Which person of that event.
    """

    source: str = ""
    aliases: tuple[Alias, ...] = ()
    event_id: str = ""
    message: str = ""
    campaign: str = ""
    details: Details | None = None
    index: int = 0
    part: int = 0

    @property
    def teaches(self) -> bool:
        """Whether the event says which user an endpoint or alias belongs to."""
        return bool(self.user_id and (self.aliases or self.endpoint_id))


class SkippedEvent(Skipped, frozen=True):
    """A well-formed event that scoring has no use for.

    Attributes:
        reason: Why, in words of the source's mapping or of this package: a closed set for a given set of sources.
        source: Name of the source; empty where framing decided.
        index: Which event of the record it is.
        part: Which person of that event.
    """

    reason: str
    source: str = ""
    index: int = 0
    part: int = 0


class Ambiguous(msgspec.Struct, frozen=True):
    """An event of one of several people, without a word about which: an open of a message with two recipients."""

    source: str
    event_type: str
    project_id: str
    index: int = 0
    part: int = 0


class Anonymous(msgspec.Struct, frozen=True):
    """An event that names nobody, in a source that says that this is to be expected."""

    source: str
    event_type: str
    project_id: str
    index: int = 0
    part: int = 0


class Teaches(msgspec.Struct, frozen=True):
    """Not an event to score: it only says which user an endpoint or aliases belong to."""

    source: str
    project_id: str
    user_id: str
    endpoint_id: str
    aliases: tuple[Alias, ...]
    index: int = 0
    part: int = 0


class RejectedEvent(Rejected, frozen=True):
    """An event for the dead letters.

    Attributes:
        payload: This event alone, without its siblings in the record, in a form that can be put back on the stream.
        source: Name of the source that recognised it; empty where none did.
        index: Which event of the record it is.
        part: Which person of that event.
    """

    payload: bytes
    source: str = ""
    index: int = 0
    part: int = 0


Outcome = SourcedEvent | SkippedEvent | Ambiguous | Anonymous | Teaches | RejectedEvent
