"""Runs one worker until a signal arrives; called by `scoring run`."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncIterator, Callable

import structlog

from service.app.worker import Worker
from service.config.settings import Settings
from service.observability.logs import Stream
from service.observability.metrics import Metrics

log = structlog.get_logger()

FORCED_EXIT = 1
"""Exit code after a second signal, and after a drain that took too long."""


def _nothing() -> None:
    """Write nothing: there are no pending lines."""


async def serve(
    settings: Settings,
    lines: Stream | None = None,
    metrics: Metrics | None = None,
    write_out: Callable[[], None] = _nothing,
) -> int:
    """Run a worker until SIGTERM or SIGINT; return the exit code. A second signal exits at once.

    Args:
        settings: All settings.
        lines: Where the lines that CloudWatch turns into metrics go; standard output unless given.
        metrics: The catalogue; a new one unless given.
        write_out: Called before an immediate exit; writes pending log lines within a moment.
    """
    worker = Worker(settings, metrics, lines)
    async with _signals(worker.stop, write_out):
        drained = await worker.run()
    return 0 if drained else FORCED_EXIT


@contextlib.asynccontextmanager
async def _signals(stop: Callable[[], None], write_out: Callable[[], None]) -> AsyncIterator[None]:
    loop = asyncio.get_running_loop()
    signalled = False

    def on_signal(name: str) -> None:
        nonlocal signalled
        if signalled:
            log.error("worker.killed", why=f"a second signal, {name}")
            write_out()
            os._exit(FORCED_EXIT)
        signalled = True
        log.info("worker.signal_received", signal=name)
        stop()

    caught = (signal.SIGTERM, signal.SIGINT)
    for each in caught:
        loop.add_signal_handler(each, on_signal, each.name)
    try:
        yield
    finally:
        for each in caught:
            loop.remove_signal_handler(each)
