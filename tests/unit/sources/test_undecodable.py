"""A record that is not one JSON object: the reason says what it is."""

from __future__ import annotations

import base64
import gzip
import hashlib
import json

import pytest

from service.scoring.event import Event, Reason, Rejected
from service.sources.pinpoint import decode

EVENT = json.dumps({"event_type": "a", "application": {"app_id": "p"}, "client": {"client_id": "e"}}).encode()


def kpl(*payloads: bytes) -> bytes:
    """A KPL aggregate: the magic, protobuf (field 3: records, each with its data in field 3), the MD5 of that."""

    def field(number: int, data: bytes) -> bytes:
        length = bytes([len(data) & 127 | 128, len(data) >> 7])
        return bytes([number << 3 | 2]) + length + data

    message = b"".join(field(3, field(3, payload)) for payload in payloads)
    return b"\xf3\x89\x9a\xc2" + message + hashlib.md5(message).digest()  # noqa: S324 - the format's checksum


FIREHOSE = json.dumps(
    {"requestId": "r", "timestamp": 1, "records": [{"data": base64.b64encode(EVENT).decode()}]}
).encode()
TRANSFORMATION = json.dumps(
    {
        "invocationId": "i",
        "deliveryStreamArn": "arn:aws:firehose:eu-west-1:111122223333:deliverystream/d",
        "records": [{"recordId": "1", "data": base64.b64encode(EVENT).decode()}],
    }
).encode()
LAMBDA = json.dumps(
    {"Records": [{"eventSource": "aws:kinesis", "kinesis": {"data": base64.b64encode(EVENT).decode()}}]}
).encode()


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (kpl(EVENT, EVENT), Reason.IS_KPL_AGGREGATE),
        (kpl(b"short"), Reason.IS_KPL_AGGREGATE),
        (gzip.compress(EVENT), Reason.IS_GZIP),
        (b"\xef\xbb\xbf" + EVENT, Reason.HAS_BOM),
        (EVENT.decode().encode("utf-16"), Reason.IS_UTF16),
        (EVENT.decode().encode("utf-16-le"), Reason.IS_UTF16),
        (EVENT.decode().encode("utf-16-be"), Reason.IS_UTF16),
        (base64.b64encode(EVENT), Reason.IS_BASE64),
        (base64.b64encode(EVENT) + b"\n", Reason.IS_BASE64),
        (base64.b64encode(b"[]"), Reason.IS_BASE64),
        (base64.b64encode(gzip.compress(EVENT)), Reason.IS_BASE64),
        (base64.b64encode(kpl(EVENT)), Reason.IS_BASE64),
        (EVENT + b"\n" + EVENT, Reason.IS_JSON_LINES),
        (EVENT + b"\r\n" + EVENT + b"\r\n", Reason.IS_JSON_LINES),
        (EVENT * 2, Reason.IS_JSON_LINES),
        (EVENT + b"\n" + EVENT[:-5], Reason.IS_JSON_LINES),
        (FIREHOSE, Reason.IS_FIREHOSE_ENVELOPE),
        (TRANSFORMATION, Reason.IS_FIREHOSE_ENVELOPE),
        (LAMBDA, Reason.IS_LAMBDA_ENVELOPE),
    ],
)
def test_an_event_in_the_wrong_envelope_is_set_aside_with_its_reason(data: bytes, reason: Reason):
    """KPL and gzip were `not_utf8`, the others `not_json` or `no_event_type`: nobody could tell what to change."""
    rejected = decode(data)
    assert isinstance(rejected, Rejected), rejected
    assert rejected.reason is reason


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (EVENT + b" and so on", Reason.NOT_JSON),
        (EVENT + b"}", Reason.NOT_JSON),
        (b"abcd", Reason.NOT_JSON),
        (b"2026-09-20,_email.open,member", Reason.NOT_JSON),
        (base64.b64encode(b"plain text in base64"), Reason.NOT_JSON),
        (base64.b64encode(EVENT)[:-7] + b"!", Reason.IS_BASE64),
        (b'{"records":[1]}', Reason.NO_EVENT_TYPE),
        (b"[" + EVENT + b"]", Reason.NOT_AN_OBJECT),
    ],
)
def test_what_only_resembles_one_is_not_taken_for_it(data: bytes, reason: Reason):
    rejected = decode(data)
    assert isinstance(rejected, Rejected), rejected
    assert rejected.reason is reason


def test_an_event_with_fields_of_those_names_is_an_event():
    data = json.dumps({**json.loads(EVENT), "Records": [], "records": [], "requestId": "r"}).encode()
    assert isinstance(decode(data), Event)
