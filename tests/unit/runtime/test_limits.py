import asyncio
from copy import deepcopy

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.runtime.adaptive_limit import AdaptiveLimit
from service.runtime.cache import SLOT_BYTES, RecentCache


def test_the_cache_forgets_what_was_not_used_for_long():
    cache: RecentCache[str, int] = RecentCache(4, lambda *_: 0)
    for number, name in enumerate("abcd"):
        cache.put(name, number)
        assert cache.get("a") == 0
    assert cache.get("d") == 3
    assert cache.get("b") is None
    cache.drop("a")
    cache.drop("never there")
    assert cache.get("a") is None
    cache.clear()
    assert (len(cache), cache.get("d")) == (0, None)


@given(st.integers(2, 9), st.lists(st.tuples(st.sampled_from(["put", "get", "drop"]), st.integers(0, 12))))
def test_the_cache_is_bounded_and_keeps_the_half_used_last(limit: int, steps: list[tuple[str, int]]):
    cache: RecentCache[int, int] = RecentCache(limit, lambda *_: 0)
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


def test_large_entries_take_the_room_of_many():
    cache: RecentCache[str, str] = RecentCache(8, lambda _, text: len(text) - SLOT_BYTES, 10)
    for name in "abcd":
        cache.put(name, "0123456789")
    assert [name for name in "abcd" if cache.get(name)] == list("abcd")
    cache.put("e", "0" * 25)
    cache.put("f", "0" * 25)
    assert [name for name in "abcdef" if cache.get(name)] == ["e", "f"]


@given(st.lists(st.tuples(st.sampled_from(["put", "get", "drop"]), st.integers(0, 12), st.integers(1, 60))))
def test_the_cache_is_bounded_in_bytes(steps: list[tuple[str, int, int]]):
    cache: RecentCache[int, int] = RecentCache(10, lambda _, size: size - SLOT_BYTES, 10)
    sizes: dict[int, int] = {}
    for step, key, size in steps:
        match step:
            case "put":
                sizes.setdefault(key, size)  # a value never changes its size here
                cache.put(key, sizes[key])
            case "get":
                assert cache.get(key) in {None, sizes.get(key)}
            case _:
                cache.drop(key)
        kept = [size for key, size in sizes.items() if deepcopy(cache).get(key)]
        assert sum(kept) <= 2 * max([50, *kept])


def test_a_cache_of_nothing_is_a_mistake():
    with pytest.raises(ValueError, match="at least 2"):
        RecentCache(1, lambda *_: 0)


def test_success_raises_the_limit_and_throttling_halves_it_once_a_round():
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
