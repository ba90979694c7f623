"""Small requests of a moment in one call: who goes with whom, who waits, and what a cancellation takes back."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping

import pytest

from service.aws.fast.gather import Gatherer
from service.runtime.errors import TransientError
from tests.fakes.aio import run

WINDOW, LATENCY, LIMIT = 0.004, 0.010, 5


class Service:
    """Answers each part with its own text, after a while; keeps the calls made and those cut off."""

    def __init__(self) -> None:
        self.calls: list[tuple[float, str]] = []
        self.cut_off = 0
        self.error: Exception | None = None

    async def call(self, parts: Mapping[str, int]) -> Mapping[str, str]:
        self.calls.append((round(asyncio.get_running_loop().time(), 3), "".join(parts)))
        try:
            await asyncio.sleep(LATENCY)
        except asyncio.CancelledError:
            self.cut_off += 1
            raise
        if self.error:
            raise self.error
        return {key: f"{key}{number}" for key, number in parts.items()}


Ask = Callable[[str], "asyncio.Task[Mapping[str, str]]"]


def play(script: Callable[[Ask, Service], object]) -> Service:
    """Run a script that asks for letters; return what was called."""
    service = Service()

    async def main() -> None:
        gatherer: Gatherer[str, int, Mapping[str, str]] = Gatherer(service.call, LIMIT, WINDOW)
        await script(lambda keys: asyncio.create_task(gatherer.ask(dict.fromkeys(keys, 1))), service)
        assert {task.get_name() for task in asyncio.all_tasks()} & {"gathered call"} == set()

    run(main())
    return service


def test_requests_of_a_moment_go_out_together_and_each_gets_its_answer():
    async def script(ask: Ask, _: Service) -> None:
        one, two = ask("ab"), ask("c")
        await asyncio.sleep(WINDOW / 2)
        three = ask("d")
        for task, keys in ((one, "ab"), (two, "c"), (three, "d")):
            answer = await task
            assert [answer[key] for key in keys] == [f"{key}1" for key in keys]

    assert play(script).calls == [(WINDOW, "abcd")]


def test_a_full_call_waits_for_nobody():
    async def script(ask: Ask, _: Service) -> None:
        await asyncio.gather(ask("abcde"), ask("fg"), ask("hij"))

    assert play(script).calls == [(0.0, "abcde"), (0.0, "fghij")]


def test_what_does_not_fit_sends_the_call_that_waits_and_begins_another():
    async def script(ask: Ask, _: Service) -> None:
        await asyncio.gather(ask("abc"), ask("def"))

    assert play(script).calls == [(0.0, "abc"), (WINDOW, "def")]


def test_two_requests_for_one_key_go_one_after_the_other():
    async def script(ask: Ask, _: Service) -> None:
        await asyncio.gather(ask("ab"), ask("bc"))

    assert play(script).calls == [(0.0, "ab"), (WINDOW, "bc")]


def test_who_is_cancelled_before_the_call_takes_their_parts_out():
    async def script(ask: Ask, _: Service) -> None:
        one, two = ask("ab"), ask("c")
        await asyncio.sleep(WINDOW / 2)
        one.cancel()
        assert await two == {"c": "c1"}
        assert one.cancelled()

    assert play(script).calls == [(WINDOW, "c")]


def test_a_call_that_nobody_waits_for_is_not_made():
    async def script(ask: Ask, _: Service) -> None:
        one = ask("ab")
        await asyncio.sleep(WINDOW / 2)
        one.cancel()
        await asyncio.sleep(WINDOW)
        assert await ask("a") == {"a": "a1"}

    assert play(script).calls == [(pytest.approx(WINDOW * 2.5, abs=0.001), "a")]


def test_a_call_goes_on_until_its_last_caller_gives_up():
    async def script(ask: Ask, service: Service) -> None:
        one, two = ask("a"), ask("b")
        await asyncio.sleep(WINDOW * 2)
        one.cancel()
        assert (await two)["b"] == "b1"
        assert service.cut_off == 0
        three, four = ask("c"), ask("d")
        await asyncio.sleep(WINDOW * 2)
        three.cancel()
        four.cancel()
        await asyncio.wait([three, four])
        await asyncio.sleep(0)

    service = play(script)
    assert [keys for _, keys in service.calls] == ["ab", "cd"]
    assert service.cut_off == 1


def test_a_failure_is_each_ones():
    async def script(ask: Ask, service: Service) -> None:
        service.error = TransientError("busy")
        answers = await asyncio.gather(ask("a"), ask("b"), return_exceptions=True)
        assert answers == [service.error] * 2

    assert len(play(script).calls) == 1
