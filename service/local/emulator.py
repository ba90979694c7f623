"""The embedded AWS: Kinesis, DynamoDB and its streams in a child process on loopback, for the demo and the tests.

Nothing is kept: all state is in the child's memory, and the few files that ministack insists on go to a temporary
directory that is removed with it. What it cannot show is in docs and in deploy/decisions/0001.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import urllib.error
import urllib.request
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import Self

from service.local.processes import ChildFailedError, ChildProcess

REGION = "us-east-1"
READY_TIMEOUT_S = 30.0
"""Seconds until the embedded AWS must answer; measured 0.6 s on two busy cores."""
HEALTH_TIMEOUT_S = 2.0

_FOREIGN_PREFIXES = ("AWS_", "MINISTACK_", "LOCALSTACK_", "SCORING_", "LAMBDA_", "S3_", "DYNAMODB_", "EDGE_")


class EmulatorMissingError(RuntimeError):
    """The extra `local` is not installed."""


class Emulator:
    """The embedded AWS as a context manager: `with Emulator() as aws: ... aws.endpoint_url ...`."""

    def __init__(self, *, port: int = 0, log_path: Path | None = None) -> None:
        """Describe it; nothing starts yet.

        Args:
            port: TCP port on 127.0.0.1; 0 takes any free one.
            log_path: Where the child's log is appended; kept in memory only (last lines) when None.
        """
        self._port = port
        self._log_path = log_path
        self._scratch: tempfile.TemporaryDirectory[str] | None = None
        self._child: ChildProcess | None = None
        self._bound: int | None = None

    def start(self) -> None:
        """Start the child and wait until it answers.

        Raises:
            EmulatorMissingError: The extra `local` is not installed.
            ChildFailedError: It ended or did not answer within READY_TIMEOUT_S; the text has its last lines.
        """
        if find_spec("ministack") is None:
            raise EmulatorMissingError(
                "the embedded AWS is not installed: run `pip install 'engagement-scoring[local]'` (in this repository: `make demo`)"
            )
        self._scratch = tempfile.TemporaryDirectory(prefix="scoring-aws-", ignore_cleanup_errors=True)
        argv = [sys.executable, "-m", "service.local.ministack_child", "--port", str(self._port)]
        self._child = ChildProcess(
            "the embedded AWS", argv, environment=self._child_environment(), log_path=self._log_path, keep_stdout=True
        )
        try:
            self._child.start()
            self._bound = self._child.wait_until(self._announced, timeout_s=READY_TIMEOUT_S, what="it had a port")
            self._child.wait_until(self._healthy, timeout_s=READY_TIMEOUT_S, what="it answered")
        except BaseException:
            self.stop()
            raise

    def _child_environment(self) -> dict[str, str]:
        scratch = self._scratch.name if self._scratch else tempfile.gettempdir()
        kept = {name: value for name, value in os.environ.items() if not name.startswith(_FOREIGN_PREFIXES)}
        return kept | {
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
            "BIND_HOST": "127.0.0.1",
            "MINISTACK_REGION": REGION,
            "PERSIST_STATE": "0",
            "STATE_DIR": scratch,
            "S3_DATA_DIR": scratch,
            "TMPDIR": scratch,
            # Otherwise ministack would look for containers to remove on whatever Docker this machine has.
            "DOCKER_HOST": f"unix://{scratch}/no-docker.sock",
            "LOG_LEVEL": "WARNING",
            "SFTP_ENABLED": "0",
            "IOT_MTLS_ENABLED": "0",
            "USE_SSL": "0",
            "AUTH": "false",
            "SERVICES": "",
            "PYTHONUNBUFFERED": "1",
        }

    def _announced(self) -> int | None:
        for line in self._child.stdout_lines if self._child else ():
            if line.startswith('{"port"'):
                return int(json.loads(line)["port"])
        return None

    def _healthy(self) -> bool | None:
        try:
            with urllib.request.urlopen(f"{self.endpoint_url}/_ministack/health", timeout=HEALTH_TIMEOUT_S) as answer:
                return True if answer.status == 200 else None  # noqa: PLR2004
        except OSError:
            return None

    @property
    def endpoint_url(self) -> str:
        """`http://127.0.0.1:PORT`. Raises ChildFailedError before `start`."""
        if self._bound is None:
            raise ChildFailedError("the embedded AWS was not started")
        return f"http://127.0.0.1:{self._bound}"

    @property
    def pid(self) -> int:
        """Process id of the child. Raises ChildFailedError before `start`."""
        if self._child is None:
            raise ChildFailedError("the embedded AWS was not started")
        return self._child.pid

    @property
    def log_tail(self) -> list[str]:
        """The last lines of the child's log."""
        return self._child.log_tail if self._child else []

    def environment(self) -> dict[str, str]:
        """The AWS_* variables with which any AWS SDK talks to it."""
        return {
            "AWS_ENDPOINT_URL_KINESIS": self.endpoint_url,
            "AWS_ENDPOINT_URL_DYNAMODB": self.endpoint_url,
            "AWS_ENDPOINT_URL_DYNAMODB_STREAMS": self.endpoint_url,
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
            "AWS_REGION": REGION,
            "AWS_DEFAULT_REGION": REGION,
            "AWS_EC2_METADATA_DISABLED": "true",
        }

    def stop(self) -> None:
        """Stop the child and remove its files. Does nothing the second time."""
        child, self._child, self._bound = self._child, None, None
        if child:
            child.stop()
        if self._scratch:
            self._scratch.cleanup()
            self._scratch = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
