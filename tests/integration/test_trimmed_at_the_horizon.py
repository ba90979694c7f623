"""DynamoDB Local, as users' LocalStack runs it, before the real adapter: its first start must not look like data loss.

An iterator taken at TRIM_HORIZON of an empty stream, and every one that follows from it, answers
`TrimmedDataAccessException` once the first record comes; a new iterator at TRIM_HORIZON reads on. Seen on LocalStack
4.14.0; played here by a stub.
"""

from __future__ import annotations

import asyncio
import json
import random
import time
from typing import Any

import pytest
from aiohttp import web
from prometheus_client import CollectorRegistry

from service.aws.clients import AwsSettings, clients
from service.aws.streams.dynamodb_streams import DynamoDbStreamSource
from service.observability.metrics import Metrics
from service.runtime.clock import SystemClock
from service.stream.coordinator import Coordinator, Opened
from service.stream.ports import Batch, StreamId
from service.stream.settings import ShardSettings
from service.stream.tail.budget import ByteBudget
from tests.fakes.leases import FakeLeases, LeaseTable

STREAM = StreamId("scores", "arn:aws:dynamodb:us-east-1:000000000000:table/scores/stream/1", "tag1")
SHARD = "shardId-00000000000000000000-abcdef01"


class DynamoDbLocal:
    """One shard; an iterator is its place and whether the shard was empty when its line of iterators began."""

    def __init__(self) -> None:
        self.records: list[dict[str, Any]] = []
        self.refused = 0
        self.idle = asyncio.Event()

    def put(self, user: str) -> None:
        keys = {"UserId": {"S": user}, "PinpointProjectId": {"S": "p"}}
        change = {
            "ApproximateCreationDateTime": int(time.time()),
            "Keys": keys,
            "NewImage": {**keys, "Score": {"N": "1"}},
            "SequenceNumber": f"{len(self.records) + 1:021}",
            "SizeBytes": 50,
            "StreamViewType": "NEW_AND_OLD_IMAGES",
        }
        self.records.append({"eventName": "INSERT", "dynamodb": change})

    async def handle(self, request: web.Request) -> web.Response:
        operation = request.headers["X-Amz-Target"].rpartition(".")[2]
        status, body = getattr(self, operation)(json.loads(await request.read()))
        return web.Response(status=status, body=json.dumps(body), content_type="application/x-amz-json-1.0")

    def DescribeStream(self, asked: dict[str, Any]) -> tuple[int, object]:  # noqa: N802 - the operation's name
        del asked
        numbers = {"StartingSequenceNumber": f"{0:021}"}
        shards = [{"ShardId": SHARD, "SequenceNumberRange": numbers}]
        return 200, {"StreamDescription": {"Shards": shards}}

    def GetShardIterator(self, asked: dict[str, Any]) -> tuple[int, object]:  # noqa: N802 - the operation's name
        start = int(asked.get("SequenceNumber", 0)) if asked["ShardIteratorType"] != "TRIM_HORIZON" else 0
        return 200, {"ShardIterator": f"{start}|{int(not self.records)}"}

    def GetRecords(self, asked: dict[str, Any]) -> tuple[int, object]:  # noqa: N802 - the operation's name
        start, was_empty = asked["ShardIterator"].split("|")
        if was_empty == "1" and self.records:
            self.refused += 1
            return 400, {"__type": "com.amazonaws.dynamodb.v20120810#TrimmedDataAccessException", "message": "trimmed"}
        self.idle.set()
        found = self.records[int(start) :]
        return 200, {"Records": found, "NextShardIterator": f"{len(self.records)}|{was_empty}"}


class Kept:
    """A consumer that keeps what it gets."""

    def __init__(self, expected: int) -> None:
        self.users: list[str] = []
        self.complete = asyncio.Event()
        self._expected = expected

    async def prepare(self, batch: Batch[Any]) -> Batch[Any]:
        return batch

    async def commit(self, prepared: Batch[Any]) -> None:
        self.users += [json.loads(bytes(record.data.keys))["UserId"]["S"] for record in prepared.records]
        if len(self.users) >= self._expected:
            self.complete.set()

    async def release(self, shard_id: str) -> None:
        del shard_id


def test_the_first_start_on_dynamodb_local_is_no_data_loss(monkeypatch: pytest.MonkeyPatch):
    async def story() -> None:
        stub, consumer, metrics = DynamoDbLocal(), Kept(2), Metrics(CollectorRegistry())
        app = web.Application()
        app.router.add_post("/", stub.handle)
        site = web.AppRunner(app)
        await site.setup()
        await web.TCPSite(site, "127.0.0.1", 0).start()
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{site.addresses[0][1]}")
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            monkeypatch.setenv(name, "test")
        lost: list[str] = []

        async def trimmed(shard_id: str) -> None:
            lost.append(shard_id)

        table = LeaseTable()
        leases = FakeLeases(table)
        async with clients(AwsSettings(region="us-east-1")) as aws, asyncio.timeout(30):
            source = DynamoDbStreamSource(aws.streams, STREAM)
            coordinator = Coordinator(
                pipeline="publish",
                worker="a",
                opened=Opened(source, leases, leases, consumer),
                settings=ShardSettings(batch_max_age=0.0, poll_min=0.05, poll_max=0.05, cycle_min=0.05),
                clock=SystemClock(),
                rng=random.Random(1),
                metrics=metrics,
                budget=ByteBudget(),
                on_trimmed=trimmed,
            )
            running = asyncio.create_task(coordinator.run())
            await stub.idle.wait()
            stub.put("ann")
            stub.put("bob")
            await consumer.complete.wait()
            coordinator.stop()
            await running
        await site.cleanup()
        assert stub.refused
        assert consumer.users == ["ann", "bob"]
        assert lost == []
        assert not metrics.registry.get_sample_value("scoring_records_trimmed_total", {"pipeline": "publish"})
        failures = {"pipeline": "publish", "kind": "trimmed"}
        assert metrics.registry.get_sample_value("scoring_read_failures_total", failures) == stub.refused
        assert table.leases[SHARD].checkpoint == f"{2:021}"

    asyncio.run(story())
