"""`scoring definitions missing`, and what `scoring lag` says of it."""

from __future__ import annotations

import json
from pathlib import Path

from service.aws.tables.undefined import UndefinedTable
from service.ingest.stores import Undefined
from tests.integration.test_cli import Aws, Cli, Run, cli, names, ready  # noqa: F401 # fixtures

CART = Undefined("p1", "cart.abandoned", 1234, 1_790_000_000_000)
OTHER = Undefined("", "other", 2, 1_790_000_000_000)


def count(aws_clients: Aws, run: Run, table: str, *types: Undefined) -> None:
    table_ = UndefinedTable(aws_clients.dynamodb, table, wall_s=lambda: 1_790_000_000)
    run(table_.add({(each.project_id, each.event_type): each for each in types}))


def test_an_event_that_nobody_defined_is_found_by_command(
    ready: Cli,  # noqa: F811 # a fixture
    aws_clients: Aws,
    run: Run,
    names: dict[str, str],  # noqa: F811 # likewise
):
    assert ready("definitions", "missing").stdout == ""
    assert "were ignored" not in ready("lag").stderr
    count(aws_clients, run, names["SCORING_IDENTITIES_TABLE"], CART, OTHER)
    shown = ready("definitions", "missing")
    assert "p1\tcart.abandoned\t1234\t2026-09-21T14:13:20.000Z\n" in shown.stdout
    assert "scoring definitions set" in shown.stderr
    assert "1,236 events of 2 types were ignored" in ready("lag").stderr
    assert [each["event_type"] for each in json.loads(ready("definitions", "missing", "--json").stdout)] == [
        "cart.abandoned",
        "other",
    ]
    assert json.loads(ready("definitions", "missing", "--json", "--project", "p2").stdout) == [
        {"project_id": "", "event_type": "other", "events": 2, "last_ms": 1_790_000_000_000}
    ]
    ready("definitions", "set", "cart.abandoned", "5", "--project", "p1")
    assert "cart.abandoned" not in ready("definitions", "missing").stdout


def test_an_event_that_a_rule_names_is_not_listed_any_more(
    ready: Cli,  # noqa: F811 # a fixture
    aws_clients: Aws,
    run: Run,
    names: dict[str, str],  # noqa: F811 # likewise
    tmp_path: Path,
):
    count(aws_clients, run, names["SCORING_IDENTITIES_TABLE"], CART)
    (tmp_path / "rules.yml").write_text("project: p1\nrules:\n  - {id: cart, on: cart.abandoned, points: 5}\n")
    ready("rules", "apply", str(tmp_path / "rules.yml"))
    assert ready("definitions", "missing").stdout == ""
