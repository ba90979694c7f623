"""The demo, small, as a person would run it; and a demo with one wrong score, which must not pass."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.deploy.calls import worker_actions

SMALL = ("--users", "60", "--events", "1500", "--rate", "500")
TIMEOUT_S = 120


def _demo(scratch: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(  # noqa: S603 - our own command
        [sys.executable, "-m", "service", "demo", *SMALL, *arguments],
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
        env={**os.environ, "TMPDIR": str(scratch)},
    )


def test_a_small_demo_is_exact_through_a_crash(tmp_path: Path):
    done = _demo(tmp_path)
    assert done.returncode == 0, done.stderr + done.stdout
    last = done.stdout.strip().splitlines()[-1]
    assert last.startswith("EXACT: 1,500 events, 60 users, ")
    assert last.endswith("every score right")
    for said in ("Leaderboard", "Dead letters", "unresolved_user", "Requests per 1,000 events", "write units"):
        assert said in done.stdout
    assert "kill -9" in done.stderr
    assert "committed again" in done.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.fixture(scope="module")
def corrupted(tmp_path_factory: pytest.TempPathFactory) -> tuple[subprocess.CompletedProcess[str], Path]:
    scratch = tmp_path_factory.mktemp("demo")
    return _demo(scratch, "--corrupt-one-score", "--json"), scratch


def test_one_wrong_score_is_found(corrupted: tuple[subprocess.CompletedProcess[str], Path]):
    done, scratch = corrupted
    assert done.returncode == 1, done.stderr + done.stdout
    report = json.loads(done.stdout)
    assert report["exact"] is False
    assert report["verdict"].startswith("WRONG: ")
    assert report["differences"]
    assert all("31337" in difference for difference in report["differences"])
    assert list(scratch.glob("scoring-demo-*/worker.log"))


def test_the_calls_of_the_workers_are_what_the_template_grants(
    corrupted: tuple[subprocess.CompletedProcess[str], Path],
):
    """Two lives of a worker, a crash between them: every operation it has a use for, and no other."""
    prefixes = {
        "kinesis": "kinesis",
        "dynamodb": "dynamodb",
        "dynamodbstreams": "dynamodb",
        "pinpoint": "mobiletargeting",
    }
    called = set()
    for name in json.loads(corrupted[0].stdout)["requests"]:
        service, _, operation = name.partition(".")
        called.add(f"{prefixes[service]}:{operation}")
    # What permits the statements of a batch; the first inserts, the second updates.
    called = called - {"dynamodb:BatchExecuteStatement"} | {"dynamodb:PartiQLInsert", "dynamodb:PartiQLUpdate"}
    # Only endpoints that change hands have rows of former users, and in the demo none does.
    rare = {"dynamodb:BatchWriteItem"}
    assert called | rare == {action for actions in worker_actions().values() for action in actions}
