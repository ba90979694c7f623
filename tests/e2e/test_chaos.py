"""A short chaos run: real workers, killed and stopped under faults, through reshards. The whole one is `make chaos`."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.chaos.kinesis import NodeMissingError, install

ROOT = Path(__file__).parents[2]
TIMEOUT_S = 300


def _chaos(scratch: Path, *arguments: str, path: str | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(  # noqa: S603 - our own command
        [sys.executable, "-m", "tests.chaos", *arguments],
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
        cwd=ROOT,
        env={**os.environ, "TMPDIR": str(scratch), "PATH": os.environ["PATH"] if path is None else path},
    )


def test_a_short_run_is_exact(tmp_path: Path):
    try:
        install()
    except NodeMissingError as missing:
        pytest.skip(str(missing))
    done = _chaos(tmp_path, "--events", "3000", "--seconds", "15")
    assert done.returncode == 0, done.stderr + done.stdout
    last = done.stdout.strip().splitlines()[-1]
    assert last.startswith("EXACT: 3,000 events, 120 users, ")
    assert last.endswith(" 3 reshards")
    for said in ("response lost after the request", "leaders: ", "2 to 3 open shards", "2 to 4 open shards"):
        assert said in done.stdout
    assert list(tmp_path.iterdir()) == []


def test_without_node_it_says_what_is_needed(tmp_path: Path):
    assert shutil.which("node", path=str(tmp_path)) is None
    done = _chaos(tmp_path, path=str(tmp_path))
    assert done.returncode == 2
    assert done.stderr.startswith("make chaos cannot run: Node.js ")
