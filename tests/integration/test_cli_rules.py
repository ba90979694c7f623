"""`scoring rules`, from a file to the table and back."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

import pytest
from click.testing import CliRunner, Result

from service.aws.tables.leases import LeaseTable
from service.cli.root import scoring
from service.stream.leases.lease import Member
from service.stream.ports import StreamId

Run = Callable[..., Any]
Aws: TypeAlias = Any  # clients have no types
FILE = """\
project: p1
groups: {email: {half_life: 30d}}
tiers: [{name: hot, enter: 120, leave: 80}]
rules:
  - {id: click, on: _email.click, points: 50, group: email, once: message}
  - {id: gone, on: _email.unsubscribe, suppress: email}
"""
CASES = """\
cases:
  - name: a click fades
    events: [{type: _email.click, at: D0, message: a, times: 2}]
    expect: [{at: D0, score: 50, tier: ''}, {at: D30, score: 25}]
"""


class Cli:
    """Runs `scoring` in this process against the embedded AWS."""

    def __init__(self, environment: dict[str, str], folder: Path) -> None:
        self._environment = environment
        self._folder = folder

    def __call__(self, *args: str, code: int = 0) -> Result:
        result = CliRunner().invoke(scoring, ("rules", *args), env=self._environment)
        if result.exception and not isinstance(result.exception, SystemExit):
            raise result.exception
        assert result.exit_code == code, result.output
        return result

    def file(self, text: str, name: str = "rules.yml") -> str:
        path = self._folder / name
        path.write_text(text)
        return str(path)


@pytest.fixture
def tables(fresh_name: Callable[[str], str]) -> dict[str, str]:
    return {
        "SCORING_STREAM": fresh_name("events"),
        "SCORING_SCORES_TABLE": fresh_name("scores"),
        "SCORING_DEFINITIONS_TABLE": fresh_name("definitions"),
        "SCORING_IDENTITIES_TABLE": fresh_name("identities"),
        "SCORING_LEASES_TABLE": fresh_name("leases"),
        "SCORING_DEAD_LETTERS_TABLE": fresh_name("letters"),
    }


@pytest.fixture
def cli(aws_environment: dict[str, str], tables: dict[str, str], tmp_path: Path) -> Cli:
    environment = {**aws_environment, **tables}
    result = CliRunner().invoke(scoring, ("setup", "--project", "p1"), env=environment)
    assert result.exit_code == 0, result.output
    return Cli(environment, tmp_path)


@pytest.fixture
def offline(tmp_path: Path) -> Cli:
    return Cli({}, tmp_path)


def test_a_file_is_validated_without_aws(offline: Cli):
    assert "is right: 2 rules" in offline("validate", offline.file(FILE)).stderr
    result = offline("validate", offline.file(FILE.replace("once: message", "once: mesage")), code=1)
    assert "rules.yml:5: rules[0].once: 'mesage' is not known" in result.stdout
    found = json.loads(offline("validate", "--json", offline.file("rules: []"), code=1).stdout)
    assert found[0]["line"] == 1


def test_a_control_character_of_a_file_does_not_reach_the_terminal(offline: Cli):
    result = offline("validate", offline.file('project: p\n"r\\e[31m": 1\n'), code=1)
    assert "\x1b" not in result.output


def test_cases_are_played_without_aws(offline: Cli):
    rules, cases = offline.file(FILE), offline.file(CASES, "cases.yml")
    assert "1 case: 1 as expected, 0 not" in offline("test", rules, cases).stderr
    wrong = offline.file(CASES.replace("score: 25", "score: 26"), "wrong.yml")
    result = offline("test", rules, wrong, code=1)
    assert "wrong.yml:4: a click fades: at D30 score is 25.00, expected 26" in result.stdout
    assert "click: 0.50 in email = 25.00" in result.stdout
    unknown = offline.file(CASES.replace("_email.click", "_email.clik"), "unknown.yml")
    assert "no rule names the event type _email.clik" in offline("test", rules, unknown, code=1).stderr
    broken = offline.file("cases: [{name: a}]", "broken.yml")
    assert "cases[0]: `expect` is missing" in offline("test", rules, broken, code=2).stdout


def test_a_file_goes_to_the_table_and_back(cli: Cli):
    assert "added" in cli("plan", cli.file(FILE)).stdout
    result = cli("apply", cli.file(FILE))
    assert "added click (slot 0)" in result.stderr
    assert "version 1 of the rules of project p1 is in force within 10 s" in result.stderr
    assert "2 definitions no longer count" in result.stderr
    assert cli("export", "--project", "p1").stdout == FILE
    cli("drift", cli.file(FILE))
    changed = FILE.replace("points: 50", "points: 60")
    assert "click\treplaced\t2\tpoints" in cli("drift", cli.file(changed), code=1).stdout
    cli("apply", cli.file(changed), "--retroactive")
    assert "nothing differs" in cli("apply", cli.file(changed)).stderr
    history = json.loads(cli("history", "--project", "p1", "--json").stdout)
    assert [(each["version"], each["retroactive"]) for each in history] == [(2, True), (1, False)]
    assert history[0]["steps"] == ["repriced click (slot 0): points"]
    assert "2\t" in cli("history", "--project", "p1").stdout
    assert cli("export", "--project", "p1", "--version", "1").stdout == FILE
    assert "kept are versions 1 to 2" in cli("export", "--project", "p1", "--version", "3", code=1).stderr


def test_the_first_file_is_made_of_the_definitions_and_can_be_applied(cli: Cli):
    text = cli("init", "--project", "p1").stdout
    path = cli.file(text)
    assert "is right: 15 rules" in cli("validate", path).stderr
    cli("apply", path)
    assert "has no definitions" in cli("init", "--project", "other", code=1).stderr
    assert "scoring rules init" in cli("export", "--project", "other", code=1).stderr


def test_what_looks_like_a_typing_error_is_applied_only_when_asked(cli: Cli):
    wrong = cli.file(FILE.replace("_email.click", "_email.clik"))
    assert "did you mean _email.click?" in cli("apply", wrong, code=2).stderr
    assert "no rules" in cli("history", "--project", "p1").stderr
    cli("apply", wrong, "--anyway")


def test_rules_are_not_applied_while_an_old_worker_runs(cli: Cli, tables: dict[str, str], aws_clients: Aws, run: Run):
    leases = LeaseTable(
        aws_clients.dynamodb, tables["SCORING_LEASES_TABLE"], "ingest", StreamId("events", "arn", "tag")
    )
    run(leases.join(Member("old.1", beat_ms=time.time_ns() // 1_000_000)))
    result = cli("apply", cli.file(FILE), code=1)
    assert "1 worker would score without these rules, nothing was written" in result.stderr
    assert "old.1" in result.stderr
    run(leases.remove("old.1"))
    run(leases.join(Member("new.1", beat_ms=time.time_ns() // 1_000_000, capability=1)))
    cli("apply", cli.file(FILE))
