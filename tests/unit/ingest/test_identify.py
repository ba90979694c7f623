import asyncio
from collections.abc import Awaitable, Callable

import pytest

from service.ingest.identify import IdentityResolver, IdentitySettings
from service.ingest.stores import EndpointKey
from service.observability.metrics import Metrics
from service.runtime.errors import TransientError
from tests.fakes.clock import ManualClock
from tests.fakes.identities import MemoryIdentities, MemoryLookup


def key(name: str) -> EndpointKey:
    return EndpointKey(name, "project")


def play(
    scenario: Callable[[IdentityResolver, MemoryIdentities, ManualClock], Awaitable[None]],
    lookup: MemoryLookup | None = None,
    table: MemoryIdentities | None = None,
    settings: IdentitySettings | None = None,
) -> Metrics:
    async def main() -> Metrics:
        metrics, clock, identities = Metrics(), ManualClock(), table or MemoryIdentities()
        resolver = IdentityResolver(identities, lookup, settings or IdentitySettings(), clock, metrics)
        await scenario(resolver, identities, clock)
        return metrics

    return asyncio.run(main())


def found_by(metrics: Metrics, source: str) -> float:
    return metrics.registry.get_sample_value("scoring_identities_total", {"source": source}) or 0


def asked(metrics: Metrics, outcome: str) -> float:
    return metrics.registry.get_sample_value("scoring_identity_lookups_total", {"outcome": outcome}) or 0


def test_what_was_learned_is_durable_and_answers_from_memory():
    async def scenario(resolver: IdentityResolver, table: MemoryIdentities, _: ManualClock) -> None:
        await resolver.learn({key("e"): "u"})
        assert table.users == {key("e"): "u"}
        assert await resolver.resolve([key("e")], [key("e")]) == {key("e"): "u"}
        await resolver.learn({key("e"): "u"})
        assert (table.learns, table.finds) == (1, 0)
        await resolver.learn({key("e"): "another"})
        assert await resolver.resolve([key("e")], []) == {key("e"): "another"}

    assert found_by(play(scenario), "cache") == 2


def test_what_another_worker_learned_since_is_believed_after_a_while():
    async def scenario(resolver: IdentityResolver, table: MemoryIdentities, clock: ManualClock) -> None:
        await resolver.learn({key("e"): "alice"})
        await table.learn({key("e"): "bob"})  # by another worker
        clock.now = 600.0
        assert await resolver.resolve([key("e")], []) == {key("e"): "alice"}
        clock.now = 600.5
        assert await resolver.resolve([key("e")], []) == {key("e"): "bob"}

    play(scenario)


def test_the_table_is_asked_once_and_the_fallback_only_about_the_rest_and_both_are_remembered():
    lookup = MemoryLookup({key("b"): "ub"})

    async def scenario(resolver: IdentityResolver, table: MemoryIdentities, _: ManualClock) -> None:
        keys = [key("a"), key("b"), key("c")]
        for _round in range(3):
            assert await resolver.resolve(keys, keys) == {key("a"): "ua", key("b"): "ub"}
        assert lookup.asked == [key("b"), key("c")]
        assert table.users[key("b")] == "ub"

    metrics = play(scenario, lookup, MemoryIdentities({key("a"): "ua"}))
    assert [found_by(metrics, source) for source in ("table", "lookup", "none")] == [1, 1, 3]
    assert [asked(metrics, outcome) for outcome in ("found", "unknown", "error")] == [1, 1, 0]


def test_an_unknown_endpoint_is_asked_about_again_after_a_while_and_believed_when_the_table_learns_it():
    lookup = MemoryLookup({})

    async def scenario(resolver: IdentityResolver, table: MemoryIdentities, clock: ManualClock) -> None:
        assert await resolver.resolve([key("x")], [key("x")]) == {}
        clock.now += 299
        assert await resolver.resolve([key("x")], [key("x")]) == {}
        assert len(lookup.asked) == 1
        clock.now += 2
        assert await resolver.resolve([key("x")], [key("x")]) == {}
        assert len(lookup.asked) == 2
        table.users[key("x")] = "known-by-another-worker"
        assert await resolver.resolve([key("x")], [key("x")]) == {key("x"): "known-by-another-worker"}

    play(scenario, lookup)


def test_an_endpoint_not_worth_it_is_not_asked_about():
    lookup = MemoryLookup({key("t"): "somebody"})

    async def scenario(resolver: IdentityResolver, _: MemoryIdentities, __: ManualClock) -> None:
        assert await resolver.resolve([key("t")], []) == {}

    play(scenario, lookup)
    assert lookup.asked == []


def test_a_failing_fallback_is_one_plain_error_and_the_answers_already_paid_for_are_kept():
    lookup = MemoryLookup({key("a"): "ua"}, fails={key("b")})

    async def scenario(resolver: IdentityResolver, table: MemoryIdentities, _: ManualClock) -> None:
        with pytest.raises(TransientError):
            await resolver.resolve([key("a"), key("b")], [key("a"), key("b")])
        assert table.users == {key("a"): "ua"}
        lookup.fails = frozenset()
        assert await resolver.resolve([key("a"), key("b")], [key("a"), key("b")]) == {key("a"): "ua"}
        assert lookup.asked.count(key("a")) == 1

    metrics = play(scenario, lookup)
    assert (asked(metrics, "found"), asked(metrics, "error")) == (1, 1)


def test_with_the_fallback_switched_off_strangers_stay_strangers():
    async def scenario(resolver: IdentityResolver, _: MemoryIdentities, __: ManualClock) -> None:
        assert await resolver.resolve([key("x")], [key("x")]) == {}

    assert found_by(play(scenario), "none") == 1
