"""What every sink promises: one outcome per change, in order, and the score last written is the one it holds."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime
from decimal import Decimal

import pytest
import structlog

from service.aws.clients import AwsClient, AwsSettings, clients
from service.config.load import Purpose, load
from service.ingest.identity_store import IdentityStore
from service.ingest.stores import NoTarget, Ordering, Published, Sink
from service.local.customer_profiles_fake import CustomerProfilesFake, Domain, Profile
from service.local.eventbridge_fake import EventBridgeFake
from service.local.pinpoint_fake import PinpointFake
from service.local.pinpoint_fake.shapes import EndpointRequest, User
from service.local.webhook_fake.server import WebhookFake
from service.observability.metrics import Metrics
from service.runtime.clock import SystemClock
from service.scoring.change import ScoreChange
from service.scoring.fold import UserKey
from service.sinks.customer_profiles.objects import object_type
from service.sinks.log.sink import LogSink
from service.sinks.pinpoint.sink import PinpointOptions, PinpointSink
from service.sinks.port import Parts
from service.sinks.registry import SINKS as REGISTRY
from service.sinks.webhook.template import BUILT_IN
from tests.fakes.identities import MemoryRows
from tests.fakes.sinks import MemorySink

APP = "a" * 32
USERS = [f"user-{n}@example.com" for n in range(30)]

Read = Callable[[str], str | None]
Made = tuple[Sink, Read | None]
NO_DIRECTORY = IdentityStore(MemoryRows())


async def no_client(service: str, *, attempts: int | None = None) -> AwsClient:
    raise AssertionError(service, attempts)


Make = Callable[[pytest.MonkeyPatch], AbstractAsyncContextManager[Made]]


@asynccontextmanager
async def memory(_: pytest.MonkeyPatch) -> AsyncIterator[Made]:
    sink = MemorySink(delay_s=0)
    yield sink, lambda user: str(sink.values[UserKey(user, APP)].score)


@asynccontextmanager
async def log(_: pytest.MonkeyPatch) -> AsyncIterator[Made]:
    yield LogSink(), None


@asynccontextmanager
async def pinpoint(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Made]:
    async with PinpointFake(apps=[APP]) as fake:
        for name, value in fake.environment().items():
            monkeypatch.setenv(name, value)
        for user in USERS:
            request = EndpointRequest(channel_type="EMAIL", user=User(user_id=user))
            fake.state.update_endpoint(APP, f"{user}-mail", request, datetime.now(UTC))

        def read(user: str) -> str | None:
            shown = fake.state.get_endpoint(APP, f"{user}-mail").user
            return ((shown.user_attributes or {}).get("EngagementScore") or [None])[0] if shown else None

        async with clients(AwsSettings(region="us-east-1")) as made:
            options = PinpointOptions(updates_per_s=1000)
            pinpoint = await made.client("pinpoint")
            yield PinpointSink(pinpoint, IdentityStore(MemoryRows()), SystemClock(), Metrics(), options), read


def webhook(form: str) -> Make:
    @asynccontextmanager
    async def make(_: pytest.MonkeyPatch) -> AsyncIterator[Made]:
        async with WebhookFake(form) as fake, AsyncExitStack() as stack:
            parts = Parts(
                no_client, NO_DIRECTORY, SystemClock(), Metrics(), random.Random(1), stack.push_async_callback, 15.0
            )
            variables = {"SCORING_SINKS": "webhook", "AWS_REGION": "us-east-1", "SCORING_WEBHOOK_PER_S": "10000"}
            settings = load({**variables, **fake.environment()}, Purpose.TABLES)
            sink = await REGISTRY["webhook"].make(settings.options_of("webhook"), parts)
            yield sink, lambda user: fake.scores.get(user)  # noqa: PLW0108 - one user is asked about

    return make


@asynccontextmanager
async def of_aws(name: str, variables: dict[str, str]) -> AsyncIterator[Sink]:
    """A sink made as a worker makes it, in front of a fake."""
    async with clients(AwsSettings(region="us-east-1")) as made:
        parts = Parts(made.client, NO_DIRECTORY, SystemClock(), Metrics(), random.Random(1), made.on_close, 15.0)
        settings = load({"SCORING_SINKS": name, "AWS_REGION": "us-east-1", **variables}, Purpose.TABLES)
        yield await REGISTRY[name].make(settings.options_of(name), parts)


@asynccontextmanager
async def customer_profiles(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Made]:
    profiles = {user: Profile() for user in USERS}
    kind = object_type("EngagementScore", "EngagementScore", expiration_days=1, create=False)
    domain = Domain(types={"EngagementScore": kind}, profiles=profiles)
    async with CustomerProfilesFake({"crm": domain}) as fake:
        for name, value in fake.environment().items():
            monkeypatch.setenv(name, value)
        variables = {"SCORING_CUSTOMER_PROFILES_DOMAIN": "crm", "SCORING_CUSTOMER_PROFILES_PER_S": "10000"}
        async with of_aws("customer-profiles", variables) as sink:
            yield sink, lambda user: profiles[user].attributes.get("EngagementScore")


@asynccontextmanager
async def eventbridge(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Made]:
    async with EventBridgeFake() as fake:
        for name, value in fake.environment().items():
            monkeypatch.setenv(name, value)
        async with of_aws("eventbridge", {"SCORING_EVENTBRIDGE_PER_S": "10000"}) as sink:
            yield sink, fake.score_of


SINKS = pytest.mark.parametrize(
    "make",
    [memory, log, pinpoint, customer_profiles, eventbridge, *(webhook(form) for form in BUILT_IN)],
    ids=["memory", "log", "pinpoint", "customer-profiles", "eventbridge", *(f"webhook-{form}" for form in BUILT_IN)],
)


def chunks(changes: list[ScoreChange], size: int) -> list[list[ScoreChange]]:
    return [changes[start : start + size] for start in range(0, len(changes), size)]


def change(user: str, score: int, revision: int) -> ScoreChange:
    return ScoreChange(UserKey(user, APP), Decimal(score), revision, 0)


@SINKS
def test_every_change_has_an_outcome_and_the_last_score_written_is_held(make: Make, monkeypatch: pytest.MonkeyPatch):
    async def main() -> None:
        async with make(monkeypatch) as (sink, read):
            assert sink.name
            assert sink.ordering in Ordering
            for revision, factor in enumerate((3, -7, 0), 1):
                changes = [change(user, n * factor, revision) for n, user in enumerate(USERS)]
                for batch in chunks(changes, sink.max_batch):
                    assert list(await sink.publish(batch)) == [Published()] * len(batch)
                if read is not None:
                    assert [read(user) for user in USERS] == [str(n * factor) for n in range(len(USERS))]

    asyncio.run(main())


@SINKS
def test_publishing_the_same_score_twice_does_no_harm(make: Make, monkeypatch: pytest.MonkeyPatch):
    async def main() -> None:
        async with make(monkeypatch) as (sink, read):
            for _ in range(2):
                assert list(await sink.publish([change(USERS[0], 5, 1)])) == [Published()]
            if read is not None:
                assert read(USERS[0]) == "5"

    asyncio.run(main())


@SINKS
def test_a_user_the_sink_does_not_know_is_no_error(make: Make, monkeypatch: pytest.MonkeyPatch):
    async def main() -> None:
        async with make(monkeypatch) as (sink, _):
            [outcome] = await sink.publish([change("stranger@example.com", 5, 1)])
            assert isinstance(outcome, Published | NoTarget)

    asyncio.run(main())


def test_the_log_names_users_at_debug_only(capsys: pytest.CaptureFixture[str]):
    structlog.configure(
        processors=[structlog.processors.JSONRenderer()],
        wrapper_class=structlog.make_filtering_bound_logger(20),
        logger_factory=structlog.PrintLoggerFactory(),
    )
    asyncio.run(LogSink().publish([change("somebody", 5, 1)]))
    out = capsys.readouterr().out
    assert '"users": 1' in out
    assert "somebody" not in out


def test_every_registered_sink_is_in_this_suite():
    tested = {"log", "pinpoint", "customer-profiles", "eventbridge", "webhook"}
    assert set(REGISTRY) == tested
