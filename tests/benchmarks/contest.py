"""One contender plays one workload: the stub server and the contender as processes, and what came of it."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from tests.benchmarks.proc import usage
from tests.benchmarks.workload import Workload

ROOT = Path(__file__).resolve().parents[2]
SERVICES = ("KINESIS", "DYNAMODB", "DYNAMODB_STREAMS", "PINPOINT")
POLL_S = 0.1


class Played(msgspec.Struct, frozen=True):
    """What came of one run.

    Attributes:
        done: Whether every score was right in time.
        cpu_s: CPU seconds from the first record served to the last score written (and published).
        wall_s: Seconds, likewise.
        start_s: From the process's start to its first committed score.
        peak_mib: Most resident memory.
        report: All the stub server knows.
    """

    done: bool
    cpu_s: float
    wall_s: float
    start_s: float
    peak_mib: float
    report: dict[str, Any]


@contextlib.contextmanager
def stub(workload: Workload) -> Iterator[str]:
    """Run a stub server; yield its address."""
    command = [sys.executable, "-m", "tests.benchmarks.stub_server", msgspec.json.encode(workload).decode()]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as server:  # noqa: S603
        try:
            assert server.stdout is not None
            yield f"http://127.0.0.1:{server.stdout.readline().strip()}"
        finally:
            server.kill()


def environment(url: str, extra: Mapping[str, str]) -> dict[str, str]:
    """Return the environment of a contender: nothing of AWS's or the service's own but what is said here."""
    mine = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "SCORING_"))}
    return {
        **mine,
        "AWS_ACCESS_KEY_ID": "bench",
        "AWS_SECRET_ACCESS_KEY": "bench",
        "AWS_REGION": "us-east-1",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        **{f"AWS_ENDPOINT_URL_{name}": url for name in SERVICES},
        "PYTHONPATH": str(ROOT),
        **extra,
    }


def ask(url: str, what: str, body: bytes | None = None) -> dict[str, Any]:
    """Ask the stub server."""
    with urllib.request.urlopen(f"{url}/_bench/{what}", data=body, timeout=60) as answer:  # noqa: S310
        found: dict[str, Any] = msgspec.json.decode(answer.read())
    return found


def play(
    workload: Workload,
    command: Sequence[str],
    extra: Mapping[str, str] | None = None,
    *,
    timeout_s: float = 300.0,
    settle_s: float = 0.0,
    log: Path | None = None,
) -> Played:
    """Let a contender play a workload.

    Args:
        workload: What is played.
        command: The contender.
        extra: Its environment, beside AWS's.
        timeout_s: Longest time; then it is stopped, and has failed.
        settle_s: Measure the idle cost: for so many seconds after the first commit, whatever is done by then.
        log: Where its output goes; None: nowhere.
    """
    with stub(workload) as url, contextlib.ExitStack() as stack:
        out = stack.enter_context(log.open("wb")) if log else subprocess.DEVNULL
        started = time.time()
        contender = subprocess.Popen(  # noqa: S603
            command,
            cwd=ROOT,
            env=environment(url, extra or {}),
            stdout=out,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        stack.callback(_end, contender)
        ask(url, "watch", msgspec.json.encode({"group": contender.pid}))
        if settle_s:
            return _idle(url, contender, started, settle_s, timeout_s)
        until = started + timeout_s
        done = False
        while not done and time.time() < until and contender.poll() is None:
            time.sleep(POLL_S)
            done = ask(url, "status")["done"]
        report = ask(url, "report")
        end = report["at_done"] or {"cpu_s": usage(contender.pid).cpu_s, "wall": time.time(), "peak_mib": 0.0}
        first = report["first"]
        return Played(
            done=done and report["wrong_scores"] == 0,
            cpu_s=end["cpu_s"] - first.get("sample", {}).get("cpu_s", 0.0),
            wall_s=end["wall"] - first.get("records", started),
            start_s=first.get("committed", float("nan")) - started,
            peak_mib=end["peak_mib"],
            report=report,
        )


def _idle(url: str, contender: subprocess.Popen[bytes], started: float, settle_s: float, timeout_s: float) -> Played:
    first: dict[str, Any] = {}
    while "committed" not in first and time.time() < started + timeout_s and contender.poll() is None:
        time.sleep(POLL_S)
        first = ask(url, "report")["first"]
    time.sleep(2)
    before, began = usage(contender.pid), time.time()
    time.sleep(settle_s)
    after, ended = usage(contender.pid), time.time()
    report = ask(url, "report")
    return Played(
        done="committed" in first,
        cpu_s=after.cpu_s - before.cpu_s,
        wall_s=ended - began,
        start_s=first.get("committed", float("nan")) - started,
        peak_mib=after.peak_mib,
        report=report,
    )


def _end(contender: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(contender.pid, signal.SIGTERM)
    try:
        contender.wait(20)
    except subprocess.TimeoutExpired:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(contender.pid, signal.SIGKILL)
        contender.wait()
    with contextlib.suppress(ProcessLookupError):  # children that did not follow
        os.killpg(contender.pid, signal.SIGKILL)
