"""kinesis-local in a child process: a Kinesis that reshards as AWS does (drains, null iterator, ChildShards).

It is a Node program; `install` gets the release that `package-lock.json` pins. What is mended in it: `preload.cjs`.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

from service.local.loopback import CREDENTIALS, REGION
from service.local.processes import ChildFailedError, ChildProcess

HERE = Path(__file__).parent
MODULES = HERE / "node_modules"
MAIN = MODULES / "kinesis-local" / "main.js"
READY_TIMEOUT_S = 60.0
"""Seconds until it must listen; measured 1.5 s on a quiet machine: its program is 9 MB of JavaScript."""
INSTALL_TIMEOUT_S = 120.0
PLAIN_PORT, TLS_PORT = 1, 2
"""What it is told; `preload.cjs` gives it free ones instead, and says which is which."""


class NodeMissingError(Exception):
    """What is needed and is not there, in a sentence for a person."""


def install() -> None:
    """See to it that the pinned release is there; does nothing where it is.

    Raises:
        NodeMissingError: There is no Node or npm, or npm could not get the package.
    """
    node, npm = shutil.which("node"), shutil.which("npm")
    if node is None:
        raise NodeMissingError("Node.js 18 or newer is needed for kinesis-local, and `node` is not on the PATH")
    lock, stamp = HERE / "package-lock.json", MODULES / ".package-lock.json"
    if MAIN.exists() and stamp.exists() and stamp.stat().st_mtime >= lock.stat().st_mtime:
        return
    if npm is None:
        raise NodeMissingError("npm is needed to install kinesis-local, and it is not on the PATH")
    command = [npm, "ci", "--no-audit", "--no-fund", "--loglevel=error"]
    done = subprocess.run(  # noqa: S603 - the argv is ours
        command, cwd=HERE, capture_output=True, text=True, timeout=INSTALL_TIMEOUT_S, check=False
    )
    if done.returncode:
        raise NodeMissingError(f"`npm ci` in {HERE} failed: {done.stderr.strip()[-500:]}")
    stamp.touch()


class KinesisLocal:
    """A context manager: `with KinesisLocal() as kinesis: ... kinesis.endpoint_url ...`.

    Args:
        log_path: Where its output goes; None keeps the end of it for an error.
        environment: More of its own settings, such as how long a reshard takes.
    """

    def __init__(self, *, log_path: Path | None = None, environment: Mapping[str, str] | None = None) -> None:
        kept = {name: value for name, value in os.environ.items() if name in {"PATH", "HOME", "TMPDIR", "LANG"}}
        self._child = ChildProcess(
            "kinesis-local",
            ["node", "--max-semi-space-size=64", "--require", str(HERE / "preload.cjs"), str(MAIN)],
            environment=kept
            | {
                "KINESIS_MOCK_PLAIN_PORT": str(PLAIN_PORT),
                "KINESIS_MOCK_TLS_PORT": str(TLS_PORT),
                "SHARD_LIMIT": "100",
                "AWS_REGION": REGION,
                "LOG_LEVEL": "ERROR",
                "SHOULD_PERSIST_DATA": "false",
                "LOAD_DATA_IF_EXISTS": "false",
            }
            | dict(environment or {}),
            log_path=log_path,
            keep_stdout=True,
        )
        self._port = 0

    def _announced(self) -> int | None:
        for line in self._child.stdout_lines:
            if line.startswith('{"port"') and json.loads(line)["asked"] == PLAIN_PORT:
                return int(json.loads(line)["port"])
        return None

    @property
    def endpoint_url(self) -> str:
        """`http://127.0.0.1:PORT`."""
        return f"http://127.0.0.1:{self._port}"

    def environment(self) -> dict[str, str]:
        """The AWS_* variables with which any AWS SDK talks to it."""
        return CREDENTIALS | {"AWS_ENDPOINT_URL_KINESIS": self.endpoint_url}

    def check(self) -> None:
        """Raise `ChildFailedError` where it has ended by itself."""
        if not self._child.running:
            raise self._child.failure(f"ended by itself with exit code {self._child.returncode}")

    def __enter__(self) -> Self:
        self._child.start()
        try:
            self._port = self._child.wait_until(self._announced, timeout_s=READY_TIMEOUT_S, what="it listened")
        except ChildFailedError:
            self._child.kill()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._child.stop()
