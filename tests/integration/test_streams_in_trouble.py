"""Live workers on the embedded AWS, and what happens to their event stream."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import time
from collections.abc import AsyncIterator, Mapping
from decimal import Decimal

import boto3
import pytest
from aiohttp import web

from service.app.worker import Worker
from service.config.load import Purpose, load
from service.local.emulator import Emulator
from service.observability.metrics import Metrics
from tests.fakes.embedded import POLLED, FreshName
from tests.integration.test_odd_answers import BOUND_S, Proxy, until
from tests.integration.test_worker_signals import PROJECT, scoring

POINTS = 10
"""What `_email.open` is worth in the definitions that `setup` writes."""
REFUSED = (
    400,
    "application/x-amz-json-1.1",
    b'{"__type":"InvalidArgumentException","message":"StartingSequenceNumber is invalid: it is not of this shard"}',
)


class StreamAndTables:
    """Tables and a stream of their own, and what tests do with them."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self.stream = environment["SCORING_STREAM"]
        self._scores = environment["SCORING_SCORES_TABLE"]
        self.kinesis, self._dynamodb = boto3.client("kinesis"), boto3.client("dynamodb")

    def make_stream(self, shards: int) -> None:
        self.kinesis.create_stream(StreamName=self.stream, ShardCount=shards)
        self.kinesis.get_waiter("stream_exists").wait(StreamName=self.stream, WaiterConfig=POLLED)

    def make_stream_again(self, shards: int) -> None:
        """Delete the stream and make it again, not within the second in which it was made."""
        summary = self.kinesis.describe_stream_summary(StreamName=self.stream)["StreamDescriptionSummary"]
        while int(time.time()) <= int(summary["StreamCreationTimestamp"].timestamp()):
            time.sleep(0.05)
        self.kinesis.delete_stream(StreamName=self.stream)
        self.kinesis.get_waiter("stream_not_exists").wait(StreamName=self.stream, WaiterConfig=POLLED)
        self.make_stream(shards)

    def reshard(self, shards: int) -> None:
        self.kinesis.update_shard_count(StreamName=self.stream, TargetShardCount=shards, ScalingType="UNIFORM_SCALING")
        self.kinesis.get_waiter("stream_exists").wait(StreamName=self.stream, WaiterConfig=POLLED)

    def send(self, user: str, *, hash_key: str) -> None:
        event = {"event_type": "_email.open", "application": {"app_id": PROJECT}, "client": {"client_id": "e"}}
        event["client_context"] = {"custom": {"endpoint": json.dumps({"User": {"UserId": user}})}}
        data = json.dumps(event).encode()
        self.kinesis.put_record(StreamName=self.stream, Data=data, PartitionKey=user, ExplicitHashKey=hash_key)

    def events_in(self, user: str) -> Decimal:
        """Return how many events the user's score holds."""
        key = {"UserId": {"S": user}, "PinpointProjectId": {"S": PROJECT}}
        item = self._dynamodb.get_item(TableName=self._scores, Key=key, ConsistentRead=True).get("Item")
        return Decimal(item["Score"]["N"]) / POINTS if item else Decimal(0)


HALVES = ("0", str(2**127))
"""A hash key of each of two shards."""


@pytest.fixture
def aws_parts(aws: Emulator, fresh_name: FreshName, monkeypatch: pytest.MonkeyPatch) -> StreamAndTables:
    tables = ("SCORES", "DEFINITIONS", "IDENTITIES", "LEASES", "DEAD_LETTERS")
    own = {
        **aws.environment(),
        "SCORING_STREAM": fresh_name("events"),
        **{f"SCORING_{table}_TABLE": fresh_name(table.lower()) for table in tables},
        "SCORING_HTTP_PORT": "0",
        "SCORING_SINKS": "log",
        "SCORING_IDENTITY_LOOKUP": "false",
        "SCORING_LEASE_DURATION_S": "3",
    }
    for name, value in own.items():
        monkeypatch.setenv(name, value)
    aws_parts = StreamAndTables(own)
    aws_parts.make_stream(2)
    scoring({**os.environ, **own}, "setup", "--project", PROJECT)
    return aws_parts


@contextlib.asynccontextmanager
async def a_worker(metrics: Metrics) -> AsyncIterator[asyncio.Task[bool]]:
    worker = Worker(load(os.environ, Purpose.RUN), metrics)
    running = asyncio.create_task(worker.run())
    try:
        await asyncio.wait_for(worker.started.wait(), BOUND_S)
        yield running
    finally:
        worker.stop()
        await asyncio.wait_for(running, BOUND_S)


def value(metrics: Metrics, name: str, **labels: str) -> float:
    return metrics.registry.get_sample_value(name, labels) or 0.0


