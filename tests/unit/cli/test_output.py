"""What commands write: on terminals of any width, without colours, to readers that are not there."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import struct
import subprocess
import sys
import termios

import pytest

PRINTS = """
from service.cli.failures import Failure
from service.cli.output import note, print_json, print_table, write, write_bytes
import click
try:
    {body}
except Failure as error:
    error.show()
    raise SystemExit(1)
"""
ID = "S-UJ0sti-0.000000000000000000000002x9wek4ldcledc3"
TABLE = f"print_table(('Id', 'Set aside', 'State'), [('{ID}', '2026-11-27T17:06:42.806Z', 'new')], 'none')"


def on_a_terminal(body: str, columns: int = 80, **environment: str) -> str:
    """Return what a program writes to a terminal of so many columns."""
    outer, inner = pty.openpty()
    fcntl.ioctl(inner, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
    inherited = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "NO_COLOR")}
    child = subprocess.Popen(  # noqa: S603 # our own code
        [sys.executable, "-c", PRINTS.format(body=body)],
        stdin=inner,
        stdout=inner,
        stderr=inner,
        env={**inherited, "TERM": "xterm", **environment},
    )
    os.close(inner)
    parts = []
    while True:
        try:
            part = os.read(outer, 65_536)
        except OSError:  # how Linux says that the other side is closed
            break
        if not part:
            break
        parts.append(part)
    os.close(outer)
    assert child.wait(30) in (0, 1)
    return b"".join(parts).decode().replace("\r\n", "\n")


@pytest.mark.parametrize("columns", [60, 80, 200])
def test_ids_can_be_copied_from_a_terminal_of_any_width(columns: int):
    assert ID in on_a_terminal(TABLE, columns)


def test_no_color_leaves_no_bold():
    assert "\x1b[1m" in on_a_terminal(TABLE)
    assert "\x1b" not in on_a_terminal(TABLE, NO_COLOR="1")
    assert "\x1b" not in on_a_terminal(TABLE, TERM="dumb")


@pytest.mark.parametrize(
    "body",
    [
        "write(chr(27) + '[31m')",
        "note(chr(27) + '[31m')",
        "print_json({'a': chr(27) + '[31m' + chr(0x9b)})",
        "print_table(('A', 'B'), [(chr(27) + '[31m', 1)], 'none')",
        "write_bytes(b'\\x1b[31m')",
        "write_bytes(b'\\x9b31m')",
    ],
)
def test_foreign_text_cannot_act_on_the_terminal(body: str):
    text = on_a_terminal(body, NO_COLOR="1")
    assert text.strip()
    assert all(line.isprintable() for line in text.splitlines())


def test_json_is_the_same_document_after_escaping():
    done = subprocess.run(  # noqa: S603 # our own code
        [sys.executable, "-c", PRINTS.format(body="print_json({'a': chr(27) + chr(0x9b) + chr(0x202e) + 'x'})")],
        capture_output=True,
        check=True,
    )
    assert json.loads(done.stdout) == {"a": "\x1b\x9b\u202ex"}


@pytest.mark.parametrize("body", ["write('x')", "print_json([])", TABLE, "write_bytes(b'x')"])
def test_a_closed_standard_output_is_said_to_be_closed(body: str):
    done = subprocess.run(  # noqa: S603 # our own code
        ["/bin/sh", "-c", 'exec "$0" -c "$1" >&-', sys.executable, PRINTS.format(body=body)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "error: standard output is closed" in done.stderr
    assert "this is a bug" not in done.stderr


def test_a_closed_standard_error_ends_nothing():
    done = subprocess.run(  # noqa: S603 # our own code
        ["/bin/sh", "-c", 'exec "$0" -c "$1" 2>&-', sys.executable, PRINTS.format(body="note('x'); write('done')")],
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, "done\n")
