"""The embedded AWS: its stream has what PartiQL writes, its meter counts, it leaves nothing behind."""

# ruff: noqa: S310, S608 - our own http URLs, and PartiQL with names that these tests make

import importlib.util
import json
import os
import socket
import sys
import urllib.request
from collections.abc import Iterator
from types import ModuleType, SimpleNamespace

import boto3
import pytest
from botocore.client import BaseClient
from botocore.config import Config
from botocore.exceptions import ClientError

from service.local import emulator as emulator_module
from service.local import ministack_mends
from service.local.emulator import Emulator, EmulatorMissingError
from service.local.meter import Meter
from service.local.ministack_child import only
from service.local.processes import ChildFailedError, ChildProcess
from tests.fakes.listeners import listening


@pytest.fixture(scope="module")
def aws() -> Iterator[Emulator]:
    with Emulator() as running:
        yield running


@pytest.fixture
def clients(aws: Emulator):
    def make(service: str, agent: str | None = None) -> BaseClient:
        return boto3.client(
            service,
            endpoint_url=aws.endpoint_url,
            region_name="us-east-1",
            aws_access_key_id="test",
            aws_secret_access_key="test",  # noqa: S106
            config=Config(user_agent_extra=agent),
        )

    made = SimpleNamespace(
        dynamodb=make("dynamodb"),
        ours=make("dynamodb", "engagement-scoring/0.1.0"),
        streams=make("dynamodbstreams"),
        kinesis=make("kinesis"),
    )
    yield made
    for client in vars(made).values():
        client.close()


@pytest.fixture
def table(clients: SimpleNamespace, request: pytest.FixtureRequest):
    name = request.node.name.replace("[", ".").replace("]", "")
    keys = (("UserId", "HASH"), ("ProjectId", "RANGE"))
    arn = clients.dynamodb.create_table(
        TableName=name,
        KeySchema=[{"AttributeName": key, "KeyType": kind} for key, kind in keys],
        AttributeDefinitions=[{"AttributeName": key, "AttributeType": "S"} for key, _ in keys],
        BillingMode="PAY_PER_REQUEST",
        StreamSpecification={"StreamEnabled": True, "StreamViewType": "NEW_AND_OLD_IMAGES"},
    )["TableDescription"]["LatestStreamArn"]
    yield SimpleNamespace(name=name, stream=arn)
    clients.dynamodb.delete_table(TableName=name)


def item(user: str, score: int | None = None) -> dict:
    return {"UserId": {"S": user}, "ProjectId": {"S": "p"}} | ({} if score is None else {"Score": {"N": str(score)}})


def insert(table: SimpleNamespace, user: str, score: int) -> dict:
    statement = f"INSERT INTO \"{table.name}\" VALUE {{'UserId': ?, 'ProjectId': ?, 'Score': ?}}"
    return {"Statement": statement, "Parameters": [{"S": user}, {"S": "p"}, {"N": str(score)}]}


def update(table: SimpleNamespace, user: str, plus: int, expected: int) -> dict:
    statement = f'UPDATE "{table.name}" SET Score = Score + ? WHERE UserId = ? AND ProjectId = ? AND Score = ?'
    parameters = [{"N": str(plus)}, {"S": user}, {"S": "p"}, {"N": str(expected)}]
    return {"Statement": statement, "Parameters": parameters}


def delete(table: SimpleNamespace, user: str) -> dict:
    statement = f'DELETE FROM "{table.name}" WHERE UserId = ? AND ProjectId = ?'
    return {"Statement": statement, "Parameters": [{"S": user}, {"S": "p"}]}


def changes(clients: SimpleNamespace, table: SimpleNamespace) -> list[tuple]:
    """(event name, old image, new image) of the whole stream, oldest first."""
    (shard,) = clients.streams.describe_stream(StreamArn=table.stream)["StreamDescription"]["Shards"]
    iterator = clients.streams.get_shard_iterator(
        StreamArn=table.stream, ShardId=shard["ShardId"], ShardIteratorType="TRIM_HORIZON"
    )["ShardIterator"]
    records = clients.streams.get_records(ShardIterator=iterator)["Records"]
    numbers = [int(record["dynamodb"]["SequenceNumber"]) for record in records]
    assert numbers == sorted(set(numbers))
    return [(r["eventName"], r["dynamodb"].get("OldImage"), r["dynamodb"].get("NewImage")) for r in records]


