"""`scoring setup` on the embedded AWS."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal

import pytest

from service.admin.setup import Setup
from service.admin.setup_plan import RETENTION_H, Action, Names, State
from service.aws.clients import Clients
from service.aws.tables.definitions import DefinitionTable
from service.scoring.definitions import DEFAULT_POINTS, Definition
from tests.fakes.embedded import FreshName, Run


@pytest.fixture
def names(fresh_name: FreshName) -> Names:
    return Names(*(fresh_name(field.replace("_", "-")) for field in Names.__struct_fields__))


SetUp = Callable[..., list[Action]]


@pytest.fixture
def setup(names: Names, aws_clients: Clients, run: Run) -> SetUp:
    async def at_once(_: float) -> None: ...

    made = Setup(names, aws_clients.dynamodb, aws_clients.kinesis, sleep=at_once)
    return lambda *projects, **options: run(made.run(*projects, **options))


def states(actions: list[Action]) -> dict[str, State]:
    return {action.resource: action.state for action in actions}


def test_a_dry_run_says_everything_and_makes_nothing(setup: SetUp, aws_clients: Clients, run: Run):
    first = setup(["p1"], dry_run=True)
    assert set(states(first).values()) == {State.WOULD_CREATE}
    assert setup(["p1"], dry_run=True) == first
    assert not set(run(aws_clients.dynamodb.list_tables())["TableNames"]) & {
        action.resource.split()[1] for action in first
    }


def test_the_first_run_makes_what_a_dry_run_said_and_the_second_nothing(
    setup: SetUp, names: Names, aws_clients: Clients, run: Run
):
    said = setup(["p1", "p2"], dry_run=True)
    done = setup(["p1", "p2"])
    assert list(states(done)) == list(states(said))
    assert set(states(done).values()) == {State.CREATED}
    again = setup(["p1", "p2"])
    assert list(states(again)) == list(states(said))
    assert set(states(again).values()) == {State.EXISTS}
    definitions = run(DefinitionTable(aws_clients.dynamodb, names.definitions).load())
    assert {(row.event_type, row.points) for row in definitions if row.project_id == "p2"} == set(
        DEFAULT_POINTS.items()
    )


def test_what_is_made_is_as_it_should_be(setup: SetUp, names: Names, aws_clients: Clients, run: Run):
    setup()
    scores = run(aws_clients.dynamodb.describe_table(TableName=names.scores))["Table"]
    assert scores["StreamSpecification"] == {"StreamEnabled": True, "StreamViewType": "NEW_IMAGE"}
    assert scores["BillingModeSummary"]["BillingMode"] == "PAY_PER_REQUEST"
    for table in (names.identities, names.dead_letters):
        lifetime = run(aws_clients.dynamodb.describe_time_to_live(TableName=table))["TimeToLiveDescription"]
        assert (lifetime["TimeToLiveStatus"], lifetime["AttributeName"]) == ("ENABLED", "ExpiresAt")
    leases = run(aws_clients.dynamodb.describe_time_to_live(TableName=names.leases))["TimeToLiveDescription"]
    assert leases["TimeToLiveStatus"] == "DISABLED"


def test_a_stream_that_setup_makes_keeps_a_week(setup: SetUp, names: Names, aws_clients: Clients, run: Run):
    setup()
    summary = run(aws_clients.kinesis.describe_stream_summary(StreamName=names.stream))["StreamDescriptionSummary"]
    assert summary["RetentionPeriodHours"] == RETENTION_H


def test_a_table_of_the_replaced_system_gets_what_it_lacks(setup: SetUp, names: Names, aws_clients: Clients, run: Run):
    keys = ("UserId", "PinpointProjectId")
    creation = aws_clients.dynamodb.create_table(
        TableName=names.scores,
        AttributeDefinitions=[{"AttributeName": key, "AttributeType": "S"} for key in keys],
        KeySchema=[{"AttributeName": key, "KeyType": kind} for key, kind in zip(keys, ("HASH", "RANGE"), strict=True)],
        BillingMode="PAY_PER_REQUEST",
    )
    run(creation)
    item = {"UserId": {"S": "ann"}, "PinpointProjectId": {"S": "p1"}, "Score": {"N": "5"}}
    run(aws_clients.dynamodb.put_item(TableName=names.scores, Item=item))
    found = states(setup())
    assert found[f"table {names.scores}"] is State.EXISTS
    assert found[f"table {names.scores}: stream"] is State.CREATED
    assert found[f"table {names.scores}: point-in-time recovery"] is State.CREATED
    assert run(aws_clients.dynamodb.scan(TableName=names.scores))["Items"] == [item]


def test_definitions_of_a_project_are_never_touched(setup: SetUp, names: Names, aws_clients: Clients, run: Run):
    setup()
    table = DefinitionTable(aws_clients.dynamodb, names.definitions)
    mine = Definition("_email.open", "p1", Decimal(99))
    run(table.set(mine))
    assert states(setup(["p1"]))["definitions of project p1"] is State.EXISTS
    assert list(run(table.load())) == [mine]
