"""The demo's traffic: seeded, shaped as documented, and an oracle that knows what it means."""

from collections import Counter
from collections.abc import Mapping
from decimal import Decimal
from itertools import islice, pairwise
from pathlib import Path
from typing import Any

import msgspec
import pytest

from service.local.population import Endpoint, Population, populate
from service.local.shapes import SPOILERS
from service.local.traffic import Meaning, Record, campaign, stream
from service.local.truth import CUSTOM, DEFAULTS, Found, Truth, as_text, differences
from service.scoring.definitions import DEFAULT_POINTS
from service.scoring.event import Event, Rejected, Skipped
from service.sources.pinpoint import decode
from service.sources.registry import Registry

NOW_MS = 1_790_000_000_000
SAMPLES = Path(__file__).parents[2] / "samples" / "pinpoint-events.jsonl"


@pytest.fixture(scope="module")
def population() -> Population:
    return populate(200, seed=7)


@pytest.fixture(scope="module")
def records(population: Population) -> list[Record]:
    return list(campaign(population, 6_000, seed=7))


def test_a_campaign_has_exactly_the_events_asked_for(population: Population):
    for events in (1, 50, 1_234):
        assert sum(1 for _ in campaign(population, events, seed=1)) == events


def test_a_seed_tells_the_same_story_again_and_another_seed_another(population: Population):
    def told(seed: int) -> list[tuple[str, bytes]]:
        return [(record.partition_key, record.data(NOW_MS)) for record in campaign(population, 400, seed)]

    assert told(3) == told(3)
    assert told(3) != told(4)
    assert populate(50, 3) == populate(50, 3) != populate(50, 4)


def test_records_are_due_in_order_at_the_rate_asked_for(population: Population):
    due = [record.due_s for record in islice(stream(population, seed=1, rate=50.0), 9_000)]
    assert all(later - earlier == pytest.approx(1 / 50) for earlier, later in pairwise(due))


