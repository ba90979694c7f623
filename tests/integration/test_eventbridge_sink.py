from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from service.aws.clients import AwsSettings, clients
from service.ingest.stores import Ordering, Published
from service.local.eventbridge_fake import EventBridgeFake
from service.local.fake_server import Trick
from service.observability.metrics import Metrics
from service.runtime.errors import TransientError, TroubleError
from service.scoring.change import MAX_WHOLE, ScoreChange
from service.scoring.event import Rejected
from service.scoring.fold import UserKey
from service.sinks.eventbridge.events import SCHEMAS, SCORE_CHANGED, TIER_CHANGED, detail_of, entry_of
from service.sinks.eventbridge.registration import SINK, EventBridgeSettings
from service.sinks.eventbridge.sink import EventBridgeSink, outcomes_of
from tests.fakes.aws_model import answer_faults, request_faults

OPTIONS = EventBridgeSettings(eventbridge_per_s=10_000)


def change(user: str, score: str = "1", revision: int = 1, updated_ms: int = 0) -> ScoreChange:
    return ScoreChange(UserKey(user, "shop"), Decimal(score), revision, updated_ms)


@asynccontextmanager
async def world(
    monkeypatch: pytest.MonkeyPatch, options: EventBridgeSettings = OPTIONS
) -> AsyncIterator[tuple[EventBridgeFake, EventBridgeSink]]:
    async with EventBridgeFake() as fake:
        for name, value in fake.environment().items():
            monkeypatch.setenv(name, value)
        async with clients(AwsSettings(region="us-east-1")) as aws:
            yield fake, EventBridgeSink(await aws.client("events", attempts=1), options, Metrics())


def test_a_score_is_an_event_with_the_detail_of_the_schema(monkeypatch: pytest.MonkeyPatch):
    async def main() -> None:
        async with world(monkeypatch) as (fake, sink):
            assert sink.ordering is Ordering.VERSIONED
            assert await sink.publish([change("ann", "12.50", 3, 1_700_000_000_000)]) == [Published()]
            assert fake.events == [
                (
                    "engagement-scoring",
                    "Score Changed",
                    {
                        "user": "ann",
                        "project": "shop",
                        "score": "12.5",
                        "tier": None,
                        "revision": 3,
                        "updated": "2023-11-14T22:13:20.000Z",
                    },
                )
            ]

    asyncio.run(main())


@given(
    user=st.text(min_size=1, max_size=200),
    score=st.decimals(allow_nan=False, allow_infinity=False, places=3),
    revision=st.integers(min_value=0, max_value=MAX_WHOLE),
    updated_ms=st.integers(min_value=0, max_value=MAX_WHOLE),
)
def test_every_detail_is_what_the_schema_says(user: str, score: Decimal, revision: int, updated_ms: int):
    sent = change(user, str(score), revision, updated_ms)
    detail = json.loads(detail_of(sent))
    Draft202012Validator(json.loads(SCHEMAS[SCORE_CHANGED].read_text())).validate(detail)
    assert detail["user"] == user
    assert request_faults("events", "PutEvents", {"Entries": [entry_of(sent, "default", "scores")]}) == []


def test_the_schemas_are_schemas_and_refuse_what_lacks_a_field():
    for path in SCHEMAS.values():
        Draft202012Validator.check_schema(json.loads(path.read_text()))
    tier = Draft202012Validator(json.loads(SCHEMAS[TIER_CHANGED].read_text()))
    whole = {
        "user": "ann", "project": "shop", "score": 120, "tier": "hot", "previousTier": None, "revision": 4,
        "updated": None,
    }  # fmt: skip
    assert tier.is_valid(whole)
    for name in whole:
        assert not tier.is_valid({key: value for key, value in whole.items() if key != name})


def test_the_longest_ids_stay_far_below_an_entrys_limit():
    sent = ScoreChange(UserKey("\x01" * 2048, "\x01" * 1024), Decimal(10) ** 38, MAX_WHOLE, MAX_WHOLE)
    assert len(detail_of(sent).encode()) < 25_000


def test_one_refused_event_does_not_cost_the_others_theirs(monkeypatch: pytest.MonkeyPatch):
    async def main() -> None:
        async with world(monkeypatch) as (fake, sink):
            fake.refused = {
                "u1": "ThrottlingException",
                "u2": "InternalFailure",
                "u3": "MalformedDetail",
                "u4": "AccessDeniedException",
            }
            outcomes = await sink.publish([change(f"u{n}") for n in range(10)])
            kinds = [type(each) for each in outcomes]
            assert kinds == [Published, TransientError, TransientError, Rejected, TroubleError, *[Published] * 5]
            throttled = outcomes[1]
            assert isinstance(throttled, TransientError)
            assert throttled.throttled
            assert len(fake.events) == 6

    asyncio.run(main())


@pytest.mark.parametrize(("status", "code"), [(400, "ThrottlingException"), (500, "InternalException"), (0, "")])
def test_a_call_that_fails_for_now_is_tried_again(status: int, code: str, monkeypatch: pytest.MonkeyPatch):
    async def main() -> None:
        async with world(monkeypatch) as (fake, sink):
            fake.tricks.append(Trick(status, {}, json.dumps({"__type": code}).encode()))
            with pytest.raises(TransientError):
                await sink.publish([change("ann")])
            assert await sink.publish([change("ann")]) == [Published()]

    asyncio.run(main())


def test_a_refused_request_is_halved_down_to_the_event_at_fault(monkeypatch: pytest.MonkeyPatch):
    async def main() -> None:
        async with world(monkeypatch) as (fake, sink):
            fake.tricks.extend([Trick(400, {}, b'{"__type": "ValidationException"}')] * 3)
            outcomes = await sink.publish([change(f"u{n}") for n in range(4)])
            assert [type(each) for each in outcomes] == [Rejected, Published, Published, Published]

    asyncio.run(main())


def test_a_bus_that_does_not_exist_is_trouble_that_a_setting_ends(monkeypatch: pytest.MonkeyPatch):
    async def main() -> None:
        async with world(monkeypatch, EventBridgeSettings(eventbridge_bus="none")) as (_, sink):
            with pytest.raises(TroubleError) as caught:
                await sink.publish([change("ann")])
            assert "SCORING_EVENTBRIDGE_BUS" in caught.value.remedy

    asyncio.run(main())


def test_an_answer_of_another_length_is_tried_again():
    assert all(isinstance(each, TransientError) for each in outcomes_of({"Entries": []}, 2))


def test_the_doctors_call_changes_nothing(monkeypatch: pytest.MonkeyPatch):
    async def main() -> None:
        async with world(monkeypatch) as (fake, sink):
            ((trial,),) = SINK.trials(OPTIONS, [])
            answer = await sink._client.put_events(**trial.params)
            assert answer["FailedEntryCount"] == 1
            assert fake.events == []
            assert answer_faults("events", "PutEvents", answer) == []
            fine = await sink._client.put_events(Entries=[entry_of(change("ann"), "default", "scores")])
            assert answer_faults("events", "PutEvents", fine) == []

    asyncio.run(main())
