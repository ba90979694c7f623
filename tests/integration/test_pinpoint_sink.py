"""The sink and the lookup against the Pinpoint fake, over HTTP."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Literal

import pytest
import structlog

from service.aws.clients import observe
from service.ingest.identity_plan import user_row
from service.ingest.stores import AliasKey, DirectoryEntry, NoDestination, NoTarget, Published
from service.local.pinpoint_fake import Fault
from service.publish.outbox import Ticket
from service.publish.sender import Sender, SenderOptions
from service.runtime.clock import SystemClock
from service.runtime.errors import TransientError
from service.scoring.event import Reason, Rejected
from service.scoring.fold import UserKey
from service.sinks.pinpoint.lookup import PinpointLookup
from service.sinks.pinpoint.projects import MISSING_FOR_S, Projects
from service.sinks.pinpoint.sink import PinpointOptions
from tests.fakes.clock import ManualClock
from tests.fakes.pinpoint import APP, PinpointSetup, change, pinpoint


def test_one_call_updates_one_endpoint_each_and_all_show_the_score(monkeypatch: pytest.MonkeyPatch):
    async def main() -> None:
        async with pinpoint(monkeypatch) as setup:
            for n in range(100):
                setup.add(f"u{n}", f"u{n}-mail")
                setup.add(f"u{n}", f"u{n}-push", channel="GCM")
            outcomes = await setup.sink.publish([change(f"u{n}", str(n)) for n in range(100)])
            assert list(outcomes) == [Published()] * 100
            assert [setup.score(f"u{n}-{kind}") for n in range(100) for kind in ("mail", "push")] == [
                str(n) for n in range(100) for _ in range(2)
            ]
            assert setup.calls("UpdateEndpointsBatch") == 1
            assert setup.calls("UpdateEndpoint") == 0
            assert setup.calls("GetUserEndpoints") == 100
            await setup.sink.publish([change(f"u{n}", str(n + 1), 2) for n in range(100)])
            assert setup.calls("GetUserEndpoints") == 100
            await setup.another_sink().publish([change(f"u{n}", str(n + 2), 3) for n in range(100)])
            assert setup.calls("GetUserEndpoints") == 100  # the directory outlives the worker
            assert setup.score("u7-push") == "9"
            push = AliasKey("u7-push", APP)
            assert await setup.another_table().find([push]) == {push: "u7"}

    asyncio.run(main())


def test_statuses_stay_as_they_are(monkeypatch: pytest.MonkeyPatch):
    async def main() -> None:
        async with pinpoint(monkeypatch) as setup:
            setup.add("asleep", "old", status="INACTIVE")
            setup.add("awake", "a-gone", status="INACTIVE")
            setup.add("awake", "b-here")
            await setup.sink.publish([change("asleep", "5"), change("awake", "6.50")])
            status = {e.id: e.endpoint_status for e in setup.fake.state.all_endpoints(APP)}
            assert status == {"old": "INACTIVE", "a-gone": "INACTIVE", "b-here": "ACTIVE"}
            assert (setup.score("old"), setup.score("b-here")) == ("5", "6.5")

    asyncio.run(main())


def test_a_falling_score_does_not_activate_a_deactivated_endpoint(
    monkeypatch: pytest.MonkeyPatch,
):
    async def main() -> None:
        async with pinpoint(monkeypatch) as setup:
            setup.add("u", "mail")
            await setup.sink.publish([change("u", "10")])
            setup.add("u", "mail", status="INACTIVE")  # a hard bounce
            await setup.sink.publish([change("u", "-990", 2)])
            assert setup.fake.state.get_endpoint(APP, "mail").endpoint_status == "INACTIVE"
            assert setup.score("mail") == "-990"

    asyncio.run(main())


def test_a_user_without_endpoints_is_no_error_and_not_asked_for_again(monkeypatch: pytest.MonkeyPatch):
    async def main() -> None:
        async with pinpoint(monkeypatch) as setup:
            odd = ["nobody", "..", "a/b c?d#e", "ü%2F"]
            assert await setup.sink.publish([change(user, "1") for user in odd]) == [NoTarget()] * len(odd)
            assert setup.calls("UpdateEndpointsBatch") == 0
            before = setup.calls("GetUserEndpoints")
            await setup.sink.publish([change("nobody", "2", 2)])
            assert setup.calls("GetUserEndpoints") == before
            # After ten minutes Pinpoint is asked again.
            entry = setup.rows.rows[user_row(UserKey("nobody", APP))]
            setup.remember("nobody", DirectoryEntry("", "", "", entry.checked_ms - 601_000))
            setup.add("nobody", "first")
            assert await setup.another_sink().publish([change("nobody", "3", 3)]) == [Published()]
            assert setup.score("first") == "3"

    asyncio.run(main())


def test_user_ids_of_any_form_get_their_score(monkeypatch: pytest.MonkeyPatch):
    async def main() -> None:
        async with pinpoint(monkeypatch) as setup:
            users = ["a/b c?d#e", "ü%2F", "me@example.com", "x+y&z=1"]
            for n, user in enumerate(users):
                setup.add(user, f"e{n}")
            assert await setup.sink.publish([change(user, "1") for user in users]) == [Published()] * len(users)
            assert [setup.score(f"e{n}") for n in range(len(users))] == ["1"] * len(users)

    asyncio.run(main())


def test_the_score_is_an_endpoint_metric_too_where_wanted(monkeypatch: pytest.MonkeyPatch):
    async def main() -> None:
        options = PinpointOptions(attribute="Score", metric="ScoreNumber", updates_per_s=1000)
        async with pinpoint(monkeypatch, options) as setup:
            setup.add("u", "mail")
            await setup.sink.publish([change("u", "2.5")])
            assert setup.fake.state.get_endpoint(APP, "mail").metrics == {"ScoreNumber": 2.5}
            assert setup.score("mail", "Score") == "2.5"

    asyncio.run(main())


def test_one_bad_item_is_found_and_the_others_are_written(monkeypatch: pytest.MonkeyPatch):
    async def main() -> None:
        async with pinpoint(monkeypatch) as setup:
            changes = [change(f"u{n}", str(n)) for n in range(50)]
            for n in range(50):
                setup.add(f"u{n}", f"e{n}")
            await setup.sink.publish(changes[:1])
            now = int(time.time() * 1000)
            await setup.sink.publish(changes)
            setup.remember("u33", DirectoryEntry("refused{}", "ACTIVE", "EMAIL", now))
            before = setup.calls("UpdateEndpointsBatch")
            outcomes = await setup.another_sink().publish(changes)
            assert [n for n, outcome in enumerate(outcomes) if isinstance(outcome, Rejected)] == [33]
            assert isinstance(outcomes[33], Rejected)
            assert outcomes[33].reason is Reason.SINK_REJECTED
            assert "u33" not in outcomes[33].detail
            assert [setup.score(f"e{n}") for n in range(50) if n != 33] == [str(n) for n in range(50) if n != 33]
            assert setup.calls("UpdateEndpointsBatch") - before <= 13

    asyncio.run(main())


def test_what_is_too_large_is_split(monkeypatch: pytest.MonkeyPatch):
    async def main() -> None:
        async with pinpoint(monkeypatch) as setup:
            for n in range(4):
                setup.add(f"u{n}", f"e{n}")
            setup.fake.faults.add(Fault(operation="UpdateEndpointsBatch", status=413))
            assert await setup.sink.publish([change(f"u{n}", "1") for n in range(4)]) == [Published()] * 4
            assert setup.calls("UpdateEndpointsBatch") == 3

    asyncio.run(main())


def test_projects_are_written_apart_and_a_missing_one_is_reported(monkeypatch: pytest.MonkeyPatch):
    async def main() -> None:
        async with pinpoint(monkeypatch) as setup:
            setup.add("u", "e")
            now = int(time.time() * 1000)
            setup.remember("u", DirectoryEntry("e", "ACTIVE", "EMAIL", now), project="b" * 32)
            with structlog.testing.capture_logs() as lines:
                outcomes = await setup.sink.publish([change("u", "1"), change("u", "2", project="b" * 32)])
            assert outcomes == [Published(), NoDestination()]
            assert setup.score("e") == "1"
            assert [line["event"] for line in lines] == ["pinpoint.project_not_found"]

    asyncio.run(main())


def test_a_project_that_does_not_exist_is_no_user_without_endpoints(monkeypatch: pytest.MonkeyPatch):
    async def main() -> None:
        async with pinpoint(monkeypatch) as setup:
            setup.add("u", "e")
            users = [change(f"u{n}", "1", project="b" * 32) for n in range(20)]
            with structlog.testing.capture_logs() as lines:
                outcomes = await setup.sink.publish([change("u", "1"), change("stranger", "2"), *users])
                assert outcomes == [Published(), NoTarget(), *[NoDestination()] * 20]
                assert await setup.sink.publish(users) == [NoDestination()] * 20
            # One look-up per project, one line, and no further call while the project is known to be missing.
            assert setup.calls("GetApp") == 2
            assert setup.calls("GetUserEndpoints") == 22
            (line,) = lines
            assert (line["log_level"], line["project"]) == ("error", "b" * 32)
            assert "SCORING_PROJECT_IDS" in line["remedy"]
            # Nothing is remembered of its users: once the project exists, their endpoints are looked up.
            assert not [key for key in setup.rows.rows if key[1] == "b" * 32]

    asyncio.run(main())


def test_a_missing_project_is_looked_up_again_and_its_return_is_reported(monkeypatch: pytest.MonkeyPatch):
    async def main() -> None:
        clock = ManualClock()
        async with pinpoint(monkeypatch) as setup:
            projects = Projects(setup.client, clock, consequence="none", remedy="none")
            with structlog.testing.capture_logs() as lines:
                assert not await projects.exists("new")
                assert projects.known_missing("new")
                setup.fake.state.create_app("new", datetime.now(UTC), app_id="new")
                assert not await projects.exists("new")
                clock.now += MISSING_FOR_S + 1
                assert not projects.known_missing("new")
                assert await projects.exists("new")
            assert [line["event"] for line in lines] == ["pinpoint.project_not_found", "pinpoint.project_found"]

    asyncio.run(main())


@pytest.mark.parametrize(("status", "exists"), [(403, True), (400, False)])
def test_a_role_that_may_not_look_projects_up_publishes_as_before(
    monkeypatch: pytest.MonkeyPatch,
    status: Literal[403, 400],
    exists: bool,  # noqa: FBT001 - a row of the table
):
    async def main() -> None:
        async with pinpoint(monkeypatch) as setup:
            setup.fake.faults.add(Fault(operation="GetApp", status=status))
            projects = Projects(setup.client, SystemClock(), consequence="none", remedy="none")
            with structlog.testing.capture_logs() as lines:
                assert await projects.exists(APP) is exists
            assert ("mobiletargeting:GetApp" in lines[0]["remedy"]) is exists

    asyncio.run(main())


@pytest.mark.parametrize(("status", "throttled"), [(429, True), (500, False)])
def test_failures_that_pass_are_raised_when_nothing_went_out(
    monkeypatch: pytest.MonkeyPatch,
    status: Literal[429, 500],
    throttled: bool,  # noqa: FBT001 - a row of the table
):
    async def main() -> None:
        async with pinpoint(monkeypatch) as setup:
            setup.add("u", "e")
            for operation in ("GetUserEndpoints", "UpdateEndpointsBatch"):
                setup.fake.faults.add(Fault(operation=operation, status=status))
                with pytest.raises(TransientError) as raised:
                    await setup.sink.publish([change("u", "1")])
                assert raised.value.throttled is throttled
            assert await setup.sink.publish([change("u", "1")]) == [Published()]

    asyncio.run(main())


@asynccontextmanager
async def one_look_up_refused(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[PinpointSetup]:
    """The endpoint of `u` is known; that of `v` must be looked up, which is refused once."""
    async with pinpoint(monkeypatch) as setup:
        setup.add("u", "e")
        setup.add("v", "f")
        await setup.sink.publish([change("u", "1")])
        setup.fake.faults.add(Fault(operation="GetUserEndpoints", status=429))
        yield setup


def test_of_several_reasons_the_one_that_may_be_carried_out_is_given(
    monkeypatch: pytest.MonkeyPatch,
):
    async def main() -> None:
        async with one_look_up_refused(monkeypatch) as setup:
            setup.fake.faults.add(Fault(operation="UpdateEndpointsBatch", status=500))
            with pytest.raises(TransientError) as raised:
                await setup.sink.publish([change("v", "1"), change("u", "2", 2)])
            assert not raised.value.undone
            setup.fake.faults.add(Fault(operation="GetUserEndpoints", status=500))
            with pytest.raises(TransientError) as raised:
                await setup.sink.publish([change("v", "1")])
            assert raised.value.undone  # a look-up changes nothing

    asyncio.run(main())


def test_a_user_that_cannot_be_looked_up_now_does_not_hold_up_the_others(monkeypatch: pytest.MonkeyPatch):
    async def main() -> None:
        async with one_look_up_refused(monkeypatch) as setup:
            outcomes = await setup.sink.publish([change("u", "2", 2), change("v", "1")])
            assert outcomes[0] == Published()
            assert isinstance(outcomes[1], TransientError)

    asyncio.run(main())


def test_a_storm_of_refusals_and_lost_answers_ends_with_every_score_right(monkeypatch: pytest.MonkeyPatch):
    async def main() -> None:
        async with pinpoint(monkeypatch) as setup:
            for n in range(150):
                setup.add(f"u{n}", f"e{n}")
            for operation, times in (("GetUserEndpoints", 60), ("UpdateEndpointsBatch", 3)):
                setup.fake.faults.add(Fault(operation=operation, status=429, times=times))
            setup.fake.faults.add(Fault(operation="UpdateEndpointsBatch", lose_response=True, times=2))
            sender = Sender(
                setup.sink,
                _NoLetters(),
                lambda _keys, _due: None,
                lambda _: True,
                SystemClock(),
                setup.metrics,
                random.Random(1),
                SenderOptions(linger_s=0.01),
            )
            settled = asyncio.Event()
            ticket = Ticket("scores", "s", settled.set)
            task = asyncio.create_task(sender.run())
            for revision in (1, 2, 3):
                for n in range(150):
                    await sender.offer([change(f"u{n}", str(n * revision), revision)], ticket)
            ticket.offered()
            async with asyncio.timeout(30):
                await settled.wait()
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            assert [setup.score(f"e{n}") for n in range(150)] == [str(n * 3) for n in range(150)]
            assert setup.calls("UpdateEndpointsBatch") < 20

    asyncio.run(main())


def test_calls_keep_to_their_rate(monkeypatch: pytest.MonkeyPatch):
    async def main() -> None:
        async with pinpoint(monkeypatch, PinpointOptions(updates_per_s=9)) as setup:
            setup.add("u", "e")
            started = time.monotonic()
            for revision in range(1, 4):
                await setup.sink.publish([change("u", str(revision), revision)])
            assert time.monotonic() - started >= 2 / 9 - 0.02
            waited = setup.metrics.registry.get_sample_value(
                "scoring_sink_wait_seconds_total", {"sink": "pinpoint", "limit": "update_endpoints_batch"}
            )
            assert waited is not None
            assert waited > 0.05

    asyncio.run(main())


class _NoLetters:
    async def put(self, letters: Sequence[object]) -> None:
        raise AssertionError(letters)


def test_a_lookup_answered_with_404_is_not_an_error(monkeypatch: pytest.MonkeyPatch):
    async def main() -> None:
        async with pinpoint(monkeypatch) as setup:
            observe(setup.client, setup.metrics)
            setup.add("u", "mail")
            lookup = PinpointLookup(setup.client, SystemClock(), setup.metrics, per_second=1000)
            assert await lookup.user_of(AliasKey("mail", APP)) == "u"
            assert await lookup.user_of(AliasKey("nobody", APP)) is None
            assert await setup.sink.publish([change("stranger", "1")]) == [NoTarget()]
            setup.fake.faults.add(Fault(operation="UpdateEndpointsBatch", status=404))
            with pytest.raises(Exception, match="NotFoundException"):
                await setup.client.update_endpoints_batch(ApplicationId=APP, EndpointBatchRequest={"Item": []})

            def count(operation: str, outcome: str) -> float | None:
                labels = {"service": "pinpoint", "operation": operation, "outcome": outcome}
                return setup.metrics.registry.get_sample_value("scoring_aws_requests_total", labels)

            assert [count("GetEndpoint", outcome) for outcome in ("ok", "absent", "error")] == [1, 1, None]
            assert (count("GetUserEndpoints", "absent"), count("GetUserEndpoints", "error")) == (1, None)
            assert count("UpdateEndpointsBatch", "error") == 1

    asyncio.run(main())
