from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from service.admin.setup_plan import State, Step, plan_wanted
from service.aws.ask import ask
from service.aws.clients import AwsClient, AwsSettings, clients
from service.aws.translation import MISSING
from service.ingest.stores import NoDestination, Published
from service.local.customer_profiles_fake import CustomerProfilesFake, Domain, Profile
from service.local.fake_server import Trick
from service.observability.metrics import Metrics
from service.runtime.clock import SystemClock
from service.runtime.errors import TransientError
from service.scoring.change import ScoreChange
from service.scoring.event import Rejected
from service.scoring.fold import UserKey
from service.sinks.customer_profiles.objects import object_type
from service.sinks.customer_profiles.registration import SINK, CustomerProfilesSettings
from service.sinks.customer_profiles.sink import CustomerProfilesSink, outcomes_of
from service.sinks.trials import Verdict
from tests.fakes.aws_model import request_faults

OPTIONS = CustomerProfilesSettings(customer_profiles_domain="crm", customer_profiles_per_s=10_000)
SEGMENTS = Path(__file__).parents[2] / "deploy" / "customer-profiles"


def change(user: str, score: str = "1", project: str = "shop") -> ScoreChange:
    return ScoreChange(UserKey(user, project), Decimal(score), 1, 0)


def kind(name: str = "EngagementScore", attribute: str = "EngagementScore") -> dict[str, Any]:
    return object_type(name, attribute, expiration_days=1098, create=False)


@asynccontextmanager
async def world(
    monkeypatch: pytest.MonkeyPatch,
    users: Sequence[str] = ("ann", "bob"),
    options: CustomerProfilesSettings = OPTIONS,
    *types: dict[str, Any],
) -> AsyncIterator[tuple[CustomerProfilesFake, Domain, CustomerProfilesSink, AwsClient]]:
    made = {each["ObjectTypeName"]: each for each in types or (kind(),)}
    domain = Domain(queue="https://sqs/dead", types=made, profiles={user: Profile() for user in users})
    async with CustomerProfilesFake({"crm": domain}) as fake:
        for name, value in fake.environment().items():
            monkeypatch.setenv(name, value)
        async with clients(AwsSettings(region="us-east-1")) as aws:
            client = await aws.client("customer-profiles", attempts=1)
            yield fake, domain, CustomerProfilesSink(client, options, SystemClock(), Metrics()), client


def test_a_score_is_an_attribute_of_the_profile(monkeypatch: pytest.MonkeyPatch):
    async def main() -> None:
        async with world(monkeypatch) as (_, domain, sink, _client):
            assert await sink.publish([change("ann", "12.50"), change("nobody")]) == [Published()] * 2
            assert domain.profiles["ann"].attributes == {"EngagementScore": "12.5"}
            assert [each["userId"] for each in domain.dead] == ["nobody"], "success means queued, no more"

    asyncio.run(main())


def test_one_refused_object_does_not_cost_the_others_their_score(monkeypatch: pytest.MonkeyPatch):
    async def main() -> None:
        users = [f"u{n}" for n in range(10)]
        async with world(monkeypatch, users) as (fake, domain, sink, _):
            fake.items = {"u3": 400, "u4": 429, "u5": 500}
            outcomes = await sink.publish([change(user) for user in users])
            assert isinstance(outcomes[3], Rejected)
            assert isinstance(outcomes[4], TransientError)
            assert outcomes[4].throttled
            assert isinstance(outcomes[5], TransientError)
            assert outcomes.count(Published()) == 7
            assert fake.batches == [10]
            assert sum(bool(each.attributes) for each in domain.profiles.values()) == 7

    asyncio.run(main())


def test_a_refused_batch_is_halved_down_to_the_object_at_fault(monkeypatch: pytest.MonkeyPatch):
    async def main() -> None:
        users = [f"u{n}" for n in range(8)]
        async with world(monkeypatch, users) as (fake, domain, sink, _):
            bad = Trick(400, {"x-amzn-ErrorType": "BadRequestException"}, b'{"Message": "no"}')
            fake.tricks.extend([bad] * 4)  # 8, 4, 2, 1
            outcomes = await sink.publish([change(user) for user in users])
            assert [type(each) for each in outcomes] == [Rejected, *[Published] * 7]
            assert fake.batches == [1, 2, 4]
            assert not domain.profiles["u0"].attributes

    asyncio.run(main())


@pytest.mark.parametrize(
    ("status", "code", "throttled"),
    [(429, "ThrottlingException", True), (500, "InternalServerException", False)],
)
def test_a_call_that_fails_for_now_is_tried_again(
    status: int,
    code: str,
    throttled: bool,  # noqa: FBT001 - a parameter
    monkeypatch: pytest.MonkeyPatch,
):
    async def main() -> None:
        async with world(monkeypatch) as (fake, _, sink, _client):
            fake.tricks.append(Trick(status, {"x-amzn-ErrorType": code}, b"{}", carried_out=not throttled))
            with pytest.raises(TransientError) as caught:
                await sink.publish([change("ann")])
            assert caught.value.throttled == throttled
            assert caught.value.undone == throttled, "else it may have been carried out"
            assert await sink.publish([change("ann")]) == [Published()]

    asyncio.run(main())


def test_an_object_that_the_answer_leaves_out_is_tried_again():
    answer = {"Successful": [{"Id": "1", "ProfileObjectUniqueKey": "k"}], "Failed": []}
    first, second = outcomes_of(answer, 2)
    assert isinstance(first, TransientError)
    assert not first.undone
    assert second == Published()


