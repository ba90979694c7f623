"""Combines small requests that different callers make within a few milliseconds into one call.

With few events, every shard's batch has a handful of users, and each would be a call of its own, although DynamoDB
accepts a hundred per call. Quiet shards are read at the same time, so their requests come together. A request
smaller than a call waits a few milliseconds for others; one that fills a call does not wait.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Generic, TypeVar

from service.runtime.concurrency import set_within

WINDOW_S = 0.004
"""Seconds that the first of a call's requests waits for others: about what DynamoDB takes for an answer."""

K = TypeVar("K")
V = TypeVar("V")
R = TypeVar("R")


class _Call(Generic[K, V, R]):
    """A call to be made, or under way.

    Attributes:
        parts: What it asks for.
        waiting: How many callers wait for its answer.
        due: Set when it shall wait for no more.
        task: Makes it.
    """

    def __init__(self) -> None:
        self.parts: dict[K, V] = {}
        self.waiting = 0
        self.due = asyncio.Event()
        self.task: asyncio.Task[R]


class Gatherer(Generic[K, V, R]):
    """Makes calls for any number of callers.

    A call belongs to those who wait for it: it ends when the last of them is cancelled, and its failure is each one's.
    Who is cancelled before it went out takes their parts out of it. Two requests for one key are never in one call.

    Args:
        call: Asks for up to `limit` parts; answers for all of them.
        limit: Most parts of a call.
        window_s: Seconds that a request waits for others.
    """

    def __init__(self, call: Callable[[Mapping[K, V]], Awaitable[R]], limit: int, window_s: float = WINDOW_S) -> None:
        self._call = call
        self._limit = limit
        self._window_s = window_s
        self._open: _Call[K, V, R] | None = None

    async def ask(self, parts: Mapping[K, V]) -> R:
        """Return the answer of the call that `parts`, at least one and at most `limit`, went out with."""
        if len(parts) >= self._limit:
            return await self._call(parts)
        call = self._join(parts)
        try:
            return await asyncio.shield(call.task)
        except asyncio.CancelledError:
            self._leave(call, parts)
            raise

    def _join(self, parts: Mapping[K, V]) -> _Call[K, V, R]:
        call = self._open
        if call is not None and (
            len(call.parts) + len(parts) > self._limit or not call.parts.keys().isdisjoint(parts.keys())
        ):
            self._close(call)
            call = None
        if call is None:
            call = self._open = _Call()
            call.task = asyncio.create_task(self._make(call), name="gathered call")
        call.parts.update(parts)
        call.waiting += 1
        if len(call.parts) == self._limit:
            self._close(call)
        return call

    def _leave(self, call: _Call[K, V, R], parts: Mapping[K, V]) -> None:
        call.waiting -= 1
        if call is self._open:
            for key in parts:
                del call.parts[key]
        if not call.waiting:
            self._close(call)
            call.task.cancel()

    def _close(self, call: _Call[K, V, R]) -> None:
        call.due.set()
        if call is self._open:
            self._open = None

    async def _make(self, call: _Call[K, V, R]) -> R:
        if not await set_within(call.due, self._window_s):
            self._close(call)
        return await self._call(call.parts)
