"""`ShardSource[bytes]` on Kinesis, and the writer. The embedded AWS does not reshard as AWS does: no reshards here."""

from __future__ import annotations

import time

import pytest

from service.aws.clients import Clients
from service.aws.errors import AwsSetupError
from service.aws.kinesis import KinesisSource, KinesisWriter, Put
from service.shards.errors import IteratorExpiredError, ShardGoneError
from service.shards.ports import Page, Shard
from service.shards.position import LATEST, SHARD_END, TRIM_HORIZON, at_timestamp
from tests.fakes.embedded import FreshName, Run


@pytest.fixture
def stream(aws_clients: Clients, run: Run, fresh_name: FreshName) -> str:
    name = fresh_name("events")
    run(aws_clients.kinesis.create_stream(StreamName=name, ShardCount=1))
    run(aws_clients.kinesis.get_waiter("stream_exists").wait(StreamName=name, WaiterConfig={"Delay": 0.05}))
    return name


@pytest.fixture
def source(aws_clients: Clients, run: Run, stream: str) -> KinesisSource:
    return run(KinesisSource.open(aws_clients.kinesis, stream))


def put(aws_clients: Clients, run: Run, stream: str, *data: bytes) -> list[str]:
    landed = run(KinesisWriter(aws_clients.kinesis, stream).put([Put("ann", each) for each in data]))
    return [each.sequence for each in landed]


def read(source: KinesisSource, run: Run, position: str, limit: int = 100) -> Page[bytes]:
    (shard,) = run(source.list_shards())
    return run(source.fetch(run(source.iterator(shard.shard_id, position)), limit))


def data(page: Page[bytes]) -> list[bytes]:
    return [record.data for record in page.records]


def test_a_stream_is_the_same_by_name_and_by_arn(source: KinesisSource, aws_clients: Clients, run: Run, stream: str):
    assert source.stream.name == stream
    assert run(KinesisSource.open(aws_clients.kinesis, source.stream.arn)).stream == source.stream
    assert source.retention_s == 24 * 3600


def test_streams_have_different_tags(source: KinesisSource, aws_clients: Clients, run: Run, fresh_name: FreshName):
    other = fresh_name("events")
    run(aws_clients.kinesis.create_stream(StreamName=other, ShardCount=2))
    run(aws_clients.kinesis.get_waiter("stream_exists").wait(StreamName=other, WaiterConfig={"Delay": 0.05}))
    second = run(KinesisSource.open(aws_clients.kinesis, other))
    assert second.stream.tag != source.stream.tag
    assert ":" not in second.stream.tag
    assert [shard.closed for shard in run(second.list_shards())] == [False, False]


def test_an_open_shard_without_parents(source: KinesisSource, run: Run):
    assert run(source.list_shards()) == [Shard("shardId-000000000000")]


def test_records_come_in_order_with_their_pointers(source: KinesisSource, aws_clients: Clients, run: Run, stream: str):
    before = time.time() * 1000
    sequences = put(aws_clients, run, stream, b"1", b"\xff\x00", b"3")
    page = read(source, run, TRIM_HORIZON)
    assert data(page) == [b"1", b"\xff\x00", b"3"]
    assert [record.sequence for record in page.records] == sequences
    assert {record.partition_key for record in page.records} == {"ann"}
    assert [record.size for record in page.records] == [4, 5, 4]
    assert all(before - 2000 < record.arrival_ms < before + 10_000 for record in page.records)
    assert page.behind_ms == 0


def test_an_empty_page_is_not_the_end(source: KinesisSource, aws_clients: Clients, run: Run, stream: str):
    page = read(source, run, LATEST)
    assert (data(page), page.children) == ([], [])
    assert page.next_iterator is not None
    put(aws_clients, run, stream, b"new")
    assert data(run(source.fetch(page.next_iterator, 10))) == [b"new"]


def test_reading_goes_on_after_a_limit_and_after_a_sequence(
    source: KinesisSource, aws_clients: Clients, run: Run, stream: str
):
    sequences = put(aws_clients, run, stream, b"1", b"2", b"3")
    first = read(source, run, TRIM_HORIZON, limit=2)
    assert data(first) == [b"1", b"2"]
    assert data(run(source.fetch(first.next_iterator, 20_000))) == [b"3"]
    assert data(read(source, run, sequences[0])) == [b"2", b"3"]


def test_latest_leaves_out_what_was_there(source: KinesisSource, aws_clients: Clients, run: Run, stream: str):
    put(aws_clients, run, stream, b"old")
    assert data(read(source, run, LATEST)) == []


def test_a_start_by_time(source: KinesisSource, aws_clients: Clients, run: Run, stream: str):
    put(aws_clients, run, stream, b"1")
    now_ms = int(time.time() * 1000)
    assert data(read(source, run, at_timestamp(now_ms - 60_000))) == [b"1"]
    assert data(read(source, run, at_timestamp(now_ms + 60_000))) == []


def test_nothing_follows_the_end(source: KinesisSource, run: Run):
    with pytest.raises(ValueError, match="end of a shard"):
        run(source.iterator("shardId-000000000000", SHARD_END))


def test_an_unknown_shard_is_gone(source: KinesisSource, run: Run):
    with pytest.raises(ShardGoneError, match="shardId-000000000099"):
        run(source.iterator("shardId-000000000099", TRIM_HORIZON))


def test_an_iterator_that_is_no_longer_good_has_expired(source: KinesisSource, run: Run):
    with pytest.raises(IteratorExpiredError):
        run(source.fetch("long-ago", 10))


def test_a_missing_stream_is_named_with_its_remedy(aws_clients: Clients, run: Run):
    with pytest.raises(AwsSetupError, match=r"stream nope does not exist.*scoring setup.*SCORING_STREAM"):
        run(KinesisSource.open(aws_clients.kinesis, "nope"))


def test_more_records_than_a_call_takes_all_land_in_order(
    source: KinesisSource, aws_clients: Clients, run: Run, stream: str
):
    sent = [str(number).encode() for number in range(1203)]
    assert len(put(aws_clients, run, stream, *sent)) == 1203
    assert data(read(source, run, TRIM_HORIZON, limit=10_000)) == sent
