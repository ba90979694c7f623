"""What reading a record can come to: one explicit type per outcome, so that nothing is dropped in silence.

Every outcome says which event of its record it is about: `index` counts the events that framing found, from 1;
`part` counts the people that one such event concerns, from 1 (a delivery notification lists several recipients).
Zero means "all of it": `index` is 0 where the record holds a single event, `part` is 0 where the event concerns one
person or was not divided. The pair does not change when the record is read again, so it can be part of a dead letter's
id, and it says what the letter holds: the record, one event of it, or one person's part of an event.
"""

from __future__ import annotations

import msgspec

from service.scoring.event import Alias, Event, Rejected, Skipped


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


Outcome = Event | SkippedEvent | Ambiguous | Anonymous | Teaches | RejectedEvent
