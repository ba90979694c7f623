"""The floor: the least that a Python process can do for the same result, with sockets, msgspec and a signature.

It reads pages of 1,000, decodes, adds up by user, writes conditionally 25 to a call, and tells Pinpoint 100 to a call.
It has no leases, no checkpoints, no retries, no identities (it knows whose an endpoint is), takes every user it has
not seen for a new one, and publishes from memory instead of from the table's stream. Nobody should run this.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import socket
import time
from urllib.parse import urlsplit

import msgspec

PROJECT = "5f0c2d9e8b7a4c61a3d2e1f0b9c8a7d6"
PAGE, WRITES, UPDATES = 1000, 25, 100
TABLE = "userEngagementScore"


class Row(msgspec.Struct, gc=False):
    data: bytes = msgspec.field(name="Data")
    sequence: str = msgspec.field(name="SequenceNumber")


class Answer(msgspec.Struct, gc=False):
    rows: list[Row] = msgspec.field(name="Records")
    iterator: str | None = msgspec.field(name="NextShardIterator", default=None)


class Client(msgspec.Struct, gc=False):
    client_id: str


class Event(msgspec.Struct, gc=False):
    event_type: str
    arrival_timestamp: int
    client: Client


_answer = msgspec.json.Decoder(Answer)
_event = msgspec.json.Decoder(Event)
_encode = msgspec.json.encode


class Connection:
    """One kept connection to one service, and its signatures."""

    def __init__(self, service: str, variable: str) -> None:
        address = urlsplit(os.environ[f"AWS_ENDPOINT_URL_{variable}"])
        self._host = f"{address.hostname}:{address.port}"
        self._socket = socket.create_connection((address.hostname, address.port))
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._service = service
        self._day = ""
        self._key = b""

    def _signed(self, method: str, path: str, target: str, body: bytes) -> bytes:
        now = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
        scope = f"{now[:8]}/us-east-1/{self._service}/aws4_request"
        if now[:8] != self._day:
            self._day = now[:8]
            key = b"AWS4" + os.environ["AWS_SECRET_ACCESS_KEY"].encode()
            for part in scope.split("/"):
                key = hmac.digest(key, part.encode(), "sha256")
            self._key = key
        canonical = (
            f"{method}\n{path}\n\nhost:{self._host}\nx-amz-date:{now}\nx-amz-target:{target}\n\n"
            f"host;x-amz-date;x-amz-target\n{hashlib.sha256(body).hexdigest()}"
        )
        text = f"AWS4-HMAC-SHA256\n{now}\n{scope}\n{hashlib.sha256(canonical.encode()).hexdigest()}"
        signature = hmac.digest(self._key, text.encode(), "sha256").hex()
        head = (
            f"{method} {path} HTTP/1.1\r\nHost: {self._host}\r\nX-Amz-Date: {now}\r\nX-Amz-Target: {target}\r\n"
            f"Content-Type: application/x-amz-json-1.0\r\nContent-Length: {len(body)}\r\n"
            f"Authorization: AWS4-HMAC-SHA256 Credential={os.environ['AWS_ACCESS_KEY_ID']}/{scope}, "
            f"SignedHeaders=host;x-amz-date;x-amz-target, Signature={signature}\r\n\r\n"
        )
        return head.encode() + body

    def call(self, target: str, request: object, method: str = "POST", path: str = "/") -> bytes:
        self._socket.sendall(self._signed(method, path, target, _encode(request)))
        data = self._socket.recv(65536)
        while (end := data.find(b"\r\n\r\n")) < 0:
            data += self._socket.recv(65536)
        start = data.lower().index(b"content-length:") + 15
        length = int(data[start : data.index(b"\r\n", start)])
        body = bytearray(data[end + 4 :])
        while len(body) < length:
            body += self._socket.recv(1 << 20)
        if not data.startswith((b"HTTP/1.1 200", b"HTTP/1.1 202")):
            raise RuntimeError(bytes(body).decode())
        return bytes(body)


def main() -> None:  # noqa: C901 # one loop, as it comes
    kinesis, dynamodb = Connection("kinesis", "KINESIS"), Connection("dynamodb", "DYNAMODB")
    pinpoint = Connection("mobiletargeting", "PINPOINT")
    rows = msgspec.json.decode(dynamodb.call("DynamoDB_20120810.Scan", {"TableName": "engagementScoreDefinition"}))
    points = {row["EventType"]["S"]: int(row["ScoreOffset"]["N"]) for row in rows["Items"]}
    listed = msgspec.json.decode(kinesis.call("Kinesis_20131202.ListShards", {"StreamName": "engagement"}))
    iterators: dict[str, str | None] = {}
    for shard in listed["Shards"]:
        request = {
            "StreamName": "engagement",
            "ShardId": shard["ShardId"],
            "ShardIteratorType": "TRIM_HORIZON",
        }
        found = msgspec.json.decode(kinesis.call("Kinesis_20131202.GetShardIterator", request))
        iterators[shard["ShardId"]] = found["ShardIterator"]
    state: dict[str, tuple[int, int]] = {}
    insert = (
        f"""INSERT INTO "{TABLE}" VALUE {{'UserId': ?, 'PinpointProjectId': ?, 'Score': ?, """
        "'Revision': ?, 'Applied': ?, 'UpdatedAt': ?}"
    )
    update = (
        f'UPDATE "{TABLE}" SET Score = Score + ? SET Revision = ? SET Applied = ? SET UpdatedAt = ? '  # noqa: S608
        "WHERE UserId = ? AND PinpointProjectId = ? AND Revision = ?"
    )
    project = {"S": PROJECT}
    while True:
        idle = True
        for shard, iterator in iterators.items():
            page = _answer.decode(
                kinesis.call("Kinesis_20131202.GetRecords", {"ShardIterator": iterator, "Limit": PAGE})
            )
            iterators[shard] = page.iterator
            if not page.rows:
                continue
            idle = False
            sums: dict[str, tuple[int, int, str]] = {}
            for row in page.rows:
                event = _event.decode(row.data)
                user = event.client.client_id
                sums[user] = (
                    sums[user][0] + points[event.event_type] if user in sums else points[event.event_type],
                    event.arrival_timestamp,
                    row.sequence,
                )
            statements = []
            for endpoint, (gained, arrived, sequence) in sums.items():
                revision, score = state.get(endpoint, (0, 0))
                state[endpoint] = (revision + 1, score + gained)
                new = [
                    {"N": str(revision + 1)},
                    {"M": {shard: {"B": int(sequence).to_bytes(24, "big")}}},
                    {"N": str(arrived)},
                ]
                keys = [{"S": "u" + endpoint[1:]}, project]
                values = (
                    [{"N": str(gained)}, *new, *keys, {"N": str(revision)}]
                    if revision
                    else [*keys, {"N": str(gained)}, *new]
                )
                statements.append(
                    {
                        "Statement": update if revision else insert,
                        "Parameters": values,
                        "ReturnValuesOnConditionCheckFailure": "ALL_OLD",
                    }
                )
            for start in range(0, len(statements), WRITES):
                answer = dynamodb.call(
                    "DynamoDB_20120810.BatchExecuteStatement", {"Statements": statements[start : start + WRITES]}
                )
                if b'"Error"' in answer:
                    raise RuntimeError(answer.decode())
            items = [
                {
                    "Id": endpoint,
                    "EndpointStatus": "ACTIVE",
                    "User": {
                        "UserId": "u" + endpoint[1:],
                        "UserAttributes": {"EngagementScore": [str(state[endpoint][1])]},
                    },
                }
                for endpoint in sums
            ]
            for start in range(0, len(items), UPDATES):
                pinpoint.call("", {"Item": items[start : start + UPDATES]}, "PUT", f"/v1/apps/{PROJECT}/endpoints")
        if idle:
            time.sleep(0.2)


main()
