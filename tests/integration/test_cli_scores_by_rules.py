"""`scoring scores` of a project with rules: what is shown now, why, and points by hand."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any, TypeAlias

import pytest
from click.testing import CliRunner, Result

from service.aws.tables.scores import ScoreTable
from service.cli.root import scoring
from service.ingest.by_rules import match
from service.ingest.stores import Change
from service.observability.metrics import Metrics
from service.scoring.fold import ABSENT, Scorable, ScoreState, UserKey
from service.scoring.marks import marking
from service.scoring.rules.decay import DAY_MS
from service.scoring.rules.load import load_rules
from service.scoring.rules.model import RuleSet
from service.scoring.rules.plan import plan
from service.scoring.rules.score import fold_by_rules
from service.sources.registry import Registry
from service.stream.ports import Record

Run = Callable[..., Any]
Aws: TypeAlias = Any  # clients have no types
Cli = Callable[..., Result]
FILE = """\
project: p1
groups: {email: {half_life: 30d, max: 100}}
tiers: [{name: hot, enter: 90, leave: 80}]
rules:
  - {id: click, on: _email.click, points: 50, group: email, cap: {per: day, events: 3}}
  - {id: gone, on: _email.unsubscribe, suppress: email}
"""
TODAY = time.time_ns() // 1_000_000 // DAY_MS


@pytest.fixture
def tables(fresh_name: Callable[[str], str]) -> dict[str, str]:
    return {
        "SCORING_STREAM": fresh_name("events"),
        "SCORING_SCORES_TABLE": fresh_name("scores"),
        "SCORING_DEFINITIONS_TABLE": fresh_name("definitions"),
        "SCORING_IDENTITIES_TABLE": fresh_name("identities"),
        "SCORING_LEASES_TABLE": fresh_name("leases"),
        "SCORING_DEAD_LETTERS_TABLE": fresh_name("letters"),
        "SCORING_PROJECT_IDS": "p1",
    }


@pytest.fixture
def cli(aws_environment: dict[str, str], tables: dict[str, str], tmp_path: Path) -> Cli:
    def invoke(*args: str, code: int = 0) -> Result:
        result = CliRunner().invoke(scoring, args, env={**aws_environment, **tables})
        if result.exception and not isinstance(result.exception, SystemExit):
            raise result.exception
        assert result.exit_code == code, result.output
        return result

    invoke("setup", "--project", "p1")
    (tmp_path / "rules.yml").write_text(FILE)
    invoke("rules", "apply", str(tmp_path / "rules.yml"))
    return invoke


def rules() -> RuleSet:
    file, _ = load_rules(FILE, "rules.yml")
    assert file is not None
    made = plan(None, file, retroactive=False).rules
    assert made is not None
    return made


def scored(aws_clients: Aws, run: Run, table: str, *clicks: int) -> ScoreState:
    """Write ann's score as a worker does, with clicks so many days ago."""
    given = rules()
    events = []
    for number, ago in enumerate(sorted(clicks, reverse=True), 1):
        body = {
            "event_type": "_email.click",
            "arrival_timestamp": (TODAY - ago) * DAY_MS + number,
            "application": {"app_id": "p1"},
            "endpoint": {"User": {"UserId": "ann"}},
        }
        data = json.dumps(body).encode()
        (event,) = Registry().read(data)
        record = Record(str(number), data, (TODAY + 1) * DAY_MS, "key", len(data))
        found = match(given, None, event, record, Counter())  # type: ignore[arg-type]
        assert isinstance(found, Scorable)
        events.append(found)
    folded = fold_by_rules(ABSENT, marking("t-0"), events, given, TODAY - min(clicks))
    assert folded is not None
    run(ScoreTable(aws_clients.dynamodb, table, Metrics()).commit([Change(UserKey("ann", "p1"), folded)]))
    return folded.after


def test_a_score_is_shown_as_it_is_now_and_not_as_it_was_stored(
    cli: Cli, aws_clients: Aws, run: Run, tables: dict[str, str]
):
    stored = scored(aws_clients, run, tables["SCORING_SCORES_TABLE"], 30, 30)
    assert stored.score == 100
    (found,) = json.loads(cli("scores", "get", "ann", "--json").stdout)
    assert (found["score"], found["stored_score"], found["tier"]) == (50, 100, "")
    assert "50.00" in cli("scores", "get", "ann").stdout


