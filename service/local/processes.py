"""Child processes that have an owner: started, waited for, watched, stopped, and never left behind.

A child gets a pipe as its standard input and is started in a session of its own, so Ctrl-C in a terminal reaches
only the owner, who stops its children in the order it wants. Children of ours call `exit_with_parent`: when the owner
dies, even by SIGKILL, the pipe closes and they go. (A pipe and not `PR_SET_PDEATHSIG`: it works on macOS too, and
does not depend on which thread started the child.)
"""

from __future__ import annotations

import os
import subprocess
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Self, TypeVar

T = TypeVar("T")

LOG_LINES_KEPT = 200
"""Last lines of a child's output that are kept for error messages."""
STOP_GRACE_S = 5.0
"""Seconds between SIGTERM and SIGKILL, unless the caller says otherwise."""
STDIN_FD = 0
POLL_S = 0.02
"""Seconds between two looks at something that a child does not announce."""


class ChildFailedError(RuntimeError):
    """A child process did not start, did not become ready, or ended by itself. The text ends with its last lines."""


class ChildProcess:
    """One child process and everything that hangs on it. Not to be started twice."""

    def __init__(
        self,
        name: str,
        argv: Sequence[str],
        *,
        environment: Mapping[str, str] | None = None,
        log_path: Path | None = None,
        keep_stdout: bool = False,
    ) -> None:
        """Describe the child; nothing starts yet.

        Args:
            name: What the child is called in error messages.
            argv: Program and arguments.
            environment: The whole environment of the child; the owner's own when None.
            log_path: Where its standard error (and output, unless kept apart) is appended; when None it is
                kept in memory only.
            keep_stdout: Standard output is kept apart from the log, in `stdout_lines` (for children that print data).
        """
        self.name = name
        self._argv = tuple(argv)
        self._environment = dict(environment) if environment is not None else None
        self._log_path = log_path
        self._keep_stdout = keep_stdout
        self._process: subprocess.Popen[bytes] | None = None
        self._log: deque[str] = deque(maxlen=LOG_LINES_KEPT)
        self._stdout: deque[str] = deque(maxlen=LOG_LINES_KEPT)
        self._pumps: list[threading.Thread] = []

    def start(self) -> None:
        """Start the child. Raises ChildFailedError when the program cannot be run at all."""
        try:
            self._process = subprocess.Popen(  # noqa: S603 - the argv is ours
                self._argv,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE if self._keep_stdout else subprocess.STDOUT,
                env=self._environment,
                start_new_session=True,
            )
        except OSError as error:
            raise ChildFailedError(f"{self.name} could not be started: {error}") from error
        streams = [(self._process.stdout, self._stdout if self._keep_stdout else self._log)]
        if self._keep_stdout:
            streams.append((self._process.stderr, self._log))
        for stream, lines in streams:
            pump = threading.Thread(target=self._pump, args=(stream, lines), name=f"log of {self.name}", daemon=True)
            pump.start()
            self._pumps.append(pump)

    def _pump(self, stream: IO[bytes], lines: deque[str]) -> None:
        log = self._log_path.open("ab") if self._log_path and lines is self._log else None
        try:
            for line in stream:
                lines.append(line.decode("utf-8", "replace").rstrip("\n"))
                if log:
                    log.write(line)
                    log.flush()
        finally:
            if log:
                log.close()

    @property
    def pid(self) -> int:
        """The process id. Raises ChildFailedError before `start`."""
        if self._process is None:
            raise ChildFailedError(f"{self.name} was not started")
        return self._process.pid

    @property
    def returncode(self) -> int | None:
        """The exit code (negative: the signal that ended it), or None while it runs or before it started."""
        return None if self._process is None else self._process.poll()

    @property
    def running(self) -> bool:
        """Whether it was started and has not ended."""
        return self._process is not None and self._process.poll() is None

    @property
    def log_tail(self) -> list[str]:
        """The last lines of its log, oldest first; at most LOG_LINES_KEPT."""
        return list(self._log)

    @property
    def stdout_lines(self) -> list[str]:
        """The last lines of its standard output when that is kept apart; at most LOG_LINES_KEPT."""
        return list(self._stdout)

    def wait_until(self, look: Callable[[], T | None], *, timeout_s: float, what: str) -> T:
        """Look until `look` answers something other than None.

        Raises:
            ChildFailedError: The child ended, or `timeout_s` seconds passed, before that.
        """
        deadline = time.monotonic() + timeout_s
        while True:
            answer = look()
            if answer is not None:
                return answer
            code = self.returncode
            if code is not None:
                self._join_pumps()
                raise self.failure(f"ended with exit code {code} before {what}")
            if time.monotonic() > deadline:
                raise self.failure(f"took more than {timeout_s:g} s until {what}")
            time.sleep(POLL_S)

    def wait(self, timeout_s: float) -> int:
        """Wait until it ends by itself; its exit code. Raises ChildFailedError after `timeout_s` seconds."""
        if self._process is None:
            raise ChildFailedError(f"{self.name} was not started")
        try:
            code = self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            raise self.failure(f"did not end within {timeout_s:g} s") from None
        self._close()
        return code

    def failure(self, what: str) -> ChildFailedError:
        """An error that says what went wrong with this child, with the end of its log."""
        tail = "\n".join(f"  | {line}" for line in list(self._log)[-20:]) or "  | (it printed nothing)"
        return ChildFailedError(f"{self.name} {what}; its last lines:\n{tail}")

    def kill(self) -> None:
        """SIGKILL, as a crash would be; waits for the end. Does nothing when it has ended."""
        self._end(lambda process: process.kill(), grace_s=STOP_GRACE_S)

    def stop(self, grace_s: float = STOP_GRACE_S) -> int | None:
        """SIGTERM, wait up to `grace_s` seconds, then SIGKILL. Returns the exit code; None when never started."""
        self._end(lambda process: process.terminate(), grace_s=grace_s)
        return self.returncode

    def _end(self, ask: Callable[[subprocess.Popen[bytes]], None], grace_s: float) -> None:
        process = self._process
        if process is None:
            return
        if process.poll() is None:
            ask(process)
            try:
                process.wait(grace_s)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self._close()

    def _close(self) -> None:
        if self._process and self._process.stdin:
            self._process.stdin.close()
        self._join_pumps()

    def _join_pumps(self) -> None:
        for pump in self._pumps:
            pump.join(STOP_GRACE_S)
        for stream in (self._process.stdout, self._process.stderr) if self._process else ():
            if stream is not None and not any(pump.is_alive() for pump in self._pumps):
                stream.close()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


def exit_with_parent() -> None:
    """Called by a child of ours: end this process at once when its standard input closes, so when its owner is gone.

    At once: what such a child holds is in memory and worth nothing without its owner.
    """

    def watch() -> None:
        # Not through sys.stdin: its lock, held by a thread that waits, aborts the interpreter's own shutdown.
        while os.read(STDIN_FD, 4096):
            pass
        os._exit(0)

    threading.Thread(target=watch, name="owner watch", daemon=True).start()
