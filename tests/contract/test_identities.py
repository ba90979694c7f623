"""`Identities` and `EndpointDirectory`: one suite for the fakes and for DynamoDB."""

from __future__ import annotations

import pytest

from service.aws.clients import Clients
from service.aws.errors import AwsSetupError
from service.aws.tables.identities import IdentityTable
from service.ingest.stores import DirectoryEntry, EndpointDirectory, EndpointKey, Identities
from service.scoring.fold import UserKey
from tests.fakes.embedded import MakeTable, Run
from tests.fakes.identities import MemoryDirectory, MemoryIdentities

pytestmark = pytest.mark.usefixtures("fast_calls")

PHONE = EndpointKey("phone", "p1")
ANN = UserKey("ann", "p1")
ENTRY = DirectoryEntry("phone", "ACTIVE", "SMS", 1_700_000_000_000)


def fresh(_: DirectoryEntry) -> bool:
    return True


@pytest.fixture(params=["memory", "dynamodb"])
def ports(request: pytest.FixtureRequest) -> tuple[Identities, EndpointDirectory]:
    if request.param == "memory":
        memory = MemoryIdentities()
        return memory, MemoryDirectory(identities=memory)
    table = request.getfixturevalue("make_table")("identities")
    dynamodb = request.getfixturevalue("aws_clients").dynamodb
    both = IdentityTable(dynamodb, table)
    return both, both


@pytest.fixture
def identities(ports: tuple[Identities, EndpointDirectory]) -> Identities:
    return ports[0]


@pytest.fixture
def directory(ports: tuple[Identities, EndpointDirectory]) -> EndpointDirectory:
    return ports[1]


def test_what_is_unknown_is_not_found(identities: Identities, run: Run):
    assert run(identities.find([PHONE])) == {}
    assert run(identities.find([])) == {}


def test_what_is_learned_is_found_by_project(identities: Identities, run: Run):
    run(identities.learn({PHONE: "ann", EndpointKey("phone", "p2"): "bob"}))
    assert run(identities.find([PHONE, EndpointKey("phone", "p3")])) == {PHONE: "ann"}


def test_the_last_one_told_wins(identities: Identities, run: Run):
    run(identities.learn({PHONE: "ann"}))
    run(identities.learn({PHONE: "bob"}))
    assert run(identities.find([PHONE])) == {PHONE: "bob"}


def test_nothing_learned_is_no_call(identities: Identities, run: Run):
    run(identities.learn({}))


def test_that_an_endpoint_has_no_user_is_learned_too(identities: Identities, run: Run):
    run(identities.learn({PHONE: "ann"}))
    run(identities.learn({PHONE: ""}))
    assert run(identities.find([PHONE])) == {PHONE: ""}


def test_endpoint_ids_that_differ_in_case_only_are_one_endpoint(identities: Identities, run: Run):
    capitals = EndpointKey("PHONE", "p1")
    run(identities.learn({capitals: "ann"}))
    assert run(identities.find([PHONE, capitals])) == {PHONE: "ann", capitals: "ann"}


def test_any_number_is_learned_and_found_repeats_included(identities: Identities, run: Run):
    users = {EndpointKey(f"endpoint-{number}", "p1"): f"user-{number}" for number in range(230)}
    run(identities.learn(users))
    assert run(identities.find([*users, PHONE, *users])) == users


@pytest.mark.parametrize("name", ["Zoë", "a#b", "user#ann", "endpoint#phone", "ユ" * 600, "+49 170/1"])
def test_any_id_is_a_key(identities: Identities, run: Run, name: str):
    key = EndpointKey(name, "prøject")
    run(identities.learn({key: name}))
    assert run(identities.find([key])) == {key: name}


def test_endpoints_and_users_of_one_name_are_told_apart(identities: Identities, directory: EndpointDirectory, run: Run):
    run(identities.learn({EndpointKey("ann", "p1"): "bob"}))
    run(directory.put({ANN: ENTRY}))
    assert run(identities.find([EndpointKey("ann", "p1")])) == {EndpointKey("ann", "p1"): "bob"}
    assert run(directory.get([ANN], fresh)) == {ANN: ENTRY}


def test_an_unknown_user_has_no_entry(directory: EndpointDirectory, run: Run):
    assert run(directory.get([ANN], fresh)) == {}
    assert run(directory.get([], fresh)) == {}


def test_an_entry_is_kept_and_replaced(directory: EndpointDirectory, run: Run):
    other = UserKey("ann", "p2")
    nowhere = DirectoryEntry("", "", "", 1_700_000_000_001)
    run(directory.put({ANN: ENTRY, other: ENTRY}))
    run(directory.put({ANN: nowhere}))
    assert run(directory.get([ANN, other, ANN], fresh)) == {ANN: nowhere, other: ENTRY}


