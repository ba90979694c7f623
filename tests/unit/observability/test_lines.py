"""A log reader that stalls or goes away: the process neither waits nor ends, and what is lost is counted."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading

import pytest

from service.observability.lines import pumped


def test_lines_arrive_in_order_before_the_end():
    reading, writing = os.pipe()
    with pumped(writing) as pump:
        for number in range(1_000):
            pump.write(f"{number}\n")
    os.close(writing)
    with os.fdopen(reading) as lines:
        assert [int(line) for line in lines] == list(range(1_000))


def test_a_reader_that_is_gone_costs_lines_only():
    reading, writing = os.pipe()
    os.close(reading)
    dropped: list[int] = []
    with pumped(writing) as pump:
        pump.on_dropped = lambda: dropped.append(1)
        for _ in range(5):
            pump.write("a line\n")
    os.close(writing)
    assert len(dropped) == 5


@pytest.mark.parametrize("size", [10, 100_000])
def test_a_reader_that_stalls_blocks_nobody(size: int):
    reading, writing = os.pipe()
    dropped: list[int] = []
    pumps = pumped(writing)
    pump = pumps.__enter__()
    pump.on_dropped = lambda: dropped.append(1)

    def write() -> None:
        for _ in range(20_000):
            pump.write("x" * size + "\n")

    writer = threading.Thread(target=write)
    writer.start()
    writer.join(20)
    assert not writer.is_alive()
    assert dropped
    with os.fdopen(reading, "rb") as lines:  # the reader comes back: what waited arrives, and what was lost is said
        assert b"x" * size in lines.read(4 * size + 200)  # the first line may be the one that counts the dropped
        threading.Thread(target=lines.read).start()
        pumps.__exit__(None, None, None)
        os.close(writing)


def test_a_signal_while_modules_are_still_imported_ends_the_process():
    """As process 1 of a container, a process without a handler ignores SIGTERM."""
    code = (
        "import builtins, os, signal, sys\n"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"  # what process 1 has
        "real = builtins.__import__\n"
        "def slow(name, *rest):\n"
        "    if name == 'service.cli.root':\n"
        "        os.kill(os.getpid(), signal.SIGTERM)\n"
        "    return real(name, *rest)\n"
        "builtins.__import__ = slow\n"
        "sys.argv = ['scoring', 'run']\n"
        "from service.cli import main\n"
        "main()\n"
    )
    done = subprocess.run([sys.executable, "-c", code], timeout=60, check=False)  # noqa: S603 - our own code
    assert done.returncode == 128 + signal.SIGTERM
    assert json.dumps(done.returncode) == "143"
