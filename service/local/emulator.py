"""The embedded AWS: Kinesis, DynamoDB and its streams in a child process on loopback, for the demo and the tests.

Nothing is kept: all state is in the child's memory, and the few files that ministack insists on go to a temporary
directory that is removed with it. What is patched in it, and why: deploy/decisions/0001-ministack-stream-records.md.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path

from service.local.loopback import CREDENTIALS, REGION, LoopbackServer

_FOREIGN_PREFIXES = ("AWS_", "MINISTACK_", "LOCALSTACK_", "SCORING_", "LAMBDA_", "S3_", "DYNAMODB_", "EDGE_")
"""Variables of the owner that must not change how the child behaves."""


class EmulatorMissingError(RuntimeError):
    """The extra `local` is not installed."""


class Emulator(LoopbackServer):
    """The embedded AWS as a context manager: `with Emulator() as aws: ... aws.environment() ...`."""

    def __init__(self, *, port: int = 0, log_path: Path | None = None) -> None:
        """Describe it; nothing starts yet.

        Args:
            port: TCP port on 127.0.0.1; 0 takes any free one.
            log_path: Where the child's log is appended; when None its last lines are kept in memory only.
        """
        super().__init__(
            "the embedded AWS",
            "service.local.ministack_child",
            health_path="/_ministack/health",
            log_path=log_path,
        )
        self._port = port
        self._scratch: tempfile.TemporaryDirectory[str] | None = None

    def start(self) -> None:
        """Start the child and wait until it answers.

        Raises:
            EmulatorMissingError: The extra `local` is not installed.
            ChildFailedError: It ended or did not answer in time; the text has its last lines.
        """
        if find_spec("ministack") is None:
            raise EmulatorMissingError(
                "the embedded AWS is not installed: in a clone of the repository run `pip install '.[local]'` "
                "(`make demo` does)"
            )
        self._scratch = tempfile.TemporaryDirectory(prefix="scoring-aws-", ignore_cleanup_errors=True)
        super().start()

    def arguments(self) -> Sequence[str]:
        """Arguments of the child."""
        return ("--port", str(self._port))

    def child_environment(self) -> Mapping[str, str]:
        """Return the owner's environment without variables that would change the child, and with scratch folders."""
        scratch = self._scratch.name if self._scratch else tempfile.gettempdir()
        kept = {name: value for name, value in os.environ.items() if not name.startswith(_FOREIGN_PREFIXES)}
        return kept | {
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
            "MINISTACK_REGION": REGION,
            "STATE_DIR": scratch,
            "S3_DATA_DIR": scratch,
            "TMPDIR": scratch,
            "LOG_LEVEL": "WARNING",
            "PYTHONUNBUFFERED": "1",
        }

    def environment(self) -> dict[str, str]:
        """The AWS_* variables with which any AWS SDK talks to it."""
        return CREDENTIALS | {
            "AWS_ENDPOINT_URL_KINESIS": self.endpoint_url,
            "AWS_ENDPOINT_URL_DYNAMODB": self.endpoint_url,
            "AWS_ENDPOINT_URL_DYNAMODB_STREAMS": self.endpoint_url,
        }

    def stop(self) -> None:
        """Stop the child and remove its files. Does nothing the second time."""
        super().stop()
        if self._scratch:
            self._scratch.cleanup()
            self._scratch = None
