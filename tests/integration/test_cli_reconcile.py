"""Every stored score once more: by hand, and by a worker whose stream has lost changes."""

from __future__ import annotations

import asyncio
import json
import signal
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import pytest
from click.testing import CliRunner, Result

from service.app.worker import Worker
from service.aws.streams.dynamodb_streams import DynamoDbStreamSource
from service.cli import reconcile
from service.cli.context import settings_for
from service.cli.root import scoring
from service.config.settings import Purpose
from service.ingest.stores import Published
from service.local.pinpoint_fake import PinpointProcess
from service.runtime.errors import RecordsTrimmedError
from service.scoring.change import ScoreChange
from service.scoring.event import Reason, Rejected
from service.sinks.log import LogSink

Cli = Callable[..., Result]
Aws: TypeAlias = Any  # clients have no types
Run = Callable[..., Any]
USERS = 30


@pytest.fixture
def names(make_table: Callable[[str], str]) -> dict[str, str]:
    return {
        "SCORING_SCORES_TABLE": make_table("scores"),
        "SCORING_LEASES_TABLE": make_table("leases"),
        "SCORING_DEAD_LETTERS_TABLE": make_table("dead_letters"),
        "SCORING_IDENTITIES_TABLE": make_table("identities"),
        "SCORING_ROLE": "publish",
        "SCORING_SINKS": "log",
        "SCORING_HTTP_PORT": "0",
        "SCORING_LEASE_DURATION_S": "2",
    }


@pytest.fixture
def stored(aws_clients: Aws, run: Run, names: dict[str, str]) -> dict[str, str]:
    """A score for each user; and an item that is no score."""
    for number in range(USERS + 1):
        item = {
            "UserId": {"S": f"u{number}"},
            "PinpointProjectId": {"S": f"p{number % 3}"},
            "Score": {"N": str(number)} if number < USERS else {"S": "many"},
            "Revision": {"N": "2"},
        }
        run(aws_clients.dynamodb.put_item(TableName=names["SCORING_SCORES_TABLE"], Item=item))
    return names


class Told:
    """What the sink was told, in its own process."""

    def __init__(self) -> None:
        self.scores: dict[str, str] = {}
        self.refuse: set[str] = set()
        self.everybody = asyncio.Event()

    async def publish(self, changes: Sequence[ScoreChange]) -> list[Published | Rejected]:
        self.scores.update({change.key.user_id: f"{change.score}" for change in changes})
        if self.scores == ALL:
            self.everybody.set()
        return [
            Rejected(Reason.SINK_REJECTED, "no") if change.key.user_id in self.refuse else Published()
            for change in changes
        ]


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> Told:
    told = Told()
    monkeypatch.setattr(LogSink, "publish", lambda _, changes: told.publish(changes))
    return told


@pytest.fixture
def cli(aws_environment: dict[str, str], stored: dict[str, str]) -> Cli:
    def invoke(*args: str, code: int = 0) -> Result:
        result = CliRunner().invoke(scoring, args, env={**aws_environment, **stored})
        assert result.exit_code == code, result.output
        return result

    return invoke


ALL = {f"u{number}": str(number) for number in range(USERS)}


def test_every_score_is_published(cli: Cli, told: Told):
    result = cli("reconcile")
    assert told.scores == ALL
    assert result.stdout == "p0\t10\np1\t10\np2\t10\n"
    assert "log: 30 published" in result.stderr


def test_one_project_as_json(cli: Cli, told: Told):
    summary = json.loads(cli("reconcile", "--project", "p1", "--per-s", "1000", "--json").stdout)
    assert summary == {"scores": 10, "projects": {"p1": 10}, "outcomes": {"log": {"published": 10}}}
    assert told.scores == {user: score for user, score in ALL.items() if int(score) % 3 == 1}


