"""From the bytes of a Kinesis record to the events in it.

| a record may be | events |
|---|---|
| one JSON object (the usual case; white space, a byte order mark and CRLF do no harm) | 1 |
| JSON lines, objects written one after the other | 1 each |
| JSON arrays (CloudEvents' batch, Twilio's sink) | 1 per element |
| gzip of any of these | those in it |
| gzip of a CloudWatch Logs subscription's message | those in each `logEvents[].message` |
| aggregated by the Kinesis Producer Library | those in each user record |
| an SNS notification | those in its `Message` |

Sources: docs.aws.amazon.com/AmazonCloudWatch/latest/logs/SubscriptionFilters.html (gzip, `messageType` DATA_MESSAGE or
CONTROL_MESSAGE), docs.aws.amazon.com/sns/latest/dg/http-notification-json.html (JSON in the text `Message`),
`service/sources/kpl.py`.

What cannot be taken apart is one fault: of the event where its end can be seen, else of the whole record, and then no
event of the record counts. So a fault's payload can be put back on the stream without counting a sibling again.
Every record gives at least one frame. Splitting is a function of the bytes alone: the same record has the same events
at the same index, whenever it is read.
"""

from __future__ import annotations

import json
import re
import zlib

import msgspec

from service.scoring.event import Reason, Rejected
from service.sources.decoding import MAX_RECORD_BYTES, NOT_AN_OBJECT, JsonObject, why_not_json
from service.sources.kpl import MAGIC as KPL_MAGIC
from service.sources.kpl import KplError, user_records

MAX_EVENTS = 10_000
"""Most events in one record. A record with more is one dead letter: its memory is not worth its few bytes."""

MAX_FAULTS = 100
"""Most damaged events in one record. With more, the record is damaged as a whole."""

MAX_LAYERS = 5
"""Most wrappers around an event: CloudWatch Logs of SNS notifications in an aggregated record has four."""

MAX_UNPACKED_BYTES = MAX_RECORD_BYTES
"""Most bytes that all compressed parts of one record may unpack to: as many as a record may have uncompressed."""

GZIP_MAGIC = b"\x1f\x8b"
_BOM = b"\xef\xbb\xbf"
_WHITE = b" \t\r\n"


class Fault(msgspec.Struct, frozen=True):
    """A part of a record that is not an event.

    Attributes:
        why: For the dead letter.
        payload: That part alone.
    """

    why: Rejected
    payload: bytes


class Empty(msgspec.Struct, frozen=True):
    """A part of a record that holds no event by its sender's intention.

    Attributes:
        reason: One sentence.
    """

    reason: str


Frame = bytes | Fault | Empty

EMPTY_LIST = Empty("an empty list")
CONTROL_MESSAGE = Empty("a CloudWatch Logs control message")


_TOO_MANY_LAYERS = Rejected(Reason.BAD_ENVELOPE, f"events are wrapped more than {MAX_LAYERS} times")


class _LogEvent(msgspec.Struct, gc=False):
    message: str


class _LogMessage(msgspec.Struct, gc=False):
    """https://docs.aws.amazon.com/AmazonCloudWatch/latest/logs/SubscriptionFilters.html."""

    message_type: str = msgspec.field(name="messageType")
    log_group: str = msgspec.field(name="logGroup")
    log_events: list[_LogEvent] = msgspec.field(name="logEvents")


_raw = msgspec.json.Decoder(msgspec.Raw)
_raw_list = msgspec.json.Decoder(list[msgspec.Raw])
_log_message = msgspec.json.Decoder(_LogMessage)
_object = msgspec.json.Decoder(dict[str, msgspec.Raw])
_text = msgspec.json.Decoder(str)
_scanner = json.JSONDecoder()


class _WholeRecordError(Exception):
    """No event of the record may count."""

    def __init__(self, why: Rejected) -> None:
        super().__init__(why.detail)
        self.why = why


def frames(data: bytes) -> list[Frame]:
    """Return the events of a record, each as the bytes of one JSON value, in order; their index is their position.

    Never raises. The bytes of an event are not decoded: that they are a sound JSON object is seen by who decodes them.
    """
    if len(data) > MAX_RECORD_BYTES:
        return [
            Fault(
                Rejected(Reason.TOO_LARGE, f"{len(data)} bytes; Kinesis carries at most {MAX_RECORD_BYTES}"),
                data,
            )
        ]
    splitter = _Splitter()
    try:
        splitter.split(data, 0)
    except _WholeRecordError as error:
        return [Fault(error.why, data)]
    return splitter.found


def is_notification(tree: JsonObject) -> bool:
    """Return whether a decoded object is an SNS notification, whose events `frames` finds."""
    return "TopicArn" in tree and tree.get("Type") == "Notification" and type(tree.get("Message")) is str


