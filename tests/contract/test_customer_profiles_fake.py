"""The fake takes and refuses what botocore's model of Customer Profiles does, and answers in its shapes."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

import aiohttp
import pytest

from service.aws.clients import AwsClient, AwsSettings, clients
from service.local.customer_profiles_fake import CustomerProfilesFake, Domain, Profile
from service.sinks.customer_profiles.objects import object_type
from tests.fakes.aws_model import answer_faults, request_faults

KIND = object_type("EngagementScore", "Heat", expiration_days=30, create=False)
ITEM = {"Id": "0", "Object": '{"userId": "ann", "score": 12.5}'}
Play = Callable[[CustomerProfilesFake, AwsClient], Awaitable[None]]


def play(monkeypatch: pytest.MonkeyPatch, story: Play, domain: Domain | None = None) -> None:
    async def main() -> None:
        async with CustomerProfilesFake({"crm": domain or Domain(types={"EngagementScore": KIND})}) as fake:
            for name, value in fake.environment().items():
                monkeypatch.setenv(name, value)
            async with clients(AwsSettings(region="us-east-1", attempts=1)) as made:
                await story(fake, await made.client("customer-profiles"))

    asyncio.run(main())


BATCHES: list[dict[str, Any]] = [
    {"Items": [ITEM]},
    {"Items": [{**ITEM, "Id": str(n)} for n in range(10)]},
    {"Items": [{**ITEM, "Id": str(n)} for n in range(11)]},
    {"Items": []},
    {"Items": [{**ITEM, "Id": "a b"}]},
    {"Items": [{**ITEM, "Id": "x" * 65}]},
    {"Items": [{**ITEM, "Id": ""}]},
    {"Items": [{**ITEM, "Object": ""}]},
    {"Items": [{**ITEM, "Object": "x" * 256_001}]},
    {"Items": [{"Id": "0"}]},
    {"Items": [ITEM], "ObjectTypeName": "9lives"},
    {"Items": [ITEM], "ObjectTypeName": "a b"},
    {"Items": [ITEM], "ObjectTypeName": "x" * 256},
]


@pytest.mark.parametrize("batch", BATCHES)
def test_a_batch_is_refused_where_the_model_refuses_it(batch: dict[str, Any], monkeypatch: pytest.MonkeyPatch):
    whole = {"ObjectTypeName": "EngagementScore", **batch}

    async def story(fake: CustomerProfilesFake, _: AwsClient) -> None:
        url = f"{fake.url}/domains/crm/profiles/objects/batch-put-profile-object"
        async with aiohttp.ClientSession() as session, session.put(url, json=whole) as response:
            answer = await response.json()
        faults = request_faults("customer-profiles", "BatchPutProfileObject", {"DomainName": "crm", **whole})
        assert (response.status == 400) == bool(faults), faults
        if response.status == 200:
            assert answer_faults("customer-profiles", "BatchPutProfileObject", answer) == []

    play(monkeypatch, story)


def test_every_answer_has_the_shape_of_the_model(monkeypatch: pytest.MonkeyPatch):
    async def story(fake: CustomerProfilesFake, client: AwsClient) -> None:
        assert request_faults("customer-profiles", "PutProfileObjectType", {"DomainName": "crm", **KIND}) == []
        named = {"DomainName": "crm", "ObjectTypeName": "EngagementScore"}
        for operation, call, params in (
            ("PutProfileObjectType", client.put_profile_object_type, {"DomainName": "crm", **KIND}),
            ("GetProfileObjectType", client.get_profile_object_type, named),
            ("GetDomain", client.get_domain, {"DomainName": "crm"}),
            ("BatchPutProfileObject", client.batch_put_profile_object, {**named, "Items": [ITEM]}),
        ):
            answer = await call(**params)
            # The service's client reads times as epoch seconds; the model's validator wants them as they were read.
            shown = {name: value for name, value in answer.items() if not name.endswith("At")}
            faults = answer_faults("customer-profiles", operation, {**shown, **_times(operation)})
            assert faults == [], operation
        assert fake.domains["crm"].types["EngagementScore"]["Fields"] == KIND["Fields"]

    play(monkeypatch, story, Domain(queue="https://sqs.us-east-1.amazonaws.com/1/dead"))


def _times(operation: str) -> dict[str, Any]:
    return {"CreatedAt": 1, "LastUpdatedAt": 1} if operation != "BatchPutProfileObject" else {}


def test_what_is_not_there_is_said(monkeypatch: pytest.MonkeyPatch):
    async def story(_: CustomerProfilesFake, client: AwsClient) -> None:
        missing = client.exceptions.ResourceNotFoundException
        for call, params in (
            (client.get_domain, {"DomainName": "none"}),
            (client.get_profile_object_type, {"DomainName": "crm", "ObjectTypeName": "None"}),
            (client.batch_put_profile_object, {"DomainName": "crm", "ObjectTypeName": "None", "Items": [ITEM]}),
        ):
            with pytest.raises(missing):
                await call(**params)

    play(monkeypatch, story)


def test_an_object_reaches_the_profile_that_its_key_finds(monkeypatch: pytest.MonkeyPatch):
    domain = Domain(
        types={"EngagementScore": KIND}, profiles={"ann": Profile(), "own": Profile(own={"Heat": "manual"})}
    )

    async def story(fake: CustomerProfilesFake, client: AwsClient) -> None:
        objects = [json.dumps({"userId": user, "score": 7}) for user in ("ann", "nobody", "own")]
        items = [{"Id": str(place), "Object": text} for place, text in enumerate([*objects, "{", "{}"])]
        answer = await client.batch_put_profile_object(DomainName="crm", ObjectTypeName="EngagementScore", Items=items)
        assert [each["Id"] for each in answer["Successful"]] == ["0", "1", "2"]
        assert [(each["Id"], each["Code"]) for each in answer["Failed"]] == [("3", 400), ("4", 400)]
        found = fake.domains["crm"]
        assert found.profiles["ann"].attributes == {"Heat": "7"}
        assert found.profiles["own"].attributes == {}, "what the API wrote itself is not overwritten"
        assert [each["userId"] for each in found.dead] == ["nobody"]

    play(monkeypatch, story, domain)
