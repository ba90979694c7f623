"""Virtual time: an event loop whose clock jumps to the next timer, a clock on it, and a gate to the outside world."""

from __future__ import annotations

import asyncio
import functools
import random
import selectors
from collections.abc import Callable, Coroutine
from typing import Any, ParamSpec, TypeVar

from service.runtime.errors import TransientError

A = ParamSpec("A")
T = TypeVar("T")

EPOCH_MS = 1_700_000_000_000


class _JumpingSelector(selectors.SelectSelector):
    """Instead of waiting, moves the loop's time on."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None:
            raise RuntimeError("nothing will ever happen: every task waits for another")
        self.now += timeout
        return []


class VirtualLoop(asyncio.SelectorEventLoop):
    """A loop without I/O whose time jumps to the next timer: same program, same seed, same run.

    `looptime` does the same and I/O too, for many times the cost per step.
    """

    def __init__(self) -> None:
        self._jumping = _JumpingSelector()
        super().__init__(self._jumping)

    def time(self) -> float:
        return self._jumping.now


def run(coro: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine on a loop of its own in virtual time, from second 0 on."""
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(coro)


def in_virtual_time(test: Callable[A, Coroutine[Any, Any, None]]) -> Callable[A, None]:
    """Let pytest, and Hypothesis, call an async test: each call runs in virtual time, from second 0 on."""

    @functools.wraps(test)
    def call(*args: A.args, **kwargs: A.kwargs) -> None:
        run(test(*args, **kwargs))

    return call


class Gate:
    """What stands between one worker and the rest of the world: latency, pauses, faults; all its I/O passes here.

    Attributes:
        latency: Draws the seconds of one way.
        fail: Probability of a `TransientError` before the operation.
        lose: Probability of a `TransientError` after it: done, but the answer is lost.
        calls: Number of calls.
        faults: Number of errors raised.
    """

    def __init__(self, rng: random.Random | None = None, *, latency: Callable[[], float] = lambda: 0.001) -> None:
        self.rng = rng or random.Random(0)
        self.latency = latency
        self.fail = 0.0
        self.lose = 0.0
        self.calls = 0
        self.faults = 0
        self._running = asyncio.Event()
        self._running.set()

    def pause(self) -> None:
        """Stop the worker, as SIGSTOP does."""
        self._running.clear()

    def resume(self) -> None:
        self._running.set()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)
        await self._running.wait()

    async def call(self, operation: Callable[[], T]) -> T:
        """Do `operation`, which is atomic."""
        self.calls += 1
        await self.sleep(self.latency())
        if self.rng.random() < self.fail:
            self.faults += 1
            raise TransientError("injected: throttled", throttled=True)
        result = operation()
        await self.sleep(self.latency())
        if self.rng.random() < self.lose:
            self.faults += 1
            raise TransientError("injected: answer lost")
        return result


class VirtualClock:
    """A worker's clock: the loop's time; its wall clock may be wrong by `skew_ms`."""

    def __init__(self, gate: Gate | None = None, *, skew_ms: int = 0) -> None:
        self._gate = gate
        self.skew_ms = skew_ms

    def monotonic(self) -> float:
        return asyncio.get_running_loop().time()

    def wall_ms(self) -> int:
        return EPOCH_MS + self.skew_ms + round(self.monotonic() * 1000)

    async def sleep(self, seconds: float) -> None:
        await (self._gate.sleep(seconds) if self._gate else asyncio.sleep(seconds))
