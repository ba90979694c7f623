"""Ctrl-C and SIGTERM while a command has a call in flight: it is finished and accounted for; the second signal ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeAlias

import pytest

from service.admin.redrive import CONCURRENT
from service.aws.streams.writer import MAX_PUT_RECORDS
from service.aws.tables.dead_letters import DeadLetterTable
from service.ingest.stores import DeadLetter
from service.scoring.event import Reason
from tests.fakes.gated_kinesis import WAIT_S, GatedKinesis

ENDED_S = 60.0

Aws: TypeAlias = Any  # clients have no types
Run = Callable[..., Any]


@pytest.fixture
def kinesis() -> Iterator[GatedKinesis]:
    with GatedKinesis() as server:
        yield server


def started(kinesis: GatedKinesis, *arguments: str, **environment: str) -> subprocess.Popen[str]:
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
            **environment,
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
    assert child.stderr.readline().startswith("stopping after the call in flight")
    kinesis.gate.release()
    stdout, stderr = child.communicate(timeout=ENDED_S)
    assert child.returncode == 130
    assert stdout.startswith(f"sent {MAX_PUT_RECORDS} records")
    assert f"continue with --from-line {MAX_PUT_RECORDS + 1}" in stderr
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
    assert f"lines {MAX_PUT_RECORDS + 1} to {2 * MAX_PUT_RECORDS} got no answer" in stderr
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
    assert f"continue with --from-line {MAX_PUT_RECORDS + 1}" in stderr


class Letters:
    """A table with letters on the embedded AWS."""

    COUNT = 3 * CONCURRENT

    def __init__(self, table: DeadLetterTable, definitions: str, run: Run, environment: dict[str, str]) -> None:
        self._table = table
        self._run = run
        self.environment = {
            **{name: value for name, value in environment.items() if name != "AWS_ENDPOINT_URL_KINESIS"},
            "SCORING_DEAD_LETTERS_TABLE": table._table,
            "SCORING_DEFINITIONS_TABLE": definitions,
        }
        run(table.put([self._letter(number) for number in range(self.COUNT)]))

    @staticmethod
    def _letter(number: int) -> DeadLetter:
        name = f"letter.{number:02}"
        return DeadLetter(name, "ingest", Reason.NOT_JSON, "not JSON", "events", "s", "1", "k", number, b"no json", 7)

    def states(self) -> Counter[str]:
        async def read() -> Counter[str]:
            return Counter([stored.state async for stored in self._table.letters()])

        found: Counter[str] = self._run(read())
        return found


@pytest.fixture
def letters(aws_environment: dict[str, str], aws_clients: Aws, run: Run, make_table: Callable[[str], str]) -> Letters:
    table = DeadLetterTable(aws_clients.dynamodb, make_table("dead_letters"))
    return Letters(table, make_table("definitions"), run, aws_environment)


def test_ctrl_c_during_redrive_leaves_no_letter_half_way(kinesis: GatedKinesis, letters: Letters):
    child = started(kinesis, "dead-letters", "redrive", "--yes", **letters.environment)
    for _ in range(CONCURRENT):
        kinesis.calls.get(timeout=WAIT_S)
    child.send_signal(signal.SIGINT)
    assert child.stderr is not None
    while not child.stderr.readline().startswith("stopping after what is in flight"):
        assert child.poll() is None
    kinesis.gate.release(letters.COUNT)
    stdout, stderr = child.communicate(timeout=ENDED_S)
    assert child.returncode == 130
    assert stdout.count("\tredriven\t") == CONCURRENT
    assert f"{CONCURRENT} redriven" in stderr
    assert f"{letters.COUNT - CONCURRENT} not begun" in stderr
    assert letters.states() == {"redriven": CONCURRENT, "new": letters.COUNT - CONCURRENT}
    assert kinesis.calls.empty()


def test_a_second_ctrl_c_during_redrive_names_the_letters_half_way(kinesis: GatedKinesis, letters: Letters):
    child = started(kinesis, "dead-letters", "redrive", "--yes", **letters.environment)
    for _ in range(CONCURRENT):
        kinesis.calls.get(timeout=WAIT_S)
    child.send_signal(signal.SIGINT)
    assert child.stderr is not None
    while not child.stderr.readline().startswith("stopping after what is in flight"):
        assert child.poll() is None
    child.send_signal(signal.SIGINT)
    _, stderr = child.communicate(timeout=ENDED_S)
    assert child.returncode == 130
    assert "unfinished: letter.00, letter.01" in stderr
    assert "check before you use --stuck" in stderr
    assert "Traceback" not in stderr
    assert letters.states() == {"redriving": CONCURRENT, "new": letters.COUNT - CONCURRENT}


def test_a_reader_that_goes_away_during_redrive_leaves_no_letter_half_way(kinesis: GatedKinesis, letters: Letters):
    child = started(kinesis, "dead-letters", "redrive", "--yes", **letters.environment)
    for _ in range(CONCURRENT):
        kinesis.calls.get(timeout=WAIT_S)
    assert child.stdout is not None
    child.stdout.close()
    child.stdout = None
    kinesis.gate.release(letters.COUNT)
    _, stderr = child.communicate(timeout=ENDED_S)
    assert child.returncode == 1
    assert "this is a bug" not in stderr
    assert "redriving" not in letters.states()
