"""The workers of a run: `scoring run` processes, each with one life after another."""

from __future__ import annotations

import json
import os
import re
import signal
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path

from service.local.processes import ChildProcess
from service.local.worker_process import SCRAPE_TIMEOUT_S, Gauges, gauges_of

SHOWN = 200
"""Characters of an error that are shown."""
ID_LINES = 50
"""Log lines among which a worker says its id."""


class Life:
    """One process of a worker."""

    def __init__(self, name: str, environment: Mapping[str, str], log_path: Path) -> None:
        self.name = name
        self.log_path = log_path
        self.started = time.monotonic()
        self.expected_exit = False
        self._child = ChildProcess(
            name, [sys.executable, "-m", "service", "run"], environment=environment, log_path=log_path
        )
        self._child.start()
        self._id = ""
        self._url = ""

    @property
    def running(self) -> bool:
        return self._child.running

    @property
    def returncode(self) -> int | None:
        return self._child.returncode

    @property
    def worker_id(self) -> str:
        """What it calls itself in the lease table; empty before it said so."""
        if not self._id:
            self._learn()
        return self._id

    def _learn(self) -> None:
        if not self.log_path.exists():
            return
        with self.log_path.open(errors="replace") as log:
            for _, line in zip(range(ID_LINES), log, strict=False):
                if not line.startswith("{") or not line.endswith("\n"):
                    continue
                said = json.loads(line)
                if said.get("event") == "worker.started":
                    self._id = said["worker"]
                elif said.get("event") == "worker.server_started":
                    self._url = said["url"]

    def last_words(self) -> str:
        """Return the error that its log ends with; empty: none."""
        said = re.findall(
            r'"exc_type": ?"(\w+)", ?"exc_value": ?"((?:[^"\\]|\\.)*)"', self.log_path.read_text("utf-8", "replace")
        )
        return f"{said[-1][0]}: {said[-1][1][:SHOWN]}" if said else ""

    def owns(self, owner: str) -> bool:
        """Whether an owner in the lease table is this life; after having been taken for dead it adds a number."""
        mine = self.worker_id
        return bool(mine) and (owner == mine or owner.startswith(f"{mine}."))

    def send(self, number: signal.Signals) -> None:
        """Send it a signal, without waiting."""
        os.kill(self._child.pid, number)

    def wait(self, timeout_s: float) -> int:
        """Wait for its end; its exit code. Raises ChildFailedError."""
        return self._child.wait(timeout_s)

    def end(self) -> None:
        """SIGKILL, whatever its state."""
        self._child.kill()

    def look(self) -> Gauges | None:
        """What its metrics say; None where it does not answer."""
        self._learn()
        if not self._url:
            return None
        try:
            with urllib.request.urlopen(f"{self._url}/metrics", timeout=SCRAPE_TIMEOUT_S) as answer:  # noqa: S310 - our own http URL
                return gauges_of(answer.read().decode())
        except (OSError, urllib.error.URLError):
            return None


class Fleet:
    """Workers by number."""

    def __init__(self, size: int, environment: Mapping[str, str], logs: Path) -> None:
        self._environment = {**environment, "SCORING_HTTP_PORT": "0"}
        self._logs = logs
        self._numbers = range(1, size + 1)
        self.lives: dict[int, Life] = {}
        self.count = 0

    def start(self, number: int) -> Life:
        """Start a worker, for the first time or again."""
        self.count += 1
        name = f"worker-{number}-life-{self.count}"
        self.lives[number] = Life(name, self._environment, self._logs / f"{name}.log")
        return self.lives[number]

    def start_missing(self) -> None:
        """Start every worker that does not run."""
        for number in self._numbers:
            if number not in self.lives or not self.lives[number].running:
                self.start(number)

    def fallen(self) -> list[Life]:
        """Return the lives that ended without having been told to."""
        return [life for life in self.lives.values() if not life.expected_exit and not life.running]

    def end(self) -> None:
        """SIGKILL them all."""
        for life in self.lives.values():
            if life.running:
                life.send(signal.SIGCONT)
            life.end()
