import asyncio
from collections.abc import Awaitable, Callable, Mapping

import pytest

from service.ingest.identify import Answers, IdentityResolver, IdentitySettings
from service.ingest.ownership import NOBODY, Ownership, Position
from service.ingest.stores import AliasKey
from service.observability.metrics import Metrics
from service.runtime.errors import TransientError
from tests.fakes.aio import VirtualClock, run
from tests.fakes.former import MemoryFormer
from tests.fakes.identities import MemoryIdentities, MemoryLookup

Scenario = Callable[[IdentityResolver, MemoryIdentities, VirtualClock], Awaitable[None]]


class Unwritable(MemoryIdentities):
    async def learn(self, users: object) -> None:  # noqa: ARG002 - nothing is written
        raise TransientError("throttled")


def key(name: str) -> AliasKey:
    return AliasKey(name, "project")


def keys(*names: str) -> list[AliasKey]:
    return [key(name) for name in names]


def play(
    scenario: Scenario,
    lookup: MemoryLookup | None = None,
    table: MemoryIdentities | None = None,
    former: MemoryFormer | None = None,
    settings: IdentitySettings | None = None,
) -> Metrics:
    async def main() -> Metrics:
        metrics, clock, identities = Metrics(), VirtualClock(), table or MemoryIdentities()
        resolver = IdentityResolver(
            identities, former or MemoryFormer(), lookup, settings or IdentitySettings(), clock, metrics
        )
        await scenario(resolver, identities, clock)
        return metrics

    return run(main())


def found_by(metrics: Metrics, source: str) -> float:
    return metrics.registry.get_sample_value("scoring_identities_total", {"source": source}) or 0


def asked(metrics: Metrics, outcome: str) -> float:
    return metrics.registry.get_sample_value("scoring_identity_lookups_total", {"outcome": outcome}) or 0


def test_what_was_learned_is_durable_and_answers_from_memory():
    async def scenario(resolver: IdentityResolver, table: MemoryIdentities, _: VirtualClock) -> None:
        await resolver.learn({key("e"): Ownership("u")})
        assert table.users == {key("e"): "u"}
        assert await resolver.owners(keys("e"), keys("e")) == {key("e"): Ownership("u")}
        await resolver.learn({key("e"): Ownership("u")})
        assert (table.learns, table.finds) == (1, 0)
        await resolver.learn({key("e"): Ownership("another")})
        assert await resolver.owners(keys("e"), keys("e")) == {key("e"): Ownership("another")}

    assert found_by(play(scenario), "cache") == 2


def test_an_endpoint_that_is_known_to_have_no_user_is_known():
    async def scenario(resolver: IdentityResolver, table: MemoryIdentities, _: VirtualClock) -> None:
        assert await resolver.owners(keys("e"), keys("e")) == {key("e"): Ownership(NOBODY)}
        await resolver.learn({key("f"): Ownership(NOBODY)})
        assert table.users[key("f")] == NOBODY

    play(scenario, table=MemoryIdentities({key("e"): NOBODY}))


def test_a_change_of_hands_is_durable_with_the_user_before():
    changed = Ownership("alice").named("bob", Position("s", "7", 1))

    former = MemoryFormer()

    async def scenario(resolver: IdentityResolver, table: MemoryIdentities, clock: VirtualClock) -> None:
        await resolver.learn({key("e"): changed})
        another = IdentityResolver(table, former, None, IdentitySettings(), clock, Metrics())
        assert await another.owners(keys("e"), keys("e")) == {key("e"): changed}

    play(scenario, former=former)


def test_the_former_user_is_written_before_the_new_one():
    """A crash between the two must leave the new user unknown, not the owner of what came before."""
    changed = Ownership("alice").named("bob", Position("s", "7", 1))
    former = MemoryFormer()

    async def scenario(resolver: IdentityResolver, table: MemoryIdentities, _: VirtualClock) -> None:
        with pytest.raises(TransientError):
            await resolver.learn({key("e"): changed})
        assert table.users == {key("e"): "alice"}
        assert former.users == {key("e"): changed.former}

    play(scenario, table=Unwritable({key("e"): "alice"}), former=former)


def test_what_another_worker_learned_since_is_believed_after_a_while():
    async def scenario(resolver: IdentityResolver, table: MemoryIdentities, clock: VirtualClock) -> None:
        await resolver.learn({key("e"): Ownership("alice")})
        await table.learn({key("e"): "bob"})  # by another worker
        await clock.sleep(600.0)
        assert await resolver.owners(keys("e"), keys("e")) == {key("e"): Ownership("alice")}
        await clock.sleep(0.5)
        assert await resolver.owners(keys("e"), keys("e")) == {key("e"): Ownership("bob")}

    play(scenario)


def test_what_was_only_read_is_written_once_so_that_it_does_not_expire():
    async def scenario(resolver: IdentityResolver, table: MemoryIdentities, clock: VirtualClock) -> None:
        for _ in range(3):
            owners = await resolver.owners(keys("e"), keys("e"))
            await resolver.learn(owners)
            assert table.learns == 1
            await clock.sleep(601)  # and is read again

    play(scenario, table=MemoryIdentities({key("e"): "alice"}))


