"""Going on where kinesis-python stopped."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any, TypeAlias

import pytest
from click.testing import CliRunner, Result

from service.aws.clients import AwsSettings, clients
from service.aws.streams.kinesis import KinesisSource
from service.aws.tables.leases import LeaseTable
from service.cli.root import scoring
from service.stream.leases.lease import Lease, Member
from service.stream.position import TRIM_HORIZON

Cli = Callable[..., Result]
Aws: TypeAlias = Any  # clients have no types
Run = Callable[..., Any]
FIRST, SECOND = "shardId-000000000000", "shardId-000000000001"


@pytest.fixture
def names(
    aws_clients: Aws, run: Run, fresh_name: Callable[[str], str], make_table: Callable[[str], str]
) -> dict[str, str]:
    stream = fresh_name("events")
    run(aws_clients.kinesis.create_stream(StreamName=stream, ShardCount=2))
    return {
        "SCORING_STREAM": stream,
        "SCORING_LEASES_TABLE": make_table("leases"),
        "SCORING_SCORES_TABLE": make_table("scores"),
        "SCORING_LEASE_DURATION_S": "1",
        "SCORING_BATCH_MAX_AGE_MS": "100",
        "SCORING_CHECKPOINT_INTERVAL_MS": "100",
        "SCORING_POLL_MAX_MS": "200",
    }


@pytest.fixture
def table(aws_clients: Aws, run: Run, fresh_name: Callable[[str], str]) -> str:
    """A table as kinesis-python's README has it made."""
    name = fresh_name("kinesis-python")
    run(
        aws_clients.dynamodb.create_table(
            TableName=name,
            AttributeDefinitions=[{"AttributeName": "shard", "AttributeType": "S"}],
            KeySchema=[{"AttributeName": "shard", "KeyType": "HASH"}],
            BillingMode="PAY_PER_REQUEST",
        )
    )
    return name


@pytest.fixture
def cli(aws_environment: dict[str, str], names: dict[str, str]) -> Cli:
    def invoke(*args: str, code: int = 0) -> Result:
        result = CliRunner().invoke(scoring, args, env={**aws_environment, **names})
        assert result.exit_code == code, result.output
        return result

    return invoke


@pytest.fixture
def leases(aws_clients: Aws, run: Run, names: dict[str, str]) -> LeaseTable:
    source = run(KinesisSource.open(aws_clients.kinesis, names["SCORING_STREAM"]))
    return LeaseTable(aws_clients.dynamodb, names["SCORING_LEASES_TABLE"], "ingest", source.stream)


@pytest.fixture
def left(aws_clients: Aws, run: Run, names: dict[str, str], table: str) -> Callable[..., None]:
    """Write a shard's item as kinesis-python leaves it."""

    def leave(shard_id: str, seq: str = "", expires_s: float = 5) -> None:
        item = {
            "shard": {"S": f"{names['SCORING_STREAM']}_{shard_id}"},
            "fqdn": {"S": "old-host"},
            "expires": {"N": str(int(expires_s))},
        }
        run(aws_clients.dynamodb.put_item(TableName=table, Item=item | ({"seq": {"S": seq}} if seq else {})))

    return leave


def test_the_plan_is_shown_then_done_then_done_with(
    cli: Cli,
    run: Run,
    aws_clients: Aws,
    names: dict[str, str],
    table: str,
    left: Callable[..., None],
    leases: LeaseTable,
):
    put = [
        run(
            aws_clients.kinesis.put_record(
                StreamName=names["SCORING_STREAM"], Data=b"x", PartitionKey="k", ExplicitHashKey="0"
            )
        )["SequenceNumber"]
        for _ in range(3)
    ]
    left(FIRST, put[1])
    left(SECOND)
    result = cli("leases", "import-kinesis-python", table)
    assert f"{FIRST}\tcreate\tnew\t{put[1]}" in result.stdout
    assert f"{SECOND}\tkeep" in result.stdout
    assert "may count twice" in result.stderr
    assert run(leases.get(FIRST)) is None
    cli("leases", "import-kinesis-python", table, "--execute")
    assert run(leases.get(FIRST)).checkpoint == put[1]
    lines = {line["shard"]: line for line in json.loads(cli("lag", "--json").stdout) if line["pipeline"] == "ingest"}
    assert lines[FIRST]["records"] == 1
    again = json.loads(cli("leases", "import-kinesis-python", table, "--json").stdout)
    assert [each["act"] for each in again] == ["keep", "keep"]


def test_a_reset_stays_in_front_of_what_was_taken_over(
    cli: Cli, run: Run, table: str, left: Callable[..., None], leases: LeaseTable
):
    left(FIRST, "17")
    cli("leases", "import-kinesis-python", table, "--execute")
    lease = run(leases.get(FIRST))
    run(leases.replace(lease, lease.checkpointed("40", 1)))
    result = cli("position", "reset", "--to-earliest", "--shard", FIRST, "--execute", "--yes-definitions-changed")
    assert "another consumer counted" in result.stdout
    assert run(leases.get(FIRST)).checkpoint == "17"
    assert "counts again" in cli("position", "reset", "--to-earliest", "--shard", FIRST, "--recount").stderr
    cli("position", "reset", "--to-earliest", "--shard", FIRST, "--recount", "--execute", "--yes-definitions-changed")
    assert run(leases.get(FIRST)).checkpoint == TRIM_HORIZON
    assert len(run(leases.snapshot()).leases) == 1


def test_a_lease_at_its_start_is_moved(cli: Cli, run: Run, table: str, left: Callable[..., None], leases: LeaseTable):
    left(FIRST, "17")
    run(leases.create(Lease(FIRST, TRIM_HORIZON, owner="dead", counter=3)))
    cli("leases", "import-kinesis-python", table, "--execute")
    lease = run(leases.get(FIRST))
    assert (lease.checkpoint, lease.owner, lease.counter) == ("17", "", 4)


def test_nothing_is_taken_from_a_consumer_that_runs(
    cli: Cli, run: Run, table: str, left: Callable[..., None], leases: LeaseTable
):
    left(FIRST, "17", expires_s=time.time() + 600)
    assert "old-host until" in cli("leases", "import-kinesis-python", table, "--execute", code=1).stderr
    assert run(leases.get(FIRST)) is None


def test_nothing_is_given_to_a_worker_that_runs(
    cli: Cli, run: Run, table: str, left: Callable[..., None], leases: LeaseTable, monkeypatch: pytest.MonkeyPatch
):
    left(FIRST, "17")
    run(leases.join(Member("living")))

    async def beat(_seconds: float) -> None:
        async with clients(AwsSettings()) as aws:
            await LeaseTable(aws.dynamodb, leases._table, "ingest", leases._stream).beat("living", 1)

    monkeypatch.setattr("service.admin.position.watch", beat)
    assert "still active: living" in cli("leases", "import-kinesis-python", table, "--execute", code=1).stderr
    assert run(leases.get(FIRST)) is None


def test_a_table_that_is_not_there_or_about_another_stream(cli: Cli, table: str):
    assert "no shard of stream" in cli("leases", "import-kinesis-python", table, code=1).stderr
    assert "no-such-table" in cli("leases", "import-kinesis-python", "no-such-table", code=1).stderr
