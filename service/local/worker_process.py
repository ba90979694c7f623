"""`scoring run` as a child process of the demo, and what its `/metrics` say."""

from __future__ import annotations

import socket
import sys
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Self

import msgspec
from prometheus_client.parser import text_string_to_metric_families

from service.local.processes import ChildProcess

READY_TIMEOUT_S = 30.0
"""Seconds until a worker must serve its metrics; measured 1.5 s on two busy cores."""
SCRAPE_TIMEOUT_S = 2.0
STOP_GRACE_S = 20.0
"""Seconds a worker gets to finish what it has in hand after SIGTERM."""


class Gauges(msgspec.Struct, frozen=True):
    """What one look at a worker's metrics says; all counts since that worker started.

    Attributes:
        handled: Records dealt with, whatever their outcome.
        outcomes: The same by outcome.
        written: Users' scores committed.
        published: Scores handed to the sink.
        lag_s: By pipeline, the age of the oldest record not yet durably dealt with (the worst shard), seconds.
        pending: Users whose newest score is not published yet.
        shards: By pipeline, the shards the worker reads.
    """

    handled: int = 0
    outcomes: Mapping[str, int] = {}
    written: int = 0
    published: int = 0
    lag_s: Mapping[str, float] = {}
    pending: int = 0
    shards: Mapping[str, int] = {}

    @property
    def quiet(self) -> bool:
        """Whether the worker reads its shards, is at their tip, and has published all."""
        return bool(self.lag_s) and not any(self.lag_s.values()) and not self.pending


def gauges_of(text: str) -> Gauges:
    """Read the Prometheus text of a worker's `/metrics`."""
    outcomes: dict[str, int] = {}
    lag: dict[str, float] = {}
    shards: dict[str, int] = {}
    written = published = pending = 0
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            labels, value = sample.labels, sample.value
            match sample.name:
                case "scoring_records_total":
                    outcomes[labels["outcome"]] = int(value)
                case "scoring_commits_total" if labels["outcome"] == "written":
                    written = int(value)
                case "scoring_sink_updates_total" if labels["outcome"] == "published":
                    published += int(value)
                case "scoring_lag_seconds":
                    lag[labels["pipeline"]] = max(lag.get(labels["pipeline"], 0.0), value)
                case "scoring_sink_pending":
                    pending += int(value)
                case "scoring_leases_owned":
                    shards[labels["pipeline"]] = int(value)
                case _:
                    pass
    handled = sum(count for outcome, count in outcomes.items() if outcome != "replayed")
    return Gauges(handled, outcomes, written, published, lag, pending, shards)


class WorkerProcess:
    """One life of a worker: started, looked at, killed or stopped."""

    def __init__(self, environment: Mapping[str, str], log_path: Path) -> None:
        self.log_path = log_path
        self.port = _free_port()
        self._child = ChildProcess(
            "the worker (scoring run)",
            [sys.executable, "-m", "service", "run"],
            environment={**environment, "SCORING_HTTP_PORT": str(self.port)},
            log_path=log_path,
        )
        self._last = Gauges()

    @property
    def url(self) -> str:
        """`http://127.0.0.1:PORT`."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def running(self) -> bool:
        """Whether the process is there."""
        return self._child.running

    @property
    def last(self) -> Gauges:
        """What the last successful look said."""
        return self._last

    def start(self) -> Self:
        """Start it, without waiting."""
        self._child.start()
        return self

    def wait_ready(self) -> None:
        """Wait until it serves its metrics.

        Raises:
            ChildFailedError: It ended or took longer than `READY_TIMEOUT_S`; the text has the end of its log.
        """
        self._child.wait_until(self.look, timeout_s=READY_TIMEOUT_S, what="it served its metrics")

    def check(self) -> None:
        """Raise `ChildFailedError` where it has ended by itself."""
        if not self._child.running:
            raise self._child.failure(f"ended by itself with exit code {self._child.returncode}")

    def look(self) -> Gauges | None:
        """Return what its metrics say now; None where it does not answer (yet)."""
        try:
            with urllib.request.urlopen(f"{self.url}/metrics", timeout=SCRAPE_TIMEOUT_S) as answer:  # noqa: S310 - our own http URL
                self._last = gauges_of(answer.read().decode())
        except (OSError, urllib.error.URLError):
            return None
        return self._last

    def kill(self) -> None:
        """SIGKILL: a crash."""
        self._child.kill()

    def stop(self, grace_s: float = STOP_GRACE_S) -> int | None:
        """SIGTERM, `grace_s` seconds, SIGKILL; its exit code, None where it never started."""
        try:
            return self._child.stop(grace_s)
        except BaseException:
            # A second Ctrl-C while it finishes: nothing may be left behind all the same.
            self._child.kill()
            raise


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