def test_any_number_of_entries_is_kept(directory: EndpointDirectory, run: Run):
    entries = {UserKey(f"user-{number}", "p1"): ENTRY for number in range(130)}
    run(directory.put(entries))
    assert run(directory.get(list(entries), fresh)) == entries


def test_an_entry_tells_whose_its_endpoint_is(identities: Identities, directory: EndpointDirectory, run: Run):
    run(directory.put({ANN: ENTRY, UserKey("bob", "p1"): DirectoryEntry("", "", "", 1_700_000_000_001)}))
    assert run(identities.find([PHONE, EndpointKey("", "p1")])) == {PHONE: "ann"}


def test_who_finds_an_endpoint_has_met_where_its_user_is_written_to(
    make_table: MakeTable, aws_clients: Clients, run: Run
):
    name = make_table("identities")
    run(IdentityTable(aws_clients.dynamodb, name).put({ANN: ENTRY}))
    table = IdentityTable(aws_clients.dynamodb, name)
    assert run(table.find([PHONE])) == {PHONE: "ann"}
    run(
        aws_clients.dynamodb.delete_item(
            TableName=name, Key={"Id": {"S": "user#ann"}, "PinpointProjectId": {"S": "p1"}}
        )
    )
    assert run(table.get([ANN], fresh)) == {ANN: ENTRY}  # without another look-up
    moved = DirectoryEntry("mail", "ACTIVE", "EMAIL", 1_700_000_000_002)
    run(table.put({ANN: moved}))
    assert run(table.get([ANN], fresh)) == {ANN: moved}


def test_an_endpoint_is_written_to_as_its_owner_spells_it(make_table: MakeTable, aws_clients: Clients, run: Run):
    name = make_table("identities")
    spelled = DirectoryEntry("Phone-A", "ACTIVE", "SMS", 1_700_000_000_000)
    run(IdentityTable(aws_clients.dynamodb, name).put({ANN: spelled}))
    table = IdentityTable(aws_clients.dynamodb, name)
    assert run(table.find([EndpointKey("phone-a", "p1")])) == {EndpointKey("phone-a", "p1"): "ann"}
    assert run(table.get([ANN], fresh)) == {ANN: spelled}


def test_what_is_met_in_passing_does_not_replace_what_is_younger(make_table: MakeTable, aws_clients: Clients, run: Run):
    name = make_table("identities")
    table = IdentityTable(aws_clients.dynamodb, name)
    moved = DirectoryEntry("mail", "ACTIVE", "EMAIL", ENTRY.checked_ms + 1)
    run(table.put({ANN: ENTRY}))
    run(table.put({ANN: moved}))
    assert run(table.find([PHONE])) == {PHONE: "ann"}  # the row of the endpoint left behind
    assert run(table.get([ANN], fresh)) == {ANN: moved}


def test_another_workers_entry_is_asked_for_only_where_ones_own_is_old(
    make_table: MakeTable, aws_clients: Clients, run: Run
):
    name = make_table("identities")
    mine, others = IdentityTable(aws_clients.dynamodb, name), IdentityTable(aws_clients.dynamodb, name)
    moved = DirectoryEntry("mail", "ACTIVE", "EMAIL", 1_700_000_000_002)
    run(mine.put({ANN: ENTRY}))
    run(others.put({ANN: moved}))
    assert run(mine.get([ANN], fresh)) == {ANN: ENTRY}
    assert run(mine.get([ANN], lambda entry: entry != ENTRY)) == {ANN: moved}


def test_what_has_no_name_is_no_key(make_table: MakeTable, aws_clients: Clients, run: Run):
    table = IdentityTable(aws_clients.dynamodb, make_table("identities"))
    nameless = [EndpointKey("", "p1"), EndpointKey("phone", "")]
    run(table.learn({**dict.fromkeys(nameless, "ann"), PHONE: "bob"}))
    assert run(table.find([*nameless, PHONE])) == {PHONE: "bob"}


@pytest.mark.parametrize(("ttl_days", "expires"), [(400, {"N": str(1000 + 400 * 86_400)}), (0, None)])
def test_rows_expire_unless_they_are_kept_for_ever(
    make_table: MakeTable, aws_clients: Clients, run: Run, ttl_days: int, expires: dict[str, str] | None
):
    name = make_table("identities")
    run(IdentityTable(aws_clients.dynamodb, name, ttl_days=ttl_days, wall_s=lambda: 1000.0).learn({PHONE: "ann"}))
    (item,) = run(aws_clients.dynamodb.scan(TableName=name))["Items"]
    assert item["Id"] == {"S": "endpoint#phone"}
    assert item.get("ExpiresAt") == expires


def test_a_missing_table_is_named(aws_clients: Clients, run: Run):
    with pytest.raises(AwsSetupError, match="no-such-table"):
        run(IdentityTable(aws_clients.dynamodb, "no-such-table").learn({PHONE: "ann"}))