def test_an_explanation_names_rules_bounds_caps_and_when_the_tier_falls(
    cli: Cli, aws_clients: Aws, run: Run, tables: dict[str, str]
):
    scored(aws_clients, run, tables["SCORING_SCORES_TABLE"], 0, 0, 0, 0)
    found = json.loads(cli("scores", "explain", "ann", "--json").stdout)
    assert (found["score"], found["tier"], found["tier_since_ms"]) == (100, "hot", TODAY * DAY_MS)
    assert [(part["rule_id"], part["points"], part["count"]) for part in found["contributions"]] == [("click", 150, 3)]
    (cap,) = found["caps"]
    assert (cap["used"], cap["limit"], cap["reached"]) == (3, 3, True)
    assert (found["falls_ms"], found["falls_to"]) == ((TODAY + 28) * DAY_MS, "")
    assert len(found["last"]) == 4
    text = cli("scores", "explain", "ann").stdout
    assert "click\temail\t3.00\t150.00\tyes" in text
    assert "group email: 100.00, bounded; else 150.00" in text
    assert "cap of click: 3 of 3 this day, reached" in text
    assert "tier: hot since" in text


def test_a_later_day_can_be_looked_at(cli: Cli, aws_clients: Aws, run: Run, tables: dict[str, str]):
    scored(aws_clients, run, tables["SCORING_SCORES_TABLE"], 0, 0)
    later = time.strftime("%Y-%m-%d", time.gmtime((TODAY + 60) * DAY_MS / 1000))
    found = json.loads(cli("scores", "explain", "ann", "--at", later, "--json").stdout)
    assert (found["score"], found["tier"], found["published"]) == (25, "", 100)
    assert "write a day or a time" in cli("scores", "explain", "ann", "--at", "soon", code=2).stderr


def test_who_has_no_score_or_no_rules_is_told_so(cli: Cli):
    assert "this user has no score" in cli("scores", "explain", "bob", code=1).stderr
    result = cli("scores", "explain", "bob", "--project", "p2", code=1)
    assert "project p2 has no rules" in result.stderr
    assert "scoring rules init" in result.stderr


def test_points_by_hand_go_to_the_stream_as_an_event_with_an_id(
    cli: Cli, aws_clients: Aws, run: Run, tables: dict[str, str]
):
    result = cli("scores", "adjust", "ann", "-12.5", "--reason", "mistake", "--id", "a1")
    assert "sent -12.5 points for ann in project p1: adjustment a1" in result.stderr
    stream = tables["SCORING_STREAM"]

    async def read() -> list[bytes]:
        found = []
        for shard in (await aws_clients.kinesis.list_shards(StreamName=stream))["Shards"]:
            iterator = await aws_clients.kinesis.get_shard_iterator(
                StreamName=stream, ShardId=shard["ShardId"], ShardIteratorType="TRIM_HORIZON"
            )
            page = await aws_clients.kinesis.get_records(ShardIterator=iterator["ShardIterator"])
            found += [record.data for record in page["Records"]]
        return found

    (data,) = run(read())
    attributes = json.loads(data)["attributes"]
    assert (Decimal(attributes["points"]), attributes["reason"], attributes["adjustment_id"]) == (
        Decimal("-12.5"),
        "mistake",
        "a1",
    )


@pytest.mark.parametrize("points", ["many", "1e99", "0.0000000001", "NaN"])
def test_points_that_are_not_a_number_are_refused(cli: Cli, points: str):
    assert "is expected" in cli("scores", "adjust", "ann", points, "--reason", "x", code=2).stderr


def test_the_impact_of_new_rules_is_shown_before_they_are_applied(
    cli: Cli, aws_clients: Aws, run: Run, tables: dict[str, str], tmp_path: Path
):
    scored(aws_clients, run, tables["SCORING_SCORES_TABLE"], 0, 0)
    cheaper = tmp_path / "cheaper.yml"
    cheaper.write_text(FILE.replace("points: 50", "points: 20"))
    found = json.loads(cli("rules", "plan", str(cheaper), "--retroactive", "--impact", "--json").stdout)
    assert (found["people"], found["changed"], found["largest_fall"]) == (1, 1, -60)
    assert found["tiers"] == [{"before": "hot", "after": "", "people": 1}]
    shown = cli("rules", "plan", str(cheaper), "--retroactive", "--impact")
    assert "click\trepriced\t0\tpoints" in shown.stdout
    assert "tier hot -> none: 1 people" in shown.stdout
    assert "1 of 1 scores change: at most 0 up and 60.00 down" in shown.stderr