def test_the_table_is_read_once_and_only_about_endpoints_that_are_sought():
    async def scenario(resolver: IdentityResolver, table: MemoryIdentities, _: VirtualClock) -> None:
        for _round in range(3):
            found = await resolver.owners(keys("a", "b", "c"), keys("a", "c"))
            assert found == {key("a"): Ownership("ua")}
        assert table.finds == 3  # about `c`
        assert await resolver.owners(keys("b"), []) == {}
        assert table.finds == 3

    metrics = play(scenario, table=MemoryIdentities({key("a"): "ua", key("b"): "ub"}))
    assert (found_by(metrics, "table"), found_by(metrics, "cache")) == (1, 2)


def test_the_fallback_is_asked_once_and_its_answers_are_remembered():
    lookup = MemoryLookup({key("b"): "ub"})

    async def scenario(resolver: IdentityResolver, table: MemoryIdentities, _: VirtualClock) -> None:
        assert await resolver.ask(keys("b", "c")) == Answers({key("b"): "ub"}, frozenset())
        assert await resolver.owners(keys("b", "c"), keys("b", "c")) == {key("b"): Ownership("ub")}
        assert await resolver.ask(keys("c")) == Answers({}, frozenset())
        assert lookup.asked == keys("b", "c")
        assert table.users == {key("b"): "ub"}

    metrics = play(scenario, lookup)
    assert found_by(metrics, "lookup") == 1
    assert [asked(metrics, outcome) for outcome in ("found", "unknown", "error", "overdue")] == [1, 1, 0, 0]


def test_an_unknown_endpoint_is_asked_about_again_after_a_while():
    lookup = MemoryLookup({})

    async def scenario(resolver: IdentityResolver, table: MemoryIdentities, clock: VirtualClock) -> None:
        for seconds, asked_then in ((0, 1), (299, 1), (2, 2)):
            await clock.sleep(seconds)
            assert await resolver.ask(keys("x")) == Answers({}, frozenset())
            assert len(lookup.asked) == asked_then
        table.users[key("x")] = "known-by-another-worker"
        assert await resolver.owners(keys("x"), keys("x")) == {key("x"): Ownership("known-by-another-worker")}

    play(scenario, lookup)


def test_an_endpoint_without_a_user_is_not_one_that_does_not_exist():
    lookup = MemoryLookup({key("nobodys"): NOBODY})

    async def scenario(resolver: IdentityResolver, table: MemoryIdentities, _: VirtualClock) -> None:
        for _round in range(2):
            assert await resolver.ask(keys("nobodys", "absent")) == Answers({key("nobodys"): NOBODY}, frozenset())
        assert lookup.asked == keys("nobodys", "absent")
        assert table.users == {}  # it may have one at any time

    metrics = play(scenario, lookup)
    assert [asked(metrics, outcome) for outcome in ("nobody", "unknown")] == [1, 1]


def test_a_look_up_that_fails_is_tried_again():
    lookup = MemoryLookup({key("a"): "ua"}, fails={key("a")})

    async def scenario(resolver: IdentityResolver, _: MemoryIdentities, clock: VirtualClock) -> None:
        async def recover() -> None:
            await clock.sleep(1.2)
            lookup.fails.clear()

        async with asyncio.TaskGroup() as group:
            group.create_task(recover())
            asking = group.create_task(resolver.ask(keys("a")))
        assert asking.result() == Answers({key("a"): "ua"}, frozenset())
        assert clock.monotonic() < 2

    assert asked(play(scenario, lookup), "error") == 3


def test_the_wait_for_look_ups_is_bounded_and_answers_are_kept():
    """A shard stood still at ten records a second, and for as long as Pinpoint did not answer."""
    lookup = MemoryLookup({key("a"): "ua", key("b"): "ub"}, fails={key("b"), key("c")})

    async def scenario(resolver: IdentityResolver, table: MemoryIdentities, clock: VirtualClock) -> None:
        assert await resolver.ask(keys("a", "b", "c")) == Answers({key("a"): "ua"}, frozenset(keys("b", "c")))
        assert clock.monotonic() == 5.0
        assert table.users == {key("a"): "ua"}
        lookup.fails.clear()
        assert await resolver.ask(keys("b", "c")) == Answers({key("b"): "ub"}, frozenset())

    metrics = play(scenario, lookup)
    assert [asked(metrics, outcome) for outcome in ("found", "unknown", "overdue")] == [2, 1, 2]


def test_an_answer_of_the_fallback_is_written_down_before_it_counts():
    """Read again while the fallback is silent, its event would be set aside although it is in the score."""
    lookup = MemoryLookup({key("a"): "ua"})

    class UnwritableAtFirst(MemoryIdentities):
        refused = 5

        async def learn(self, users: Mapping[AliasKey, str]) -> None:
            if self.refused:
                self.refused -= 1
                raise TransientError("throttled")
            await super().learn(users)

    async def scenario(resolver: IdentityResolver, table: MemoryIdentities, _: VirtualClock) -> None:
        assert await resolver.ask(keys("a")) == Answers({key("a"): "ua"}, frozenset())
        assert table.users == {key("a"): "ua"}
        assert lookup.asked == keys("a")

    play(scenario, lookup, UnwritableAtFirst())


def test_without_the_fallback_nothing_is_asked_and_nothing_overdue():
    async def scenario(resolver: IdentityResolver, _: MemoryIdentities, __: VirtualClock) -> None:
        assert await resolver.ask(keys("x")) == Answers({}, ())

    play(scenario)
