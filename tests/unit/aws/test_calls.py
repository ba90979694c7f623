"""Many calls at once: what becomes of a cancellation that meets a failure."""

from __future__ import annotations

import asyncio

import pytest

from service.aws.calls import each
from service.runtime.errors import TransientError
from tests.fakes.aio import in_virtual_time


@pytest.mark.parametrize("rounds", range(8))
@in_virtual_time
async def test_a_cancellation_during_a_failure_is_not_lost(rounds: int):
    failing = asyncio.Event()

    async def work(part: int) -> None:
        if part:
            await asyncio.sleep(1000)
        await failing.wait()
        raise TransientError("throttled")

    task = asyncio.create_task(each(work, [0, 1]))
    await asyncio.sleep(1)
    failing.set()
    for _ in range(rounds):
        await asyncio.sleep(0)
    cancelled = task.cancel()
    await asyncio.wait([task])
    assert task.cancelled() or not cancelled
