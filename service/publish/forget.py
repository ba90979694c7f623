"""Before scores are published again: have sinks look up again where they go."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator

from service.ingest.stores import EndpointDirectory
from service.runtime.clock import Clock
from service.scoring.fold import UserKey

CHUNK = 100
"""Users forgotten together: one call that reads, up to four that write."""


async def forgotten(
    keys: AsyncIterator[UserKey], directory: EndpointDirectory, clock: Clock, *, wait_s: float, per_s: float
) -> AsyncIterator[UserKey]:
    """Yield `keys` in their order, each `wait_s` seconds after the directory has forgotten where that score goes.

    Args:
        keys: Different users.
        directory: What sinks remember.
        clock: Time.
        wait_s: How long a worker may go on using what it has read before.
        per_s: How many a second the caller takes. At most `per_s * wait_s` are forgotten ahead.

    Raises:
        TransientError: From `keys`, or from the directory. What was yielded is forgotten.
    """
    waiting: deque[tuple[float, list[UserKey]]] = deque()
    ahead = max(1, round(per_s * wait_s / CHUNK))
    async for chunk in _chunks(keys):
        await directory.forget(chunk)
        waiting.append((clock.monotonic() + wait_s, chunk))
        if len(waiting) > ahead:
            for key in await _due(waiting, clock):
                yield key
    while waiting:
        for key in await _due(waiting, clock):
            yield key


async def _due(waiting: deque[tuple[float, list[UserKey]]], clock: Clock) -> list[UserKey]:
    at, chunk = waiting.popleft()
    left = at - clock.monotonic()
    await (clock.sleep(left) if left > 0 else asyncio.sleep(0))
    return chunk


async def _chunks(keys: AsyncIterator[UserKey]) -> AsyncIterator[list[UserKey]]:
    chunk: list[UserKey] = []
    async for key in keys:
        chunk.append(key)
        if len(chunk) == CHUNK:
            yield chunk
            chunk = []
    if chunk:
        yield chunk
