"""The names that events give to people, as keys of what is known about them, and why one leads to nobody. Pure."""

from __future__ import annotations

from service.ingest.attribution import Attribution
from service.ingest.stores import AliasKey
from service.scoring.event import Event, Reason, Rejected, address_of
from service.sources.outcomes import Teaches
from service.stream.ports import Record

NO_PERSON = Rejected(
    Reason.NO_PERSON,
    "the event names neither a user nor an endpoint: client.client_id and endpoint.User.UserId are missing",
)
UNRESOLVED = Rejected(
    Reason.UNRESOLVED_USER, "a campaign or journey caused the event, but nothing tells whose endpoint it was"
)
UNKNOWN_ADDRESS = Rejected(
    Reason.UNRESOLVED_USER, "no event has said which user the e-mail address, phone number or profile id belongs to"
)
OVERDUE = Rejected(
    Reason.LOOKUP_OVERDUE, "the owner of the endpoints did not say in time whose the endpoint is; redrive it later"
)


def names_of(event: Event) -> list[AliasKey]:
    """Return the names that an event is attributed by.

    An endpoint is left out beside an address: its first naming has no position, so what it says of an event read again
    may differ from what it said at first, when the address was credited.
    """
    keys = [AliasKey(alias.value, event.project_id, alias.kind.value) for alias in event.aliases]
    if event.endpoint_id and not address_of(event):
        keys.append(AliasKey(event.endpoint_id, event.project_id))
    return keys


def name_aliases(event: Event | Teaches, record: Record[bytes], attribution: Attribution) -> None:
    """Note that a record says which user its names belong to."""
    for alias in event.aliases:
        attribution.name(AliasKey(alias.value, event.project_id, alias.kind.value), event.user_id, record)
