"""The AWS of the benchmark: a process that answers the handful of calls the contenders make, after a constant latency.

    python -m tests.benchmarks.stub_server WORKLOAD_JSON   (prints its port)

It renders records when they are asked for, keeps every score, and knows what every score must be in the end: a
contender that loses events or counts them twice is found out. Its own CPU is not measured.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections import Counter
from collections.abc import Callable
from typing import Any
from urllib.parse import unquote

import msgspec
import uvloop

from tests.benchmarks import workload as w
from tests.benchmarks.percentiles import percentiles
from tests.benchmarks.proc import usage
from tests.benchmarks.stub_connection import Answer, Connection
from tests.benchmarks.stub_tables import KEYS, ConditionFailedError, Item, Stream, Table, check, execute, update

MAX_PAGE_RECORDS = 10_000
CREATED = 1_790_000_000
STREAM_ARN = "arn:aws:kinesis:us-east-1:111122223333:stream/engagement"
SCORES, IDENTITIES, DEFINITIONS = "userEngagementScore", "engagementScoringIdentities", "engagementScoreDefinition"
TABLE_STREAM = f"arn:aws:dynamodb:us-east-1:111122223333:table/{SCORES}/stream/2026-10-01T00:00:00.000"
TABLE_SHARD = f"shardId-{CREATED:020d}-00000001"

_encode = msgspec.json.encode


class StubState:
    """Everything the stub knows."""

    def __init__(self, workload: w.Workload) -> None:
        self.workload = workload
        self.records = w.Records(workload)
        self.tables = {name: Table(name, keys, Stream() if name == SCORES else None) for name, keys in KEYS.items()}
        for event_type, points in w.POINTS.items():
            self.tables[DEFINITIONS].items[(event_type, w.PROJECT)] = {
                "EventType": {"S": event_type},
                "PinpointProjectId": {"S": w.PROJECT},
                "ScoreOffset": {"N": str(points)},
            }
        self.truth = w.Workload.truth(workload)
        self.truth_sum = sum(self.truth.values())
        self.scored: dict[int, int] = {}
        self.scored_sum = 0
        self.published: dict[int, int] = {}
        self.published_sum = 0
        self.requests: Counter[str] = Counter()
        self.write_units = 0
        self.group = 0
        self.began_wall = time.time()
        self.rate_from = 0.0
        self.first: dict[str, Any] = {}
        self.done: dict[str, Any] = {}
        self.score_latencies: list[float] = []
        self.sink_latencies: list[float] = []
        self.calls: dict[str, Callable[[dict[str, Any]], Any]] = {
            name.removeprefix("call_"): getattr(self, name) for name in dir(self) if name.startswith("call_")
        }

    def report(self) -> dict[str, Any]:
        wrong = sum(1 for user, score in self.truth.items() if self.scored.get(user, 0) != score)
        unpublished = sum(1 for user, score in self.truth.items() if self.published.get(user) != score)
        return {
            "done": bool(self.done),
            "scored_sum": self.scored_sum,
            "published_sum": self.published_sum,
            "truth_sum": self.truth_sum,
            "wrong_scores": wrong,
            "wrong_published": unpublished if self.workload.publishes else None,
            "first": self.first,
            "at_done": self.done,
            "requests": dict(self.requests),
            "write_units": self.write_units,
            "score_latency_s": percentiles(self.score_latencies),
            "sink_latency_s": percentiles(self.sink_latencies),
        }

    def _sample(self) -> dict[str, Any]:
        used = usage(self.group) if self.group else None
        return {
            "wall": time.time(),
            "cpu_s": used.cpu_s if used else 0.0,
            "peak_mib": used.peak_mib if used else 0.0,
            "requests": dict(self.requests),
            "write_units": self.write_units,
        }

    def _noted(self, latencies: list[float], user: int, now: float) -> None:
        if self.workload.rate:
            latencies.append(now - self.rate_from - (user - self.workload.first_user) / self.workload.rate)
        if (
            not self.done
            and self.scored_sum == self.truth_sum
            and (not self.workload.publishes or self.published_sum == self.truth_sum)
        ):
            self.done = self._sample()

    def score_written(self, item: Item, now: float) -> None:
        if "committed" not in self.first:
            self.first["committed"] = now
        user, score = w.number_of(item["UserId"]["S"]), int(item["Score"]["N"])
        self.scored_sum += score - self.scored.get(user, 0)
        self.scored[user] = score
        self._noted(self.score_latencies, user, now)

    def score_published(self, user: int, score: int, now: float) -> None:
        self.published_sum += score - self.published.get(user, 0)
        self.published[user] = score
        self._noted(self.sink_latencies, user, now)

    # Kinesis.

    def call_DescribeStreamSummary(self, _: dict[str, Any]) -> Any:  # noqa: N802, ANN401
        return {
            "StreamDescriptionSummary": {
                "StreamName": "engagement",
                "StreamARN": STREAM_ARN,
                "StreamStatus": "ACTIVE",
                "RetentionPeriodHours": 24,
                "StreamCreationTimestamp": CREATED,
                "EnhancedMonitoring": [],
                "OpenShardCount": self.workload.shards,
            }
        }

    def _shards(self) -> list[dict[str, Any]]:
        width = 2**128 // self.workload.shards
        return [
            {
                "ShardId": f"shardId-{shard:012d}",
                "HashKeyRange": {"StartingHashKey": str(shard * width), "EndingHashKey": str((shard + 1) * width - 1)},
                "SequenceNumberRange": {"StartingSequenceNumber": w.sequence(0)},
            }
            for shard in range(self.workload.shards)
        ]

    def call_ListShards(self, _: dict[str, Any]) -> Any:  # noqa: N802, ANN401
        return {"Shards": self._shards()}

    def call_DescribeStream(self, request: dict[str, Any]) -> Any:  # noqa: N802, ANN401
        if "StreamName" in request or request.get("StreamARN"):
            return {
                "StreamDescription": {
                    "StreamName": "engagement",
                    "StreamARN": STREAM_ARN,
                    "StreamStatus": "ACTIVE",
                    "Shards": self._shards(),
                    "HasMoreShards": False,
                    "RetentionPeriodHours": 24,
                    "StreamCreationTimestamp": CREATED,
                    "EnhancedMonitoring": [],
                }
            }
        return {
            "StreamDescription": {
                "StreamArn": TABLE_STREAM,
                "StreamStatus": "ENABLED",
                "StreamViewType": "NEW_AND_OLD_IMAGES",
                "TableName": SCORES,
                "Shards": [{"ShardId": TABLE_SHARD, "SequenceNumberRange": {"StartingSequenceNumber": "1"}}],
            }
        }

    def call_GetShardIterator(self, request: dict[str, Any]) -> Any:  # noqa: N802, ANN401
        if "StreamArn" in request:
            position = int(request.get("SequenceNumber", 0))
            return {"ShardIterator": f"table:{position}"}
        position = 0
        if request["ShardIteratorType"] == "AFTER_SEQUENCE_NUMBER":
            position = w.position_of(request["StartingSequenceNumber"]) + 1
        return {"ShardIterator": f"{int(request['ShardId'][-12:])}:{position}"}

    def call_GetRecords(self, request: dict[str, Any]) -> Any:  # noqa: N802, ANN401
        name, _, text = request["ShardIterator"].partition(":")
        position = int(text)
        limit = min(request.get("Limit", MAX_PAGE_RECORDS), MAX_PAGE_RECORDS)
        if name == "table":
            found, end = _stream_of(self).page(position, min(limit, 1000))
            return b'{"Records":[%b],"NextShardIterator":"table:%d"}' % (b",".join(found), end)
        shard = int(name)
        now = time.time()
        there, rate = self.workload.on_shard(shard), self.workload.rate
        if rate:
            self.rate_from = self.rate_from or now + 0.5
            # An event is on the stream a time after the start that its index tells.
            there = min(there, max(0, int((now - self.rate_from) * rate / self.workload.shards) + 1))
            while there and self._at(shard, there - 1) > now:
                there -= 1
        count = max(0, min(limit, there - position))
        arrived = [self._at(shard, at) for at in range(position, position + count)]
        if count and "records" not in self.first:
            self.first["records"] = now
            self.first["sample"] = self._sample()
        behind_ms = int((now - self._at(shard, position + count)) * 1000) if there > position + count else 0
        return b'{"Records":[%b],"NextShardIterator":"%d:%d","MillisBehindLatest":%d}' % (
            self.records.page(shard, position, count, arrived),
            shard,
            position + count,
            behind_ms,
        )

    def _at(self, shard: int, position: int) -> float:
        rate = self.workload.rate
        return self.rate_from + self.workload.index(shard, position) / rate if rate else self.began_wall

    # DynamoDB.

    def call_DescribeTable(self, request: dict[str, Any]) -> Any:  # noqa: N802, ANN401
        name = request["TableName"]
        keys = KEYS[name]
        return {
            "Table": {
                "TableName": name,
                "TableStatus": "ACTIVE",
                "KeySchema": [
                    {"AttributeName": key, "KeyType": kind}
                    for key, kind in zip(keys, ("HASH", "RANGE")[: len(keys)], strict=True)
                ],
                "StreamSpecification": {"StreamEnabled": True, "StreamViewType": "NEW_AND_OLD_IMAGES"},
                "LatestStreamArn": TABLE_STREAM,
            }
        }

    def call_Scan(self, request: dict[str, Any]) -> Any:  # noqa: N802, ANN401
        prefix = request.get("ExpressionAttributeValues", {}).get(":prefix", {}).get("S", "")
        table = self.tables[request["TableName"]]
        items = [item for key, item in table.items.items() if key[0].startswith(prefix)]
        return {"Items": items, "Count": len(items), "ScannedCount": len(table.items)}

    def call_Query(self, _: dict[str, Any]) -> Any:  # noqa: N802, ANN401
        return {"Items": [], "Count": 0, "ScannedCount": 0}

    def call_GetItem(self, request: dict[str, Any]) -> Any:  # noqa: N802, ANN401
        item = self._get(self.tables[request["TableName"]], request["Key"])
        return {"Item": item} if item is not None else {}

    def call_BatchGetItem(self, request: dict[str, Any]) -> Any:  # noqa: N802, ANN401
        responses = {}
        for name, wanted in request["RequestItems"].items():
            table = self.tables[name]
            found = [self._get(table, key) for key in wanted["Keys"]]
            shown = set(wanted.get("ExpressionAttributeNames", {}).values())
            responses[name] = [
                {field: value for field, value in item.items() if not shown or field in shown}
                for item in found
                if item is not None
            ]
        return {"Responses": responses, "UnprocessedKeys": {}}

    def _get(self, table: Table, key: Item) -> Item | None:
        return self._item(table, table.key_of(key))

    def _item(self, table: Table, key: tuple[str, ...]) -> Item | None:
        item = table.items.get(key)
        name = key[0]
        if item is None and table.name == IDENTITIES and self.workload.warm and name.startswith(("endpoint#", "user#")):
            user = w.number_of(name)
            whose = (
                {"UserId": {"S": w.user_id(user)}}
                if name.startswith("endpoint#")
                else {"EndpointId": {"S": w.endpoint_id(user)}}
            )
            checked_at = {"N": str(int(self.began_wall * 1000))}
            return {
                **{part: {"S": value} for part, value in zip(table.keys, key, strict=True)},
                **whose,
                "Named": {"BOOL": True},
                "Stamp": {"S": "warm"},
                "EndpointStatus": {"S": "ACTIVE"},
                "Channel": {"S": "EMAIL"},
                "CheckedAt": checked_at,
            }
        return item

    def _put(self, table: Table, item: Item) -> None:
        now = time.time()
        table.put(table.key_of(item), item, now)
        if table.name == SCORES:
            self.write_units += 1
            self.score_written(item, now)

    def call_BatchWriteItem(self, request: dict[str, Any]) -> Any:  # noqa: N802, ANN401
        for name, writes in request["RequestItems"].items():
            for write in writes:
                self._put(self.tables[name], write["PutRequest"]["Item"])
        return {"UnprocessedItems": {}}

    def call_PutItem(self, request: dict[str, Any]) -> Any:  # noqa: N802, ANN401
        table = self.tables[request["TableName"]]
        there = table.items.get(table.key_of(request["Item"]))
        check(request.get("ConditionExpression", ""), request.get("ExpressionAttributeValues", {}), there)
        self._put(table, request["Item"])
        return {}

    def call_UpdateItem(self, request: dict[str, Any]) -> Any:  # noqa: N802, ANN401
        table = self.tables[request["TableName"]]
        key, values = request["Key"], request["ExpressionAttributeValues"]
        there = table.items.get(table.key_of(key))
        check(request.get("ConditionExpression", ""), values, there)
        item = dict(there or key)
        update(item, request["UpdateExpression"], values)
        self._put(table, item)
        return {"Attributes": item} if request.get("ReturnValues", "").startswith(("ALL_NEW", "UPDATED_NEW")) else {}

    def call_DeleteItem(self, request: dict[str, Any]) -> Any:  # noqa: N802, ANN401
        table = self.tables[request["TableName"]]
        key = table.key_of(request["Key"])
        check(
            request.get("ConditionExpression", ""), request.get("ExpressionAttributeValues", {}), table.items.get(key)
        )
        table.items.pop(key, None)
        return {}

    def call_BatchExecuteStatement(self, request: dict[str, Any]) -> Any:  # noqa: N802, ANN401
        now = time.time()
        scores = self.tables[SCORES]
        responses, units = [], 0.0
        for statement in request["Statements"]:
            answer = execute(self.tables, statement, now, self._item)
            responses.append(answer)
            if answer.get("TableName") == SCORES or "Error" in answer:
                units += 1
            if answer.get("TableName") == SCORES:
                parameters = [value["S"] for value in statement["Parameters"] if "S" in value]
                self.score_written(scores.items[(parameters[0], parameters[1])], now)
        self.write_units += int(units)
        return {"Responses": responses, "ConsumedCapacity": [{"TableName": SCORES, "CapacityUnits": units}]}

    # Pinpoint.

    def pinpoint(self, method: str, path: str, body: bytes) -> Answer:
        parts = [unquote(part) for part in path.split("/")[4:]]
        now = time.time()
        if method == "PUT":
            request = msgspec.json.decode(body)
            items = request["Item"] if len(parts) == 1 else [{**request, "Id": parts[1]}]
            self.requests["UpdateEndpointsBatch" if len(parts) == 1 else "UpdateEndpoint"] += 1
            for item in items:
                score = item["User"]["UserAttributes"]["EngagementScore"][0]
                self.score_published(w.number_of(item["Id"]), int(score), now)
            return 202, b'{"Message":"Accepted","RequestID":"1"}'
        user = w.number_of(parts[1])
        endpoint = w.endpoint(user)
        if parts[0] == "users":
            self.requests["GetUserEndpoints"] += 1
            return 200, _encode({"Item": [endpoint]})
        self.requests["GetEndpoint"] += 1
        return 200, _encode(endpoint)

    def answer(self, method: str, path: str, target: str, body: bytes) -> Answer:
        if path.startswith("/_bench/"):
            if body:
                self.group = msgspec.json.decode(body)["group"]
            return 200, _encode(self.report() if path.endswith("report") else {"done": bool(self.done)})
        if path.startswith("/v1/apps/"):
            return self.pinpoint(method, path, body)
        name = target.rpartition(".")[2]
        self.requests[name] += 1
        try:
            answer = self.calls[name](msgspec.json.decode(body))
        except ConditionFailedError as failed:
            error: dict[str, Any] = {
                "__type": "com.amazonaws.dynamodb.v20120810#ConditionalCheckFailedException",
                "message": "The conditional request failed",
            }
            if failed.item is not None:
                error["Item"] = failed.item
            return 400, _encode(error)
        return 200, answer if isinstance(answer, bytes) else _encode(answer)


def _stream_of(state: StubState) -> Stream:
    stream = state.tables[SCORES].stream
    if stream is None:
        raise TypeError
    return stream


async def serve(workload: w.Workload) -> None:
    """Serve until killed."""
    state = StubState(workload)
    server = await asyncio.get_running_loop().create_server(lambda: Connection(state.answer), "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)  # noqa: T201 # the caller reads the port
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(serve(msgspec.json.decode(sys.argv[1].encode(), type=w.Workload)))
