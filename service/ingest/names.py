"""The names that events give to people, as keys of what is known about them. Pure."""

from __future__ import annotations

from service.ingest.attribution import Attribution
from service.ingest.stores import AliasKey
from service.scoring.event import Event, address_of
from service.sources.outcomes import Teaches
from service.stream.ports import Record


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
