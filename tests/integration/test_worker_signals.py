"""A worker process and its signals: the first one drains, for no longer than it may; the second ends it at once."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from service.local.emulator import Emulator
from service.local.pinpoint_fake import PinpointProcess
from service.local.processes import ChildProcess
from tests.fakes.embedded import FreshName

PROJECT = "p"
BOUND_S = 30.0
OF_THE_PROCESS = {
    "aws.call_failed",
    "worker.started",
    "worker.server_started",
    "worker.signal_received",
    "worker.drain_started",
    "worker.killed",
}
"""Events that do not belong to one of the pipelines."""
SENT = {
    "event_type": "_campaign.send",
    "application": {"app_id": PROJECT},
    "client": {"client_id": "e"},
    "client_context": {"custom": {"endpoint": '{"User": {"UserId": "ann"}}'}},
}


@pytest.fixture
def pinpoint() -> Iterator[PinpointProcess]:
    with PinpointProcess(apps=[PROJECT]) as fake:
        yield fake


@pytest.fixture
def environment(aws: Emulator, pinpoint: PinpointProcess, fresh_name: FreshName) -> dict[str, str]:
    tables = ("SCORES", "DEFINITIONS", "IDENTITIES", "LEASES", "DEAD_LETTERS")
    environment = {
        **os.environ,
        **aws.environment(),
        **pinpoint.environment(),
        "SCORING_STREAM": fresh_name("events"),
        **{f"SCORING_{table}_TABLE": fresh_name(table.lower()) for table in tables},
        "SCORING_HTTP_PORT": "0",
        "SCORING_LOG_FORMAT": "json",
    }
    scoring(environment, "setup", "--project", PROJECT)
    return environment


def scoring(environment: dict[str, str], *words: str, text: str = "") -> None:
    command = [sys.executable, "-m", "service", *words]
    subprocess.run(command, env=environment, input=text, text=True, check=True, capture_output=True)  # noqa: S603 # our own code


@contextmanager
def worker(environment: dict[str, str], log_path: Path) -> Iterator[ChildProcess]:
    command = [sys.executable, "-m", "service", "run"]
    with ChildProcess("a worker", command, environment=environment, log_path=log_path) as child:
        wait_for(child, log_path, "lease.taken")
        yield child


def logged(log_path: Path, event: str) -> bool | None:
    text = log_path.read_text() if log_path.exists() else ""
    lines = text.splitlines() if text.endswith("\n") else text.splitlines()[:-1]
    return any(json.loads(line).get("event") == event for line in lines) or None


def asks_its_sink(log_path: Path) -> bool | None:
    """Whether a score is on its way to the sink, by the worker's own metrics."""
    listening = next(line for line in log_path.read_text().splitlines() if "worker.server_started" in line)
    with urllib.request.urlopen(f"{json.loads(listening)['url']}/metrics", timeout=BOUND_S) as answer:  # noqa: S310 - our own http URL
        return b'scoring_sink_pending{sink="pinpoint"} 1.0' in answer.read() or None


def wait_for(child: ChildProcess, log_path: Path, event: str) -> None:
    child.wait_until(lambda: logged(log_path, event), timeout_s=BOUND_S, what=f"it logged {event}")


def test_a_worker_that_still_waits_for_aws_ends_at_the_first_signal(environment: dict[str, str], tmp_path: Path):
    log_path = tmp_path / "worker.log"
    nowhere = {**environment, "AWS_ENDPOINT_URL_KINESIS": "http://127.0.0.1:1"}
    command = [sys.executable, "-m", "service", "run"]
    with ChildProcess("a worker", command, environment=nowhere, log_path=log_path) as child:
        wait_for(child, log_path, "worker.start_delayed")
        os.kill(child.pid, signal.SIGTERM)
        assert child.wait(BOUND_S) == 0
    assert logged(log_path, "worker.stopped")


def test_a_second_signal_ends_it_at_once(environment: dict[str, str], tmp_path: Path):
    log_path = tmp_path / "worker.log"
    with worker(environment, log_path) as child:
        os.kill(child.pid, signal.SIGSTOP)  # both signals wait when it goes on: it cannot be done with the first
        os.kill(child.pid, signal.SIGTERM)
        os.kill(child.pid, signal.SIGINT)
        os.kill(child.pid, signal.SIGCONT)
        assert child.wait(BOUND_S) == 1
    assert logged(log_path, "worker.killed")
    assert not logged(log_path, "worker.stopped")
    assert {line["event"] for line in lines_of(log_path) if not line.get("pipeline")} <= OF_THE_PROCESS


def lines_of(log_path: Path) -> list[dict[str, str]]:
    return [json.loads(line) for line in log_path.read_text().splitlines()]


def test_a_drain_takes_no_longer_than_it_may_though_the_sink_hangs(
    environment: dict[str, str], pinpoint: PinpointProcess, tmp_path: Path
):
    pinpoint.fail("GetUserEndpoints", times=100, delay_s=60)
    log_path = tmp_path / "worker.log"
    environment |= {"SCORING_SINKS": "pinpoint", "SCORING_DRAIN_TIMEOUT_S": "2"}
    with worker(environment, log_path) as child:
        scoring(environment, "send", "-", text=json.dumps(SENT))
        child.wait_until(lambda: asks_its_sink(log_path), timeout_s=BOUND_S, what="a score was on its way")
        os.kill(child.pid, signal.SIGTERM)
        # A sink call may last 15 s; the drain may not wait for it.
        child.wait(12.0)
