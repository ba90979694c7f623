"""What every `EndpointLookup` promises: the one in memory, and Pinpoint's GetEndpoint against the Pinpoint fake."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import UTC, datetime
from typing import Protocol

import pytest

from service.aws.clients import AwsSettings, clients
from service.ingest.stores import AliasKey, EndpointLookup
from service.local.pinpoint_fake import Fault, PinpointFake
from service.local.pinpoint_fake.shapes import EndpointRequest, User
from service.observability.metrics import Metrics
from service.runtime.clock import SystemClock
from service.runtime.errors import TransientError
from service.sinks.pinpoint.lookup import PinpointLookup
from tests.fakes.identities import MemoryLookup

APP, OTHER = "a" * 32, "b" * 32


class EndpointDirectory(Protocol):
    lookup: EndpointLookup

    def add(self, key: AliasKey, user: str | None) -> None:
        """Make an endpoint, or give it to another user; None: to nobody."""
        ...

    def throttle(self, key: AliasKey, *, on: bool) -> None: ...


class MemoryDirectory:
    def __init__(self) -> None:
        self.lookup = MemoryLookup()

    def add(self, key: AliasKey, user: str | None) -> None:
        self.lookup.users[key] = user or ""

    def throttle(self, key: AliasKey, *, on: bool) -> None:
        (self.lookup.fails.add if on else self.lookup.fails.discard)(key)


class PinpointDirectory:
    def __init__(self, fake: PinpointFake, lookup: PinpointLookup) -> None:
        self._fake = fake
        self.lookup = lookup

    def add(self, key: AliasKey, user: str | None) -> None:
        owner = User(user_id=user) if user is not None else None
        request = EndpointRequest(channel_type="EMAIL", user=owner)
        self._fake.state.update_endpoint(key.project_id, key.value, request, datetime.now(UTC))

    def throttle(self, key: AliasKey, *, on: bool) -> None:  # noqa: ARG002 - Pinpoint throttles all of them
        if on:
            self._fake.faults.add(Fault(operation="GetEndpoint", status=429, times=1000))
        else:
            self._fake.faults.clear()


@asynccontextmanager
async def memory(_: pytest.MonkeyPatch) -> AsyncIterator[EndpointDirectory]:
    yield MemoryDirectory()


@asynccontextmanager
async def pinpoint(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[EndpointDirectory]:
    async with PinpointFake(apps=[APP, OTHER]) as fake:
        for name, value in fake.environment().items():
            monkeypatch.setenv(name, value)
        async with clients(AwsSettings(region="us-east-1", attempts=1)) as made:
            client = await made.client("pinpoint")
            yield PinpointDirectory(fake, PinpointLookup(client, SystemClock(), Metrics(), per_second=1000))


Play = Callable[[Callable[[EndpointDirectory], Awaitable[None]]], None]


@pytest.fixture(params=[memory, pinpoint])
def play(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Play:
    """Run a story in a directory of its own."""
    make: Callable[[pytest.MonkeyPatch], AbstractAsyncContextManager[EndpointDirectory]] = request.param

    def run(story: Callable[[EndpointDirectory], Awaitable[None]]) -> None:
        async def main() -> None:
            async with make(monkeypatch) as directory:
                await story(directory)

        asyncio.run(main())

    return run


def test_an_endpoint_has_the_user_it_was_given(play: Play):
    async def story(directory: EndpointDirectory) -> None:
        directory.add(AliasKey("phone", APP), "ann")
        directory.add(AliasKey("mail", APP), "bob")
        assert await directory.lookup.user_of(AliasKey("phone", APP)) == "ann"
        assert await directory.lookup.user_of(AliasKey("mail", APP)) == "bob"

    play(story)


def test_an_endpoint_belongs_to_its_project(play: Play):
    async def story(directory: EndpointDirectory) -> None:
        directory.add(AliasKey("phone", APP), "ann")
        directory.add(AliasKey("phone", OTHER), "bob")
        assert await directory.lookup.user_of(AliasKey("phone", APP)) == "ann"
        assert await directory.lookup.user_of(AliasKey("phone", OTHER)) == "bob"

    play(story)


def test_an_endpoint_without_a_user_is_told_from_one_that_does_not_exist(play: Play):
    async def story(directory: EndpointDirectory) -> None:
        directory.add(AliasKey("nobodys", APP), None)
        assert await directory.lookup.user_of(AliasKey("nobodys", APP)) == ""
        directory.add(AliasKey("phone", APP), "ann")
        for endpoint_id, project_id in (
            ("unknown", APP), ("phone", OTHER), ("phone", "no-project"), ("..", APP),
            ("phone/../phone", APP), ("x" * 5000, APP),
        ):  # fmt: skip
            assert await directory.lookup.user_of(AliasKey(endpoint_id, project_id)) is None, endpoint_id

    play(story)


@pytest.mark.parametrize("name", ["a b", "Zoë", "a%2Fb", "+49170", "ann@example.com", "a?b#c"])
def test_any_id_is_asked_for_as_it_is(play: Play, name: str):
    async def story(directory: EndpointDirectory) -> None:
        directory.add(AliasKey(name, APP), name)
        assert await directory.lookup.user_of(AliasKey(name, APP)) == name

    play(story)


def test_the_case_of_an_id_does_not_matter_to_pinpoint(play: Play, request: pytest.FixtureRequest):
    if request.node.callspec.params["play"] is memory:
        pytest.skip("keys in memory are in lower case already")

    async def story(directory: EndpointDirectory) -> None:
        directory.add(AliasKey("Phone-A", APP), "ann")
        assert await directory.lookup.user_of(AliasKey("phone-a", APP)) == "ann"

    play(story)


def test_an_endpoint_that_changed_hands_has_its_new_user(play: Play):
    async def story(directory: EndpointDirectory) -> None:
        key = AliasKey("phone", APP)
        for user in ("ann", "bob"):
            directory.add(key, user)
            assert await directory.lookup.user_of(key) == user

    play(story)


def test_throttling_is_told_and_passes(play: Play):
    async def story(directory: EndpointDirectory) -> None:
        key = AliasKey("phone", APP)
        directory.add(key, "ann")
        directory.throttle(key, on=True)
        with pytest.raises(TransientError) as told:
            await directory.lookup.user_of(key)
        assert told.value.throttled
        directory.throttle(key, on=False)
        assert await directory.lookup.user_of(key) == "ann"

    play(story)
