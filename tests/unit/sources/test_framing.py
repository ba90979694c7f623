import gzip
import json
import time
import tracemalloc

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.scoring.event import Reason
from service.sources.decoding import MAX_RECORD_BYTES
from service.sources.framing import (
    CONTROL_MESSAGE,
    EMPTY_LIST,
    MAX_EVENTS,
    MAX_FAULTS,
    MAX_LAYERS,
    MAX_UNPACKED_BYTES,
    Fault,
    Frame,
    frames,
)
from tests.fakes.frames import field, kpl, kpl_of, log_subscription, notification, varint
from tests.fakes.hostile import CORPUS, MIB, hostile_records, large

A, B, C = b'{"a":1}', b'{"b":[2]}', b'{"c":"{"}'


def fault_of(frame: Frame) -> tuple[Reason, bytes]:
    assert isinstance(frame, Fault), frame
    return frame.why.reason, frame.payload


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (A, [A]),
        (b"  " + A + b"\r\n", [A]),
        (b"\xef\xbb\xbf" + A, [A]),
        (A + b"\n" + B + b"\n", [A, B]),
        (A + b"\r\n\r\n" + B + b"\r\n", [A, B]),
        (A + B + C, [A, B, C]),
        (b'{\n  "a": 1\n}\n{\n  "b": 2\n}', [b'{\n  "a": 1\n}', b'{\n  "b": 2\n}']),
        (b"[" + A + b" , " + B + b"]", [A, B]),
        (b"[" + A + b"]\n[" + B + b"]", [A, B]),
        (b"\xef\xbb\xbf[" + A + b"]", [A]),
        (b"[[" + A + b"],[" + B + b"," + C + b"]]", [A, B, C]),
        (gzip.compress(A + b"\n" + B), [A, B]),
        (gzip.compress(A) + gzip.compress(B), [A, B]),
        (gzip.compress(A) + bytes(5), [A]),
        (gzip.compress(gzip.compress(A)), [A]),
        (kpl([A, B + C, b"[" + A + b"]"]), [A, B, C, A]),
        (kpl([gzip.compress(A), B]), [A, B]),
        (gzip.compress(kpl([A, B])), [A, B]),
        (log_subscription([A.decode(), B.decode() + C.decode()]), [A, B, C]),
        (notification(A.decode()), [A]),
        (notification("[" + A.decode() + "]") + b"\n" + B, [A, B]),
        (b"[" + notification(A.decode()) + b"," + B + b"]", [A, B]),
        (log_subscription([notification(A.decode()).decode()]), [A]),
        (notification(notification(A.decode()).decode()), [A]),
        (b"[]", [EMPTY_LIST]),
        (kpl([]), [EMPTY_LIST]),
        (log_subscription([]), [EMPTY_LIST]),
        (log_subscription(["CWL CONTROL MESSAGE: Checking health of destination Kinesis stream."], "CONTROL_MESSAGE"),
         [CONTROL_MESSAGE]),
        (b'{"Type":"Notification","TopicArn":"x"}', [b'{"Type":"Notification","TopicArn":"x"}']),
        (b'{"Type":"Notification","TopicArn":"x","Message":7}',
         [b'{"Type":"Notification","TopicArn":"x","Message":7}']),
        (b'{"Type":"SubscriptionConfirmation","TopicArn":"x","Message":"y"}',
         [b'{"Type":"SubscriptionConfirmation","TopicArn":"x","Message":"y"}']),
    ],
)  # fmt: skip
def test_the_events_of_a_record(data: bytes, expected: list[Frame]):
    assert frames(data) == expected


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", Reason.NOT_JSON),
        (b" \r\n", Reason.NOT_JSON),
        (b"\xff\xfe{\x00", Reason.NOT_UTF8),
        (b"nonsense", Reason.NOT_JSON),
        (b'{"a":', Reason.NOT_JSON),
        (b'{"a":1,}', Reason.NOT_JSON),
        (b"[" + A + b"," + B, Reason.NOT_JSON),  # where an array is cut off, none of its events may count
        (b"[" * 100_000, Reason.TOO_DEEP),
        (b"[" * 7 + b"]" * 7, Reason.BAD_ENVELOPE),
        (b"x" * (MAX_RECORD_BYTES + 1), Reason.TOO_LARGE),
        (gzip.compress(A)[:-3], Reason.BAD_ENVELOPE),
        (gzip.compress(A)[:12], Reason.BAD_ENVELOPE),
        (b"\x1f\x8b" + A, Reason.BAD_ENVELOPE),
        (gzip.compress(A) + b"x", Reason.BAD_ENVELOPE),
        (gzip.compress(bytes(MAX_UNPACKED_BYTES + 1)), Reason.TOO_LARGE),
        (gzip.compress(bytes(MAX_UNPACKED_BYTES // 2 + 1)) * 2, Reason.TOO_LARGE),
        (kpl([A, B])[:-1] + b"\x00", Reason.BAD_ENVELOPE),
        (kpl([A, B])[:20], Reason.BAD_ENVELOPE),
        (kpl_of(b"")[:10], Reason.BAD_ENVELOPE),
        (kpl_of(b"\x1a\xff"), Reason.BAD_ENVELOPE),
        (kpl_of(b"\x1a" + varint(2**40)), Reason.BAD_ENVELOPE),
        (kpl_of(b"\xff" * 20), Reason.BAD_ENVELOPE),
        (kpl_of(b"\x07"), Reason.BAD_ENVELOPE),
        (kpl_of(field(3, varint(1 << 3) + b"\x00")), Reason.BAD_ENVELOPE),  # a user record without data
        (b"[" + b"{}," * MAX_EVENTS + b"{}]", Reason.TOO_MANY_EVENTS),
        (b"{}\n" * (MAX_EVENTS + 1), Reason.TOO_MANY_EVENTS),
        (kpl([b"{}"] * (MAX_EVENTS + 1)), Reason.BAD_ENVELOPE),
        (b"\n{x" * (MAX_FAULTS + 1), Reason.NOT_JSON),
    ],
    ids=lambda value: repr(value)[:40],
)
def test_a_damaged_record_is_one_fault_with_all_of_it(data: bytes, reason: Reason):
    assert [fault_of(frame) for frame in frames(data)] == [(reason, data)]


def test_a_line_of_text_that_begins_with_a_number_is_one_fault():
    """It was three: 2026, -0 and the rest, each with a dead letter of its own."""
    text = b"2026-09-20,_email.open,member"
    (fault,) = frames(text)
    assert isinstance(fault, Fault)
    assert (fault.why.reason, fault.payload) == (Reason.NOT_JSON, text)


def test_a_damaged_event_is_a_fault_by_itself_and_its_siblings_count():
    first, second, third = frames(A + b'\n{"x":}\n' + B + b"\n")
    assert (first, fault_of(second), third) == (A, (Reason.NOT_JSON, b'{"x":}'), B)
    first, second, third, fourth = frames(kpl([A, b'{"x":', log_subscription(["plain text", B.decode()])]))
    assert (first, fourth) == (A, B)
    assert fault_of(second) == (Reason.NOT_JSON, b'{"x":')
    assert fault_of(third) == (Reason.NOT_JSON, b"plain text")


def test_a_damaged_object_over_several_lines_is_one_fault():
    data = b'{\n  "a": {\n    "b": [1,,2]\n  }\n}\n' + B
    first, second = frames(data)
    assert fault_of(first) == (Reason.NOT_JSON, b'{\n  "a": {\n    "b": [1,,2]\n  }\n}')
    assert second == B


def test_text_after_an_object_is_a_fault_by_itself():
    event, rest = frames(A + b" and so on")
    assert event == A
    assert fault_of(rest) == (Reason.NOT_JSON, b"and so on")


def test_invalid_utf_8_stays_with_its_event():
    bad = b'{"x":"\xff"}'
    assert frames(A + b"\n" + bad + b"\n{x\n" + B)[:2] == [A, bad]
    assert frames(A + b"\n" + bad + b"\n{x\n" + B)[3] == B


def test_wrappers_are_bounded():
    wrapped = A
    for _ in range(MAX_LAYERS):
        wrapped = gzip.compress(wrapped)
    assert frames(wrapped) == [A]
    wrapped = gzip.compress(wrapped)
    assert fault_of(frames(wrapped)[0]) == (Reason.BAD_ENVELOPE, wrapped)


def test_a_gzip_bomb_costs_no_more_memory_than_it_may_unpack_to():
    bomb = gzip.compress(gzip.compress(bytes(100 * MIB)))  # less than 1 kB
    tracemalloc.start()
    try:
        (frame,) = frames(bomb)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert fault_of(frame)[0] is Reason.TOO_LARGE
    assert peak < 4 * MAX_UNPACKED_BYTES


def test_faults_are_counted_in_time_that_no_record_can_inflate():
    started = time.process_time()
    for data in (b'{"a":[\n' * (MIB // 7), b"\n[" * (MIB // 2), b'\n{"' * (MIB // 3), b'{"a":"' + b"\\" * MIB):
        assert all(isinstance(frame, Fault) for frame in frames(data))
    assert time.process_time() - started < 5  # 0.3 s on a slow core


@pytest.mark.parametrize("name", large(1))
def test_the_largest_records_are_framed_within_a_heartbeat(name: str):
    data = large(MAX_RECORD_BYTES)[name][:MAX_RECORD_BYTES]
    started = time.process_time()
    assert frames(data)
    assert time.process_time() - started < 3


@pytest.mark.parametrize("name", CORPUS)
def test_the_corpus_is_framed(name: str):
    assert frames(CORPUS[name])


@settings(max_examples=300, deadline=None)
@given(hostile_records() | st.binary(max_size=200).map(gzip.compress) | st.binary(max_size=100).map(kpl_of))
def test_any_bytes_give_frames_whose_payloads_give_the_same_again(data: bytes):
    found = frames(data)
    assert found
    for frame in found:
        if isinstance(frame, Fault):
            assert all(isinstance(again, Fault) for again in frames(frame.payload))
        elif isinstance(frame, bytes):
            assert frames(frame)


events = st.lists(
    st.dictionaries(
        st.text(max_size=5), st.integers() | st.text(max_size=10) | st.lists(st.booleans(), max_size=2), max_size=3
    ).map(lambda event: json.dumps(event).encode()),
    min_size=1,
    max_size=8,
)
texts = st.sampled_from([b"\n", b"\r\n", b"", b" ", b"\n\n"])


@st.composite
def wrapped(draw: st.DrawFn, payloads: list[bytes], depth: int = 0) -> bytes:
    """The events in some wrapper, perhaps in parts that are wrapped differently."""
    form = draw(st.sampled_from(["lines", "array", "gzip", "kpl", "logs", "sns"])) if depth < 2 else "lines"
    if form == "lines":
        return draw(texts).join(payloads) + draw(texts)
    if form == "array":
        return b"[" + b", ".join(payloads) + b"]"
    if form == "gzip":
        return gzip.compress(draw(wrapped(payloads, depth + 1)))
    cut = draw(st.integers(1, len(payloads)))
    parts = [payloads[:cut], payloads[cut:]] if cut < len(payloads) else [payloads]
    if form == "kpl":
        return kpl([draw(wrapped(part, depth + 1)) for part in parts])
    plain = [b"\n".join(part).decode() for part in parts]
    return log_subscription(plain) if form == "logs" else notification("\n".join(plain))


@settings(max_examples=300, deadline=None)
@given(st.data(), events)
def test_the_same_events_come_out_of_every_wrapper_in_their_order(data: st.DataObject, payloads: list[bytes]):
    assert frames(data.draw(wrapped(payloads))) == payloads
