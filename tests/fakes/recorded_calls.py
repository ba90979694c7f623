"""Recorded requests and answers of the ten fast calls, and a server on 127.0.0.1 that gives answers by script."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Any

ITEM = {"UserId": {"S": "u"}, "Score": {"N": "1"}, "Applied": {"M": {"t-0": {"B": "AAEC"}}}, "Odd": {"NULL": True}}


REQUESTS: dict[tuple[str, str], dict[str, Any]] = {
    ("kinesis", "GetRecords"): {"StreamARN": "arn:aws:kinesis:us-east-1:111122223333:stream/s", "ShardIterator": "i"},
    ("dynamodbstreams", "GetRecords"): {"ShardIterator": "i", "Limit": 7},
    ("dynamodb", "BatchExecuteStatement"): {
        "Statements": [
            {"Statement": "INSERT INTO \"t\" VALUE {'a': ?}", "Parameters": [{"S": "é"}, {"M": {"x": {"B": b"\0\1"}}}]}
        ]
    },
    ("dynamodb", "BatchGetItem"): {"RequestItems": {"table": {"Keys": [{"Id": {"S": "x"}}], "ConsistentRead": True}}},
    ("dynamodb", "GetItem"): {"TableName": "table", "Key": {"Id": {"S": "x"}}},
    ("dynamodb", "PutItem"): {"TableName": "table", "Item": {"Id": {"S": "x"}}, "ConditionExpression": "a = b"},
    ("dynamodb", "UpdateItem"): {"TableName": "table", "Key": {"Id": {"S": "x"}}, "UpdateExpression": "ADD a :b"},
    ("dynamodb", "Scan"): {"TableName": "table", "ConsistentRead": True},
    ("dynamodb", "Query"): {"TableName": "table", "KeyConditionExpression": "a = :b"},
    ("pinpoint", "UpdateEndpointsBatch"): {
        "ApplicationId": "a b/c",
        "EndpointBatchRequest": {
            "Item": [{"Id": "e", "User": {"UserAttributes": {"A": ["1"]}}, "Metrics": {"m": 1.5}}]
        },
    },
}


ANSWERS: dict[tuple[str, str], list[dict[str, Any]]] = {
    ("kinesis", "GetRecords"): [
        {
            "Records": [
                {
                    "SequenceNumber": "4" * 56,
                    "ApproximateArrivalTimestamp": 1790000002.863,
                    "Data": "eyJhIjoxfQ==",
                    "PartitionKey": "k",
                    "EncryptionType": "KMS",
                }
            ],
            "NextShardIterator": "n",
            "MillisBehindLatest": 0,
        },
        {
            "Records": [],
            "NextShardIterator": None,
            "MillisBehindLatest": 12,
            "ChildShards": [{"ShardId": "s", "ParentShards": ["p"], "HashKeyRange": {"StartingHashKey": "0"}}],
        },
        {"Records": [{"Data": "", "ApproximateArrivalTimestamp": 1790000002, "Unheard": [1]}], "Of": None},
        {"Records": [{"Data": "", "ApproximateArrivalTimestamp": "2026-10-01T00:00:00Z"}]},
    ],
    ("dynamodbstreams", "GetRecords"): [
        {
            "Records": [
                {
                    "eventID": "1",
                    "eventName": "MODIFY",
                    "userIdentity": {"PrincipalId": "dynamodb.amazonaws.com", "Type": "Service"},
                    "dynamodb": {
                        "ApproximateCreationDateTime": 1790000002,
                        "Keys": {"UserId": {"S": "u"}},
                        "NewImage": ITEM,
                        "OldImage": ITEM,
                        "SequenceNumber": "1" * 21,
                        "SizeBytes": 3,
                    },
                }
            ],
            "NextShardIterator": "n",
        }
    ],
    ("dynamodb", "BatchExecuteStatement"): [
        {
            "Responses": [
                {"TableName": "t"},
                {"Error": {"Code": "ConditionalCheckFailed", "Message": "no", "Item": ITEM}},
                {"Error": {"Code": "DuplicateItem", "Message": "é"}},
            ],
            "ConsumedCapacity": [{"TableName": "t", "CapacityUnits": 2.0, "Table": {"CapacityUnits": 2}}],
        }
    ],
    ("dynamodb", "BatchGetItem"): [
        {"Responses": {"table": [ITEM]}, "UnprocessedKeys": {"table": {"Keys": [{"Id": {"S": "y"}}]}}},
        {"Responses": {"table": [{"L": {"L": [{"SS": ["a"]}, {"BS": ["AA=="]}, {"BOOL": False}]}}]}},
    ],
    ("dynamodb", "GetItem"): [{"Item": ITEM}, {}],
    ("dynamodb", "PutItem"): [{}, {"Attributes": ITEM, "ConsumedCapacity": {"CapacityUnits": 1.0}}],
    ("dynamodb", "UpdateItem"): [{"Attributes": ITEM}],
    ("dynamodb", "Scan"): [{"Items": [ITEM], "Count": 1, "ScannedCount": 2, "LastEvaluatedKey": {"Id": {"S": "x"}}}],
    ("dynamodb", "Query"): [{"Items": [], "Count": 0, "ScannedCount": 0}],
    ("pinpoint", "UpdateEndpointsBatch"): [{"Message": "Accepted", "RequestID": "1"}, {}],
}


class Server:
    """Answers what it was told to, and keeps the requests."""

    def __init__(self) -> None:
        self.script: Callable[[int], tuple[int, dict[str, str], bytes] | None] = lambda _: (200, {}, b"{}")
        self.requests: list[tuple[str, dict[str, str], bytes]] = []
        self._open: list[asyncio.StreamWriter] = []

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._open.append(writer)
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                first, *lines = (await reader.readuntil(b"\r\n\r\n")).decode().strip().split("\r\n")
                headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
                body = await reader.readexactly(int(headers.get("content-length", 0)))
                self.requests.append((first, headers, body))
                answer = self.script(len(self.requests))
                if answer is None:
                    break
                status, more, content = answer
                length = {} if "Transfer-Encoding" in more else {"Content-Length": str(len(content))}
                head = {**length, "x-amzn-RequestId": "r-1", **more}
                writer.write(f"HTTP/1.1 {status} Said\r\n".encode())
                writer.write("".join(f"{name}: {value}\r\n" for name, value in head.items()).encode() + b"\r\n")
                writer.write(content)
        writer.close()

    @contextlib.asynccontextmanager
    async def serving(self) -> AsyncIterator[str]:
        server = await asyncio.start_server(self.handle, "127.0.0.1", 0)
        try:
            yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        finally:
            server.close()
            for writer in self._open:
                writer.close()
                with contextlib.suppress(ConnectionError):
                    await writer.wait_closed()
