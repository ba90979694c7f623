"""Writing lines to a pipe whose reader may stall or go away: writing never blocks and never fails.

A thread writes lines from a bounded queue. If the reader stalls, the queue fills and lines are dropped; if the reader
is gone, all are. Dropped lines are counted, and a line reports the count once writing works again.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections import deque
from collections.abc import Callable, Iterator

MAX_LINES = 10_000
MAX_BYTES = 8 * 1024 * 1024
"""Limits of the queue."""

FLUSH_S = 1.0
"""How long the process waits for remaining lines when it ends."""


class LinePump:
    """A text stream that is written by a thread of its own.

    Attributes:
        on_dropped: Called for every dropped line, from either thread.

    Args:
        descriptor: The file descriptor to write to; it stays open.
        max_lines: Most lines in the queue.
        max_bytes: Most bytes in the queue.
    """

    def __init__(
        self,
        descriptor: int,
        *,
        max_lines: int = MAX_LINES,
        max_bytes: int = MAX_BYTES,
    ) -> None:
        self._descriptor = descriptor
        self.on_dropped: Callable[[], None] = _ignored
        self._max_lines = max_lines
        self._max_bytes = max_bytes
        self._lines: deque[bytes] = deque()
        self._bytes = 0
        self._lost = 0
        self._ready = threading.Condition()
        self._closing = False
        self._idle = threading.Event()
        self._idle.set()
        self._terminal = os.isatty(descriptor)
        # A daemon thread: a reader that stalls forever must not keep the process alive.
        self._thread = threading.Thread(target=self._pump, name=f"lines to {descriptor}", daemon=True)
        self._thread.start()

    def write(self, text: str) -> int:
        """Queue text for writing; drop it if the queue is full."""
        data = text.encode("utf-8", "backslashreplace")
        with self._ready:
            if len(self._lines) >= self._max_lines or self._bytes + len(data) > self._max_bytes:
                self._lost += 1
                full = True
            else:
                self._lines.append(data)
                self._bytes += len(data)
                self._idle.clear()
                self._ready.notify()
                full = False
        if full:
            self.on_dropped()
        return len(text)

    def flush(self) -> None:
        """Do nothing: the thread writes immediately."""

    def isatty(self) -> bool:
        """Return whether lines go to a terminal."""
        return self._terminal

    def close(self, timeout_s: float = FLUSH_S) -> None:
        """Wait up to `timeout_s` for the queue to empty, then drop the rest."""
        self._idle.wait(timeout_s)
        with self._ready:
            self._closing = True
            self._ready.notify()

    def _pump(self) -> None:
        while True:
            with self._ready:
                while not self._lines and not self._closing:
                    self._idle.set()
                    self._ready.wait()
                if not self._lines:
                    return
                lost, self._lost = self._lost, 0
                data = self._lines.popleft()
                self._bytes -= len(data)
            if lost:
                data = b'{"event":"log.lines_dropped","level":"warning","lines":%d}\n' % lost + data
            try:
                _write_all(self._descriptor, data)
            except OSError:
                # The reader is gone. A named pipe may get another one, so later lines are still tried.
                self.on_dropped()


def _ignored() -> None:
    """Count nothing."""


def _write_all(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


@contextlib.contextmanager
def pumped(descriptor: int) -> Iterator[LinePump]:
    """Yield a non-blocking stream to a file descriptor; at the end, wait up to `FLUSH_S` for its lines."""
    pump = LinePump(descriptor)
    try:
        yield pump
    finally:
        pump.close()
