"""Records that the Kinesis Producer Library aggregated: several user records in one Kinesis record.

Format: https://github.com/awslabs/amazon-kinesis-producer/blob/master/aggregation-format.md (four magic bytes, a
protobuf message, the MD5 of that message). The message is read by hand: three field numbers do not justify a protobuf
runtime, and the Python package for it (aws-kinesis-agg) swallows errors and is not maintained.

Partition and hash keys are not read. The library sends a user record again when its Kinesis record landed in a shard
whose hash range does not hold the user record's key (`Retrier::succeed_if_correct_shard` in its source), which happens
while a stream is resharded. The Kinesis Client Library drops such records by the shard's hash range; here they count,
and the second one counts too unless the source has an `event_id`.
"""

from __future__ import annotations

import hashlib

MAGIC = b"\xf3\x89\x9a\xc2"

_MD5_BYTES = 16
_MAX_VARINT_BYTES = 10
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_RECORDS = 3
_DATA = 3


class KplError(ValueError):
    """The aggregated record is damaged; the message says how."""


def user_records(data: bytes, limit: int) -> list[bytes]:
    """Return the payloads of an aggregated record, in order.

    Args:
        data: The Kinesis record, starting with `MAGIC`.
        limit: Most user records taken.

    Raises:
        KplError: The checksum or the structure is wrong, or there are more than `limit` user records.
    """
    if len(data) < len(MAGIC) + _MD5_BYTES:
        raise KplError("an aggregated KPL record is cut off")
    message = data[len(MAGIC) : -_MD5_BYTES]
    if hashlib.md5(message, usedforsecurity=False).digest() != data[-_MD5_BYTES:]:
        raise KplError("an aggregated KPL record does not match its MD5 checksum")
    payloads: list[bytes] = []
    for number, record in _fields(message):
        if number != _RECORDS:
            continue
        if len(payloads) == limit:
            raise KplError(f"an aggregated KPL record holds more than {limit} user records")
        fields = [value for field, value in _fields(record) if field == _DATA]
        if not fields:
            raise KplError("a user record of an aggregated KPL record has no data")
        payloads.append(fields[-1])
    return payloads


def _fields(message: bytes) -> list[tuple[int, bytes]]:
    """Return the length-delimited fields of a protobuf message; others are skipped."""
    found: list[tuple[int, bytes]] = []
    at = 0
    while at < len(message):
        tag, at = _varint(message, at)
        wire_type = tag & 7
        if wire_type == _BYTES:
            size, at = _varint(message, at)
            end = at + size
            if end <= len(message):
                found.append((tag >> 3, message[at:end]))
            at = end
        elif wire_type == _VARINT:
            _, at = _varint(message, at)
        elif wire_type in (_FIXED64, _FIXED32):
            at += 8 if wire_type == _FIXED64 else 4
        else:
            raise KplError("an aggregated KPL record is not a protobuf message")
        if at > len(message):
            raise KplError("an aggregated KPL record is not a protobuf message: a field is cut off")
    return found


def _varint(message: bytes, at: int) -> tuple[int, int]:
    """Return the number at `at` and where the next field begins."""
    value = 0
    for position in range(at, min(at + _MAX_VARINT_BYTES, len(message))):
        byte = message[position]
        value |= (byte & 0x7F) << 7 * (position - at)
        if byte < 0x80:  # noqa: PLR2004 - the continuation bit
            return value, position + 1
    raise KplError("an aggregated KPL record is not a protobuf message: a number is cut off")
