"""Why a record cannot be decoded: what its bytes are, where they are not one JSON object in UTF-8.

Pure, and the same for every source. Formats that carry several events in one record, or wrap them, are recognised so
that the reason names them. `framing.py` takes some of them apart; where records are not framed, they end here.

- The event of a Lambda function that reads a stream is an object with `Records`
  (https://docs.aws.amazon.com/lambda/latest/dg/with-kinesis-example.html).
- Firehose sends `records` with `requestId` to HTTP endpoints
  (https://docs.aws.amazon.com/firehose/latest/dev/httpdeliveryrequestresponse.html), and with `invocationId` to
  transforming functions (https://docs.aws.amazon.com/firehose/latest/dev/data-transformation.html).
"""

from __future__ import annotations

import binascii
import re
from collections.abc import Mapping

import msgspec

from service.scoring.event import Reason, Rejected
from service.sources.decoding import NOT_AN_OBJECT, why_not_json
from service.sources.framing import GZIP_MAGIC
from service.sources.kpl import MAGIC as KPL_MAGIC

UTF8_BOM = b"\xef\xbb\xbf"
UTF16_STARTS = (b"\xff\xfe", b"\xfe\xff", b"{\x00", b"\x00{")
"""A byte order mark, or a brace, in UTF-16."""

_MAGIC = (
    (KPL_MAGIC, Rejected(Reason.IS_KPL_AGGREGATE, "a KPL aggregate of several events; switch aggregation off")),
    (GZIP_MAGIC, Rejected(Reason.IS_GZIP, "gzip-compressed data; send the event uncompressed")),
    (UTF8_BOM, Rejected(Reason.HAS_BOM, "the record starts with a UTF-8 byte order mark; send it without")),
)
_UTF16 = Rejected(Reason.IS_UTF16, "UTF-16 text; send UTF-8")
_BASE64 = Rejected(Reason.IS_BASE64, "base64 text; send the decoded bytes, as the AWS SDKs encode them by themselves")
_JSON_LINES = Rejected(Reason.IS_JSON_LINES, "several JSON values in one record; send one event per record")
_FIREHOSE = Rejected(Reason.IS_FIREHOSE_ENVELOPE, "a Firehose request (`records`); send the events that it carries")
_LAMBDA = Rejected(Reason.IS_LAMBDA_ENVELOPE, "the event of a Lambda function (`Records`); send what it carries")

_HEAD = 64
"""Bytes of a record that are looked at to recognise base64: a multiple of 4."""

_TRAILING = re.compile(r"trailing characters \(byte (\d+)\)")
"""How msgspec says that a first value is complete and more follows."""


class _Envelope(msgspec.Struct, gc=False):
    # Only whether they are there is read.
    lambda_records: msgspec.Raw = msgspec.field(name="Records", default_factory=msgspec.Raw)
    records: msgspec.Raw = msgspec.Raw()
    request_id: msgspec.Raw = msgspec.field(name="requestId", default_factory=msgspec.Raw)
    invocation_id: msgspec.Raw = msgspec.field(name="invocationId", default_factory=msgspec.Raw)


_envelope = msgspec.json.Decoder(_Envelope)


def why_undecodable(data: bytes, error: Exception) -> Rejected | None:
    """Return what is wrong with a record that a typed decoder refused with `error`.

    Returns:
        None where the bytes are one JSON object: then only the type of a field is wrong.
    """
    for magic, what in _MAGIC:
        if data.startswith(magic):
            return what
    if data.startswith(UTF16_STARTS):
        return _UTF16
    why = why_not_json(data, error)
    if why.reason is Reason.WRONG_TYPE:
        return None if data.lstrip().startswith(b"{") else NOT_AN_OBJECT
    if why.reason is not Reason.NOT_JSON:
        return why
    if _is_base64(data):
        return _BASE64
    trailing = _TRAILING.search(why.detail)
    # It counts bytes from 1.
    if trailing is not None and data[int(trailing[1]) - 1 :].lstrip()[:1] in {b"{", b"["}:
        return _JSON_LINES
    return why


def without_event_type(data: bytes) -> Rejected:
    """Return what a JSON object without `event_type` is.

    Args:
        data: A record that decodes as an object.
    """
    envelope = _envelope.decode(data)
    if bytes(envelope.lambda_records):
        return _LAMBDA
    if bytes(envelope.records) and (bytes(envelope.request_id) or bytes(envelope.invocation_id)):
        return _FIREHOSE
    return Rejected(Reason.NO_EVENT_TYPE, "the object has no event_type")


def disguise(data: bytes, why: Rejected) -> Rejected | None:
    """Return what bytes are that framing found no event in, where they are UTF-16 or base64; else None.

    Args:
        data: The bytes.
        why: What framing says of them.
    """
    if why.reason not in {Reason.NOT_JSON, Reason.NOT_UTF8}:
        return None
    if data.startswith(UTF16_STARTS):
        return _UTF16
    return _BASE64 if _is_base64(data) else None


def wrapped_by_aws(top: Mapping[str, object]) -> Rejected | None:
    """Return what an object is that Lambda or Firehose made of records, instead of an event; else None."""
    if top.get("Records"):
        return _LAMBDA
    if top.get("records") and (top.get("requestId") or top.get("invocationId")):
        return _FIREHOSE
    return None


def _is_base64(data: bytes) -> bool:
    """Return whether the text is base64 of an object, of an array, or of what `_MAGIC` names."""
    head = data[:_HEAD].rstrip()
    head = head[: len(head) - len(head) % 4]
    try:
        decoded = binascii.a2b_base64(head, strict_mode=True)
    except binascii.Error:
        return False
    return decoded.startswith((b"{", b"[", UTF8_BOM, GZIP_MAGIC, KPL_MAGIC))
