from __future__ import annotations

import io
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.cli import send
from service.cli.failures import Failure
from service.cli.send import Line, Sender, batches, partition_key, read


class Stream:
    """PutRecords of a stream that refuses what it is told to."""

    def __init__(self, refusals: int) -> None:
        self.refusals = refusals
        self.taken: list[bytes] = []

    def put_records(self, Records: list[dict[str, Any]], StreamName: str) -> dict[str, Any]:  # noqa: N803 # boto3's names
        assert StreamName == "events"
        results: list[dict[str, str]] = []
        for record in Records:
            if self.refusals and record["Data"] == b"refused":
                results.append({"ErrorCode": "ProvisionedThroughputExceededException"})
            else:
                self.taken.append(record["Data"])
                results.append({"ShardId": "shard", "SequenceNumber": "1"})
        self.refusals -= bool(self.refusals)
        return {"Records": results}


def lines(*data: bytes) -> list[Line]:
    return [Line(number, each, "k") for number, each in enumerate(data, 1)]


def test_what_a_call_did_not_take_is_sent_again():
    stream, waits = Stream(refusals=3), list[float]()
    sender = Sender(stream, {"StreamName": "events"}, sleep=waits.append)
    sender.put(lines(b"a", b"refused", b"b"))
    assert stream.taken == [b"a", b"b", b"refused"]
    assert (sender.summary.sent, sender.summary.failed, sender.summary.retried) == (3, 0, 3)
    assert len(waits) == 3
    assert all(0 < wait <= send.BACKOFF_MAX_S for wait in waits)


def test_what_is_never_taken_is_counted_with_its_reason():
    stream = Stream(refusals=10**6)
    sender = Sender(stream, {"StreamName": "events"}, sleep=lambda _: None)
    sender.put(lines(b"a", b"refused"))
    assert (sender.summary.sent, sender.summary.failed) == (1, 1)
    assert sender.summary.calls == send.MAX_ATTEMPTS
    assert sender.faults == {"ProvisionedThroughputExceededException": 1}


@given(st.lists(st.integers(0, send.MAX_RECORD_BYTES), max_size=20))
def test_batches_keep_order_and_limits(sizes: list[int]):
    given_lines = [Line(number, bytes(0), "k" * min(size, 256)) for number, size in enumerate(sizes)]
    made = list(batches(given_lines))
    assert [line for batch in made for line in batch] == given_lines
    assert all(0 < len(batch) <= send.MAX_RECORDS for batch in made)


def test_batches_end_at_the_size_of_a_call():
    big = b"x" * (send.MAX_CALL_BYTES // 2)
    assert [len(batch) for batch in batches(lines(big, b"y", big, big + big, b"z"))] == [2, 1, 1, 1]
    assert [len(batch) for batch in batches(lines(*[b"x"] * (send.MAX_RECORDS + 1)))] == [send.MAX_RECORDS, 1]


def test_the_partition_key_is_where_it_is_said_to_be():
    data = b'{"client": {"client_id": "endpoint"}, "n": 7, "empty": ""}'
    assert partition_key(data, ["client", "client_id"]) == "endpoint"
    assert partition_key(data, ["n"]) == "7"
    assert partition_key(data, ["empty"]) == partition_key(data, ["nothing"]) == partition_key(data, [])


def test_a_record_nested_without_end_gets_a_hash():
    assert len(partition_key(b"[" * 100_000 + b"]" * 100_000, ["a"])) == 32


@given(st.binary(), st.lists(st.text(), max_size=3))
def test_every_record_has_a_key_that_kinesis_takes(data: bytes, path: list[str]):
    key = partition_key(data, path)
    assert 1 <= len(key) <= send.MAX_KEY_CHARACTERS
    key.encode()


def test_lines_are_read_as_they_are():
    seen: list[int] = []
    source = io.BytesIO(b"a\r\n\n  \n\xff \nlast")
    assert [(line.number, line.data) for line in read(source, [], seen.append)] == [
        (1, b"a"),
        (4, b"\xff "),
        (5, b"last"),
    ]
    assert sum(seen) == len(source.getvalue())


def test_a_record_no_stream_can_take_ends_it(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(send, "MAX_RECORD_BYTES", 3)
    with pytest.raises(Failure, match="line 2 has 4 bytes"):
        list(read(io.BytesIO(b"abc\nabcd\n"), [], lambda _: None))
