"""An endpoint that is known to be another user's is never written, and a user's first endpoint is found at once."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from service.ingest.identity_store import CONFIRMED_FOR_S
from service.ingest.stores import AliasKey, NoTarget, Published
from service.runtime.errors import TransientError
from service.scoring.fold import UserKey
from service.sinks.pinpoint.sink import PinpointOptions
from tests.fakes.pinpoint import APP, QUICK, PinpointSetup, change, pinpoint

Story = Callable[[PinpointSetup], Awaitable[None]]


def key(endpoint_id: str) -> AliasKey:
    return AliasKey(endpoint_id, APP)


@pytest.fixture
def play(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    def run(story: Story, options: PinpointOptions = QUICK) -> None:
        async def main() -> None:
            async with pinpoint(monkeypatch, options) as setup:
                await story(setup)

        asyncio.run(main())

    return run


Play = Callable[..., None]


async def tab_is_alices(setup: PinpointSetup) -> None:
    """Alice's score is on `tab-1`. Then it becomes bob's in Pinpoint, and alice gets `laptop-1`."""
    setup.add("alice", "tab-1")
    assert await setup.sink.publish([change("alice", "10")]) == [Published()]
    setup.add("bob", "tab-1")
    setup.add("alice", "laptop-1")


def test_an_endpoint_that_became_anothers_is_not_taken_away_from_him(play: Play):
    async def story(setup: PinpointSetup) -> None:
        await tab_is_alices(setup)
        await setup.identities.learn({key("tab-1"): "bob"})
        assert await setup.sink.publish([change("alice", "20", 2)]) == [Published()]
        assert (setup.owner("tab-1"), setup.owner("laptop-1")) == ("bob", "alice")
        assert setup.score("laptop-1") == "20"

    play(story)


def test_a_session_on_a_new_endpoint_has_the_old_one_looked_up_again(play: Play):
    async def story(setup: PinpointSetup) -> None:
        await tab_is_alices(setup)
        # No event has said that tab-1 is bob's by now.
        await setup.identities.learn({key("laptop-1"): "alice"})
        assert await setup.sink.publish([change("alice", "20", 2)]) == [Published()]
        assert (setup.owner("tab-1"), setup.score("laptop-1")) == ("bob", "20")

    play(story)


@pytest.mark.parametrize("event", [{"tab-1": "bob"}, {"laptop-1": "alice"}])
def test_other_workers_know_within_seconds_that_an_endpoint_changed_hands(play: Play, event: dict[str, str]):
    async def story(setup: PinpointSetup) -> None:
        await tab_is_alices(setup)
        await setup.another_table().learn({key(endpoint): user for endpoint, user in event.items()})
        setup.now += CONFIRMED_FOR_S + 0.1
        assert await setup.sink.publish([change("alice", "20", 2)]) == [Published()]
        assert (setup.owner("tab-1"), setup.score("laptop-1")) == ("bob", "20")

    play(story)


def test_an_endpoints_row_that_repeats_an_ended_target_is_not_believed(play: Play):
    async def story(setup: PinpointSetup) -> None:
        await tab_is_alices(setup)
        reader = setup.another_table()
        await setup.another_table().learn({key("laptop-1"): "alice"})
        # An event on tab-1 that names nobody: the row says alice, and must not bring her score there.
        assert await reader.find([key("tab-1")]) == {key("tab-1"): "alice"}
        assert await setup.another_sink(identities=reader).publish([change("alice", "20", 2)]) == [Published()]
        assert setup.owner("tab-1") == "bob"

    play(story)


def test_an_endpoint_that_changes_hands_before_its_call_is_not_written(play: Play, monkeypatch: pytest.MonkeyPatch):
    async def story(setup: PinpointSetup) -> None:
        setup.add("alice", "tab-1")

        async def wait() -> None:
            setup.add("bob", "tab-1")
            await setup.identities.learn({key("tab-1"): "bob"})

        monkeypatch.setattr(setup.sink._updates, "wait", wait)
        assert await setup.sink.publish([change("alice", "10")]) == [NoTarget()]
        assert setup.owner("tab-1") == "bob"

    play(story)


def test_an_answer_that_is_older_than_the_event_is_asked_for_again(play: Play):
    async def story(setup: PinpointSetup) -> None:
        setup.add("alice", "tab-1")

        async def meanwhile() -> None:  # Pinpoint has said that tab-1 is alice's, which is not written down yet
            setup.add("bob", "tab-1")
            await setup.another_table().learn({key("tab-1"): "bob"})

        setup.rows.meanwhile = meanwhile
        assert await setup.sink.publish([change("alice", "10")]) == [NoTarget()]
        assert setup.calls("UpdateEndpointsBatch") == 0
        assert await setup.another_table().find([key("tab-1")]) == {key("tab-1"): "bob"}

    play(story)


def test_what_pinpoint_says_twice_outweighs_an_older_event(play: Play):
    async def story(setup: PinpointSetup) -> None:
        setup.add("bob", "tab-1")
        await setup.sink.publish([change("bob", "5")])
        await setup.identities.learn({key("tab-1"): "bob"})
        setup.add("alice", "tab-1")  # and no event says so
        assert await setup.sink.publish([change("alice", "10")]) == [Published()]
        assert (setup.owner("tab-1"), setup.score("tab-1")) == ("alice", "10")
        assert await setup.another_table().find([key("tab-1")]) == {key("tab-1"): "alice"}
        # Bob's score went there: he is looked up again, and has none.
        assert await setup.sink.publish([change("bob", "6", 2)]) == [NoTarget()]
        assert setup.owner("tab-1") == "alice"

    play(story)


def test_a_user_whose_endpoints_keep_changing_hands_is_tried_later(play: Play):
    async def story(setup: PinpointSetup) -> None:
        setup.add("alice", "tab-1")

        async def meanwhile() -> None:
            await setup.another_table().forget([UserKey("alice", APP)])
            await setup.another_table().learn({key(f"other-{setup.rows.writes}"): "alice"})
            setup.rows.meanwhile = meanwhile

        setup.rows.meanwhile = meanwhile
        with pytest.raises(TransientError) as raised:
            await setup.sink.publish([change("alice", "10")])
        assert raised.value.undone

    play(story)


@pytest.mark.parametrize("first", [{}, {"mail-1": "ann"}])
def test_a_user_whose_endpoint_appears_later_gets_the_score(play: Play, first: dict[str, str]):
    """Also where the first event named the endpoint already, which Pinpoint did not have yet."""

    async def story(setup: PinpointSetup) -> None:
        await setup.another_table().learn({key(endpoint): user for endpoint, user in first.items()})
        assert await setup.sink.publish([change("ann", "1")]) == [NoTarget()]
        assert await setup.sink.publish([change("ann", "1", 2)]) == [NoTarget()]
        setup.add("ann", "mail-1")
        await setup.another_table().learn({key("mail-1"): "ann"})  # another worker reads the event
        assert await setup.sink.publish([change("ann", "2", 3)]) == [Published()]
        assert setup.score("mail-1") == "2"

    play(story)


def test_a_user_without_an_endpoint_is_asked_for_once(play: Play):
    async def story(setup: PinpointSetup) -> None:
        for revision in range(1, 6):
            setup.now += CONFIRMED_FOR_S + 1
            assert await setup.another_sink().publish([change("ann", "1", revision)]) == [NoTarget()]
        assert setup.calls("GetUserEndpoints") == 1

    play(story)


def test_an_endpoint_named_while_pinpoint_shows_none_is_not_lost(play: Play):
    async def story(setup: PinpointSetup) -> None:
        async def meanwhile() -> None:
            setup.add("ann", "mail-1")
            await setup.another_table().learn({key("mail-1"): "ann"})

        setup.rows.meanwhile = meanwhile
        assert await setup.sink.publish([change("ann", "1")]) == [Published()]

    play(story)


def test_forgetting_has_pinpoint_asked_again(play: Play):
    async def story(setup: PinpointSetup) -> None:
        await tab_is_alices(setup)
        await setup.sink.publish([change("ann", "1")])
        setup.add("ann", "mail-1")
        await setup.another_table().forget([UserKey("alice", APP), UserKey("ann", APP), UserKey("nobody", APP)])
        setup.now += CONFIRMED_FOR_S + 0.1
        assert await setup.sink.publish([change("alice", "20", 2), change("ann", "2", 2)]) == [Published()] * 2
        assert (setup.owner("tab-1"), setup.score("laptop-1"), setup.score("mail-1")) == ("bob", "20", "2")

    play(story)


METRIC = PinpointOptions(metric="Score", updates_per_s=1000, lookups_per_s=10_000)


def test_the_metric_follows_an_endpoint_to_its_new_user(play: Play):
    async def story(setup: PinpointSetup) -> None:
        def metrics() -> dict[str, float | None]:
            return {each.id: (each.metrics or {}).get("Score") for each in setup.fake.state.all_endpoints(APP)}

        for endpoint in ("mail", "phone", "tab"):
            setup.add("alice", endpoint, status="INACTIVE" if endpoint == "phone" else "ACTIVE")
        setup.add("bob", "old")
        assert await setup.sink.publish([change("alice", "10"), change("bob", "3")]) == [Published()] * 2
        assert metrics() == {"mail": 10, "phone": 10, "tab": 10, "old": 3}
        statuses = {each.id: each.endpoint_status for each in setup.fake.state.all_endpoints(APP)}
        assert statuses == {"mail": "ACTIVE", "phone": "INACTIVE", "tab": "ACTIVE", "old": "ACTIVE"}
        setup.add("bob", "tab")
        await setup.identities.learn({key("tab"): "bob"})
        assert await setup.sink.publish([change("alice", "20", 2), change("bob", "4", 2)]) == [Published()] * 2
        assert metrics() == {"mail": 20, "phone": 20, "tab": 4, "old": 4}
        assert setup.owner("tab") == "bob"

    play(story, METRIC)


def test_endpoints_beyond_a_hundred_go_out_in_several_calls(play: Play):
    async def story(setup: PinpointSetup) -> None:
        users = [f"u{n}" for n in range(60)]
        for user in users:
            for n in range(4):
                setup.add(user, f"{user}-{n}")
        assert await setup.sink.publish([change(user, "7") for user in users]) == [Published()] * 60
        assert {(each.metrics or {}).get("Score") for each in setup.fake.state.all_endpoints(APP)} == {7.0}
        assert setup.calls("UpdateEndpointsBatch") == 3

    play(story, METRIC)


def test_without_a_metric_one_endpoint_is_written(play: Play):
    async def story(setup: PinpointSetup) -> None:
        for endpoint in ("mail", "phone"):
            setup.add("alice", endpoint)
        await setup.sink.publish([change("alice", "10")])
        assert all(each.metrics is None for each in setup.fake.state.all_endpoints(APP))
        (tally,) = (each for each in setup.fake.stats()["requests"].values() if each)
        assert tally["pinpoint.UpdateEndpointsBatch"]["members"] == 1

    play(story)
