"""Limits repeated warnings, as in an outage: a few are logged, the others are counted."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable

import msgspec
import structlog
from structlog.typing import EventDict, WrappedLogger

EVERY_S = 30.0
"""Seconds between two equal lines."""

BURST = 10
"""Most lines of one event within `EVERY_S`, whatever their fields."""

MAX_KEYS = 1_000
"""Most lines remembered."""

_ABOUT = ("event", "pipeline", "what", "shard", "sink", "project")
"""Fields that make two lines equal."""


class _Window(msgspec.Struct):
    """Recent lines of an event: start of the window, lines logged in it, and lines dropped since the last one."""

    began: float
    shown: int = 0
    dropped: int = 0


class Repeats:
    """A structlog processor that drops repeated warnings; the next one logged has their number in `suppressed`.

    Errors always pass, because a person must act on each. So does everything below a warning.

    Args:
        clock: Monotonic seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._shown: OrderedDict[tuple[object, ...], float] = OrderedDict()
        self._windows: OrderedDict[object, _Window] = OrderedDict()

    def __call__(self, _logger: WrappedLogger, method: str, line: EventDict) -> EventDict:
        """Return the line.

        Raises:
            structlog.DropEvent: An equal line was logged recently.
        """
        if method != "warning":
            return line
        now = self._clock()
        window = self._window(line.get("event"), now)
        key = tuple(line.get(name) for name in _ABOUT)
        if window.shown >= BURST or now < self._shown.get(key, float("-inf")) + EVERY_S:
            window.dropped += 1
            raise structlog.DropEvent
        self._shown[key] = now
        self._shown.move_to_end(key)
        if len(self._shown) > MAX_KEYS:
            self._shown.popitem(last=False)
        window.shown += 1
        if window.dropped:
            line["suppressed"], window.dropped = window.dropped, 0
        return line

    def _window(self, event: object, now: float) -> _Window:
        window = self._windows.setdefault(event, _Window(now))
        if now >= window.began + EVERY_S:
            window.began, window.shown = now, 0
        if len(self._windows) > MAX_KEYS:
            self._windows.popitem(last=False)
        return window
