"""Work that another task ends early, and waits with a limit."""

import asyncio

import pytest

from service.runtime.concurrency import Interruptible, set_within
from tests.fakes.aio import in_virtual_time


@in_virtual_time
async def test_an_interrupted_block_ends_with_a_timeout_and_its_task_goes_on():
    blocks: list[Interruptible] = []

    async def work() -> str:
        try:
            async with Interruptible() as block:
                blocks.append(block)
                await asyncio.sleep(3600)
        except TimeoutError:
            await asyncio.sleep(0)
            return "interrupted"
        return "finished"

    task = asyncio.create_task(work())
    await asyncio.sleep(1)
    blocks[0].interrupt()
    assert await task == "interrupted"


@in_virtual_time
async def test_a_cancellation_from_outside_is_not_taken_for_an_interruption():
    async def work() -> None:
        async with Interruptible():
            await asyncio.sleep(3600)

    task = asyncio.create_task(work())
    await asyncio.sleep(1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


@in_virtual_time
async def test_a_block_that_is_not_interrupted_has_no_time_limit():
    async with Interruptible():
        await asyncio.sleep(1e6)


@in_virtual_time
async def test_a_block_that_has_ended_cannot_be_interrupted():
    async with Interruptible() as block:
        pass
    with pytest.raises(RuntimeError):
        block.interrupt()


@in_virtual_time
async def test_an_event_is_waited_for_so_long_and_no_longer():
    loop, event = asyncio.get_running_loop(), asyncio.Event()
    began = loop.time()
    assert not await set_within(event, 2.5)
    assert loop.time() - began == pytest.approx(2.5)
    loop.call_later(1e6, event.set)
    assert await set_within(event, float("inf"))