def test_a_dry_run_publishes_nothing(cli: Cli, told: Told):
    result = cli("reconcile", "--dry-run", "--per-s", "10")
    assert "would publish 30 scores to log in 3 s" in result.stderr
    assert told.scores == {}


def test_what_a_sink_refuses_is_set_aside(cli: Cli, told: Told):
    told.refuse = {"u7"}
    assert "29 published, 1 rejected" in cli("reconcile", code=1).stderr
    (letter,) = json.loads(cli("dead-letters", "list", "--stage", "publish", "--json").stdout)
    assert letter["reason"] == "sink_rejected"


def test_reconcile_names_scores_of_a_project_that_does_not_exist(cli: Cli, stored: dict[str, str]):
    with PinpointProcess(apps=["p0", "p1"]) as pinpoint:
        stored |= {"SCORING_SINKS": "pinpoint", **pinpoint.environment()}
        result = cli("reconcile", "--per-s", "1000", code=1)
    assert "pinpoint: 20 no target, 10 no destination" in result.stderr
    assert "the project does not exist in the sink" in result.stderr


def test_an_unreachable_pinpoint_is_named_and_ends_reconcile(
    cli: Cli, stored: dict[str, str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(reconcile, "PROGRESS_S", 0.5)
    monkeypatch.setattr(reconcile, "PATIENCE_S", 2.0)
    monkeypatch.setattr("service.aws.clients.AwsSettings.options", lambda _: {"retries": {"total_max_attempts": 1}})
    stored |= {"SCORING_SINKS": "pinpoint", "AWS_ENDPOINT_URL_PINPOINT": "http://127.0.0.1:1"}
    result = cli("reconcile", "--per-s", "1000", code=1)
    assert (
        "error: no sink took a score for 2 s: 0 were published or refused, 30 of the 30 read are not" in result.stderr
    )
    assert "last error of pinpoint: " in result.stderr
    assert "127.0.0.1:1" in result.stderr
    assert "run it again" in result.stderr
    assert result.stdout == "p0\t10\np1\t10\np2\t10\n"


def test_ctrl_c_finishes_the_scores_on_their_way(cli: Cli, told: Told, monkeypatch: pytest.MonkeyPatch):
    publish = told.publish

    async def interrupted(changes: Sequence[ScoreChange]) -> list[Published | Rejected]:
        if not told.scores:
            signal.raise_signal(signal.SIGINT)
        return await publish(changes)

    monkeypatch.setattr(told, "publish", interrupted)
    monkeypatch.setattr("service.publish.republish.CHUNK", 10)
    result = cli("reconcile", "--per-s", "20", code=130)
    count = len(told.scores)
    assert count == 10
    assert f"log: {count} published" in result.stderr
    assert "interrupted after 10 scores: the rest was not read" in result.stderr


@pytest.mark.usefixtures("aws_environment")
def test_a_worker_whose_stream_lost_changes_publishes_every_score(
    stored: dict[str, str], told: Told, monkeypatch: pytest.MonkeyPatch
):
    for name, value in stored.items():
        monkeypatch.setenv(name, value)
    asked: list[str] = []
    iterator = DynamoDbStreamSource.iterator

    async def lost(source: DynamoDbStreamSource, shard_id: str, position: str) -> str:
        asked.append(position)
        if len(asked) == 1:
            raise RecordsTrimmedError(shard_id)
        return await iterator(source, shard_id, "LATEST")

    monkeypatch.setattr(DynamoDbStreamSource, "iterator", lost)

    async def main() -> None:
        worker = Worker(settings_for(Purpose.RUN))
        async with asyncio.TaskGroup() as group, asyncio.timeout(60):
            running = group.create_task(worker.run())
            await told.everybody.wait()
            worker.stop()
            assert await running
        trimmed = worker.metrics.registry.get_sample_value
        assert trimmed("scoring_records_trimmed_total", {"pipeline": "publish"}) == 1

    asyncio.run(main())
    assert len(asked) > 1