def test_several_projects_have_an_object_type_and_an_attribute_each(monkeypatch: pytest.MonkeyPatch):
    options = replace(
        OPTIONS, customer_profiles_object_type="Score_{project}", customer_profiles_attribute="Score_{project}"
    )

    async def main() -> None:
        types = [kind(f"Score_{project}", f"Score_{project}") for project in ("shop", "app")]
        async with world(monkeypatch, ["ann"], options, *types) as (_, domain, sink, _client):
            outcomes = await sink.publish(
                [change("ann", "1"), change("ann", "2", "app"), change("ann", "3", "none"), change("ann", "4", "a b")]
            )
            assert outcomes[:3] == [Published(), Published(), NoDestination()]
            assert isinstance(outcomes[3], Rejected)
            assert domain.profiles["ann"].attributes == {"Score_shop": "1", "Score_app": "2"}

    asyncio.run(main())


def test_an_object_type_that_is_missing_is_not_asked_about_for_a_minute(monkeypatch: pytest.MonkeyPatch):
    async def main() -> None:
        options = replace(OPTIONS, customer_profiles_object_type="Other")
        async with world(monkeypatch, ["ann"], options) as (fake, _, sink, _client):
            for _ in range(3):
                assert await sink.publish([change("ann")]) == [NoDestination()]
            assert len(fake.received) == 1

    asyncio.run(main())


def test_a_user_id_longer_than_an_account_number_gets_no_call(monkeypatch: pytest.MonkeyPatch):
    async def main() -> None:
        async with world(monkeypatch) as (fake, _, sink, _client):
            assert isinstance((await sink.publish([change("x" * 256)]))[0], Rejected)
            assert fake.received == []

    asyncio.run(main())


async def planned(client: AwsClient, options: CustomerProfilesSettings, projects: Sequence[str] = ()) -> list[Step]:
    steps = []
    for wanted in SINK.setup(options, projects):
        inside = await ask("domain", getattr(client, wanted.inside.operation), wanted.inside.params)
        found = await ask("type", getattr(client, wanted.look[0]), wanted.look[1])
        steps.append(plan_wanted(wanted, found.unless(MISSING), inside=inside.unless(MISSING) is not None))
    return steps


def test_setup_makes_the_object_type_and_never_changes_one_that_differs(monkeypatch: pytest.MonkeyPatch):
    async def main() -> None:
        other = replace(OPTIONS, customer_profiles_object_type="Heat")
        async with world(monkeypatch) as (fake, domain, _, client):
            (step,) = await planned(client, other)
            assert step.action.state is State.WOULD_CREATE
            assert request_faults("customer-profiles", "PutProfileObjectType", dict(step.params)) == []
            await getattr(client, step.operation)(**step.params)
            (step,) = await planned(client, other)
            assert step.action.state is State.EXISTS
            assert not step.operation
            (step,) = await planned(client, replace(other, customer_profiles_expiration_days=5))
            assert step.action.state is State.DIFFERS
            assert "ExpirationDays is 1098, not 5" in step.action.detail
            assert step.action.remedy
            assert not step.operation
            (step,) = await planned(client, replace(other, customer_profiles_domain="none"))
            assert step.action.state is State.DIFFERS
            assert "domain none does not exist" in step.action.detail
            assert domain.types["Heat"]["ExpirationDays"] == 1098
            assert len(fake.domains) == 1

    asyncio.run(main())


def test_setup_names_an_object_type_for_each_project_that_is_known():
    options = replace(OPTIONS, customer_profiles_object_type="Score_{project}")
    assert SINK.setup(options, []) == []
    names = [wanted.look[1]["ObjectTypeName"] for wanted in SINK.setup(options, ["shop", "app", "a b"])]
    assert names == ["Score_shop", "Score_app"]


def test_the_doctor_looks_for_the_domain_its_queue_and_the_object_type(monkeypatch: pytest.MonkeyPatch):
    async def main() -> None:
        async with world(monkeypatch) as (_, domain, _sink, client):
            ((first, second),) = SINK.trials(OPTIONS, ["shop"])
            answer = await client.get_domain(**first.params)
            assert [each.verdict for each in first.read(answer)] == [Verdict.OK]
            domain.queue = ""
            (note,) = first.read(await client.get_domain(**first.params))
            assert note.verdict is Verdict.NOTE
            assert "no dead-letter queue" in note.detail
            assert first.optional
            found = await client.get_profile_object_type(**second.params)
            assert [each.verdict for each in second.read(found)] == [Verdict.OK]
            domain.types["EngagementScore"] = {**kind(), "AllowProfileCreation": True}
            (note,) = second.read(await client.get_profile_object_type(**second.params))
            assert "AllowProfileCreation" in note.detail

    asyncio.run(main())


def test_projects_that_would_overwrite_each_other_are_broken():
    (finding,) = SINK.examine(OPTIONS, ["shop", "app"])
    assert finding.verdict is Verdict.BROKEN
    assert SINK.examine(OPTIONS, ["shop"]) == ()
    each = replace(OPTIONS, customer_profiles_object_type="S_{project}", customer_profiles_attribute="S_{project}")
    assert SINK.examine(each, ["shop", "app"]) == ()


@pytest.mark.parametrize(
    ("file", "operation"),
    [("segment-definition.json", "CreateSegmentDefinition"), ("event-trigger.json", "CreateEventTrigger")],
)
def test_the_files_that_use_the_score_are_taken_by_botocores_model(file: str, operation: str):
    params = json.loads((SEGMENTS / file).read_text(encoding="utf-8"))
    assert request_faults("customer-profiles", operation, params) == []
    assert "EngagementScore" in json.dumps(params)
