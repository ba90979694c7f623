"""Redriving before a stream whose answers get lost, is throttled, or is gone."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any, TypeAlias

import pytest
from click.testing import CliRunner, Result

from service.aws.tables.dead_letters import DeadLetterTable
from service.cli.root import scoring
from service.ingest.stores import DeadLetter
from service.scoring.event import Reason
from tests.fakes.lossy import LossyProxy

Cli = Callable[..., Result]
Aws: TypeAlias = Any  # clients have no types
Run = Callable[..., Any]


@pytest.fixture
def proxy(aws_environment: dict[str, str]) -> Iterator[LossyProxy]:
    with LossyProxy(aws_environment["AWS_ENDPOINT_URL_KINESIS"]) as proxy:
        yield proxy


@pytest.fixture
def stream(aws_clients: Aws, run: Run, fresh_name: Callable[[str], str]) -> str:
    name = fresh_name("events")
    run(aws_clients.kinesis.create_stream(StreamName=name, ShardCount=1))
    return name


@pytest.fixture
def letters(aws_clients: Aws, make_table: Callable[[str], str]) -> DeadLetterTable:
    return DeadLetterTable(aws_clients.dynamodb, make_table("dead_letters"))


@pytest.fixture
def cli(
    aws_environment: dict[str, str],
    proxy: LossyProxy,
    stream: str,
    letters: DeadLetterTable,
    make_table: Callable[[str], str],
) -> Cli:
    definitions = make_table("definitions")

    def invoke(*args: str, code: int = 0) -> Result:
        environment = {
            **aws_environment,
            "AWS_ENDPOINT_URL_KINESIS": proxy.url,
            "SCORING_STREAM": stream,
            "SCORING_DEAD_LETTERS_TABLE": letters._table,
            "SCORING_DEFINITIONS_TABLE": definitions,
        }
        result = CliRunner().invoke(scoring, args, env=environment)
        assert result.exit_code == code, result.output
        return result

    return invoke


def letter(letter_id: str, stream: str) -> DeadLetter:
    return DeadLetter(letter_id, "ingest", Reason.NOT_JSON, "not JSON", stream, "s", "1", "k", 5, b"no json", 7)


def on_stream(aws_clients: Aws, run: Run, stream: str) -> list[bytes]:
    async def read() -> list[bytes]:
        kinesis = aws_clients.kinesis
        iterator = await kinesis.get_shard_iterator(
            StreamName=stream, ShardId="shardId-000000000000", ShardIteratorType="TRIM_HORIZON"
        )
        page = await kinesis.get_records(ShardIterator=iterator["ShardIterator"])
        return [record.data for record in page["Records"]]

    found: list[bytes] = run(read())
    return found


def test_a_lost_answer_leaves_the_letter_half_way_and_the_record_once(
    cli: Cli, proxy: LossyProxy, aws_clients: Aws, run: Run, stream: str, letters: DeadLetterTable
):
    run(letters.put([letter("letter.1", stream)]))
    proxy.lose["PutRecords"] = 1
    result = cli("dead-letters", "redrive", "--yes", code=1)
    assert "letter.1\tunfinished" in result.stdout
    assert "check before you use --stuck" in result.stderr
    assert proxy.asked["PutRecords"] == 1
    assert on_stream(aws_clients, run, stream) == [b"no json"]
    assert json.loads(cli("dead-letters", "show", "letter.1", "--json").stdout)["state"] == "redriving"
    assert "unfinished" in cli("dead-letters", "redrive", "--yes").stderr
    assert proxy.asked["PutRecords"] == 1
    cli("dead-letters", "redrive", "--yes", "--stuck")
    assert on_stream(aws_clients, run, stream) == [b"no json"] * 2
    assert json.loads(cli("dead-letters", "show", "letter.1", "--json").stdout)["state"] == "redriven"


def test_a_stream_that_is_gone_leaves_its_letters_as_they_were(
    cli: Cli, run: Run, stream: str, letters: DeadLetterTable
):
    run(letters.put([letter("letter.1", "no-such-stream"), letter("letter.2", stream)]))
    result = cli("dead-letters", "redrive", "--yes", code=1)
    assert "letter.1\trefused for now\tstream no-such-stream" in result.stdout
    assert "letter.2\tredriven" in result.stdout
    assert json.loads(cli("dead-letters", "show", "letter.1", "--json").stdout)["state"] == "new"
