"""Text for people: control characters are escaped, tables fit the width. Pure.

Widths follow Unicode Standard Annex #11 (https://www.unicode.org/reports/tr11/): wide and fullwidth characters take
two cells, combining marks none.
"""

from __future__ import annotations

import re
import textwrap
import unicodedata
from collections.abc import Callable, Collection, Iterable, Sequence
from datetime import UTC, datetime
from itertools import zip_longest

GAP = "  "
"""Between two columns."""

_NOT_PLAIN = re.compile(r"[^\x20-\x7e]")
_BMP = 0xFFFF
_YEAR_10000_MS = 253_402_300_800_000


def printable(text: str, *, lines: bool = False) -> str:
    r"""Return `text` with everything escaped that is not printable.

    Control characters, line breaks, direction overrides and lone surrogates become `\x1b`, `\u202e` and the like, so
    text from an event or a file cannot move the cursor, set colours or the window title, or forge a line of output.

    Args:
        text: Any text, from any source.
        lines: Whether line feeds are kept, for our own text of several lines.
    """
    if text.isprintable():
        return text

    def escaped(match: re.Match[str]) -> str:
        character = match[0]
        if character.isprintable() or (lines and character == "\n"):
            return character
        return character.encode("unicode_escape", "surrogatepass").decode("ascii")

    return _NOT_PLAIN.sub(escaped, text)


def printable_json(document: str) -> str:
    r"""Return a JSON document whose strings contain only printable characters; the others become `\u` escapes.

    The document keeps its meaning. Line feeds are kept: an encoder writes them only between tokens.
    """
    if document.isprintable():
        return document

    def escaped(match: re.Match[str]) -> str:
        character = match[0]
        if character.isprintable() or character == "\n":
            return character
        code = ord(character)
        if code <= _BMP:
            return f"\\u{code:04x}"
        code -= _BMP + 1
        return f"\\u{0xD800 + (code >> 10):04x}\\u{0xDC00 + (code & 0x3FF):04x}"

    return _NOT_PLAIN.sub(escaped, document)


def width_of(text: str) -> int:
    """Return the width of a printable text in terminal cells."""
    if text.isascii():
        return len(text)
    return sum(_cells(character) for character in text)


def _cells(character: str) -> int:
    if unicodedata.combining(character):
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1


def wrapped(text: str, width: int) -> list[str]:
    """Return a text's lines, broken only between words; a longer word has a line of its own."""
    return textwrap.wrap(text, max(width, 1), break_long_words=False, break_on_hyphens=False) or [""]


def table(
    columns: Sequence[str],
    rows: Iterable[Sequence[str]],
    width: int,
    *,
    right: Collection[str] = (),
    optional: Sequence[str] = (),
    heading: Callable[[str], str] = str,
) -> tuple[list[str], list[str]]:
    """Return the lines of a table, and the columns that were omitted. Values are never broken inside a word.

    A table that is too wide is changed in this order: text is wrapped between words; optional columns are omitted, the
    first one first; each row becomes a block of `Name: value` lines with all columns, which a terminal wraps without
    changing the value.

    Args:
        columns: Headings.
        rows: One cell per column each; characters that are not printable are escaped here.
        width: Width of the terminal in cells.
        right: Columns aligned to the right.
        optional: Columns that may be omitted.
        heading: Styles a heading, such as bold; must not add cells.
    """
    cells = [[printable(cell) for cell in row] for row in rows]
    for count in range(len(optional) + 1):
        left_out = list(optional[:count])
        kept = [index for index, name in enumerate(columns) if name not in left_out]
        lines = _grid(
            [columns[index] for index in kept], [[row[index] for index in kept] for row in cells], width, right, heading
        )
        if lines is not None:
            return lines, left_out
    return _blocks(columns, cells, heading), []


def _grid(
    columns: Sequence[str],
    rows: Sequence[Sequence[str]],
    width: int,
    right: Collection[str],
    heading: Callable[[str], str],
) -> list[str] | None:
    """Return the lines of a table; None if it does not fit."""
    table_of = list(zip(columns, *rows, strict=True))
    widths = [max(map(width_of, column)) for column in table_of]
    least = [max(width_of(word) for cell in column for word in cell.split() or [""]) for column in table_of]
    room = width - len(GAP) * (len(columns) - 1)
    if sum(least) > room:
        return None
    while sum(widths) > room:
        widest = max(range(len(widths)), key=lambda index: (widths[index] > least[index], widths[index]))
        widths[widest] -= 1
    lines: list[str] = []
    decorate = heading
    for row in (columns, *rows):
        wraps = [
            wrapped(cell, size) if width_of(cell) > size else [cell] for cell, size in zip(row, widths, strict=True)
        ]
        for parts in zip_longest(*wraps, fillvalue=""):
            padded = []
            for name, part, size in zip(columns, parts, widths, strict=True):
                shown, blanks = decorate(part) if part else "", " " * (size - width_of(part))
                padded.append(blanks + shown if name in right else shown + blanks)
            lines.append(GAP.join(padded).rstrip())
        decorate = str
    return lines


def _blocks(columns: Sequence[str], rows: Sequence[Sequence[str]], heading: Callable[[str], str]) -> list[str]:
    names = [f"{name}:" if name else "" for name in columns]
    widest = max(map(width_of, names))
    lines: list[str] = []
    for row in rows:
        if lines:
            lines.append("")
        for name, cell in zip(names, row, strict=True):
            shown = heading(name) if name else ""
            lines.append(f"{shown}{' ' * (widest - width_of(name))} {cell}".rstrip())
    return lines


def iso(epoch_ms: int) -> str:
    """Return the ISO UTC time of epoch milliseconds; empty for 0, which means unknown, and beyond the year 9999."""
    if not 0 < epoch_ms < _YEAR_10000_MS:
        return ""
    return datetime.fromtimestamp(epoch_ms / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
