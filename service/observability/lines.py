"""Lines to a pipe that somebody reads, or no longer reads: writing never blocks, and never fails.

A thread writes what the process puts into a bounded queue. Where the reader stalls, the queue fills and lines are
dropped; where the reader is gone, all are. What is dropped is counted, and said in a line once lines get through again.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections import deque
from collections.abc import Callable, Iterator

MAX_LINES = 10_000
MAX_BYTES = 8 * 1024 * 1024
"""Most that waits to be written."""

FLUSH_S = 1.0
"""How long the end of the process waits for lines that are left."""


class LinePump:
    """A text stream that a thread of its own writes out.

    Attributes:
        on_dropped: Called for every line dropped, from either thread.

    Args:
        descriptor: The file descriptor to write to; it stays open.
        max_lines: Lines that may wait.
        max_bytes: Bytes that may wait.
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
        # A daemon: a reader that stalls for ever must not keep the process alive.
        self._thread = threading.Thread(target=self._pump, name=f"lines to {descriptor}", daemon=True)
        self._thread.start()

    def write(self, text: str) -> int:
        """Queue text for writing; drop it where the queue is full."""
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
        """Do nothing: the thread writes as soon as it can."""

    def isatty(self) -> bool:
        """Return whether lines go to a terminal."""
        return self._terminal

    def close(self, timeout_s: float = FLUSH_S) -> None:
        """Wait up to `timeout_s` for what is queued, then drop it."""
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
                # The reader is gone; another may come to a named pipe, so later lines are tried all the same.
                self.on_dropped()


def _ignored() -> None:
    """Count nothing."""


def _write_all(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


@contextlib.contextmanager
def pumped(descriptor: int) -> Iterator[LinePump]:
    """Give a stream to a file descriptor that never blocks; its lines are written before the end, for `FLUSH_S`."""
    pump = LinePump(descriptor)
    try:
        yield pump
    finally:
        pump.close()