class _Splitter:
    """Collects the frames of one record, within its limits."""

    def __init__(self) -> None:
        self.found: list[Frame] = []
        self._budget = MAX_UNPACKED_BYTES
        self._faults = 0

    def split(self, data: bytes, layer: int) -> None:
        """Add the frames of `data`, which lies under `layer` wrappers."""
        if layer > MAX_LAYERS:
            raise _WholeRecordError(_TOO_MANY_LAYERS)
        if data.startswith(GZIP_MAGIC):
            self._unpacked(data, layer)
        elif data.startswith(KPL_MAGIC):
            try:
                payloads = user_records(data, MAX_EVENTS)
            except KplError as error:
                raise _WholeRecordError(Rejected(Reason.BAD_ENVELOPE, str(error))) from None
            for payload in payloads:
                self.split(payload, layer + 1)
            if not payloads:
                self._add(EMPTY_LIST)
        else:
            self._values(data.removeprefix(_BOM), layer)

    def _add(self, frame: Frame) -> None:
        if len(self.found) == MAX_EVENTS:
            raise _WholeRecordError(Rejected(Reason.TOO_MANY_EVENTS, f"the record holds more than {MAX_EVENTS} events"))
        if isinstance(frame, Fault):
            self._faults += 1
            if self._faults > MAX_FAULTS:
                why = f"more than {MAX_FAULTS} events of the record are damaged; the last one: {frame.why.detail}"
                raise _WholeRecordError(Rejected(frame.why.reason, why))
        self.found.append(frame)

    def _unpacked(self, data: bytes, layer: int) -> None:
        unpacked = self._gunzip(data)
        if b'"logEvents"' in unpacked:
            try:
                message = _log_message.decode(unpacked)
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
                message = None
            if message is not None:
                self._log_events(message, layer)
                return
        self.split(unpacked, layer + 1)

    def _log_events(self, message: _LogMessage, layer: int) -> None:
        if message.message_type != "DATA_MESSAGE":
            self._add(CONTROL_MESSAGE)
            return
        for event in message.log_events:
            self.split(event.message.encode(), layer + 2)
        if not message.log_events:
            self._add(EMPTY_LIST)

    def _gunzip(self, data: bytes) -> bytes:
        """Unpack all members of a gzip file, within what is left of the record's budget."""
        parts: list[bytes] = []
        while data:
            unpacker = zlib.decompressobj(wbits=31)
            try:
                part = unpacker.decompress(data, self._budget + 1)
            except zlib.error:
                raise _WholeRecordError(Rejected(Reason.BAD_ENVELOPE, "the gzip data is damaged")) from None
            self._budget -= len(part)
            if self._budget < 0:
                raise _WholeRecordError(
                    Rejected(Reason.TOO_LARGE, f"the gzip data unpacks to more than {MAX_UNPACKED_BYTES} bytes")
                )
            if not unpacker.eof:
                raise _WholeRecordError(Rejected(Reason.BAD_ENVELOPE, "the gzip data is cut off"))
            parts.append(part)
            data = unpacker.unused_data.lstrip(b"\0")
            if data and not data.startswith(GZIP_MAGIC):
                raise _WholeRecordError(Rejected(Reason.BAD_ENVELOPE, "something else follows the gzip data"))
        return b"".join(parts)

    def _values(self, data: bytes, layer: int) -> None:
        """Add the JSON values that follow each other in `data`."""
        before = len(self.found)
        try:
            values = [bytes(value) for value in _raw.decode_lines(data)]
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            self._scanned(data, layer)
        else:
            for value in values:
                self._value(value, layer)
        if len(self.found) == before:
            self._add(Fault(Rejected(Reason.NOT_JSON, "the record is empty"), data))

    def _value(self, value: bytes, layer: int) -> None:
        """Add one JSON value: the elements of an array, what a notification of SNS carries, else itself."""
        if layer > MAX_LAYERS:
            raise _WholeRecordError(_TOO_MANY_LAYERS)
        if value.startswith(b"["):
            self._elements(value, layer)
        elif (message := _sns(value)) is not None:
            self.split(message, layer + 1)
        else:
            self._add(value)

    def _elements(self, array: bytes, layer: int) -> None:
        try:
            inner = _raw_list.decode(array)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            self._add(Fault(why_not_json(array, error), array))
            return
        for element in inner:
            self._value(bytes(element), layer + 1)
        if not inner:
            self._add(EMPTY_LIST)

    def _scanned(self, data: bytes, layer: int) -> None:
        """Add the sound arrays and objects of damaged data, and a fault for each stretch between them.

        Other values are not looked for: a line of text such as `2026-09-20,open` begins with a number. After a fault,
        the next line that begins with a bracket is taken as the next value: JSON lines go on there, while the lines of
        one indented object do not begin so.
        """
        text = data.decode("utf-8", "surrogateescape")
        at = _skip_white(text, 0)
        while at < len(text):
            end = _end_of_value(text, at)
            if end:
                self._value(_encoded(text[at:end]), layer)
            else:
                end = _next_value(text, at)
                part = _encoded(text[at:end].rstrip())
                self._add(Fault(_why(part), part))
            at = _skip_white(text, end)


def _sns(value: bytes) -> bytes | None:
    """Return what a value carries if it is an SNS notification.

    The names are plain ASCII that no serializer escapes, so looking for the bytes first finds every notification.
    """
    if b'"TopicArn"' not in value or not value.startswith(b"{"):
        return None
    try:
        fields = _object.decode(value)
        if bytes(fields.get("Type", b"")) != b'"Notification"' or "TopicArn" not in fields:
            return None
        return _text.decode(fields["Message"]).encode()
    except (KeyError, msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


def _encoded(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


def _why(part: bytes) -> Rejected:
    try:
        _raw.decode(part)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        return why_not_json(part, error)
    return NOT_AN_OBJECT


_WHITE_SPACE = re.compile(r"[ \t\r\n]*")
_VALUE_LINE = re.compile(r"\n(?=[{\[])")


def _skip_white(text: str, at: int) -> int:
    match = _WHITE_SPACE.match(text, at)
    return match.end() if match else at


def _end_of_value(text: str, at: int) -> int:
    """Return where the array or object that begins at `at` ends; 0 where none does."""
    if text[at] not in "{[":
        return 0
    try:
        return _scanner.raw_decode(text, at)[1]
    except (ValueError, RecursionError):
        return 0


def _next_value(text: str, at: int) -> int:
    match = _VALUE_LINE.search(text, at + 1)
    return match.end() if match else len(text)
