"""What records would come to, before any of them is on a stream: lines of a file, read by sources.

A line is a record. Packed files are unpacked as they are read; a line is held in memory, the file never is.
"""

from __future__ import annotations

import gzip
import io
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from decimal import Decimal
from typing import BinaryIO

import msgspec

from service.sources.decoding import MAX_RECORD_BYTES
from service.sources.explain import Kind, Row, explain
from service.sources.registry import Registry

_GZIP = b"\x1f\x8b"


class Line(msgspec.Struct, frozen=True):
    """What one event of a record comes to.

    Attributes:
        record: Line of the file, from 1.
        row: What its sources make of it.
        points: What it would add to the score; None: nothing, as `row.detail` or `note` says.
        note: Why not, where that is not a fault of the event.
    """

    record: int
    row: Row
    points: Decimal | None = None
    note: str = ""


Points = Callable[[str, str], Decimal | None]
"""What an event of a type and a project is worth; None: no definition covers it."""

_LEARNED = frozenset({"anonymous id", "endpoint"})
"""Names that count for nobody until their user is known."""

_WHERE_KNOWN = "counts for the user that this name belongs to; nobody's where none is known"
_NO_DEFINITION = "no definition covers this type"


def records(file: BinaryIO) -> Iterator[bytes]:
    """Yield the lines of a file, unpacked where it is gzip; empty ones are left out.

    Raises:
        ValueError: It is damaged gzip data, or a line is longer than a record of a stream can be.
    """
    head = file.read(2)
    whole = io.BufferedReader(_Joined(head, file))  # type: ignore[type-var] # `io` takes any RawIOBase
    reader: io.BufferedIOBase = gzip.GzipFile(fileobj=whole) if head == _GZIP else whole
    try:
        while line := reader.readline(MAX_RECORD_BYTES + 2):
            if len(line) > MAX_RECORD_BYTES + 1:
                raise ValueError(f"a line is longer than {MAX_RECORD_BYTES} bytes, which no record of a stream can be")
            line = line.rstrip(b"\r\n")
            if line.strip():
                yield line
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise ValueError(f"damaged gzip data: {error}") from None


class _Joined(io.RawIOBase):
    """A file whose first bytes have been read already."""

    def __init__(self, head: bytes, rest: BinaryIO) -> None:
        self._head = head
        self._rest = rest

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: bytearray) -> int:  # type: ignore[override] # what `io` hands over
        data = self._head[: len(buffer)] or self._rest.read(len(buffer))
        self._head = self._head[len(buffer) :]
        buffer[: len(data)] = data
        return len(data)


def lines_of(file: BinaryIO, registry: Registry, points: Points) -> Iterator[Line]:
    """Yield what every event in a file comes to, in order.

    Raises:
        ValueError: See `records`.
    """
    for number, data in enumerate(records(file), 1):
        for row in explain(registry, data):
            worth = points(row.event_type, row.project) if row.kind is Kind.EVENT and row.person else None
            note = _NO_DEFINITION if row.kind is Kind.EVENT and row.person and worth is None else ""
            if worth is not None and row.found_by in _LEARNED:
                note = _WHERE_KNOWN
            yield Line(number, row, worth, note)


class Summary:
    """Adds up what a file comes to."""

    def __init__(self) -> None:
        self.records = 0
        self.counts: Counter[tuple[str, str, str]] = Counter()
        self.points: Counter[tuple[str, str, str]] = Counter()

    def add(self, line: Line) -> None:
        """Add one line."""
        self.records = max(self.records, line.record)
        key = line.row.source, line.row.event_type, line.row.kind.value
        self.counts[key] += 1
        self.points[key] += line.points or 0  # type: ignore[assignment] # a Counter of Decimals
