"""The README's example: a new user types these commands, and reads this score."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SECTION = (
    (ROOT / "README.md")
    .read_text(encoding="utf-8")
    .partition("## Score an event of your own\n")[2]
    .partition("\n## ")[0]
)


def block(language: str) -> str:
    """The first code block of the section in a language."""
    found = re.search(rf"^```{language}\n(.*?)^```", SECTION, re.MULTILINE | re.DOTALL)
    assert found is not None
    return found[1]


def script() -> str:
    """The commands as printed, on free ports, with the two waits that a person makes."""
    lines = []
    for line in block("sh").splitlines():
        if line.startswith("export PATH"):
            continue
        typed = line.replace("scoring local up", "scoring local up --port 0 --pinpoint-port 0")
        if typed.startswith("scoring scores get"):
            typed = f"for i in $(seq 150); do {typed.partition('#')[0]} 2> get.log && break; sleep 0.2; done"
        lines.append(typed)
        if "> aws.env" in typed:
            lines += [
                "up=$!",
                "trap 'kill -INT $run $up; wait' EXIT",
                "for i in $(seq 300); do grep -q SCORING_STREAM aws.env && break; sleep 0.1; done",
            ]
        if typed.startswith("scoring run"):
            lines.append("run=$!")
    return "\n".join(lines)


def test_the_readme_has_six_commands():
    commands = [line for line in block("sh").splitlines() if not line.startswith("export PATH")]
    assert len(commands) == 6


def test_the_readme_example_gives_the_score_it_shows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "event.json").write_text(block("json"), encoding="utf-8")
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}:/usr/bin:/bin")
    monkeypatch.setenv("SCORING_HTTP_PORT", "0")
    done = subprocess.run(  # noqa: S603 - the commands of our own README
        ["/bin/bash", "-c", script()], capture_output=True, text=True, check=False, cwd=tmp_path, timeout=120
    )
    shown = re.search(r"^demo +(\d+) +(\d+)", SECTION, re.MULTILINE)
    assert shown is not None
    assert re.search(rf"^demo\t{shown[1]}\t{shown[2]}\t", done.stdout, re.MULTILINE), done.stdout + done.stderr
