"""Ctrl-C and SIGTERM in a command that must finish its current call: the first asks it to stop, the second ends it."""

from __future__ import annotations

import logging
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import Any, Self

from service.cli.output import note

CAUGHT = (signal.SIGINT, signal.SIGTERM)


class Interrupt:
    """A context manager: the first signal sets `asked`, the second raises `KeyboardInterrupt`.

    Attributes:
        asked: Whether a signal came. The command then starts nothing new, finishes what is in flight, and reports.
    """

    def __init__(self, what: str) -> None:
        """Install the signal handlers; only in the main thread.

        Args:
            what: What is finished first, for messages: `the call in flight`.
        """
        self._what = what
        self._idle = False
        self._before: dict[signal.Signals, Any] = {}
        self.asked = False

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            self._before = {each: signal.signal(each, self._caught) for each in CAUGHT}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for each, handler in self._before.items():
            signal.signal(each, handler)

    @contextmanager
    def idle(self) -> Iterator[None]:
        """While inside, nothing is in flight: a signal raises `KeyboardInterrupt` at once."""
        self._idle = True
        try:
            yield
        finally:
            self._idle = False

    def _caught(self, _signal: int, _frame: FrameType | None) -> None:
        if self.asked or self._idle:
            self.asked = True
            # Where the signal hits a task in the middle of a step, asyncio logs the exception as never retrieved.
            logging.getLogger("asyncio").disabled = True
            raise KeyboardInterrupt
        self.asked = True
        note(f"stopping after {self._what}; press Ctrl-C again to end at once")
