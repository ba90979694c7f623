"""`DefinitionSource`: one suite for the fake and for DynamoDB."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest

from service.aws.clients import Clients
from service.aws.tables.definitions import DefinitionTable, definition_of
from service.aws.translation import AwsSetupError
from service.scoring.definitions import Definition, Malformed
from tests.fakes.definitions import MemoryDefinitions
from tests.fakes.embedded import MakeTable, Run

pytestmark = pytest.mark.usefixtures("fast_calls")

OPEN = Definition("_email.open", "p1", Decimal(10))


@pytest.fixture(params=["memory", "dynamodb"])
def source(request: pytest.FixtureRequest) -> DefinitionTable | MemoryDefinitions:
    if request.param == "memory":
        return MemoryDefinitions()
    table = request.getfixturevalue("make_table")("definitions")
    return DefinitionTable(request.getfixturevalue("aws_clients").dynamodb, table)


Source = DefinitionTable | MemoryDefinitions


def test_an_empty_table_has_no_definitions(source: Source, run: Run):
    assert list(run(source.load())) == []


@pytest.mark.parametrize("points", ["10", "-1000", "0.5", "-0.000000001", "0", "999999999999999.999999999", "1E+3"])
def test_what_is_set_is_loaded(source: Source, run: Run, points: str):
    definition = Definition("_custom.größe", "p1", Decimal(points))
    run(source.set(definition))
    assert list(run(source.load())) == [definition]


def test_a_definition_belongs_to_type_and_project(source: Source, run: Run):
    others = [Definition("_email.open", "p2", Decimal(1)), Definition("_email.click", "p1", Decimal(2))]
    for definition in (OPEN, *others):
        run(source.set(definition))
    assert sorted(run(source.load()), key=repr) == sorted([OPEN, *others], key=repr)


def test_setting_again_replaces_and_removing_removes(source: Source, run: Run):
    run(source.set(OPEN))
    again = Definition(OPEN.event_type, OPEN.project_id, Decimal(-1))
    run(source.set(again))
    assert list(run(source.load())) == [again]
    assert run(source.remove(OPEN.event_type, OPEN.project_id)) is True
    assert run(source.remove(OPEN.event_type, OPEN.project_id)) is False
    assert list(run(source.load())) == []


@pytest.mark.parametrize(
    ("attributes", "detail"),
    [
        ({}, "is missing"),
        ({"ScoreOffset": {"S": "10"}}, "type S"),
        ({"ScoreOffset": {"NULL": True}}, "type NULL"),
        ({"ScoreOffset": {"N": "1e20"}}, "before the point"),
        ({"ScoreOffset": {"N": "0.0000000001"}}, "after the point"),
    ],
)
def test_a_malformed_row_does_not_hide_the_others(
    make_table: MakeTable, aws_clients: Clients, run: Run, attributes: dict[str, Any], detail: str
):
    name = make_table("definitions")
    table = DefinitionTable(aws_clients.dynamodb, name)
    run(table.set(OPEN))
    keys = {"EventType": {"S": "_bad"}, "PinpointProjectId": {"S": "p1"}}
    run(aws_clients.dynamodb.put_item(TableName=name, Item={**keys, **attributes}))
    rows = {row.event_type: row for row in run(table.load())}
    assert rows["_email.open"] == OPEN
    assert isinstance(rows["_bad"], Malformed)
    assert detail in rows["_bad"].detail


def test_further_attributes_do_not_matter():
    item = {
        "EventType": {"S": "_x"},
        "PinpointProjectId": {"S": "p"},
        "ScoreOffset": {"N": "3"},
        "Note": {"S": "why"},
    }
    assert definition_of(item) == Definition("_x", "p", Decimal(3))


def test_points_that_cannot_be_kept_are_not_set(make_table: MakeTable, aws_clients: Clients, run: Run):
    table = DefinitionTable(aws_clients.dynamodb, make_table("definitions"))
    with pytest.raises(ValueError, match="before the point"):
        run(table.set(Definition("_x", "p", Decimal(10**15))))
    assert list(run(table.load())) == []


def test_a_missing_table_is_named(aws_clients: Clients, run: Run):
    with pytest.raises(AwsSetupError, match=r"no-such-table.*SCORING_DEFINITIONS_TABLE"):
        run(DefinitionTable(aws_clients.dynamodb, "no-such-table").load())
