"""`scoring local ...` and `scoring demo --keep` as a person runs them: what they serve, where, and how they end."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from service.local.emulator import Emulator
from service.local.processes import ChildProcess
from tests.fakes.listeners import exposed, listening

READY_S = 60
DEMO_S = 120


@contextmanager
def scoring(*words: str, **more: str) -> Iterator[ChildProcess]:
    command = [sys.executable, "-m", "service", *words]
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "SCORING_"))}
    child = ChildProcess(f"scoring {' '.join(words)}", command, environment=kept | more, keep_stdout=True)
    try:
        child.start()
        yield child
    finally:
        child.stop()


def first_json(child: ChildProcess) -> dict[str, Any]:
    def look() -> dict[str, Any] | None:
        return next((json.loads(line) for line in child.stdout_lines), None)

    return child.wait_until(look, timeout_s=READY_S, what="it said where it is")


def ports(variables: Mapping[str, str]) -> set[tuple[str, int]]:
    urls = {value for name, value in variables.items() if name.startswith("AWS_ENDPOINT_URL")}
    return {("127.0.0.1", int(url.removeprefix("http://127.0.0.1:"))) for url in urls}


def test_local_up_is_an_aws_that_the_doctor_passes():
    # A profile that is not there: what `local up` makes must not depend on the person's own AWS.
    with scoring(
        "local", "up", "--port", "0", "--pinpoint-port", "0", "--json", AWS_PROFILE="nobodys", AWS_REGION="eu-west-1"
    ) as child:
        variables = first_json(child)
        assert listening(child.pid) == ports(variables)
        assert len(ports(variables)) == 2
        examined = subprocess.run(
            [sys.executable, "-m", "service", "doctor", "--json"],
            env={"PATH": os.environ["PATH"], **variables},
            capture_output=True,
            text=True,
            check=False,
        )
        assert examined.returncode == 0, examined.stdout + examined.stderr
        verdicts = {finding["verdict"] for finding in json.loads(examined.stdout)}
        assert "broken" not in verdicts
        assert "note" not in verdicts
        assert child.stop() == 0
        assert "gone" in child.log_tail[-1]


def test_local_up_prints_lines_that_undo_what_leads_elsewhere(tmp_path: Path):
    with scoring("local", "up", "--port", "0", "--pinpoint-port", "0", AWS_PROFILE="nobodys") as child:
        child.wait_until(
            lambda: "SCORING_STREAM" in "".join(child.stdout_lines) or None, timeout_s=READY_S, what="said"
        )
        child.wait_until(lambda: "ready" in "".join(child.log_tail) or None, timeout_s=READY_S, what="it was ready")
        lines = tmp_path / "aws.env"
        lines.write_text("\n".join(child.stdout_lines))
        shown = subprocess.run(  # noqa: S603 # our own lines
            ["/bin/sh", "-ec", f". {lines}; env"],
            env={"PATH": os.environ["PATH"], "AWS_PROFILE": "nobodys"},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
    assert "AWS_PROFILE" not in shown
    assert "SCORING_STREAM=engagement-events\n" in shown
    assert "SCORING_PROJECT_IDS=demo\n" in shown
    assert "AWS_ENDPOINT_URL_PINPOINT=http://127.0.0.1:" in shown


@pytest.mark.parametrize(
    "words", [("--port", "taken", "--pinpoint-port", "0"), ("--port", "0", "--pinpoint-port", "taken")]
)
def test_local_up_on_a_port_that_is_taken_says_which_option_helps(aws: Emulator, words: tuple[str, ...]):
    taken = aws.endpoint_url.rpartition(":")[2]
    with scoring("local", "up", *(taken if word == "taken" else word for word in words)) as child:
        assert child.wait(READY_S) == 1
    said = "\n".join(child.log_tail)
    assert "already in use" in said
    assert "--port" in said
    assert "Traceback" not in said


def test_local_pinpoint_listens_on_loopback_only():
    with scoring("local", "pinpoint", "--port", "0", "--json") as child:
        port = first_json(child)["port"]
        assert listening(child.pid) == {("127.0.0.1", port)}


def test_a_demo_that_is_kept_listens_on_loopback_only():
    with scoring("demo", "--users", "10", "--events", "100", "--rate", "500", "--keep") as child:
        child.wait_until(
            lambda: "left running" in "".join(child.log_tail) or None, timeout_s=DEMO_S, what="it was left running"
        )
        opened = listening(child.pid)
        assert len(opened) == 3  # the embedded AWS, the Pinpoint fake, the worker
        assert exposed(opened) == set()
