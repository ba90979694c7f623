"""Events read by the built-in sources, or by one's own."""

import json
from collections.abc import Container
from typing import Any

from service.scoring.event import Event, Reason
from service.sources.load import load_sources
from service.sources.mapping import Source
from service.sources.outcomes import (
    Outcome,
    RejectedEvent,
)
from service.sources.registry import Registry

Json = dict[str, Any]


def own(text: str, detailed: Container[str] = ()) -> Registry:
    loaded = load_sources(text, "sources.yml")
    assert loaded.problems == ()
    return Registry(list(map(Source, loaded.specs)), default_project="p", detailed=detailed)


def read(event: Json, registry: Registry | None = None) -> list[Outcome]:
    return (registry or Registry(default_project="p")).read(json.dumps(event).encode())


def one(event: Json, registry: Registry | None = None) -> Outcome:
    (outcome,) = read(event, registry)
    return outcome


def event_of(event: Json, registry: Registry | None = None) -> Event:
    outcome = one(event, registry)
    assert isinstance(outcome, Event), outcome
    return outcome


def reason_of(outcome: Outcome) -> Reason:
    assert isinstance(outcome, RejectedEvent), outcome
    return outcome.reason


def people(outcomes: list[Outcome]) -> list[str]:
    """The people of several events: user, else first alias."""
    found = []
    for outcome in outcomes:
        assert isinstance(outcome, Event), outcome
        found.append(outcome.user_id or outcome.aliases[0].value)
    return found


def ses(event_type: str, part: Json, *, to: tuple[str, ...] = ("a@x.org",), tags: Json | None = None) -> Json:
    mail = {"messageId": "m", "timestamp": "2026-11-20T09:00:00Z", "destination": list(to), "tags": tags or {}}
    return {
        "source": "aws.ses",
        "time": "2026-11-20T10:00:00Z",
        "detail": {"eventType": event_type, "mail": mail, **part},
    }


TWO = ("a@x.org", "B@x.org")


LISTED = [{"emailAddress": address} for address in TWO]


AT = {"timestamp": "2026-11-20T10:00:00Z"}
