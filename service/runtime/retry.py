"""Retrying until success, for calls that must not be given up; ends with the cancellation of the caller."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable
from typing import TypeVar

from service.runtime.backoff import Backoff
from service.runtime.clock import Clock
from service.runtime.errors import TransientError

T = TypeVar("T")

RETRY_CAP_S = 20.0
"""Longest wait between two attempts, seconds. There is no limit of attempts: the checkpoint has to wait for success."""


async def retried(call: Callable[[], Awaitable[T]], clock: Clock, rng: random.Random) -> T:
    """Return what `call` returns, calling it again after every `TransientError`."""
    backoff = Backoff(rng, last=RETRY_CAP_S)
    while True:
        try:
            return await call()
        except TransientError:
            await clock.sleep(backoff.failed())