def test_records_have_the_size_that_events_have(records: list[Record]):
    sizes = sorted(len(record.data(NOW_MS)) for record in records)
    assert sizes[len(sizes) // 10] > 500
    assert sizes[len(sizes) * 9 // 10] < 2_048


def _fields(value: object, prefix: str = "") -> set[str]:
    if not isinstance(value, dict):
        return {prefix}
    return {field for key, inner in value.items() for field in _fields(inner, f"{prefix}.{key}")} or {prefix}


def test_every_shape_has_the_fields_of_the_documented_samples(records: list[Record]):
    documented: dict[str, set[str]] = {}
    for line in SAMPLES.read_text().splitlines():
        sample = msgspec.json.decode(line)
        documented.setdefault(sample["event_type"], set()).update(_fields(sample))
    met = Counter[str]()
    for record in records:
        kind = record.meaning.event_type
        if kind in documented:
            made = _fields(msgspec.json.decode(record.data(NOW_MS)))
            free = {field for field in made - documented[kind] if field.startswith((".attributes", ".endpoint"))}
            assert made - documented[kind] - free == set(), kind
            met[kind] += 1
    assert met.keys() == documented.keys()


def test_the_service_reads_each_record_as_the_generator_means_it(records: list[Record]):
    for record in records:
        meaning = record.meaning
        (decoded,) = Registry().read(record.data(NOW_MS))
        match decoded:
            case Rejected():
                assert decoded.reason == meaning.fault
            case Skipped():
                assert meaning.event_type == "_test.event_stream"
            case Event() if meaning.fault:
                assert (decoded.user_id, decoded.endpoint_id, meaning.fault) == ("", "", "no_person")
            case Event():
                assert (decoded.event_type, decoded.attributed) == (meaning.event_type, meaning.attributed)
                assert decoded.user_id in {"", meaning.user_id}
                assert decoded.arrival_ms == NOW_MS
            case _:
                raise AssertionError(type(decoded))


def test_the_campaign_holds_what_must_be_shown(records: list[Record], population: Population):
    faults = {record.meaning.fault for record in records}
    assert faults >= {reason for reason, _ in SPOILERS.values()}
    truth = Truth(population, DEFAULTS | CUSTOM)
    truth.add(record.meaning for record in records)
    assert truth.outcomes.keys() == {"scored", "ignored", "anonymous", "skipped", "dead_lettered"}
    assert len(truth.scores) == len(population.users)
    assert truth.outcomes["scored"] > len(records) / 2
    assert truth.dead_letters["unresolved_user"] > 0
    assert any(score != score.to_integral() for score in truth.scores.values())
    assert any(score < 0 for score in truth.scores.values())
    named = {
        event.endpoint_id
        for record in records
        if isinstance(event := decode(record.data(NOW_MS)), Event) and event.user_id
    }
    assert not named & {endpoint.endpoint_id for endpoint in population.quiet}
    assert any(
        endpoint.user_id and endpoint.endpoint_id not in named
        for endpoint in (record.beat.endpoint for record in records if not isinstance(record.beat, str))
    )


def test_the_population_is_as_described(population: Population):
    owned = Counter(endpoint.user_id for endpoint in population.endpoints)
    assert set(owned.values()) == {1, 2, 3}
    assert {endpoint.channel for endpoint in population.endpoints} == {"EMAIL", "SMS", "GCM", "APNS"}
    assert any(not endpoint.active for endpoint in population.endpoints)
    assert any(endpoint.opted_out for endpoint in population.endpoints)
    assert all(
        any(endpoint.active for endpoint in population.endpoints if endpoint.user_id == user)
        for user in population.users[:50]
    )
    assert len({endpoint.endpoint_id for endpoint in population.everything}) == len(population.everything)
    many = populate(20_000, 1).everything
    assert len({endpoint.address for endpoint in many}) == len(many)
    assert all(not endpoint.user_id for endpoint in population.nobodies)


def test_the_oracle_restates_what_the_service_defines():
    assert dict(DEFAULTS) == dict(DEFAULT_POINTS)


def _truth(population: Population, *meanings: Meaning) -> Truth:
    truth = Truth(population, DEFAULTS | CUSTOM)
    truth.add(meanings)
    return truth


def test_the_oracle_sums_and_counts(population: Population):
    user = population.users[0]
    truth = _truth(
        population,
        Meaning("_email.open", user),
        Meaning("webinar.attended", user),
        Meaning("_email.send", user),
        Meaning("_session.start", foreign=True),
        Meaning("_email.open"),
        Meaning("_email.open", attributed=True, known=False),
        Meaning("_test.event_stream"),
        Meaning("", fault="not_json"),
    )
    assert truth.scores == {user: Decimal("22.5")}
    assert truth.dead_letters == {"not_json": 1, "unresolved_user": 1}
    assert truth.outcomes == {"scored": 2, "ignored": 2, "anonymous": 1, "dead_lettered": 2, "skipped": 1}
    endpoints = sum(1 for endpoint in population.endpoints if endpoint.user_id == user)
    # Six definitions read, four endpoints, two scores written, each told to all endpoints of the user.
    assert truth.replaced.requests == 6 + 4 + 2 + 2 + 2 * endpoints


@pytest.mark.parametrize(
    ("score", "text"), [("22.50", "22.5"), ("1E+3", "1000"), ("-0.0", "0"), ("-498", "-498"), ("0", "0")]
)
def test_a_score_is_written_in_plain_digits(score: str, text: str):
    assert as_text(Decimal(score)) == text


def _found(population: Population, truth: Truth, **changes: Mapping[str, object]) -> Found:
    def score(endpoint: Endpoint) -> list[str] | None:
        return [as_text(truth.scores[endpoint.user_id])] if endpoint.user_id in truth.scores else None

    right: dict[str, Any] = {
        "scores": dict(truth.scores),
        "endpoints": {endpoint.endpoint_id: score(endpoint) for endpoint in population.everything},
        "active": {endpoint.endpoint_id: endpoint.active for endpoint in population.everything},
        "dead_letters": dict(truth.dead_letters),
    }
    return Found(**{name: value | changes.get(name, {}) for name, value in right.items()})


def test_nothing_differs_when_all_is_right_and_every_wrong_thing_is_named(population: Population):
    user, first = population.users[0], population.endpoints[0]
    truth = _truth(population, Meaning("_email.open", user), Meaning("", fault="not_json"))
    assert differences(truth, population, _found(population, truth)) == []
    for change, said in (
        ({"scores": {user: Decimal(20)}}, f"score table: {user} should have 10, has 20"),
        ({"scores": {"stranger": Decimal(1)}}, "score table: stranger should have no score, has 1"),
        ({"endpoints": {first.endpoint_id: ["11"]}}, "should have ['10'], has ['11']"),
        ({"endpoints": {first.endpoint_id: None}}, "should have ['10'], has no score"),
        ({"endpoints": {"new": None}}, "endpoint new was created"),
        ({"active": {first.endpoint_id: False}}, "should still be ACTIVE"),
        ({"dead_letters": {"not_json": 2}}, "dead letters: not_json should have 1, has 2"),
        ({"dead_letters": {"too_deep": 1}}, "dead letters: too_deep should have 0, has 1"),
    ):
        faults = differences(truth, population, _found(population, truth, **change))
        assert len(faults) == 1, faults
        assert said in faults[0]
