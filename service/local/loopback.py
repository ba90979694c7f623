"""A server of ours in a child process on 127.0.0.1: started, announced, ready, stopped."""

from __future__ import annotations

import json
import sys
import urllib.request
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from pathlib import Path
from types import TracebackType
from typing import Self

from service.local.processes import ChildFailedError, ChildProcess

READY_TIMEOUT_S = 30.0
"""Seconds until such a server must answer; measured 0.3 s on two cores."""
HEALTH_TIMEOUT_S = 2.0
REGION = "us-east-1"
CREDENTIALS = {
    "AWS_ACCESS_KEY_ID": "test",
    "AWS_SECRET_ACCESS_KEY": "test",
    "AWS_REGION": REGION,
    "AWS_DEFAULT_REGION": REGION,
    "AWS_EC2_METADATA_DISABLED": "true",
}
"""What an AWS SDK needs besides an endpoint: nothing here is checked, and nothing is a secret."""


class LoopbackServer:
    """A module run with `python -m` whose first line on standard output is `{"port": N}`; a context manager.

    The module calls `exit_with_parent`, so it ends with its owner whatever happens to that.
    """

    def __init__(self, name: str, module: str, *, health_path: str, log_path: Path | None = None) -> None:
        self._name = name
        self._module = module
        self._health_path = health_path
        self._log_path = log_path
        self._child: ChildProcess | None = None
        self._bound: int | None = None

    def arguments(self) -> Sequence[str]:
        """Arguments of the module."""
        return ()

    def child_environment(self) -> Mapping[str, str] | None:
        """The child's whole environment; None: the owner's."""
        return None

    def start(self) -> None:
        """Start the child and wait until it answers.

        Raises:
            ChildFailedError: It ended, or did not answer within READY_TIMEOUT_S; the text has its last lines.
        """
        argv = [sys.executable, "-m", self._module, *self.arguments()]
        environment = self.child_environment()
        child = ChildProcess(self._name, argv, environment=environment, log_path=self._log_path, keep_stdout=True)
        self._child = child
        try:
            child.start()
            self._bound = child.wait_until(self._announced, timeout_s=READY_TIMEOUT_S, what="it had a port")
            child.wait_until(self._answering, timeout_s=READY_TIMEOUT_S, what="it answered")
        except BaseException:
            self.stop()
            raise

    def _announced(self) -> int | None:
        for line in self._child.stdout_lines if self._child else ():
            if line.startswith('{"port"'):
                return int(json.loads(line)["port"])
        return None

    def _answering(self) -> bool | None:
        url = self.endpoint_url + self._health_path
        try:
            with urllib.request.urlopen(url, timeout=HEALTH_TIMEOUT_S) as answer:  # noqa: S310 - our own http URL
                return True if answer.status == HTTPStatus.OK else None
        except OSError:
            return None

    @property
    def endpoint_url(self) -> str:
        """`http://127.0.0.1:PORT`. Raises ChildFailedError unless started."""
        if self._bound is None:
            raise ChildFailedError(f"{self._name} is not running")
        return f"http://127.0.0.1:{self._bound}"

    @property
    def pid(self) -> int:
        """Process id of the child. Raises ChildFailedError unless started."""
        if self._child is None:
            raise ChildFailedError(f"{self._name} is not running")
        return self._child.pid

    @property
    def log_tail(self) -> list[str]:
        """The last lines of the child's log, oldest first."""
        return self._child.log_tail if self._child else []

    def check(self) -> None:
        """Raise ChildFailedError where the child has ended by itself; the text has its last lines."""
        if self._child and not self._child.running:
            raise self._child.failure(f"ended by itself with exit code {self._child.returncode}")

    def stop(self) -> None:
        """Stop the child. Does nothing the second time."""
        child, self._child, self._bound = self._child, None, None
        if child:
            child.stop()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
