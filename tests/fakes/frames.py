"""Wrappers that events arrive in, written from their documentation: the opposite of `service/sources/framing.py`."""

from __future__ import annotations

import gzip
import hashlib
import json
from collections.abc import Sequence


def varint(value: int) -> bytes:
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def field(number: int, data: bytes) -> bytes:
    return varint(number << 3 | 2) + varint(len(data)) + data


def kpl(payloads: Sequence[bytes]) -> bytes:
    """As the Kinesis Producer Library aggregates: a table of partition keys, one of hash keys, and records."""
    message = field(1, b"key-a") + field(1, b"key-b") + field(2, b"340282366920938463463374607431768211455")
    for index, payload in enumerate(payloads):
        message += field(3, varint(1 << 3) + varint(index % 2) + field(3, payload))
    return kpl_of(message)


def kpl_of(message: bytes) -> bytes:
    return b"\xf3\x89\x9a\xc2" + message + hashlib.md5(message, usedforsecurity=False).digest()


def log_subscription(messages: Sequence[str], message_type: str = "DATA_MESSAGE") -> bytes:
    """As a CloudWatch Logs subscription puts log events on a stream."""
    return gzip.compress(
        json.dumps(
            {
                "messageType": message_type,
                "owner": "111122223333",
                "logGroup": "group",
                "logStream": "stream",
                "subscriptionFilters": ["filter"],
                "logEvents": [{"id": str(at), "timestamp": 1, "message": text} for at, text in enumerate(messages)],
            }
        ).encode()
    )


def notification(message: str) -> bytes:
    """As SNS hands a message on without raw delivery."""
    return json.dumps(
        {
            "Type": "Notification",
            "MessageId": "00000000-0000-4000-8000-00000000bbbb",
            "TopicArn": "arn:aws:sns:eu-west-1:111122223333:ses",
            "Message": message,
            "Timestamp": "2026-11-20T10:00:01.000Z",
        }
    ).encode()
