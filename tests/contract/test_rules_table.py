"""Rules in the definition table: written over the version before only, and invisible to those who read definitions."""

from __future__ import annotations

from decimal import Decimal

import pytest

from service.aws.clients import Clients
from service.aws.tables.definitions import DefinitionTable
from service.aws.tables.rules import RulesTable
from service.scoring.definitions import RULES_TYPE, Definition, Malformed
from service.scoring.rules.stored import RulesRow
from tests.fakes.embedded import MakeTable, Run

pytestmark = pytest.mark.usefixtures("fast_calls")


@pytest.fixture
def name(make_table: MakeTable) -> str:
    return make_table("definitions")


def test_rules_are_written_over_the_version_before_only(aws_clients: Clients, name: str, run: Run):
    table = RulesTable(aws_clients.dynamodb, name)
    assert list(run(table.load())) == []
    first, second = RulesRow("p", 1, "one", b"\x00\xff"), RulesRow("p", 2, "two", b"h")
    assert run(table.replace(first)) is True
    assert list(run(table.load())) == [first]
    assert run(table.replace(RulesRow("p", 1, "other"))) is False
    assert run(table.replace(RulesRow("p", 3, "three"))) is False
    assert run(table.replace(second)) is True
    assert run(table.replace(second)) is True, "our own write, repeated after a lost answer"
    assert run(table.replace(RulesRow("p", 2, "at the same time"))) is False
    assert list(run(table.load())) == [second]


def test_each_project_has_rules_of_its_own(aws_clients: Clients, name: str, run: Run):
    table = RulesTable(aws_clients.dynamodb, name)
    rows = [RulesRow("p", 1, "one", b"h"), RulesRow("q", 1, "one", b"h")]
    for row in rows:
        run(table.replace(row))
    assert sorted(run(table.load()), key=repr) == rows


def test_who_reads_definitions_finds_no_rules_among_them(aws_clients: Clients, name: str, run: Run):
    definition = Definition("_email.open", "p", Decimal(10))
    definitions = DefinitionTable(aws_clients.dynamodb, name)
    run(definitions.set(definition))
    run(RulesTable(aws_clients.dynamodb, name).replace(RulesRow("p", 1, "one", b"h")))
    assert list(run(definitions.definitions())) == [definition]
    assert sorted(run(definitions.load()), key=repr) == [definition, RulesRow("p", 1, "one", b"h")]


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"Version": {"N": "1"}}, "Rules is missing"),
        ({"Rules": {"N": "1"}, "Version": {"N": "1"}}, "not a text"),
        ({"Rules": {"S": "{}"}}, "Version is missing"),
        ({"Rules": {"S": "{}"}, "Version": {"N": "0.5"}}, "not a whole number"),
    ],
)
def test_a_row_that_cannot_be_used_is_named(
    aws_clients: Clients, name: str, run: Run, fields: dict[str, dict[str, str]], said: str
):
    item = {"EventType": {"S": RULES_TYPE}, "PinpointProjectId": {"S": "p"}, **fields}
    run(aws_clients.dynamodb.put_item(TableName=name, Item=item))
    (row,) = run(RulesTable(aws_clients.dynamodb, name).load())
    assert isinstance(row, Malformed)
    assert said in row.detail
