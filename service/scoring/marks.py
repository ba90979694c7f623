"""Marks: up to which record of each shard a person's score has been applied. Packed into one Binary.

A mark is needed only while its shard could still give the record that it stands for. Kinesis forgets a record once the
stream's retention has passed since its arrival. So a mark carries the hour of that arrival, and is dropped once the
hour is more than retention and margin before the arrival of a record that is being applied now. Both times are the
stream's own: no worker's clock decides, and a worker that is far behind drops less, never more.

A sequence number has 56 digits, which DynamoDB's numbers (38 digits) cannot hold. A shard's sequence numbers begin with
its `StartingSequenceNumber`
(https://docs.aws.amazon.com/kinesis/latest/APIReference/API_SequenceNumberRange.html), so a mark keeps the distance
from there: 13 bytes instead of 24. Only its own shard compares a mark, and knows where it starts.

Bytes: format (1), then for each stream: length of its tag (1), tag, number of marks (2), and for each mark: shard
number (length, bytes; length 0x80 and above: text of length less 0x80), hours since 2020-01-01 (3), flags and length
(1), value.
"""

from __future__ import annotations

from collections.abc import Mapping
from sys import intern

import msgspec

FORMAT = 1
HOUR_MS = 3_600_000
MARGIN_MS = 24 * HOUR_MS
"""How much longer than the retention a mark is kept: `ApproximateArrivalTimestamp` has no guaranteed accuracy
(https://docs.aws.amazon.com/kinesis/latest/APIReference/API_Record.html), and hours are rounded down."""

_EPOCH_HOUR = 438_288
"""2020-01-01 00:00, in hours since 1970-01-01."""

_MAX_HOUR = _EPOCH_HOUR + 0xFF_FFFF
_TEXT = 0x80
_RELATIVE = 0x80


class Mark(msgspec.Struct, frozen=True, gc=False):
    """The last record of a shard that is in the score.

    Attributes:
        value: Its sequence number, less the shard's first one where `relative`.
        hour: When the stream took it, hours since 1970-01-01, rounded down.
        relative: Whether `value` counts from the shard's `StartingSequenceNumber`.
    """

    value: int
    hour: int
    relative: bool


class MarksFormatError(ValueError):
    """The bytes are not marks that this version can read."""


def mark_of(sequence: int, starting_sequence: int, arrival_ms: int) -> Mark:
    """Return the mark of a record.

    Args:
        sequence: Its sequence number.
        starting_sequence: The first sequence number of its shard; 0 where the stream does not say.
        arrival_ms: When the stream took it, epoch milliseconds.
    """
    hour = arrival_ms // HOUR_MS
    if 0 < starting_sequence <= sequence:
        return Mark(sequence - starting_sequence, hour, relative=True)
    return Mark(sequence, hour, relative=False)


def applied_up_to(mark: Mark, starting_sequence: int) -> int:
    """Return the sequence number that a mark stands for.

    Raises:
        ValueError: The mark is relative, and where the shard starts is not known: nothing may be assumed of it.
    """
    if not mark.relative:
        return mark.value
    if starting_sequence <= 0:
        raise ValueError("the mark counts from the shard's first sequence number, which is not known here")
    return mark.value + starting_sequence


def kept(marks: Mapping[str, Mark], applied_ms: int, retention_ms: int) -> dict[str, Mark]:
    """Return the marks that are still needed.

    Args:
        marks: By shard tag.
        applied_ms: When the stream took the record that is being applied now, epoch milliseconds.
        retention_ms: How long the stream keeps records.
    """
    oldest = (applied_ms - retention_ms - MARGIN_MS) // HOUR_MS
    return {tag: mark for tag, mark in marks.items() if mark.hour >= oldest}


def pack_marks(marks: Mapping[str, Mark]) -> bytes:
    """Return marks by shard tag as bytes; a tag is `<stream tag>-<shard>`."""
    streams: dict[str, list[tuple[str, Mark]]] = {}
    for tag in sorted(marks):
        stream, _, shard = tag.partition("-")
        streams.setdefault(stream, []).append((shard, marks[tag]))
    out = bytearray((FORMAT,))
    for stream, entries in streams.items():
        _put(out, stream.encode())
        out += len(entries).to_bytes(2, "big")
        for shard, mark in entries:
            _put_shard(out, shard)
            out += (min(max(mark.hour, _EPOCH_HOUR), _MAX_HOUR) - _EPOCH_HOUR).to_bytes(3, "big")
            size = (mark.value.bit_length() + 7) // 8
            out.append(size | (_RELATIVE if mark.relative else 0))
            out += mark.value.to_bytes(size, "big")
    return bytes(out)


def _put(out: bytearray, text: bytes) -> None:
    out.append(len(text))
    out += text


def _put_shard(out: bytearray, shard: str) -> None:
    if shard.isascii() and shard.isdecimal() and (shard == "0" or shard[0] != "0"):
        number = int(shard)
        size = (number.bit_length() + 7) // 8
        if size < _TEXT:
            out.append(size)
            out += number.to_bytes(size, "big")
            return
    text = shard.encode()
    out.append(_TEXT | len(text))
    out += text


def unpack_marks(data: bytes) -> dict[str, Mark]:
    """Return the marks that `pack_marks` made these bytes of.

    Raises:
        MarksFormatError: They are of another format, or cut off.
    """
    if not data or data[0] != FORMAT:
        raise MarksFormatError(f"marks of format {data[0] if data else 'none'}; this version reads {FORMAT}")
    marks: dict[str, Mark] = {}
    at = 1
    try:
        while at < len(data):
            size = data[at]
            stream = str(_cut(data, at + 1, size), "ascii")
            at += 1 + size
            count = int.from_bytes(_cut(data, at, 2), "big")
            at += 2
            for _ in range(count):
                at = _read_mark(data, at, stream, marks)
    except (IndexError, UnicodeDecodeError) as error:
        raise MarksFormatError("the marks are cut off") from error
    return marks


def _read_mark(data: bytes, at: int, stream: str, marks: dict[str, Mark]) -> int:
    size = data[at]
    if size & _TEXT:
        size &= ~_TEXT
        shard = str(_cut(data, at + 1, size), "utf-8")
    else:
        shard = str(int.from_bytes(_cut(data, at + 1, size), "big"))
    at += 1 + size
    hour = int.from_bytes(_cut(data, at, 3), "big") + _EPOCH_HOUR
    flags = data[at + 3]
    size = flags & ~_RELATIVE
    value = int.from_bytes(_cut(data, at + 4, size), "big")
    # Kept for many people: one text of a shard serves all.
    marks[intern(f"{stream}-{shard}")] = Mark(value, hour, relative=bool(flags & _RELATIVE))
    return at + 4 + size


def _cut(data: bytes, at: int, size: int) -> bytes:
    if at + size > len(data):
        raise IndexError
    return data[at : at + size]