def test_partiql_writes_are_in_the_stream_once_in_order_with_both_images(
    clients: SimpleNamespace, table: SimpleNamespace
):
    clients.dynamodb.batch_execute_statement(Statements=[insert(table, "a", 1), insert(table, "b", 5)])
    answers = clients.dynamodb.batch_execute_statement(
        Statements=[
            update(table, "a", 2, 1),
            update(table, "b", 1, 99),
            insert(table, "a", 7),
            update(table, "no", 1, 1),
        ]
    )["Responses"]
    codes = [answer.get("Error", {}).get("Code") for answer in answers]
    assert codes == [None, "ConditionalCheckFailed", "DuplicateItem", "ConditionalCheckFailed"]
    clients.dynamodb.execute_statement(**delete(table, "b"))
    clients.dynamodb.execute_statement(**delete(table, "b"))
    assert changes(clients, table) == [
        ("INSERT", None, item("a", 1)),
        ("INSERT", None, item("b", 5)),
        ("MODIFY", item("a", 1), item("a", 3)),
        ("REMOVE", item("b", 5), None),
    ]


def test_a_partiql_transaction_leaves_all_its_records_or_none(clients: SimpleNamespace, table: SimpleNamespace):
    clients.dynamodb.execute_transaction(TransactStatements=[insert(table, "a", 1), insert(table, "b", 2)])
    with pytest.raises(ClientError, match="TransactionCanceled"):
        clients.dynamodb.execute_transaction(TransactStatements=[update(table, "a", 1, 1), update(table, "b", 1, 99)])
    assert changes(clients, table) == [("INSERT", None, item("a", 1)), ("INSERT", None, item("b", 2))]


def test_the_item_api_is_still_in_the_stream_once(clients: SimpleNamespace, table: SimpleNamespace):
    clients.dynamodb.put_item(TableName=table.name, Item=item("a", 1))
    clients.dynamodb.execute_statement(**update(table, "a", 1, 1))
    clients.dynamodb.delete_item(TableName=table.name, Key=item("a"))
    assert changes(clients, table) == [
        ("INSERT", None, item("a", 1)),
        ("MODIFY", item("a", 1), item("a", 2)),
        ("REMOVE", item("a", 2), None),
    ]


def test_records_do_not_change_when_the_item_does_later(clients: SimpleNamespace, table: SimpleNamespace):
    clients.dynamodb.batch_execute_statement(Statements=[insert(table, "a", 1)])
    clients.dynamodb.update_item(
        TableName=table.name,
        Key=item("a"),
        UpdateExpression="ADD Score :one",
        ExpressionAttributeValues={":one": {"N": "1"}},
    )
    assert changes(clients, table)[0] == ("INSERT", None, item("a", 1))


def test_the_meter_counts_our_own_requests_statements_and_write_units(
    aws: Emulator, clients: SimpleNamespace, table: SimpleNamespace
):
    before = Meter.read(aws)
    clients.dynamodb.put_item(TableName=table.name, Item=item("traffic", 1))
    clients.ours.batch_execute_statement(Statements=[insert(table, user, 1) for user in "abcde"])
    clients.ours.batch_execute_statement(Statements=[update(table, "a", 1, 1), update(table, "a", 1, 1)])
    clients.ours.put_item(TableName=table.name, Item=item("big") | {"Payload": {"S": "x" * 2500}})
    clients.ours.get_item(TableName=table.name, Key=item("a"))
    counts = Meter.read(aws).since(before)
    assert counts.by_operation == {
        "dynamodb.BatchExecuteStatement": 2,
        "dynamodb.GetItem": 1,
        "dynamodb.PutItem": 1,
    }
    assert counts.operations["dynamodb.BatchExecuteStatement"].members == 7
    assert counts.operations["dynamodb.PutItem"].write_units == 3
    assert (counts.requests, counts.write_units) == (4, 10)


def test_kinesis_still_serves_what_it_retains(clients: SimpleNamespace):
    clients.kinesis.create_stream(StreamName="retained", ShardCount=1)
    clients.kinesis.put_record(StreamName="retained", Data=b"one", PartitionKey="k")
    (shard,) = clients.kinesis.list_shards(StreamName="retained")["Shards"]
    iterator = clients.kinesis.get_shard_iterator(
        StreamName="retained", ShardId=shard["ShardId"], ShardIteratorType="TRIM_HORIZON"
    )["ShardIterator"]
    assert [r["Data"] for r in clients.kinesis.get_records(ShardIterator=iterator)["Records"]] == [b"one"]


def test_a_reshard_gives_ids_that_the_stream_never_had_and_parents(clients: SimpleNamespace):
    """UpdateShardCount numbered the new shards from 0 again, with other starting sequence numbers."""
    kinesis, name = clients.kinesis, "resharded"
    kinesis.create_stream(StreamName=name, ShardCount=2)
    parents: dict[str, set[str]] = {}
    for count in (3, 1, 2):
        before = {shard["ShardId"] for shard in kinesis.list_shards(StreamName=name)["Shards"]}
        kinesis.update_shard_count(StreamName=name, TargetShardCount=count, ScalingType="UNIFORM_SCALING")
        shards = kinesis.list_shards(StreamName=name)["Shards"]
        assert len(shards) == count
        for shard in shards:
            assert shard["ShardId"] not in {"shardId-000000000000", "shardId-000000000001", *parents}
            parents[shard["ShardId"]] = {
                shard[key] for key in ("ParentShardId", "AdjacentParentShardId") if key in shard
            }
            assert parents[shard["ShardId"]] <= before
    assert [sorted(int(each[-2:]) for each in of) for of in parents.values()] == [[0], [0, 1], [1], [2, 3], [5], [5]]
    with pytest.raises(ClientError, match="ResourceNotFoundException"):
        kinesis.update_shard_count(StreamName="none", TargetShardCount=1, ScalingType="UNIFORM_SCALING")


