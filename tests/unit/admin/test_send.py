"""Lines of a file on a stream that refuses, throttles, hangs up: what became of each line is always known."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest
from botocore.exceptions import ClientError, EndpointConnectionError, ReadTimeoutError
from hypothesis import given
from hypothesis import strategies as st

from service.admin import send
from service.admin.send import Account, Line, LineSender, batches, lines, partition_key, ranges
from service.aws import calls
from service.aws.streams import writer
from service.aws.streams.writer import MAX_PUT_BYTES, MAX_PUT_RECORDS, KinesisWriter, Put

MIB = 1024 * 1024


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calls, "BACKOFF_BASE_S", 0.0)


def refusal(code: str) -> ClientError:
    return ClientError({"Error": {"Code": code, "Message": "because"}}, "PutRecords")


class Stream:
    """PutRecords of a stream that takes records of up to 1 MiB, after what it is told to answer first.

    Args:
        answers: What each call does: an error is raised, True puts the records; after the last one, True.
        refused: How often each record is refused while its call succeeds.
    """

    def __init__(self, *answers: Exception | bool, refused: dict[bytes, int] | None = None) -> None:
        self.answers = list(answers)
        self.refused = refused or {}
        self.taken: list[bytes] = []
        self.on_call: Callable[[], None] = lambda: None

    async def put_records(self, Records: list[dict[str, Any]], StreamName: str) -> dict[str, Any]:  # noqa: N803 # boto3's
        assert StreamName == "events"
        self.on_call()
        answer = self.answers.pop(0) if self.answers else True
        if isinstance(answer, Exception):
            raise answer
        if any(len(record["Data"]) > MIB for record in Records):
            raise refusal("ValidationException")
        results = []
        for record in Records:
            if self.refused.get(record["Data"], 0):
                self.refused[record["Data"]] -= 1
                results.append({"ErrorCode": "ProvisionedThroughputExceededException"})
            else:
                self.taken.append(record["Data"])
                results.append({"ShardId": "shard", "SequenceNumber": "1"})
        return {"Records": results}


def sent(
    stream: Stream, content: bytes, *, first: int = 1, rounds: int = 3, stopped: Callable[[], bool] = lambda: False
) -> Account:
    """Send a file; return the account."""
    sender = LineSender(KinesisWriter(stream, "events", rounds=rounds), first, stopped)

    async def run() -> None:
        for batch in batches(lines([content], [], first)):
            if not await sender.send(batch):
                return
        sender.finished()

    asyncio.run(run())
    return sender.account


def numbered(count: int) -> bytes:
    return b"".join(b"%d\n" % number for number in range(1, count + 1))


def test_what_a_call_did_not_take_is_sent_again():
    stream = Stream(refused={b"2": 2})
    account = sent(stream, numbered(3))
    assert stream.taken == [b"1", b"3", b"2"]
    assert (account.sent, account.calls, account.resent, account.complete) == (3, 3, 2, True)


def test_a_throttled_call_is_made_again():
    stream = Stream(refusal("LimitExceededException"))
    assert sent(stream, numbered(3)).complete
    assert stream.taken == [b"1", b"2", b"3"]


def test_what_is_never_taken_is_named_by_line():
    stream = Stream(refused={b"2": 99, b"5": 99, b"6": 99})
    account = sent(stream, numbered(1200))
    assert account.not_taken == [2, 5, 6]
    assert account.sent == MAX_PUT_RECORDS - 3
    assert account.next_line == MAX_PUT_RECORDS + 1
    assert "ProvisionedThroughputExceededException" in account.error


@pytest.mark.parametrize("at", [1, 2, 499, 500, 501, 1700, 2399, 2400])
def test_one_line_of_2_mib_among_2400_is_found_and_all_before_it_are_sent(at: int):
    content = b"".join(b"x" * (2 * MIB) + b"\n" if n == at else b"%d\n" % n for n in range(1, 2401))
    stream = Stream()
    account = sent(stream, content)
    assert stream.taken == [b"%d" % n for n in range(1, at)]
    assert (account.sent, account.fault_line, account.next_line) == (at - 1, at, at)
    assert account.uncertain is None
    assert "ValidationException" in account.error
    rest = sent(stream, content, first=at + 1)
    assert rest.complete
    assert stream.taken == [b"%d" % n for n in range(1, 2401) if n != at]


def test_a_call_without_an_answer_leaves_its_lines_uncertain():
    stream = Stream(True, ReadTimeoutError(endpoint_url="http://x"))  # noqa: FBT003 # what a call does
    account = sent(stream, numbered(1200))
    assert account.sent == MAX_PUT_RECORDS
    assert account.uncertain == (501, 1000)
    assert account.next_line == 501
    assert not account.complete


@pytest.mark.parametrize(
    "error",
    [refusal("ResourceNotFoundException"), refusal("AccessDeniedException"), EndpointConnectionError(endpoint_url="x")],
)
def test_after_any_error_it_is_known_where_to_go_on(error: Exception):
    account = sent(Stream(True, error), numbered(1200))  # noqa: FBT003 # what a call does
    assert account.sent == MAX_PUT_RECORDS
    assert account.next_line == MAX_PUT_RECORDS + 1
    assert account.error


def test_stopping_finishes_the_call_in_flight():
    stream = Stream()
    asked: list[bool] = []
    stream.on_call = lambda: asked.append(True)
    account = sent(stream, numbered(1200), stopped=lambda: bool(asked))
    assert account.sent == len(stream.taken) == MAX_PUT_RECORDS
    assert account.next_line == MAX_PUT_RECORDS + 1
    assert (account.error, account.uncertain, account.not_taken) == ("", None, [])


def test_stopping_ends_the_waiting_for_a_stream_that_refuses():
    stream = Stream(refused={b"2": 99})
    asked: list[bool] = []
    stream.on_call = lambda: asked.append(True)
    account = sent(stream, numbered(3), rounds=50, stopped=lambda: bool(asked))
    assert (account.sent, account.not_taken, account.calls) == (2, [2], 1)


@given(st.lists(st.sampled_from(["fits", "too large"]), min_size=1, max_size=40))
def test_every_line_is_sent_once_whatever_has_to_be_left_out(kinds: list[str]):
    """Going on after each line at fault sends all others, in order."""
    content = b"".join(b"y" * (MIB + 1) + b"\n" if kind == "too large" else b"%d\n" % n for n, kind in enumerate(kinds))
    stream, first, left_out = Stream(), 1, []
    for _ in range(len(kinds) + 1):
        account = sent(stream, content, first=first)
        if account.complete:
            break
        assert account.fault_line is not None
        left_out.append(account.fault_line - 1)
        first = account.fault_line + 1
    assert left_out == [n for n, kind in enumerate(kinds) if kind == "too large"]
    assert stream.taken == [b"%d" % n for n, kind in enumerate(kinds) if kind == "fits"]


@given(st.lists(st.integers(0, 2 * MIB), max_size=20))
def test_batches_keep_order_and_limits(sizes: list[int]):
    made = list(writer.put_batches(sizes, lambda size: size))
    assert [size for batch in made for size in batch] == sizes
    assert all(len(batch) == 1 or sum(batch) <= MAX_PUT_BYTES for batch in made)


def test_batches_end_at_the_records_of_a_call():
    given_lines = [Line(number, Put("k", b"x")) for number in range(MAX_PUT_RECORDS + 1)]
    assert [len(batch) for batch in batches(given_lines)] == [MAX_PUT_RECORDS, 1]


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
    assert 1 <= len(key) <= writer.MAX_KEY_CHARACTERS
    key.encode()


def read(chunks: Sequence[bytes], first: int = 1) -> list[tuple[int, bytes]]:
    return [(line.number, line.put.data) for line in lines(chunks, [], first)]


def test_lines_are_read_as_they_are():
    content = b"a\r\n\n  \n\xff \nlast"
    assert read([content]) == [(1, b"a"), (4, b"\xff "), (5, b"last")]
    assert read([content], first=2) == [(4, b"\xff "), (5, b"last")]


@given(st.lists(st.binary(max_size=8)))
def test_lines_do_not_depend_on_how_the_file_comes(chunks: list[bytes]):
    assert read(chunks) == read([b"".join(chunks)])


def test_nothing_is_read_after_a_line_that_no_stream_takes(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(send, "MAX_RECORD_BYTES", 3)
    stream = Stream()
    account = sent(stream, b"abc\nabcd\nab\n")
    assert stream.taken == [b"abc"]
    assert (account.fault_line, account.next_line) == (2, 2)
    assert "it has 4 bytes" in account.error

    def endless() -> Iterator[bytes]:
        while True:
            yield b"xx"

    (line,) = lines(endless(), [])
    assert "at least" in line.fault


def test_lines_are_named_as_ranges():
    assert ranges([3, 7, 8, 9, 11]) == [(3, 3), (7, 9), (11, 11)]
    assert ranges([]) == []
