"""Owned child processes."""

import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from service.local.processes import ChildFailedError, ChildProcess


def child(code: str, **options: object) -> ChildProcess:
    return ChildProcess("the child", [sys.executable, "-c", textwrap.dedent(code)], **options)


def test_a_child_that_ends_early_is_an_error_with_its_last_lines():
    made = child("import sys; print('a reason'); sys.exit(3)")
    made.start()
    with pytest.raises(ChildFailedError, match=r"(?s)the child ended with exit code 3 before it was ready.*a reason"):
        made.wait_until(lambda: None, timeout_s=10, what="it was ready")
    assert made.stop() == 3


def test_a_child_that_takes_too_long_is_an_error():
    with child("import time; time.sleep(60)") as made, pytest.raises(ChildFailedError, match="took more than"):
        made.wait_until(lambda: None, timeout_s=0.05, what="it was ready")
    assert made.returncode == -signal.SIGTERM


def test_a_child_that_ignores_sigterm_is_killed():
    made = child(
        "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('ready', flush=True); time.sleep(60)"
    )
    made.start()
    made.wait_until(lambda: made.log_tail or None, timeout_s=10, what="it was ready")
    assert made.stop(grace_s=0.05) == -signal.SIGKILL
    assert not made.running


def test_a_program_that_is_not_there_is_an_error():
    with pytest.raises(ChildFailedError, match="could not be started"):
        ChildProcess("the child", ["/no/such/program"]).start()


def test_output_and_log_can_be_kept_apart_and_the_log_in_a_file(tmp_path: Path):
    made = child(
        "import sys; print('data'); print('log', file=sys.stderr)", keep_stdout=True, log_path=tmp_path / "log"
    )
    made.start()
    assert made.wait(10) == 0
    assert (made.stdout_lines, made.log_tail) == (["data"], ["log"])
    assert (tmp_path / "log").read_text() == "log\n"


def test_a_child_ends_when_its_owner_is_killed():
    watcher = "from service.local.processes import exit_with_parent as e; e(); import time; time.sleep(60)"
    owner_code = f"""
        import sys, time
        from service.local.processes import ChildProcess
        made = ChildProcess("x", [sys.executable, "-c", {watcher!r}])
        made.start()
        print(made.pid, flush=True)
        time.sleep(60)
    """
    with subprocess.Popen(  # noqa: S603 - our own code
        [sys.executable, "-c", textwrap.dedent(owner_code)], stdout=subprocess.PIPE, stdin=subprocess.DEVNULL
    ) as owner:
        grandchild = int(owner.stdout.readline())
        owner.kill()
    probe = ChildProcess("probe", [sys.executable, "-c", "import time; time.sleep(60)"])
    with probe:
        probe.wait_until(lambda: None if alive(grandchild) else True, timeout_s=20, what="the grandchild ended")


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
        with open(f"/proc/{pid}/stat") as status:  # noqa: PTH123
            return status.read().split()[2] != "Z"
    except (ProcessLookupError, FileNotFoundError):
        return False
