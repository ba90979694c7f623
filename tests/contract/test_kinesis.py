"""Kinesis: what is its own, and the writer; what it shares with every `ShardSource` is in test_shard_source.py."""

from __future__ import annotations

import pytest

from service.aws.clients import Clients
from service.aws.streams.kinesis import KinesisSource
from service.aws.streams.writer import KinesisWriter, Put
from service.aws.translation import AwsSetupError
from service.stream.ports import Page
from service.stream.position import TRIM_HORIZON
from tests.fakes.embedded import POLLED, FreshName, Run


@pytest.fixture
def stream(aws_clients: Clients, run: Run, fresh_name: FreshName) -> str:
    name = fresh_name("events")
    run(aws_clients.kinesis.create_stream(StreamName=name, ShardCount=1))
    run(aws_clients.kinesis.get_waiter("stream_exists").wait(StreamName=name, WaiterConfig=POLLED))
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
    run(aws_clients.kinesis.get_waiter("stream_exists").wait(StreamName=other, WaiterConfig=POLLED))
    second = run(KinesisSource.open(aws_clients.kinesis, other))
    assert second.stream.tag != source.stream.tag
    assert ":" not in second.stream.tag
    assert [shard.closed for shard in run(second.list_shards())] == [False, False]


def test_data_are_bytes_and_count_with_their_key(source: KinesisSource, aws_clients: Clients, run: Run, stream: str):
    sequences = put(aws_clients, run, stream, b"1", b"\xff\x00", b"3")
    page = read(source, run, TRIM_HORIZON)
    assert data(page) == [b"1", b"\xff\x00", b"3"]
    assert [record.sequence for record in page.records] == sequences
    assert {record.partition_key for record in page.records} == {"ann"}
    assert [record.size for record in page.records] == [4, 5, 4]
    assert page.behind_ms == 0


def test_a_missing_stream_is_named_with_its_remedy(aws_clients: Clients, run: Run):
    with pytest.raises(AwsSetupError, match=r"stream nope does not exist.*scoring setup.*SCORING_STREAM"):
        run(KinesisSource.open(aws_clients.kinesis, "nope"))


def test_more_records_than_a_call_takes_all_land_in_order(
    source: KinesisSource, aws_clients: Clients, run: Run, stream: str
):
    sent = [str(number).encode() for number in range(1203)]
    assert len(put(aws_clients, run, stream, *sent)) == 1203
    assert data(read(source, run, TRIM_HORIZON, limit=10_000)) == sent
