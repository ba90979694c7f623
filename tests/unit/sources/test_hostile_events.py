"""100,000 hostile records per source: each has an answer, every event of it is accounted for, quickly."""

import time
from collections import Counter

import pytest

from service.scoring.event import MAX_ID_BYTES, MAX_PROJECT_BYTES, Event
from service.sources.explain import explain
from service.sources.framing import Fault, frames
from service.sources.load import load_sources
from service.sources.mapping import Source
from service.sources.outcomes import (
    Ambiguous,
    Anonymous,
    Outcome,
    RejectedEvent,
    SkippedEvent,
    Teaches,
)
from service.sources.registry import Registry
from tests.fakes.hostile_sources import WHATSAPP, hostile, samples

RECORDS = 100_000

OWN = """
sources:
  - name: shop
    when: [{type: order}, {event_type: {prefix: cart.}}]
    event_type: [event.name, event_type]
    user: [user.id, user_id]
    email: user.email
    phone: items[*].phone
    time: [meta.ts, time]
    event_id: {join: [meta.id, "items[*].id"]}
    project: project_id
"""
SHOP = [
    *samples("custom"),
    b'{"type":"order","event":{"name":"paid"},"user":{"id":"u"},"items":[{"id":1,"phone":"+1"},{"id":2,"phone":"+2"}]}',
]
EVENTS = {
    "pinpoint": samples("pinpoint-events"),
    "ses": samples("ses"),
    "sms": samples("sms"),
    "whatsapp": WHATSAPP,
    "connect-campaigns": samples("connect-campaigns"),
    "segment": samples("segment"),
    "cloudevents": samples("cloudevents"),
    "shop": SHOP,
}
_OF_EVENTS = (Event, SkippedEvent, Ambiguous, Anonymous, Teaches, RejectedEvent)


def registry_for(name: str) -> Registry:
    own = [Source(spec) for spec in load_sources(OWN, "own.yml").specs] if name == "shop" else []
    return Registry(own, default_project="p")


def check(outcome: Outcome) -> None:
    """Fail where a name would fit no table key, or a time is none."""
    assert type(outcome) in _OF_EVENTS
    if isinstance(outcome, Event):
        assert 0 < len(outcome.event_type.encode()) <= MAX_ID_BYTES
        assert 0 < len(outcome.project_id.encode()) <= MAX_PROJECT_BYTES or outcome.source == "pinpoint"
        assert outcome.user_id or outcome.endpoint_id or outcome.aliases or outcome.source == "pinpoint"
        assert 0 <= outcome.arrival_ms < 2**48
        for text in (outcome.user_id, outcome.endpoint_id, *(alias.value for alias in outcome.aliases)):
            assert len(text.encode()) <= MAX_ID_BYTES
    elif isinstance(outcome, RejectedEvent):
        assert len(outcome.detail) < 400


@pytest.mark.parametrize("name", EVENTS)
def test_100_000_hostile_records_of_a_source_are_all_accounted_for(name: str):
    registry = registry_for(name)
    kinds: Counter[str] = Counter()
    sources: Counter[str] = Counter()
    records = 0
    started = time.process_time()
    for data in hostile(EVENTS[name], RECORDS):
        outcomes = registry.read(data)
        assert outcomes
        records += 1
        for outcome in outcomes:
            kinds[type(outcome).__name__] += 1
            sources[outcome.source] += 1
        if records % 16 == 0:
            for outcome in outcomes:
                check(outcome)
    assert records == RECORDS
    assert kinds["Event"] > RECORDS / 20 or name == "whatsapp"
    assert kinds["RejectedEvent"] > RECORDS / 20
    assert sources[name] > RECORDS / 5
    assert time.process_time() - started < 60  # 2 s on a fast core; what this finds is hours


@pytest.mark.parametrize("name", EVENTS)
def test_every_event_of_a_hostile_record_can_be_decoded_by_its_index(name: str):
    registry = registry_for(name)
    for data in hostile(EVENTS[name], 600, seed=2):
        outcomes = registry.read(data)
        several = len(frames(data)) > 1
        assert sorted({outcome.index for outcome in outcomes}) == list(range(several, len(frames(data)) + several))
        places = [(outcome.index, getattr(outcome, "part", 0)) for outcome in outcomes]
        assert places == sorted(set(places))
        assert [(row.index, row.part) for row in explain(registry, data)] == places
        for outcome in outcomes:
            check(outcome)
            if not isinstance(outcome, RejectedEvent):
                continue
            again = registry.read(outcome.payload)
            assert all(isinstance(one, RejectedEvent) for one in again)
            assert again[0].source == outcome.source or isinstance(frames(outcome.payload)[0], Fault)
