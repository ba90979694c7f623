"""Every stored score published again: by the command, and by a worker whose stream has lost changes."""

from __future__ import annotations

import asyncio
import json
import signal
from collections.abc import Callable, Sequence
from typing import Any, NoReturn, TypeAlias

import pytest
from click.testing import CliRunner, Result

from service.app import publishing as wiring
from service.app.worker import Worker
from service.aws.streams.dynamodb_streams import DynamoDbStreamSource
from service.aws.tables.identities import IdentityTable
from service.aws.tables.scores import ScoreTable
from service.cli import reconcile as command
from service.cli.context import settings_for
from service.cli.root import scoring
from service.config.load import Purpose
from service.ingest.stores import DirectoryEntry, Found, Published
from service.publish import reconcile
from service.runtime.errors import RecordsTrimmedError, TransientError
from service.scoring.change import ScoreChange
from service.scoring.fold import UserKey
from service.sinks.log.sink import LogSink

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
    """What was published to the sink."""

    def __init__(self) -> None:
        self.scores: dict[str, str] = {}
        self.everybody = asyncio.Event()

    def forget(self) -> None:
        self.scores, self.everybody = {}, asyncio.Event()

    async def publish(self, changes: Sequence[ScoreChange]) -> list[Published]:
        self.scores.update({change.key.user_id: f"{change.score}" for change in changes})
        if self.scores == ALL:
            self.everybody.set()
        return [Published() for _ in changes]


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


@pytest.fixture
def revisions(aws_clients: Aws, run: Run, names: dict[str, str]) -> Callable[[], set[str]]:
    """Return the revisions of all items that hold a score."""

    def read() -> set[str]:
        items = run(aws_clients.dynamodb.scan(TableName=names["SCORING_SCORES_TABLE"]))["Items"]
        return {item["Revision"]["N"] for item in items if "N" in item["Score"]}

    return read


ALL = {f"u{number}": str(number) for number in range(USERS)}


def test_every_score_is_written_again_without_asking_any_sink(cli: Cli, told: Told, revisions: Callable[[], set[str]]):
    result = cli("reconcile")
    assert result.stdout == "p0\t10\np1\t10\np2\t10\n"
    assert "wrote 30 scores again; workers publish them from the table's stream" in result.stderr
    assert told.scores == {}
    assert revisions() == {"3"}


def test_one_project_as_json(cli: Cli, revisions: Callable[[], set[str]]):
    summary = json.loads(cli("reconcile", "--project", "p1", "--per-s", "1000", "--json").stdout)
    assert summary == {"scores": 10, "projects": {"p1": 10}}
    assert revisions() == {"2", "3"}


def test_a_dry_run_writes_nothing(cli: Cli, revisions: Callable[[], set[str]]):
    assert "would write 30 scores again in 3 s" in cli("reconcile", "--dry-run", "--per-s", "10").stderr
    assert revisions() == {"2"}


def test_what_is_known_of_pinpoints_endpoints_is_forgotten_first(
    cli: Cli, stored: dict[str, str], aws_clients: Aws, run: Run, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(command, "CONFIRMED_FOR_S", 0.1)
    stored["SCORING_SINKS"] = "pinpoint"
    key, nobody = UserKey("u1", "p1"), DirectoryEntry("", "", "", 1_700_000_000_000)
    table = IdentityTable(aws_clients.dynamodb, stored["SCORING_IDENTITIES_TABLE"])
    run(table.put({key: Found(nobody, (), None)}))

    def entry() -> DirectoryEntry | None:
        known = run(IdentityTable(aws_clients.dynamodb, stored["SCORING_IDENTITIES_TABLE"]).get([key], lambda _: True))
        entry: DirectoryEntry | None = known[key].entry
        return entry

    assert entry() == nobody
    cli("reconcile", "--per-s", "1000")
    assert entry() is None


def test_without_a_worker_the_scores_wait_for_one(
    cli: Cli, aws_environment: dict[str, str], stored: dict[str, str], told: Told, monkeypatch: pytest.MonkeyPatch
):
    cli("reconcile", "--per-s", "1000")
    assert told.scores == {}
    for name, value in {**aws_environment, **stored}.items():
        monkeypatch.setenv(name, value)
    publishing(told)
    assert told.scores == ALL


def publishing(told: Told) -> Worker:
    """Run a worker until every score is published; return it."""

    async def main() -> Worker:
        worker = Worker(settings_for(Purpose.RUN))
        async with asyncio.TaskGroup() as group, asyncio.timeout(60):
            running = group.create_task(worker.run())
            await told.everybody.wait()
            worker.stop()
            assert await running
        return worker

    return asyncio.run(main())


def test_a_score_table_that_refuses_writes_is_named_and_ends_it(cli: Cli, monkeypatch: pytest.MonkeyPatch):
    async def refused(*_: object) -> NoReturn:
        raise TransientError("table scores: ReadTimeoutError")

    monkeypatch.setattr(ScoreTable, "restate", refused)
    monkeypatch.setattr(reconcile, "PATIENCE_S", 1.0)
    assert "table scores: ReadTimeoutError" in cli("reconcile", "--per-s", "1000", code=1).stderr


def test_ctrl_c_finishes_the_call_in_flight_and_reports(
    cli: Cli, revisions: Callable[[], set[str]], monkeypatch: pytest.MonkeyPatch
):
    restate = ScoreTable.restate

    async def interrupted(table: ScoreTable, states: Any) -> Any:  # noqa: ANN401 # a patch
        signal.raise_signal(signal.SIGINT)
        return await restate(table, states)

    monkeypatch.setattr(ScoreTable, "restate", interrupted)
    result = cli("reconcile", "--per-s", "1000", code=130)
    assert "interrupted after 25 scores" in result.stderr
    assert sum(int(line.split("\t")[1]) for line in result.stdout.splitlines()) == 25
    assert revisions() == {"2", "3"}


@pytest.mark.usefixtures("aws_environment")
def test_a_worker_whose_stream_lost_changes_publishes_every_score(
    stored: dict[str, str], told: Told, monkeypatch: pytest.MonkeyPatch
):
    for name, value in stored.items():
        monkeypatch.setenv(name, value)
    publishing(told)
    told.forget()
    asked: list[str] = []
    iterator = DynamoDbStreamSource.iterator

    async def lost(source: DynamoDbStreamSource, shard_id: str, position: str) -> str:
        asked.append(position)
        if len(asked) == 1:
            assert position.isdecimal()
            raise RecordsTrimmedError(shard_id)
        return await iterator(source, shard_id, asked[0] if position == "TRIM_HORIZON" else position)

    monkeypatch.setattr(DynamoDbStreamSource, "iterator", lost)
    monkeypatch.setattr(wiring, "SETTLE_S", 0.0)  # no other worker may have a call under way
    worker = publishing(told)
    trimmed = worker.metrics.registry.get_sample_value
    assert trimmed("scoring_records_trimmed_total", {"pipeline": "publish"}) == 1
