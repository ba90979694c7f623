"""An endpoint that is known to be another user's is never written, and a user's first endpoint is found at once."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from service.ingest.identity_store import CONFIRMED_FOR_S
from service.ingest.stores import EndpointKey, NoTarget, Published
from service.runtime.errors import TransientError
from service.scoring.fold import UserKey
from service.sinks.pinpoint.sink import PinpointOptions
from tests.fakes.pinpoint import APP, QUICK, World, change, pinpoint

Story = Callable[[World], Awaitable[None]]


def key(endpoint_id: str) -> EndpointKey:
    return EndpointKey(endpoint_id, APP)


@pytest.fixture
def play(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    def run(story: Story, options: PinpointOptions = QUICK) -> None:
        async def main() -> None:
            async with pinpoint(monkeypatch, options) as world:
                await story(world)

        asyncio.run(main())

    return run


Play = Callable[..., None]


async def tab_is_alices(world: World) -> None:
    """Alice's score is on `tab-1`. Then it becomes bob's in Pinpoint, and alice gets `laptop-1`."""
    world.add("alice", "tab-1")
    assert await world.sink.publish([change("alice", "10")]) == [Published()]
    world.add("bob", "tab-1")
    world.add("alice", "laptop-1")


def test_an_endpoint_that_became_anothers_is_not_taken_away_from_him(play: Play):
    async def story(world: World) -> None:
        await tab_is_alices(world)
        await world.identities.learn({key("tab-1"): "bob"})
        assert await world.sink.publish([change("alice", "20", 2)]) == [Published()]
        assert (world.owner("tab-1"), world.owner("laptop-1")) == ("bob", "alice")
        assert world.score("laptop-1") == "20"

    play(story)


def test_a_session_on_a_new_endpoint_has_the_old_one_looked_up_again(play: Play):
    async def story(world: World) -> None:
        await tab_is_alices(world)
        # No event has said that tab-1 is bob's by now.
        await world.identities.learn({key("laptop-1"): "alice"})
        assert await world.sink.publish([change("alice", "20", 2)]) == [Published()]
        assert (world.owner("tab-1"), world.score("laptop-1")) == ("bob", "20")

    play(story)


@pytest.mark.parametrize("event", [{"tab-1": "bob"}, {"laptop-1": "alice"}])
def test_other_workers_know_within_seconds_that_an_endpoint_changed_hands(play: Play, event: dict[str, str]):
    async def story(world: World) -> None:
        await tab_is_alices(world)
        await world.another_table().learn({key(endpoint): user for endpoint, user in event.items()})
        world.now += CONFIRMED_FOR_S + 0.1
        assert await world.sink.publish([change("alice", "20", 2)]) == [Published()]
        assert (world.owner("tab-1"), world.score("laptop-1")) == ("bob", "20")

    play(story)


def test_an_endpoints_row_that_repeats_an_ended_target_is_not_believed(play: Play):
    async def story(world: World) -> None:
        await tab_is_alices(world)
        reader = world.another_table()
        await world.another_table().learn({key("laptop-1"): "alice"})
        # An event on tab-1 that names nobody: the row says alice, and must not bring her score there.
        assert await reader.find([key("tab-1")]) == {key("tab-1"): "alice"}
        assert await world.another_sink(identities=reader).publish([change("alice", "20", 2)]) == [Published()]
        assert world.owner("tab-1") == "bob"

    play(story)


def test_an_endpoint_that_changes_hands_while_a_call_waits_for_its_turn_is_not_written(
    play: Play, monkeypatch: pytest.MonkeyPatch
):
    async def story(world: World) -> None:
        world.add("alice", "tab-1")

        async def wait() -> None:
            world.add("bob", "tab-1")
            await world.identities.learn({key("tab-1"): "bob"})

        monkeypatch.setattr(world.sink._updates, "wait", wait)
        assert await world.sink.publish([change("alice", "10")]) == [NoTarget()]
        assert world.owner("tab-1") == "bob"

    play(story)


def test_an_answer_that_is_older_than_the_event_is_asked_for_again(play: Play):
    async def story(world: World) -> None:
        world.add("alice", "tab-1")

        async def meanwhile() -> None:  # Pinpoint has said that tab-1 is alice's, which is not written down yet
            world.add("bob", "tab-1")
            await world.another_table().learn({key("tab-1"): "bob"})

        world.rows.meanwhile = meanwhile
        assert await world.sink.publish([change("alice", "10")]) == [NoTarget()]
        assert world.calls("UpdateEndpointsBatch") == 0
        assert await world.another_table().find([key("tab-1")]) == {key("tab-1"): "bob"}

    play(story)


def test_what_pinpoint_says_twice_outweighs_an_older_event(play: Play):
    async def story(world: World) -> None:
        world.add("bob", "tab-1")
        await world.sink.publish([change("bob", "5")])
        await world.identities.learn({key("tab-1"): "bob"})
        world.add("alice", "tab-1")  # and no event says so
        assert await world.sink.publish([change("alice", "10")]) == [Published()]
        assert (world.owner("tab-1"), world.score("tab-1")) == ("alice", "10")
        assert await world.another_table().find([key("tab-1")]) == {key("tab-1"): "alice"}
        # Bob's score went there: he is looked up again, and has none.
        assert await world.sink.publish([change("bob", "6", 2)]) == [NoTarget()]
        assert world.owner("tab-1") == "alice"

    play(story)


def test_a_user_whose_endpoints_change_hands_all_the_time_is_tried_again_later(play: Play):
    async def story(world: World) -> None:
        world.add("alice", "tab-1")

        async def meanwhile() -> None:
            await world.another_table().forget([UserKey("alice", APP)])
            await world.another_table().learn({key(f"other-{world.rows.writes}"): "alice"})
            world.rows.meanwhile = meanwhile

        world.rows.meanwhile = meanwhile
        with pytest.raises(TransientError) as raised:
            await world.sink.publish([change("alice", "10")])
        assert raised.value.undone

    play(story)


@pytest.mark.parametrize("first", [{}, {"mail-1": "ann"}])
def test_a_user_whose_endpoint_appears_after_the_first_event_gets_the_score(play: Play, first: dict[str, str]):
    """Also where the first event named the endpoint already, which Pinpoint did not have yet."""

    async def story(world: World) -> None:
        await world.another_table().learn({key(endpoint): user for endpoint, user in first.items()})
        assert await world.sink.publish([change("ann", "1")]) == [NoTarget()]
        assert await world.sink.publish([change("ann", "1", 2)]) == [NoTarget()]
        world.add("ann", "mail-1")
        await world.another_table().learn({key("mail-1"): "ann"})  # another worker reads the event
        assert await world.sink.publish([change("ann", "2", 3)]) == [Published()]
        assert world.score("mail-1") == "2"

    play(story)


def test_that_a_user_has_no_endpoint_is_asked_for_once_while_no_event_names_one(play: Play):
    async def story(world: World) -> None:
        for revision in range(1, 6):
            world.now += CONFIRMED_FOR_S + 1
            assert await world.another_sink().publish([change("ann", "1", revision)]) == [NoTarget()]
        assert world.calls("GetUserEndpoints") == 1

    play(story)


def test_an_event_that_names_an_endpoint_while_pinpoint_says_there_is_none_is_not_lost(play: Play):
    async def story(world: World) -> None:
        async def meanwhile() -> None:
            world.add("ann", "mail-1")
            await world.another_table().learn({key("mail-1"): "ann"})

        world.rows.meanwhile = meanwhile
        assert await world.sink.publish([change("ann", "1")]) == [Published()]

    play(story)


def test_forgetting_has_pinpoint_asked_again(play: Play):
    async def story(world: World) -> None:
        await tab_is_alices(world)
        await world.sink.publish([change("ann", "1")])
        world.add("ann", "mail-1")
        await world.another_table().forget([UserKey("alice", APP), UserKey("ann", APP), UserKey("nobody", APP)])
        world.now += CONFIRMED_FOR_S + 0.1
        assert await world.sink.publish([change("alice", "20", 2), change("ann", "2", 2)]) == [Published()] * 2
        assert (world.owner("tab-1"), world.score("laptop-1"), world.score("mail-1")) == ("bob", "20", "2")

    play(story)


METRIC = PinpointOptions(metric="Score", updates_per_s=1000, lookups_per_s=10_000)


def test_the_metric_is_written_to_every_endpoint_and_follows_an_endpoint_to_its_new_user(play: Play):
    async def story(world: World) -> None:
        def metrics() -> dict[str, float | None]:
            return {each.id: (each.metrics or {}).get("Score") for each in world.fake.state.all_endpoints(APP)}

        for endpoint in ("mail", "phone", "tab"):
            world.add("alice", endpoint, status="INACTIVE" if endpoint == "phone" else "ACTIVE")
        world.add("bob", "old")
        assert await world.sink.publish([change("alice", "10"), change("bob", "3")]) == [Published()] * 2
        assert metrics() == {"mail": 10, "phone": 10, "tab": 10, "old": 3}
        statuses = {each.id: each.endpoint_status for each in world.fake.state.all_endpoints(APP)}
        assert statuses == {"mail": "ACTIVE", "phone": "INACTIVE", "tab": "ACTIVE", "old": "ACTIVE"}
        world.add("bob", "tab")
        await world.identities.learn({key("tab"): "bob"})
        assert await world.sink.publish([change("alice", "20", 2), change("bob", "4", 2)]) == [Published()] * 2
        assert metrics() == {"mail": 20, "phone": 20, "tab": 4, "old": 4}
        assert world.owner("tab") == "bob"

    play(story, METRIC)


def test_endpoints_beyond_a_hundred_go_out_in_several_calls(play: Play):
    async def story(world: World) -> None:
        users = [f"u{n}" for n in range(60)]
        for user in users:
            for n in range(4):
                world.add(user, f"{user}-{n}")
        assert await world.sink.publish([change(user, "7") for user in users]) == [Published()] * 60
        assert {(each.metrics or {}).get("Score") for each in world.fake.state.all_endpoints(APP)} == {7.0}
        assert world.calls("UpdateEndpointsBatch") == 3

    play(story, METRIC)


def test_without_a_metric_one_endpoint_is_written(play: Play):
    async def story(world: World) -> None:
        for endpoint in ("mail", "phone"):
            world.add("alice", endpoint)
        await world.sink.publish([change("alice", "10")])
        assert all(each.metrics is None for each in world.fake.state.all_endpoints(APP))
        (tally,) = (each for each in world.fake.stats()["requests"].values() if each)
        assert tally["pinpoint.UpdateEndpointsBatch"]["members"] == 1

    play(story)
