"""Marks: up to which record of each shard a person's score has been applied. Packed into one Binary.

A mark is needed only while its shard could still give the record that it stands for. Kinesis drops a record once the
stream's retention has passed since its arrival. So a mark carries the hour of that arrival, and is dropped once the
hour is more than the retention and a margin before the arrival of a record that is being applied now. Both times are
the stream's own. The clock of a worker never decides, and a worker that is far behind drops less, never more.

A sequence number has 56 digits, which DynamoDB's numbers (38 digits) cannot hold. A shard's sequence numbers begin with
its `StartingSequenceNumber`
(https://docs.aws.amazon.com/kinesis/latest/APIReference/API_SequenceNumberRange.html), so a mark keeps the distance
from there: 13 bytes instead of 24. Only its own shard compares a mark, and knows where it starts.

A mark in memory and in the item has the same bytes: hour (3, since 2020-01-01), form and length (1), value. The hour
comes first, so that comparing marks as bytes compares their hours.

An item also tells how far its marks have been dropped: under the key that all tags of a stream begin with, it has an
hour before which marks of that stream may be gone. So a batch that was held for days, while others went on, is not
taken for something new.

An item's Binary: format (1), then for each stream: length of its tag and the dash behind it (1), that text, number of
marks (2), and for each mark: shard number (length, bytes; a length of 0x80: length and bytes of a text), mark.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from sys import intern

import msgspec

SEQUENCE_BYTES = 24
"""Width of a sequence number that is compared: 56 decimal digits need 187 bits; fixed-width big-endian bytes compare
as the numbers do."""

FORMAT = 1
HOUR_MS = 3_600_000
MARGIN_MS = 24 * HOUR_MS
"""How much longer than the retention a mark is kept: `ApproximateArrivalTimestamp` has no guaranteed accuracy
(https://docs.aws.amazon.com/kinesis/latest/APIReference/API_Record.html), hours are rounded down, and a worker learns
of a longer retention some time after it was set."""

LONGEST_MS = 8760 * HOUR_MS
"""The longest retention of any stream
(https://docs.aws.amazon.com/kinesis/latest/APIReference/API_IncreaseStreamRetentionPeriod.html)."""

Mark = bytes
"""The last record of a shard that is in the score: hour, form and length, value."""

UNDATED = b"\xff\xff\xff"
"""The hour of a mark of version 0.1, which kept none: `fold` dates it when it writes the item."""

_EPOCH_HOUR = 438_288
"""2020-01-01 00:00, in hours since 1970-01-01."""

_HOUR_BYTES = 3
_MAX_HOUR = 0xFF_FFFE
_RELATIVE = 0x80
_SIZE = 0x3F
_LARGEST = (1 << 8 * SEQUENCE_BYTES) - 1
_TEXT = 0x80
_NAMES = 16_384
"""Shard tags whose bytes are kept ready; what is beyond costs a little CPU."""


class MarksFormatError(ValueError):
    """The bytes are not marks that this version can read."""


class UncertainError(Exception):
    """Whether an event is in a score cannot be said now.

    Attributes:
        for_good: Whether reading the event again cannot change that.
    """

    def __init__(self, why: str, *, for_good: bool = False) -> None:
        super().__init__(why)
        self.for_good = for_good


class Marking(msgspec.Struct, frozen=True, gc=False):
    """What a batch of one shard means for marks: made once for all its users, by `marking`.

    Attributes:
        tag: The shard's tag.
        prefix: What all tags of its stream begin with.
        starting: The shard's first sequence number; 0 where the stream does not say.
        hour: When the newest record of the batch arrived.
        oldest: When its oldest record arrived.
        today: The hour that undated marks get: not before any record that was read up to now.
        drop_before: Marks of the stream with an earlier hour are dropped; empty: none are.
        drop_others_before: Likewise marks of other streams.
        shortened: Whether marks are kept for a shorter time than the stream keeps records.
    """

    tag: str
    prefix: str
    starting: int
    hour: bytes
    oldest: bytes
    today: bytes
    drop_before: bytes
    drop_others_before: bytes
    shortened: bool = False

    def set_at(self, sequence: bytes) -> Mark:
        """Return the mark of a record of the batch by its sequence number (`SEQUENCE_BYTES`, big-endian)."""
        number, form = int.from_bytes(sequence, "big"), 0
        if 0 < self.starting <= number:
            number, form = number - self.starting, _RELATIVE
        size = (number.bit_length() + 7) // 8
        return self.hour + bytes((form | size,)) + number.to_bytes(size, "big")

    def applied_up_to(self, mark: Mark) -> bytes:
        """Return the sequence number that the shard's mark stands for.

        Raises:
            UncertainError: It counts from the shard's start, which is not known here.
        """
        number = int.from_bytes(mark[_HOUR_BYTES + 1 :], "big")
        if mark[_HOUR_BYTES] & _RELATIVE:
            if self.starting <= 0:
                raise UncertainError("the mark counts from the shard's first sequence number, which is not known here")
            number += self.starting
        return min(number, _LARGEST).to_bytes(SEQUENCE_BYTES, "big")

    def check(self, marks: Mapping[str, Mark]) -> None:
        """Make sure that a score without a mark of the shard never had one that a record of the batch would need.

        A record that can be read is younger than the retention. So this fails only for a batch that was held for longer
        than the margin after it was read, or where marks are kept for a shorter time than the stream keeps records.

        Raises:
            UncertainError: Marks as old as the batch's oldest record may have been dropped.
        """
        dropped = marks.get(self.prefix)
        if dropped is not None and self.oldest < dropped[:_HOUR_BYTES]:
            raise UncertainError(
                "the event is so old that its mark may have been dropped: nothing tells whether it is in the score",
                for_good=self.shortened,
            )

    def kept(self, marks: Mapping[str, Mark]) -> dict[str, Mark]:
        """Return the marks that are still needed, each with a date, and how far others were dropped."""
        before, others, prefix = self.drop_before, self.drop_others_before, self.prefix
        left = {
            tag: mark if mark < UNDATED else self.today + mark[_HOUR_BYTES:]
            for tag, mark in marks.items()
            if mark > before or (mark > others and not tag.startswith(prefix))
        }
        if len(left) < len(marks):
            left[prefix] = max(marks.get(prefix, b""), before + b"\x00")
        return left


def marking(
    tag: str,
    *,
    starting: int = 0,
    oldest_ms: int = 0,
    newest_ms: int = 0,
    now_ms: int = 0,
    keep_ms: int | None = None,
    shortened: bool = False,
) -> Marking:
    """Return what a batch means for marks.

    Args:
        tag: Its shard's tag, `<stream tag>-<shard>`.
        starting: The shard's first sequence number; 0 where the stream does not say.
        oldest_ms: When the stream took the batch's oldest record, epoch milliseconds; 0: not known, no mark is dropped.
        newest_ms: Likewise the newest record; 0: not known, the worker's clock is asked.
        now_ms: The worker's clock, epoch milliseconds: the latest that a mark without a date can be of.
        keep_ms: How long marks are needed; None: not known now, no mark is dropped.
        shortened: Whether that is shorter than the stream keeps records.
    """
    newest_ms = newest_ms or now_ms
    drop_before = drop_others_before = b""
    if keep_ms is not None and oldest_ms:
        drop_before = _hour(oldest_ms - keep_ms - MARGIN_MS)
        drop_others_before = _hour(oldest_ms - max(keep_ms, LONGEST_MS) - MARGIN_MS)
    return Marking(
        tag=tag,
        prefix=tag[: tag.rfind("-") + 1],
        starting=starting,
        hour=_hour(newest_ms),
        oldest=_hour(oldest_ms) if oldest_ms else UNDATED,
        today=_hour(max(now_ms, newest_ms)),
        drop_before=drop_before,
        drop_others_before=drop_others_before,
        shortened=shortened,
    )


def _hour(epoch_ms: int) -> bytes:
    return min(max(epoch_ms // HOUR_MS - _EPOCH_HOUR, 0), _MAX_HOUR).to_bytes(_HOUR_BYTES, "big")


def by_shard(marks: Mapping[str, Mark]) -> dict[str, Mark]:
    """Return the marks by shard tag, without what tells how far others were dropped."""
    return {tag: mark for tag, mark in marks.items() if not tag.endswith("-")}


def undated(sequence: bytes) -> Mark:
    """Return the mark of a sequence number (`SEQUENCE_BYTES`) whose arrival is not known, as version 0.1 kept it."""
    return UNDATED + bytes((len(sequence),)) + sequence


def arrival_ms(mark: Mark) -> int | None:
    """Return the hour of a mark, epoch milliseconds; None where it has none."""
    if mark >= UNDATED:
        return None
    return (int.from_bytes(mark[:_HOUR_BYTES], "big") + _EPOCH_HOUR) * HOUR_MS


def shown(mark: Mark) -> str:
    """Return a mark's sequence number for a person; with a `+`, counted from the shard's first one."""
    sign = "+" if mark[_HOUR_BYTES] & _RELATIVE else ""
    return f"{sign}{int.from_bytes(mark[_HOUR_BYTES + 1 :], 'big')}"


def pack_marks(marks: Mapping[str, Mark]) -> bytes:
    """Return marks by shard tag as bytes."""
    streams: dict[bytes, list[bytes]] = {}
    for tag, mark in marks.items():
        stream, shard = _name_of(tag)
        entries = streams.get(stream)
        if entries is None:
            entries = streams[stream] = []
        entries += shard, mark
    parts = [bytes((FORMAT,))]
    for stream, entries in streams.items():
        # Two bytes are enough: DynamoDB refuses an item above 400 KB, and the fewest bytes of a mark are 5.
        parts += stream, (len(entries) // 2).to_bytes(2, "big"), *entries
    return b"".join(parts)


@lru_cache(_NAMES)
def _name_of(tag: str) -> tuple[bytes, bytes]:
    """Return the bytes that name a tag's stream, and those that name its shard."""
    cut = tag.rfind("-") + 1
    stream, shard = tag[:cut].encode(), tag[cut:]
    head = bytes((len(stream),)) + stream
    if shard.isascii() and shard.isdecimal() and (shard == "0" or shard[0] != "0"):
        number = int(shard)
        size = (number.bit_length() + 7) // 8
        if size < _TEXT:
            return head, bytes((size,)) + number.to_bytes(size, "big")
    text = shard.encode()
    return head, bytes((_TEXT, len(text))) + text


def unpack_marks(data: bytes) -> dict[str, Mark]:
    """Return the marks that `pack_marks` made these bytes of.

    Raises:
        MarksFormatError: They are of another format, or cut off.
    """
    if not data or data[0] != FORMAT:
        raise MarksFormatError(f"marks of format {data[0] if data else 'none'}; this version reads {FORMAT}")
    marks: dict[str, Mark] = {}
    at, end = 1, len(data)
    try:
        while at < end:
            stream = at + 1 + data[at]
            prefix = data[at + 1 : stream]
            count = int.from_bytes(_cut(data, stream, 2), "big")
            at = stream + 2
            for _ in range(count):
                size = data[at]
                shard = at + 1 + size if size < _TEXT else at + 2 + data[at + 1]
                size = data[shard + _HOUR_BYTES] & _SIZE
                if size > SEQUENCE_BYTES:
                    raise MarksFormatError(f"a sequence number of {size} bytes")
                end_of_mark = shard + _HOUR_BYTES + 1 + size
                marks[_tag_of(prefix, data[at:shard])] = _cut(data, shard, end_of_mark - shard)
                at = end_of_mark
    except (IndexError, UnicodeDecodeError) as error:
        raise MarksFormatError("the marks are cut off, or are something else") from error
    return marks


@lru_cache(_NAMES)
def _tag_of(prefix: bytes, shard: bytes) -> str:
    # Kept for many people: one text of a shard serves all.
    if shard[0] == _TEXT:
        return intern((prefix + shard[2:]).decode())
    return intern(f"{prefix.decode()}{int.from_bytes(shard[1:], 'big')}")


def _cut(data: bytes, at: int, size: int) -> bytes:
    if at + size > len(data):
        raise IndexError
    return data[at : at + size]
