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
from service.stream.leases.lease import Leadership, Lease, Member
from service.stream.position import SHARD_END, TRIM_HORIZON

Cli = Callable[..., Result]
Aws: TypeAlias = Any  # clients have no types
Run = Callable[..., Any]


@pytest.fixture
def names(aws_clients: Aws, run: Run, fresh_name: Callable[[str], str], make_table: Callable[[str], str]) -> Any:  # noqa: ANN401
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
def cli(aws_environment: dict[str, str], names: dict[str, str]) -> Cli:
    def invoke(*args: str, code: int = 0, **variables: str) -> Result:
        result = CliRunner().invoke(scoring, args, env={**aws_environment, **names, **variables})
        assert result.exit_code == code, result.output
        return result

    return invoke


@pytest.fixture
def leases(aws_clients: Aws, run: Run, names: dict[str, str]) -> LeaseTable:
    source = run(KinesisSource.open(aws_clients.kinesis, names["SCORING_STREAM"]))
    return LeaseTable(aws_clients.dynamodb, names["SCORING_LEASES_TABLE"], "ingest", source.stream)


FIRST, SECOND = "shardId-000000000000", "shardId-000000000001"


def test_lag_of_each_shard(cli: Cli, aws_clients: Aws, run: Run, names: dict[str, str], leases: LeaseTable):
    stream = names["SCORING_STREAM"]
    put = [
        run(aws_clients.kinesis.put_record(StreamName=stream, Data=b"x", PartitionKey="k", ExplicitHashKey=key))
        for key in ("0", "0", str(2**128 - 1))
    ]
    run(leases.create(Lease(FIRST, put[0]["SequenceNumber"], owner="me", checkpoint_ms=1)))
    run(leases.create(Lease(SECOND, put[2]["SequenceNumber"])))
    lines = {line["shard"]: line for line in json.loads(cli("lag", "--json").stdout) if line["pipeline"] == "ingest"}
    assert (lines[FIRST]["state"], lines[FIRST]["owner"]) == ("owned", "me")
    assert lines[FIRST]["checkpoint"] == put[0]["SequenceNumber"]
    assert lines[FIRST]["behind_s"] is not None
    assert (lines[SECOND]["state"], lines[SECOND]["behind_s"]) == ("unowned", 0.0)
    assert "publish\t" in cli("lag").stdout


def test_lag_before_the_first_worker(cli: Cli):
    lines = [line for line in json.loads(cli("lag", "--json").stdout) if line["pipeline"] == "ingest"]
    assert [(line["shard"], line["state"], line["behind_s"]) for line in lines] == [
        (FIRST, "new", None),
        (SECOND, "new", None),
    ]


def test_a_reset_is_shown_and_then_done(cli: Cli, run: Run, leases: LeaseTable):
    run(leases.create(Lease(FIRST, "17", owner="dead", counter=3)))
    run(leases.create(Lease(SECOND, SHARD_END, ended_ms=5)))
    result = cli("position", "reset", "--to-earliest")
    assert "counts now, but only for users whose score contains no later event" in result.stderr
    assert "--execute with --yes-definitions-changed applies it" in result.stderr
    assert "harmless" not in result.stderr
    assert f"{FIRST}\t17\tTRIM_HORIZON" in result.stdout
    assert run(leases.get(FIRST)).checkpoint == "17"
    cli("position", "reset", "--to-earliest", "--execute", "--yes-definitions-changed")
    first, second = run(leases.get(FIRST)), run(leases.get(SECOND))
    assert (first.checkpoint, first.owner, first.counter) == (TRIM_HORIZON, "dead", 4)
    assert (second.checkpoint, second.ended_ms) == (TRIM_HORIZON, 0)
    assert cli("position", "reset", "--to-earliest", "--execute", "--json").stdout == "[]\n"


@pytest.mark.parametrize("to", [("--to-earliest",), ("--to-time", "2026-01-31T12:00:00Z")])
def test_going_back_after_a_definition_change_is_asked_for(cli: Cli, run: Run, leases: LeaseTable, to: tuple[str, ...]):
    now_ms = time.time_ns() // 1_000_000
    run(leases.create(Lease(FIRST, "17", checkpoint_ms=now_ms)))
    result = cli("position", "reset", *to, "--execute", code=2)
    assert "1 shard would be read again; nothing was moved" in result.stderr
    assert "--yes-definitions-changed" in result.stderr
    assert run(leases.get(FIRST)).checkpoint == "17"
    cli("position", "reset", *to, "--execute", "--yes-definitions-changed")
    assert run(leases.get(FIRST)).checkpoint != "17"


