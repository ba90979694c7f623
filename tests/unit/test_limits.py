import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.pipelines.cache import RecentCache
from service.pipelines.concurrency import AdaptiveLimit


def test_the_cache_forgets_what_was_not_used_for_long():
    cache: RecentCache[str, int] = RecentCache(4)
    for number, name in enumerate("abcd"):
        cache.put(name, number)
        assert cache.get("a") == 0
    assert cache.get("d") == 3
    assert cache.get("b") is None
    cache.drop("a")
    cache.drop("never there")
    assert cache.get("a") is None


@given(st.integers(2, 9), st.lists(st.tuples(st.sampled_from(["put", "get", "drop"]), st.integers(0, 12))))
def test_the_cache_is_bounded_and_keeps_the_half_used_last(limit: int, steps: list[tuple[str, int]]):
    cache: RecentCache[int, int] = RecentCache(limit)
    truth: dict[int, int] = {}  # in the order of use
    for value, (step, key) in enumerate(steps):
        match step:
            case "put":
                cache.put(key, value)
                truth.pop(key, None)
                truth[key] = value
            case "get":
                recent = list(truth)[-(limit // 2) :]
                found = cache.get(key)
                assert found == truth[key] if key in recent else found in {None, truth.get(key)}
                if found is None:
                    truth.pop(key, None)
                else:
                    truth[key] = truth.pop(key)
            case _:
                cache.drop(key)
                truth.pop(key, None)
        assert len(cache) <= limit


def test_a_cache_of_nothing_is_a_mistake():
    with pytest.raises(ValueError, match="at least 2"):
        RecentCache(1)


def test_success_raises_the_limit_by_one_a_round_and_throttling_halves_it_once_a_round():
    limit = AdaptiveLimit(initial=4, maximum=8)
    for _ in range(5):
        limit.succeeded()
    assert limit.allowed == 5
    limit.throttled()
    assert limit.allowed == 2
    limit.throttled()  # the same round of calls in flight
    assert limit.allowed == 2
    for _ in range(100):
        limit.succeeded()
    assert limit.allowed == 8
    for _ in range(10):
        limit.throttled()
        for _ in range(limit.allowed):
            limit.succeeded()
    assert limit.allowed >= 1


def test_no_more_calls_run_at_once_than_allowed_and_all_run():
    async def main() -> int:
        limit = AdaptiveLimit(initial=3, maximum=3)
        running = most = done = 0

        async def call() -> None:
            nonlocal running, most, done
            async with limit:
                running += 1
                most = max(most, running)
                await asyncio.sleep(0)
                running -= 1
                done += 1

        async with asyncio.TaskGroup() as tasks:
            for _ in range(20):
                tasks.create_task(call())
        assert done == 20
        return most

    assert asyncio.run(main()) == 3


def test_a_cancelled_waiter_does_not_take_its_turn_with_it():
    async def main() -> None:
        limit = AdaptiveLimit(initial=1, maximum=1)
        release = asyncio.Event()
        order: list[str] = []

        async def call(name: str, *, wait: bool) -> None:
            async with limit:
                order.append(name)
                if wait:
                    await release.wait()

        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(call("first", wait=True))
            await asyncio.sleep(0)
            second = tasks.create_task(call("second", wait=False))
            tasks.create_task(call("third", wait=False))
            await asyncio.sleep(0)
            release.set()
            await asyncio.sleep(0)  # the first frees its slot; the second is woken, and cancelled before it runs
            second.cancel()
        assert order[0] == "first"
        assert order[-1] == "third"

    asyncio.run(main())
