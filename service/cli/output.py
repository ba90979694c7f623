"""What commands write: results to standard output, everything else to standard error.

Text from events, tables and AWS's answers passes `printable` here and nowhere else; JSON is escaped in its own way.
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
    """Return whether standard output is a terminal; False where it is closed."""
    return _is_terminal(sys.stdout)


def err_is_terminal() -> bool:
    """Return whether standard error is a terminal; False where it is closed."""
    return _is_terminal(sys.stderr)


def _is_terminal(stream: IO[str] | None) -> bool:
    return stream is not None and not stream.closed and stream.isatty()


def console(*, stderr: bool = False) -> Console:
    """Return a rich console for moving views, plain where `decorated` says no."""
    from rich.console import Console  # noqa: PLC0415 # only a terminal needs it

    return Console(stderr=stderr) if decorated() else Console(stderr=stderr, color_system=None)


def terminal_width() -> int:
    """Return the cells of a line of the terminal, or of `COLUMNS`."""
    return shutil.get_terminal_size().columns


def write(line: str = "") -> None:
    """Write one line to standard output.

    Raises:
        Failure: Standard output is closed.
    """
    _out(printable(line))


def write_bytes(data: bytes) -> None:
    """Write bytes to standard output as they are.

    Raises:
        Failure: Standard output is closed, or it is a terminal that would act on some of them.
    """
    if out_is_terminal():
        try:
            text = data.decode()
        except UnicodeDecodeError:
            text = "\x00"
        if printable(text, lines=True) != text:
            raise Failure(
                "not written: a terminal would act on some of these bytes",
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
    """Write rows to standard output: a table on a terminal, tab-separated lines with all columns elsewhere.

    Args:
        columns: Headings.
        rows: As many cells each.
        empty: Said on standard error where there are no rows.
        optional: Columns that a narrow terminal may leave out, the first named first; see `text.table`.
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
        note(f"left out to fit {terminal_width()} columns: {', '.join(left_out)}; --json shows everything")


def write_styled(lines: Iterable[str]) -> None:
    """Write printable lines with headings; what `heading` added is taken out where the output is not a terminal."""
    for line in lines:
        _out(line)


def heading() -> Callable[[str], str]:
    """Return what makes a heading of a text: bold, or nothing where that is not wanted."""
    return _bold if decorated() else str


def write_fields(*cells: str) -> None:
    """Write one line of tab-separated cells to standard output; tabs and line breaks inside a cell are escaped."""
    _out("\t".join(map(printable, cells)))


def _bold(text: str) -> str:
    return click.style(text, bold=True)


def _cell(value: object) -> str:
    if value is None:
        return ""
    return f"{value:f}" if isinstance(value, Decimal) else str(value)


def note(text: str) -> None:
    """Tell the person how it goes, on standard error; line feeds in `text` are ours, all else is escaped.

    A reader that went away must not end what the command is doing, so what cannot be written is dropped.
    """
    try:
        click.echo(printable(text, lines=True), err=True)
    except (OSError, ValueError):
        return


def number_of(count: int, what: str) -> str:
    """Return `1 shard`, `2 shards`."""
    return f"{count:,} {what}" if count == 1 else f"{count:,} {what}s"
