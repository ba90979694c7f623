"""Ctrl-C and SIGTERM while a command has a call in flight: it is finished and accounted for; the second signal ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from service.aws.streams.writer import MAX_PUT_RECORDS
from tests.fakes.gated_kinesis import WAIT_S, GatedKinesis

ENDED_S = 60.0


@pytest.fixture
def kinesis() -> Iterator[GatedKinesis]:
    with GatedKinesis() as server:
        yield server


def started(kinesis: GatedKinesis, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(  # noqa: S603 # our own command
        [sys.executable, "-m", "service", *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={
            **{name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "SCORING_"))},
            "AWS_ACCESS_KEY_ID": "x",
            "AWS_SECRET_ACCESS_KEY": "x",
            "AWS_REGION": "us-east-1",
            "AWS_ENDPOINT_URL_KINESIS": kinesis.url,
            "SCORING_STREAM": "events",
        },
    )


@pytest.fixture
def file(tmp_path: Path) -> str:
    path = tmp_path / "events.jsonl"
    path.write_text("".join(f'{{"n":{number}}}\n' for number in range(3 * MAX_PUT_RECORDS)))
    return str(path)


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_during_send_finishes_the_call_and_says_where_to_go_on(
    kinesis: GatedKinesis, file: str, how: signal.Signals
):
    child = started(kinesis, "send", file)
    kinesis.calls.get(timeout=WAIT_S)
    child.send_signal(how)
    assert child.stderr is not None
    assert child.stderr.readline().startswith("stopping: the call in flight is finished first")
    kinesis.gate.release()
    stdout, stderr = child.communicate(timeout=ENDED_S)
    assert child.returncode == 130
    assert stdout.startswith(f"sent {MAX_PUT_RECORDS} records")
    assert f"go on with --from-line {MAX_PUT_RECORDS + 1}" in stderr
    assert "Traceback" not in stderr
    assert kinesis.calls.empty()


def test_a_second_ctrl_c_during_send_says_what_is_uncertain(kinesis: GatedKinesis, file: str):
    child = started(kinesis, "send", file)
    kinesis.calls.get(timeout=WAIT_S)
    kinesis.gate.release()
    kinesis.calls.get(timeout=WAIT_S)
    child.send_signal(signal.SIGINT)
    assert child.stderr is not None
    child.stderr.readline()
    child.send_signal(signal.SIGINT)
    stdout, stderr = child.communicate(timeout=ENDED_S)
    assert child.returncode == 130
    assert stdout.startswith(f"sent {MAX_PUT_RECORDS} records")
    assert f"no answer came for lines {MAX_PUT_RECORDS + 1} to {2 * MAX_PUT_RECORDS}" in stderr
    assert "Traceback" not in stderr


def test_ctrl_c_while_send_waits_for_input_ends_it_at_once(kinesis: GatedKinesis):
    child = started(kinesis, "send", "-")
    assert child.stdin is not None
    child.stdin.write('{"n":1}\n' * MAX_PUT_RECORDS + '{"n":2}\n')
    child.stdin.flush()
    kinesis.gate.release()
    kinesis.calls.get(timeout=WAIT_S)
    # The call may still be under way: then the first signal waits for it, as it should, and the second ends it.
    child.send_signal(signal.SIGINT)
    stdout, stderr = child.communicate(timeout=ENDED_S)
    assert child.returncode == 130
    assert stdout.startswith(f"sent {MAX_PUT_RECORDS} records")
    assert f"go on with --from-line {MAX_PUT_RECORDS + 1}" in stderr