def owned(*catalogues: Metrics) -> float:
    return sum(value(each, "scoring_leases_owned", pipeline="ingest") for each in catalogues)


@pytest.mark.parametrize("before", [0, 3])
def test_a_stream_made_again_while_a_worker_lives_counts_each_event_once(aws_parts: StreamAndTables, before: int):
    """40 events gave 80: the survivor read under the old stream's leases, the newcomer under the new one's."""

    async def main() -> None:
        old, new = Metrics(), Metrics()
        async with a_worker(old) as survivor:
            await until(lambda: owned(old) == 2, "the leases are taken")
            for _ in range(before):
                await asyncio.to_thread(aws_parts.send, "before", hash_key=HALVES[0])
            await until(lambda: aws_parts.events_in("before") == before, "what was sent before is scored")
            await asyncio.to_thread(aws_parts.make_stream_again, 2)
            async with a_worker(new) as newcomer:
                for number in range(40):
                    await asyncio.to_thread(aws_parts.send, "ann", hash_key=HALVES[number % 2])
                await until(lambda: value(old, "scoring_streams_replaced_total", pipeline="ingest"), "it is noticed")
                await until(lambda: (owned(old), owned(new)) == (1, 1), "both read the new stream")
                await until(lambda: aws_parts.events_in("ann") >= 40, "all is scored")
                for half in HALVES:
                    await asyncio.to_thread(aws_parts.send, "last", hash_key=half)
                await until(lambda: aws_parts.events_in("last") == 2, "what came last is scored")
                assert aws_parts.events_in("ann") == 40
                assert aws_parts.events_in("before") == before
                assert not survivor.done()
                assert not newcomer.done()

    asyncio.run(main())


def test_a_shard_refused_for_good_stops_no_worker_and_no_other_shard(
    aws_parts: StreamAndTables, monkeypatch: pytest.MonkeyPatch
):
    refused = "shardId-000000000000"

    class OneShardRefused(Proxy):
        async def handle(self, request: web.Request) -> web.Response:
            asks = request.headers.get("x-amz-target", "").endswith(".GetShardIterator")
            if asks and json.loads(await request.read())["ShardId"] == refused:
                self.spoiled["GetShardIterator"] += 1
                status, kind, text = REFUSED
                return web.Response(status=status, body=text, content_type=kind)
            return await super().handle(request)

    async def main() -> None:
        proxy, metrics = OneShardRefused(os.environ["AWS_ENDPOINT_URL_KINESIS"]), Metrics()
        app = web.Application()
        app.router.add_post("/{any:.*}", proxy.handle)
        site = web.AppRunner(app)
        await site.setup()
        await web.TCPSite(site, "127.0.0.1", 0).start()
        monkeypatch.setenv("AWS_ENDPOINT_URL_KINESIS", f"http://127.0.0.1:{site.addresses[0][1]}")
        async with a_worker(metrics) as running:
            await until(lambda: owned(metrics) == 2, "the leases are taken")
            sent = 0
            while proxy.spoiled["GetShardIterator"] < 8:
                sent += 1
                await asyncio.to_thread(aws_parts.send, "ann", hash_key=HALVES[1])
                await until(lambda due=sent: aws_parts.events_in("ann") == due, "the other shard is read")
            assert not running.done()
            assert owned(metrics) == 2
            failures = {"pipeline": "ingest", "kind": "trouble"}
            assert value(metrics, "scoring_read_failures_total", **failures) == proxy.spoiled["GetShardIterator"]
        await site.cleanup()

    asyncio.run(main())


def test_scores_go_on_after_the_embedded_stream_is_resharded(aws_parts: StreamAndTables):
    """UpdateShardCount gave the new shards the ids of the old ones: workers waited for good."""

    async def main() -> None:
        metrics = Metrics()
        async with a_worker(metrics) as running:
            await until(lambda: owned(metrics) == 2, "the leases are taken")
            for due, shards in enumerate((3, 1, 2), 1):
                for half in HALVES:
                    await asyncio.to_thread(aws_parts.send, "ann", hash_key=half)
                await until(lambda due=due: aws_parts.events_in("ann") == 2 * due, "what was sent before is scored")
                await asyncio.to_thread(aws_parts.reshard, shards)
            for half in HALVES:
                await asyncio.to_thread(aws_parts.send, "last", hash_key=half)
            await until(lambda: aws_parts.events_in("last") == 2, "the new shards are read")
            assert aws_parts.events_in("ann") == 6
            assert value(metrics, "scoring_streams_replaced_total", pipeline="ingest") == 0
            assert not running.done()

    asyncio.run(main())
