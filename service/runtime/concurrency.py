"""Bounded concurrency, and loops that survive failures."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Sequence
from types import TracebackType
from typing import Any, Self, TypeVar

import structlog

from service.runtime.backoff import Backoff
from service.runtime.clock import Clock
from service.runtime.errors import TransientError

T = TypeVar("T")

log = structlog.get_logger()


async def together(works: Iterable[Coroutine[Any, Any, None]]) -> None:
    """Run several awaitables at once; the first failure cancels the others and is raised, not in a group.

    A cancellation always ends it. `gather`, and a `TaskGroup` before CPython 3.13
    (https://docs.python.org/3/library/asyncio-task.html#task-groups), lose a cancellation that arrives while a failure
    is ending the others; a caller that retries after the failure would then never end.
    """
    tasks = [asyncio.create_task(work) for work in works]
    if not tasks:
        return
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
    errors = [error for task in tasks if not task.cancelled() and (error := task.exception())]
    if errors:
        raise next((error for error in errors if not isinstance(error, TransientError)), errors[0])


async def first_of(*waits: Coroutine[Any, Any, Any]) -> None:
    """Wait until the first of several ends; cancel the others. A failure is raised."""
    tasks = [asyncio.create_task(wait) for wait in waits]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
    for task in done:
        task.result()


async def set_within(event: asyncio.Event, seconds: float) -> bool:
    """Return whether `event` was set within `seconds`; infinity waits until it is."""
    try:
        async with asyncio.timeout(None if seconds == float("inf") else seconds):
            await event.wait()
    except TimeoutError:
        return False
    return True


class Interruptible:
    """A block of work that another task may end early.

    `async with Interruptible() as work:` raises `TimeoutError` at its end if `work.interrupt()` was called while the
    block ran. The block sees a cancellation at its next `await`. An interruption of a block that has ended is a
    `RuntimeError`: keep the object only as long as the block.
    """

    def __init__(self) -> None:
        # A timeout tells its own cancellation from one that comes from outside; without a deadline it never fires
        # by itself (https://docs.python.org/3/library/asyncio-task.html#asyncio.Timeout.reschedule).
        self._timeout = asyncio.timeout(None)

    async def __aenter__(self) -> Self:
        """Begin the block."""
        await self._timeout.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End the block."""
        await self._timeout.__aexit__(kind, error, trace)

    def interrupt(self) -> None:
        """End the block early."""
        self._timeout.reschedule(asyncio.get_running_loop().time())


async def for_each(items: Sequence[T], call: Callable[[T], Awaitable[None]], limit: int) -> None:
    """Call for every item, `limit` at a time, started in order.

    Raises:
        TransientError: The first one, raised after all other calls were made.
        ExceptionGroup: Any other error, which cancels the rest.
    """
    left = iter(items)
    failed: list[TransientError] = []

    async def lane() -> None:
        for item in left:
            try:
                await call(item)
            except TransientError as error:
                failed.append(error)

    async with asyncio.TaskGroup() as group:
        for _ in range(min(limit, len(items))):
            group.create_task(lane())
    if failed:
        raise failed[0]


async def keep_on(what: str, step: Callable[[], Awaitable[None]], clock: Clock, backoff: Backoff) -> None:
    """Repeat `step`, which does its own waiting, until cancelled; back off after a `TransientError`."""
    while True:
        try:
            await step()
        except TransientError as error:
            log.warning("loop.failed", what=what, failures=backoff.failures + 1, error=str(error))
            await clock.sleep(backoff.failed())
        else:
            if backoff.failures:
                log.info("loop.recovered", what=what, failures=backoff.failures)
            backoff.succeeded()
