"""The demo, small, as a person would run it; and a demo with one wrong score, which must not pass."""

import json
import os
import subprocess
import sys
from pathlib import Path

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


def test_one_wrong_score_is_found(tmp_path: Path):
    done = _demo(tmp_path, "--corrupt-one-score", "--json")
    assert done.returncode == 1, done.stderr + done.stdout
    report = json.loads(done.stdout)
    assert report["exact"] is False
    assert report["verdict"].startswith("WRONG: ")
    assert report["differences"]
    assert all("31337" in difference for difference in report["differences"])
    assert list(tmp_path.glob("scoring-demo-*/worker.log"))
