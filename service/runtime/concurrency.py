"""Many calls, a few at a time; and one call over and over."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Sequence
from typing import Any, TypeVar

import structlog

from service.runtime.backoff import Backoff
from service.runtime.clock import Clock
from service.runtime.errors import TransientError

T = TypeVar("T")

log = structlog.get_logger()


async def together(works: Iterable[Coroutine[Any, Any, None]]) -> None:
    """Do several things at once; the first failure ends the others, and is raised as it is rather than in a group.

    A cancellation always ends it. `gather`, and a `TaskGroup` before CPython 3.13
    (https://docs.python.org/3/library/asyncio-task.html#task-groups), lose one that comes while a failure is ending the
    others; a caller that tries again after the failure would never end.
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
    """Wait until the first of several has ended; the others are cancelled. A failure is raised."""
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


async def for_each(items: Sequence[T], call: Callable[[T], Awaitable[None]], limit: int) -> None:
    """Call for every item, `limit` at once, started in order.

    Raises:
        TransientError: The first one met, after all other calls were made.
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
    """Repeat `step`, which does its own waiting, until cancelled; after a `TransientError` back off first."""
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