def test_it_names_every_endpoint_and_answers_only_until_stopped():
    with Emulator() as running:
        url = running.endpoint_url
        environment = running.environment()
        with urllib.request.urlopen(f"{url}/_ministack/health") as answer:
            assert answer.status == 200
    assert url.startswith("http://127.0.0.1:")
    names = ("AWS_ENDPOINT_URL_KINESIS", "AWS_ENDPOINT_URL_DYNAMODB", "AWS_ENDPOINT_URL_DYNAMODB_STREAMS")
    assert {environment[name] for name in names} == {url}
    with pytest.raises(OSError, match="refused"):
        urllib.request.urlopen(f"{url}/_ministack/health")
    with pytest.raises(ChildFailedError, match="not running"):
        _ = running.endpoint_url


def test_a_port_that_is_taken_is_an_error_that_says_so(aws: Emulator):
    port = int(aws.endpoint_url.rpartition(":")[2])
    with pytest.raises(ChildFailedError, match="already in use"), Emulator(port=port):
        pass


def test_without_the_extra_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(emulator_module, "find_spec", lambda _: None)
    with pytest.raises(EmulatorMissingError, match=r"pip install .\.\[local\]"), Emulator():
        pass


def test_another_release_is_not_mended():
    from ministack.services import dynamodb, kinesis  # noqa: PLC0415 - importing it costs 0.2 s

    ministack_mends.check(dynamodb, kinesis, ministack_mends.MENDED_VERSION)
    with pytest.raises(ministack_mends.UnmendableError, match=r"1\.5\.34"):
        ministack_mends.check(dynamodb, kinesis, "1.5.34")
    with pytest.raises(ministack_mends.UnmendableError, match="_partiql_insert"):
        ministack_mends.check(ModuleType("other"), kinesis, ministack_mends.MENDED_VERSION)


def test_started_by_hand_it_listens_on_loopback_only():
    """ministack opens 0.0.0.0:8883 where `cryptography` is there, as it is here, unless it is told not to."""
    assert importlib.util.find_spec("cryptography")
    command = [sys.executable, "-m", "service.local.ministack_child"]
    inherited = {**os.environ, "IOT_MTLS_ENABLED": "1", "SFTP_ENABLED": "1", "SERVICES": "iot,transfer"}
    child = ChildProcess("ministack by hand", command, environment=inherited, keep_stdout=True)
    with child:
        port = child.wait_until(lambda: announced(child), timeout_s=30, what="it had a port")
        health = f"http://127.0.0.1:{port}/_ministack/health"
        child.wait_until(lambda: answers(health), timeout_s=30, what="it answered")
        assert listening(child.pid) == {("127.0.0.1", port)}


def announced(child: ChildProcess) -> int | None:
    return next((int(json.loads(line)["port"]) for line in child.stdout_lines), None)


def answers(url: str) -> bool | None:
    try:
        with urllib.request.urlopen(url) as answer:
            return answer.status == 200 or None
    except OSError:
        return None


@pytest.mark.parametrize("address", [("0.0.0.0", 0), ("", 0), ("::", 0, 0, 0), ("10.1.2.3", 0), ("example.com", 0)])  # noqa: S104 # refused
def test_a_listener_that_ministack_opens_beyond_loopback_is_refused(address: tuple):
    family = socket.AF_INET6 if len(address) > 2 else socket.AF_INET
    with socket.socket(family) as bound, pytest.raises(PermissionError, match=r"127\.0\.0\.1 only"):
        only("127.0.0.1")("socket.bind", (bound, address))


@pytest.mark.parametrize(
    ("host", "address"),
    [("127.0.0.1", ("127.0.0.2", 1)), ("0.0.0.0", ("0.0.0.0", 1)), ("127.0.0.1", ("localhost", 0))],  # noqa: S104 # asked
)
def test_its_own_address_and_loopback_are_not_refused(host: str, address: tuple):
    with socket.socket() as bound:
        only(host)("socket.bind", (bound, address))
        only(host)("socket.connect", (bound, ("10.1.2.3", 1)))
    with socket.socket(socket.AF_UNIX) as local:
        only(host)("socket.bind", (local, "a/path"))
