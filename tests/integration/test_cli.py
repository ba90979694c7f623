from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

import pytest
from click.testing import CliRunner, Result

from service.cli.root import COMMANDS, scoring

Cli = Callable[..., Result]
Aws: TypeAlias = Any  # clients have no types
Run = Callable[..., Any]
SAMPLES = Path(__file__).parents[1] / "samples" / "pinpoint-events.jsonl"


@pytest.fixture
def names(fresh_name: Callable[[str], str]) -> dict[str, str]:
    return {
        "SCORING_STREAM": fresh_name("events"),
        "SCORING_SCORES_TABLE": fresh_name("cli-scores"),
        "SCORING_DEFINITIONS_TABLE": fresh_name("cli-definitions"),
        "SCORING_IDENTITIES_TABLE": fresh_name("cli-identities"),
        "SCORING_LEASES_TABLE": fresh_name("cli-leases"),
        "SCORING_DEAD_LETTERS_TABLE": fresh_name("cli-letters"),
    }


@pytest.fixture
def cli(aws_environment: dict[str, str], names: dict[str, str]) -> Cli:
    """Run `scoring` in this process against the embedded AWS."""

    def invoke(*args: str, text: str | bytes | None = None, code: int = 0) -> Result:
        result = CliRunner().invoke(scoring, args, input=text, env={**aws_environment, **names})
        if result.exception and not isinstance(result.exception, SystemExit):
            raise result.exception
        assert result.exit_code == code, result.output
        return result

    return invoke


@pytest.fixture
def ready(cli: Cli) -> Cli:
    cli("setup", "--project", "p1")
    return cli


def records(aws_clients: Aws, run: Run, stream: str) -> list[bytes]:
    async def read() -> list[bytes]:
        found: list[bytes] = []
        for shard in (await aws_clients.kinesis.list_shards(StreamName=stream))["Shards"]:
            iterator = await aws_clients.kinesis.get_shard_iterator(
                StreamName=stream, ShardId=shard["ShardId"], ShardIteratorType="TRIM_HORIZON"
            )
            page = await aws_clients.kinesis.get_records(ShardIterator=iterator["ShardIterator"])
            found += [record.data for record in page["Records"]]
        return found

    found: list[bytes] = run(read())
    return found


def test_help_and_version_need_no_configuration():
    for args in ([], ["--help"], ["-h"]):
        result = CliRunner().invoke(scoring, args, env={"SCORING_NONSENSE": "1"})
        assert result.exit_code == (0 if args else 2)
        assert all(name in result.output for name in COMMANDS)
    assert CliRunner().invoke(scoring, ["--version"]).output.startswith("scoring ")
    assert CliRunner().invoke(scoring, ["nonsense"]).exit_code == 2


def test_help_imports_no_aws_library():
    code = (
        "import sys; sys.argv = ['scoring', '--help']\n"
        "from service.cli import main\n"
        "try: main()\n"
        "finally: print({name for name in sys.modules} & {'boto3', 'botocore', 'pydantic', 'rich', 'aiohttp'})"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)  # noqa: S603 # our own code
    assert done.stdout.endswith("set()\n")


def test_a_wrong_configuration_is_a_usage_error():
    result = CliRunner().invoke(
        scoring, ["scores", "get", "ann"], env={"SCORING_HTTP_PORT": "x", "SCORING_STRAEM": "y"}
    )
    assert result.exit_code == 2
    assert result.stdout == ""
    assert "SCORING_HTTP_PORT = 'x'" in result.stderr
    assert "did you mean SCORING_STREAM?" in result.stderr


def test_a_missing_table_is_named_with_the_remedy(cli: Cli, names: dict[str, str]):
    result = cli("scores", "get", "ann", code=1)
    # Whether a project has rules is asked first.
    assert f"table {names['SCORING_DEFINITIONS_TABLE']} does not exist" in result.stderr
    assert "scoring setup" in result.stderr
    assert "Traceback" not in result.stderr


