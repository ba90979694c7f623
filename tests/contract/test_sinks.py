"""What every sink promises: one outcome per change, in order, and the score last written is the one it holds."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import UTC, datetime
from decimal import Decimal

import pytest
import structlog

from service.aws.clients import AwsSettings, clients
from service.ingest.identity_store import IdentityStore
from service.ingest.stores import NoTarget, Published, Sink
from service.local.pinpoint_fake import PinpointFake
from service.local.pinpoint_fake.shapes import EndpointRequest, User
from service.observability.metrics import Metrics
from service.runtime.clock import SystemClock
from service.scoring.change import ScoreChange
from service.scoring.fold import UserKey
from service.sinks.log import LogSink
from service.sinks.pinpoint.sink import PinpointOptions, PinpointSink
from tests.fakes.identities import MemoryRows
from tests.fakes.sinks import MemorySink

APP = "a" * 32
USERS = [f"user-{n}" for n in range(30)]

Read = Callable[[str], str | None]
Made = tuple[Sink, Read | None]
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
            yield PinpointSink(made.pinpoint, IdentityStore(MemoryRows()), SystemClock(), Metrics(), options), read


SINKS = pytest.mark.parametrize("make", [memory, log, pinpoint])


def change(user: str, score: int, revision: int) -> ScoreChange:
    return ScoreChange(UserKey(user, APP), Decimal(score), revision, 0)


@SINKS
def test_every_change_has_an_outcome_and_the_last_score_written_is_held(make: Make, monkeypatch: pytest.MonkeyPatch):
    async def main() -> None:
        async with make(monkeypatch) as (sink, read):
            assert sink.name
            assert sink.max_batch >= len(USERS)
            for revision, factor in enumerate((3, -7, 0), 1):
                changes = [change(user, n * factor, revision) for n, user in enumerate(USERS)]
                assert list(await sink.publish(changes)) == [Published()] * len(USERS)
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
            [outcome] = await sink.publish([change("stranger", 5, 1)])
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