def test_a_reset_behind_the_marks_that_are_kept_is_refused(cli: Cli, run: Run, leases: LeaseTable):
    """Else events whose marks were dropped would count twice: the stream keeps records for 24 hours."""
    run(leases.create(Lease(FIRST, "17", checkpoint_ms=time.time_ns() // 1_000_000)))
    back = ("position", "reset", "--to-earliest", "--execute", "--yes-definitions-changed")
    result = cli(*back, code=1, SCORING_MARKS_KEPT_HOURS="2")
    assert "scores keep marks for 2 h only (SCORING_MARKS_KEPT_HOURS)" in result.stderr
    assert "the stream keeps records for 24 h" in result.stderr
    assert run(leases.get(FIRST)).checkpoint == "17"
    cli(*back, SCORING_MARKS_KEPT_HOURS="24")
    assert run(leases.get(FIRST)).checkpoint == TRIM_HORIZON


def test_a_shard_that_was_never_read_needs_no_consent(cli: Cli, run: Run, leases: LeaseTable):
    cli("position", "reset", "--to-earliest", "--execute")
    assert run(leases.get(FIRST)).checkpoint == TRIM_HORIZON


def test_a_reset_to_a_time_or_the_tip_is_a_time(cli: Cli, run: Run, leases: LeaseTable):
    cli("position", "reset", "--to-time", "2026-01-31T12:00:00Z", "--shard", SECOND, "--execute")
    assert run(leases.get(FIRST)) is None
    assert run(leases.get(SECOND)).checkpoint == "AT_TIMESTAMP#1769860800000"
    cli("position", "reset", "--to-latest", "--execute")
    assert run(leases.get(FIRST)).checkpoint.startswith("AT_TIMESTAMP#")


def test_a_reset_is_refused_while_a_worker_beats(
    cli: Cli, run: Run, leases: LeaseTable, monkeypatch: pytest.MonkeyPatch
):
    run(leases.create(Lease(FIRST, "17", owner="living")))
    run(leases.join(Member("living")))
    run(leases.join(Member("dead")))

    async def beat(_seconds: float) -> None:
        async with clients(AwsSettings()) as aws:
            table = LeaseTable(aws.dynamodb, leases._table, "ingest", leases._stream)
            await table.beat("living", 1)

    monkeypatch.setattr("service.admin.position.watch", beat)
    result = cli("position", "reset", "--to-earliest", "--execute", "--yes-definitions-changed", code=1)
    assert "still active: living" in result.stderr
    assert run(leases.get(FIRST)).checkpoint == "17"


@pytest.mark.parametrize(
    "args",
    [
        (),
        ("--to-earliest", "--to-latest"),
        ("--to-time", "yesterday"),
        ("--to-time", "2999-01-01T00:00:00Z"),
        ("--to-time", "2026-01-31T12:00:00Z", "--pipeline", "publish"),
    ],
)
def test_a_reset_needs_one_place_to_go(cli: Cli, args: tuple[str, ...]):
    cli("position", "reset", *args, code=2)


def test_a_reset_of_a_shard_that_is_not_there(cli: Cli):
    assert "no shard nowhere" in cli("position", "reset", "--to-earliest", "--shard", "nowhere", code=1).stderr


def test_positions_that_belonged_to_another_table_are_confirmed(cli: Cli, run: Run, leases: LeaseTable):
    assert "nothing to confirm" in cli("position", "confirm").output
    run(leases.lead(None, Leadership("", 1, TRIM_HORIZON, target="scores 1")))
    assert "belonged to scores 1" in cli("position", "confirm").output
    leadership = run(leases.leadership())
    assert (leadership.target, leadership.counter) == ("", 2)


@pytest.mark.parametrize("only", [(), ("--shard", FIRST)])
def test_a_reset_of_all_shards_decides_for_the_table_in_use(
    cli: Cli, run: Run, leases: LeaseTable, only: tuple[str, ...]
):
    run(leases.lead(None, Leadership("", 1, TRIM_HORIZON, target="scores 1")))
    cli("position", "reset", "--to-latest", "--execute", *only)
    assert run(leases.leadership()).target == ("scores 1" if only else "")
