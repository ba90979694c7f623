"""Warnings that come again and again, as in an outage: a few are shown, the others are counted."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable

import msgspec
import structlog
from structlog.typing import EventDict, WrappedLogger

EVERY_S = 30.0
"""Seconds between two lines that say the same of the same thing."""

BURST = 10
"""Lines of one event within `EVERY_S`, whatever they are about."""

MAX_KEYS = 1_000
"""Things remembered at most."""

_ABOUT = ("event", "pipeline", "what", "shard", "sink", "project")
"""What makes two lines say the same of the same thing."""


class _Window(msgspec.Struct):
    """An event's recent lines: when the window began, how many it has shown, how many are dropped since the last."""

    began: float
    shown: int = 0
    dropped: int = 0


class Repeats:
    """A structlog processor that drops warnings said a moment ago; the next one shown says how many in `suppressed`.

    Errors pass: each of them is for somebody to act on. So does everything below a warning.

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
            structlog.DropEvent: It was said a moment ago.
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