def test_an_unreachable_endpoint_names_its_variable(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("service.aws.clients.AwsSettings.options", lambda _: {"retries": {"total_max_attempts": 1}})
    environment = {"AWS_ENDPOINT_URL": "http://127.0.0.1:1"}
    result = CliRunner().invoke(
        scoring,
        ["scores", "get", "ann"],
        env={
            **environment,
            "AWS_ENDPOINT_URL_DYNAMODB": "http://127.0.0.1:1",
            "AWS_REGION": "us-east-1",
            "AWS_ACCESS_KEY_ID": "x",
            "AWS_SECRET_ACCESS_KEY": "x",
        },
    )
    assert result.exit_code == 1
    assert "AWS_ENDPOINT_URL" in result.stderr
    assert "Traceback" not in result.stderr


def test_setup_makes_what_is_missing_once(cli: Cli):
    def states(*args: str) -> set[str]:
        return {action["state"] for action in json.loads(cli("setup", "--project", "p1", "--json", *args).stdout)}

    assert states("--dry-run") == {"would create"}
    assert states() == {"created"}
    assert states() == {"exists"}


def test_send_puts_every_line_on_the_stream_as_it_is(ready: Cli, aws_clients: Aws, run: Run, names: dict[str, str]):
    lines = [line for line in SAMPLES.read_bytes().splitlines() if line]
    result = ready("send", str(SAMPLES), "--json")
    assert json.loads(result.stdout)["sent"] == len(lines)
    assert sorted(records(aws_clients, run, names["SCORING_STREAM"])) == sorted(lines)
    result = ready("send", "-", text=b"not json\n\n\xff\n")
    assert result.stdout.startswith("sent 2 records, 9 bytes, to 1 shard of ")
    assert {b"not json", b"\xff"} < set(records(aws_clients, run, names["SCORING_STREAM"]))


def test_send_of_a_file_that_is_not_there(ready: Cli):
    assert "nowhere.jsonl" in ready("send", "nowhere.jsonl", code=2).stderr


def test_scores_of_a_user(ready: Cli, aws_clients: Aws, run: Run, names: dict[str, str]):
    item = {
        "UserId": {"S": "ann"},
        "PinpointProjectId": {"S": "p1"},
        "Score": {"N": "12.5"},
        "Revision": {"N": "3"},
        "UpdatedAt": {"N": "1769860800000"},
        "Applied": {"M": {"tag:0": {"B": (7).to_bytes(24, "big")}}},
    }
    run(aws_clients.dynamodb.put_item(TableName=names["SCORING_SCORES_TABLE"], Item=item))
    assert json.loads(ready("scores", "get", "ann", "--json").stdout) == [
        {
            "user_id": "ann",
            "project_id": "p1",
            "score": 12.5,
            "revision": 3,
            "updated_at": "2026-01-31T12:00:00.000Z",
            "applied": {"tag:0": "7"},
        }
    ]
    result = ready("scores", "get", "ann", "--project", "p1")
    assert result.stdout == "project\tscore\trevision\tnewest_event\np1\t12.5\t3\t2026-01-31T12:00:00.000Z\n"
    assert ready("scores", "get", "ann", "--project", "p2", "--json", code=1).stdout == "[]\n"
    foreign = {"UserId": {"S": "old"}, "PinpointProjectId": {"S": "p1"}, "Score": {"N": "5"}}
    broken = {"UserId": {"S": "old"}, "PinpointProjectId": {"S": "p2"}, "Score": {"S": "five"}}
    for each in (foreign, broken):
        run(aws_clients.dynamodb.put_item(TableName=names["SCORING_SCORES_TABLE"], Item=each))
    assert ready("scores", "get", "old").stdout.splitlines()[1:] == [
        "p1\t5\tnot ours\t\t",
        "p2\t\tnot ours\t\tScore is not a number",
    ]
    assert "no score" in ready("scores", "get", "bob", code=1).stderr


def test_definitions_are_set_listed_and_removed(ready: Cli):
    defaults = json.loads(ready("definitions", "list", "--json").stdout)
    assert len(defaults) == 15
    assert "added purchase = -2.5" in ready("definitions", "set", "purchase", "-2.5", "--project", "p1").stderr
    assert "unchanged" in ready("definitions", "set", "purchase", "-2.50", "--project", "p1").stderr
    assert "before: -2.5" in ready("definitions", "set", "purchase", "3", "--project", "p1").stderr
    assert "p1\tpurchase\t3\n" in ready("definitions", "list", "--project", "p1").stdout
    ready("definitions", "remove", "purchase", "--project", "p1")
    ready("definitions", "remove", "purchase", "--project", "p1", code=1)
    assert json.loads(ready("definitions", "list", "--json").stdout) == defaults
    assert ready("definitions", "list", "--project", "p2").stdout == ""


def test_a_change_says_when_it_is_in_force(ready: Cli):
    said = "in force within 10 s"
    assert said in ready("definitions", "set", "purchase", "2", "--project", "p1").stderr
    assert said not in ready("definitions", "set", "purchase", "2", "--project", "p1").stderr
    assert (
        said in ready("definitions", "import", "-", "--project", "p1", text='{"EventType":"a","ScoreOffset":1}').stderr
    )
    assert said in ready("definitions", "remove", "purchase", "--project", "p1").stderr


@pytest.mark.parametrize(
    ("event_type", "project", "said"),
    [
        ("_sms.success", "p1", "did you mean _SMS.SUCCESS?"),
        (" t.ws ", "p1", "blanks around it"),
        ("t", "acme-shpo", "did you mean acme-shop?"),
    ],
)
def test_what_looks_like_a_typing_error_is_written_only_on_demand(ready: Cli, event_type: str, project: str, said: str):
    ready("definitions", "set", "t", "1", "--project", "acme-shop")
    before = ready("definitions", "list", "--json").stdout
    arguments = ("definitions", "set", event_type, "1", "--project", project)
    assert said in ready(*arguments, code=2).stderr
    text = json.dumps({"EventType": event_type, "PinpointProjectId": project, "ScoreOffset": 1})
    assert said in ready("definitions", "import", "-", text=text, code=2).stderr
    assert ready("definitions", "list", "--json").stdout == before
    assert "added" in ready(*arguments, "--anyway").stderr


def test_a_project_without_definitions_before_is_named(ready: Cli):
    assert "project q had no definition before; there are definitions of: p1" in (
        ready("definitions", "set", "t", "1", "--project", "q").stderr
    )


@pytest.mark.parametrize("json_", [True, False])
def test_what_definitions_list_writes_import_reads(
    ready: Cli,
    aws_clients: Aws,
    run: Run,
    names: dict[str, str],
    json_: bool,  # noqa: FBT001 # a parameter
):
    ready("definitions", "set", "two  blanks é", "-0.5", "--project", "p1")
    item = {"EventType": {"S": "odd"}, "PinpointProjectId": {"S": "p1"}, "ScoreOffset": {"S": "ten"}}
    run(aws_clients.dynamodb.put_item(TableName=names["SCORING_DEFINITIONS_TABLE"], Item=item))
    listed = ready("definitions", "list", *(["--json"] if json_ else []))
    assert "malformed: odd in project p1" in listed.stderr
    written = ready("definitions", "import", "-", text=listed.stdout).stderr
    assert written.count("unchanged: ") == 16
    assert "before: ten" in ready("definitions", "set", "odd", "10", "--project", "p1").stderr


@pytest.mark.parametrize("points", ["many", "nan", "1e20", "0.0000000001", "1_000", " 5", "\u0661"])
def test_points_that_cannot_be_are_refused(ready: Cli, points: str):
    assert "ScoreOffset" in ready("definitions", "set", "purchase", points, "--project", "p1", code=2).stderr


@pytest.mark.parametrize(
    "args",
    [
        ("scores", "get", ""),
        ("scores", "get", "x" * 2_001),
        ("scores", "get", "ann", "--project", ""),
        ("definitions", "set", "", "1", "--project", "p1"),
        ("definitions", "remove", "", "--project", "p1"),
        ("definitions", "list", "--project", ""),
        ("dead-letters", "show", ""),
        ("dead-letters", "redrive", "--id", ""),
        ("reconcile", "--project", ""),
        ("position", "reset", "--to-earliest", "--shard", ""),
        ("leases", "import-kinesis-python", ""),
        ("setup", "--project", ""),
    ],
)
def test_an_id_that_cannot_be_is_a_usage_error(ready: Cli, args: tuple[str, ...]):
    result = ready(*args, code=2)
    assert "is empty" in result.stderr or "at most 2000" in result.stderr
    assert "ValidationException" not in result.stderr


def test_definitions_need_a_project(ready: Cli):
    assert "--project" in ready("definitions", "set", "purchase", "1", code=2).stderr


def test_definitions_are_imported_all_or_none(ready: Cli):
    good = '{"EventType": "a", "ScoreOffset": 1.25}\n{"EventType": "b", "PinpointProjectId": "p2", "ScoreOffset": "-3"}'
    ready("definitions", "import", "-", "--project", "p3", "--dry-run", text=good)
    assert len(json.loads(ready("definitions", "list", "--json").stdout)) == 15
    ready("definitions", "import", "-", "--project", "p3", text=good)
    listed = ready("definitions", "list", "--json").stdout
    assert '"ScoreOffset":1.25' in listed
    assert len(json.loads(listed)) == 17
    assert "unchanged" in ready("definitions", "import", "-", text=listed).stderr
    bad = '[{"EventType": "c", "ScoreOffset": 1}, {"EventType": "d", "ScoreOffset": true}, 7, {"ScoreOffset": 1}]'
    result = ready("definitions", "import", "-", "--project", "p3", text=bad, code=2)
    assert "definition 2: ScoreOffset" in result.stderr
    assert "definition 3: is not an object" in result.stderr
    assert "definition 4: EventType" in result.stderr
    assert len(json.loads(ready("definitions", "list", "--json").stdout)) == 17
    ready("definitions", "import", "-", text="{", code=2)
