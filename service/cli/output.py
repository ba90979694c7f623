"""Output of commands: results to standard output, everything else to standard error.

Text from events, tables and AWS is escaped here with `printable`, and only here; JSON has its own escapes.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Collection, Iterable, Sequence
from decimal import Decimal
from typing import IO, TYPE_CHECKING, Final

import click
import msgspec

from service.cli.failures import Failure
from service.runtime.terminal import decorated
from service.runtime.text import printable, printable_json, table

if TYPE_CHECKING:
    from rich.console import Console

_JSON: Final = msgspec.json.Encoder(decimal_format="number")

json_option = click.option("--json", "as_json", is_flag=True, help="Write JSON to standard output.")


def out_is_terminal() -> bool:
    """Return whether standard output is a terminal; False if it is closed."""
    return _is_terminal(sys.stdout)


def err_is_terminal() -> bool:
    """Return whether standard error is a terminal; False if it is closed."""
    return _is_terminal(sys.stderr)


def _is_terminal(stream: IO[str] | None) -> bool:
    return stream is not None and not stream.closed and stream.isatty()


def console(*, stderr: bool = False) -> Console:
    """Return a rich console for live views; without colors if `decorated` is False."""
    from rich.console import Console  # noqa: PLC0415 # only a terminal needs it

    return Console(stderr=stderr) if decorated() else Console(stderr=stderr, color_system=None)


def terminal_width() -> int:
    """Return the width of the terminal in cells; `COLUMNS` overrides it."""
    return shutil.get_terminal_size().columns


def write(line: str = "") -> None:
    """Write one line to standard output.

    Raises:
        Failure: Standard output is closed.
    """
    _out(printable(line))


def write_bytes(data: bytes) -> None:
    """Write bytes to standard output unchanged.

    Raises:
        Failure: Standard output is closed, or it is a terminal and the bytes contain control characters.
    """
    if out_is_terminal():
        try:
            text = data.decode()
        except UnicodeDecodeError:
            text = "\x00"
        if printable(text, lines=True) != text:
            raise Failure(
                "not written: the bytes contain control characters, and standard output is a terminal",
                remedy="redirect standard output to a file",
            )
    _out(data, end=False)


def _out(data: str | bytes, *, end: bool = True) -> None:
    if sys.stdout is None or sys.stdout.closed:
        raise Failure("standard output is closed", remedy="redirect it to a file, or to /dev/null")
    click.echo(data, nl=end)


def print_json(value: object) -> None:
    """Write one JSON document to standard output, indented on a terminal."""
    encoded = printable_json(_JSON.encode(value).decode()).encode()
    for line in msgspec.json.format(encoded, indent=2 if out_is_terminal() else -1).decode().splitlines():
        write(line)


def print_table(
    columns: Sequence[str],
    rows: Iterable[Sequence[object]],
    empty: str,
    *,
    optional: Sequence[str] = (),
    right: Collection[str] = (),
) -> None:
    """Write rows to standard output: a table on a terminal, otherwise tab-separated lines with all columns.

    Args:
        columns: Headings.
        rows: One cell per column each.
        empty: Written to standard error if there are no rows.
        optional: Columns that may be omitted on a narrow terminal, the first one first; see `text.table`.
        right: Columns aligned to the right on a terminal.
    """
    cells = [[_cell(value) for value in row] for row in rows]
    if not cells:
        note(empty)
        return
    if not out_is_terminal():
        for line in ([column.lower().replace(" ", "_") for column in columns], *cells):
            write_fields(*line)
        return
    lines, left_out = table(columns, cells, terminal_width(), right=right, optional=optional, heading=heading())
    write_styled(lines)
    if left_out:
        note(f"columns omitted to fit the width of {terminal_width()}: {', '.join(left_out)}; --json shows everything")


def write_styled(lines: Iterable[str]) -> None:
    """Write lines with styled headings; styles are removed if the output is not a terminal."""
    for line in lines:
        _out(line)


def heading() -> Callable[[str], str]:
    """Return a function that styles a heading: bold, or unchanged if decoration is off."""
    return _bold if decorated() else str


def write_fields(*cells: str) -> None:
    """Write one line of tab-separated cells to standard output; tabs and line breaks in cells are escaped."""
    _out("\t".join(map(printable, cells)))


def _bold(text: str) -> str:
    return click.style(text, bold=True)


def _cell(value: object) -> str:
    if value is None:
        return ""
    return f"{value:f}" if isinstance(value, Decimal) else str(value)


def note(text: str) -> None:
    """Write a progress message to standard error; line feeds in `text` are kept, other control characters escaped.

    The message is dropped if it cannot be written: a closed standard error must not end the command.
    """
    try:
        click.echo(printable(text, lines=True), err=True)
    except (OSError, ValueError):
        return


def number_of(count: int, what: str) -> str:
    """Return `1 shard`, `2 shards`."""
    return f"{count:,} {what}" if count == 1 else f"{count:,} {what}s"
