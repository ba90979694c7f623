"""`RowStore`, and `Identities` and `EndpointDirectory` on it: one suite for the fake and for DynamoDB."""

from __future__ import annotations

import pytest

from service.aws.clients import Clients
from service.aws.tables.identities import IdentityRows, IdentityTable
from service.aws.translation import AwsSetupError
from service.ingest.identity_plan import alias_row, user_row
from service.ingest.identity_rows import Row, RowStore, Write
from service.ingest.identity_store import CONFIRMED_FOR_S, IdentityStore
from service.ingest.stores import AliasKey, DirectoryEntry, Found
from service.scoring.fold import UserKey
from tests.fakes.embedded import MakeTable, Run
from tests.fakes.identities import MemoryRows

pytestmark = pytest.mark.usefixtures("fast_calls")

PHONE = AliasKey("phone", "p1")
ANN, BOB = UserKey("ann", "p1"), UserKey("bob", "p1")
ENTRY = DirectoryEntry("Phone", "ACTIVE", "SMS", 1_700_000_000_000)
ROW = Row("1", "ann", "", "ACTIVE", "SMS", 1_700_000_000_000, named=True, expires_s=1_800_000_000)


def fresh(_: DirectoryEntry) -> bool:
    return True


def stale(_: DirectoryEntry) -> bool:
    return False


@pytest.fixture(params=["memory", "dynamodb"])
def rows(request: pytest.FixtureRequest) -> RowStore:
    if request.param == "memory":
        return MemoryRows()
    table = request.getfixturevalue("make_table")("identities")
    return IdentityRows(request.getfixturevalue("aws_clients").dynamodb, table)


@pytest.fixture
def store(rows: RowStore) -> IdentityStore:
    return IdentityStore(rows)


class TestRows:
    def test_what_is_written_is_read(self, rows: RowStore, run: Run):
        written = {
            alias_row(PHONE): ROW,
            user_row(ANN): Row("2", "", "Phone", "ACTIVE", "SMS", 3, (("mail", "INACTIVE"), ("tab", "ACTIVE"))),
            user_row(BOB): Row("3", named=True),
        }
        assert run(rows.write({key: Write(None, row) for key, row in written.items()})) in ([], set())
        assert run(rows.read([*written, alias_row(AliasKey("unknown", "p1"))])) == written
        assert run(rows.read([])) == {}

    def test_a_row_that_is_there_is_not_written_as_if_it_were_not(self, rows: RowStore, run: Run):
        key = alias_row(PHONE)
        run(rows.write({key: Write(None, ROW)}))
        assert list(run(rows.write({key: Write(None, Row("2", "bob"))}))) == [key]
        assert run(rows.read([key])) == {key: ROW}

    def test_only_the_row_that_was_read_is_changed(self, rows: RowStore, run: Run):
        key, other = alias_row(PHONE), user_row(ANN)
        run(rows.write({key: Write(None, ROW)}))
        second = Row("2", "bob")
        assert not run(rows.write({key: Write(ROW, second)}))
        lost = run(rows.write({key: Write(ROW, Row("3", "eve")), other: Write(ROW, Row("4"))}))
        assert set(lost) == {key, other}
        assert run(rows.read([key, other])) == {key: second}

    def test_other_endpoints_come_and_go(self, rows: RowStore, run: Run):
        key = user_row(ANN)
        first = Row("1", "", "a", "ACTIVE", "SMS", 3, (("b", "ACTIVE"),))
        second = Row("2", "", "a", "ACTIVE", "SMS", 4)
        run(rows.write({key: Write(None, first)}))
        run(rows.write({key: Write(first, second)}))
        assert run(rows.read([key])) == {key: second}

    def test_any_number_of_rows(self, rows: RowStore, run: Run):
        many = {alias_row(AliasKey(f"e{number}", "p1")): Row(str(number), "ann") for number in range(130)}
        assert not run(rows.write({key: Write(None, row) for key, row in many.items()}))
        assert run(rows.read(many)) == many


def test_what_is_unknown_is_not_found(store: IdentityStore, run: Run):
    assert run(store.find([PHONE])) == {}
    assert run(store.find([])) == {}


def test_what_is_learned_is_found_by_project(store: IdentityStore, run: Run):
    run(store.learn({PHONE: "ann", AliasKey("phone", "p2"): "bob"}))
    assert run(store.find([PHONE, AliasKey("phone", "p3")])) == {PHONE: "ann"}


def test_the_last_one_told_wins(store: IdentityStore, run: Run):
    for user in ("ann", "bob", "", "ann"):
        run(store.learn({PHONE: user}))
        assert run(store.find([PHONE])) == {PHONE: user}


def test_nothing_learned_is_no_call(store: IdentityStore, run: Run):
    run(store.learn({}))


def test_endpoint_ids_that_differ_in_case_only_are_one_endpoint(store: IdentityStore, run: Run):
    capitals = AliasKey("PHONE", "p1")
    run(store.learn({capitals: "ann"}))
    assert run(store.find([PHONE, capitals])) == {PHONE: "ann", capitals: "ann"}


def test_any_number_is_learned_and_found_repeats_included(store: IdentityStore, run: Run):
    users = {AliasKey(f"endpoint-{number}", "p1"): f"user-{number}" for number in range(230)}
    run(store.learn(users))
    assert run(store.find([*users, PHONE, *users])) == users


@pytest.mark.parametrize("name", ["Zoë", "a#b", "user#ann", "endpoint#phone", "ユ" * 600, "+49 170/1"])
def test_any_id_is_a_key(store: IdentityStore, run: Run, name: str):
    key = AliasKey(name, "prøject")
    run(store.learn({key: name}))
    assert run(store.find([key])) == {key: name}


def put(store: IdentityStore, run: Run, **entries: DirectoryEntry) -> None:
    """Write down what was looked up for users, as the sink does."""
    keys = [UserKey(user, "p1") for user in entries]
    known = run(store.get(keys, fresh, keys))
    found = {
        key: Found(entry, [entry.endpoint_id.lower()] if entry.endpoint_id else [], known[key].row)
        for key, entry in zip(keys, entries.values(), strict=True)
    }
    assert run(store.put(found)) == {}


def entries(store: IdentityStore, run: Run, *keys: UserKey) -> dict[str, DirectoryEntry | None]:
    return {key.user_id: known.entry for key, known in run(store.get(keys, fresh)).items()}


def test_endpoints_and_users_of_one_name_are_told_apart(store: IdentityStore, run: Run):
    run(store.learn({AliasKey("ann", "p1"): "bob"}))
    put(store, run, ann=ENTRY)
    assert run(store.find([AliasKey("ann", "p1")])) == {AliasKey("ann", "p1"): "bob"}
    assert entries(store, run, ANN) == {"ann": ENTRY}


def test_an_unknown_user_has_no_entry(store: IdentityStore, run: Run):
    assert entries(store, run, ANN) == {"ann": None}
    assert run(store.get([], fresh)) == {}


def test_an_entry_is_kept_and_replaced_by_project(rows: RowStore, run: Run):
    store = IdentityStore(rows)
    nowhere = DirectoryEntry("", "", "", 1_700_000_000_001)
    put(store, run, ann=ENTRY, bob=DirectoryEntry("mail", "INACTIVE", "EMAIL", 5, (("tab", "ACTIVE"),)))
    assert entries(IdentityStore(rows), run, ANN, UserKey("ann", "p2")) == {"ann": None}  # of p2, which comes last
    put(store, run, ann=nowhere)
    assert entries(IdentityStore(rows), run, ANN) == {"ann": nowhere}
    assert entries(IdentityStore(rows), run, BOB)["bob"].others == (("tab", "ACTIVE"),)


def test_any_number_of_entries_is_kept(store: IdentityStore, run: Run):
    many = {
        f"user-{number}": DirectoryEntry(f"endpoint-{number}", "ACTIVE", "SMS", number + 1) for number in range(130)
    }
    put(store, run, **many)
    assert entries(store, run, *(UserKey(user, "p1") for user in many)) == many


def test_an_entry_tells_whose_its_endpoint_is(store: IdentityStore, run: Run):
    put(store, run, ann=ENTRY, bob=DirectoryEntry("", "", "", 1_700_000_000_001))
    assert run(store.find([PHONE, AliasKey("", "p1")])) == {PHONE: "ann"}


def test_finding_an_endpoint_shows_where_its_user_is_written_to(run: Run):
    rows = MemoryRows()
    put(IdentityStore(rows), run, ann=ENTRY)
    reader = IdentityStore(rows)
    assert run(reader.find([PHONE])) == {PHONE: "ann"}
    reads = rows.reads
    assert (entries(reader, run, ANN), rows.reads) == ({"ann": ENTRY}, reads)


def test_what_is_met_in_passing_does_not_replace_what_is_younger(rows: RowStore, run: Run):
    store = IdentityStore(rows)
    moved = DirectoryEntry("mail", "ACTIVE", "EMAIL", ENTRY.checked_ms + 1)
    put(store, run, ann=ENTRY)
    put(store, run, ann=moved)
    assert run(store.find([PHONE])) == {PHONE: "ann"}  # the row of the endpoint left behind
    assert entries(store, run, ANN) == {"ann": moved}


def test_a_stale_entry_is_read_again_at_once_a_fresh_one_later(run: Run):
    rows, now = MemoryRows(), 0.0
    store = IdentityStore(rows, monotonic=lambda: now)
    put(store, run, ann=ENTRY)
    reads = rows.reads
    entries(store, run, ANN)
    assert rows.reads == reads
    run(store.get([ANN], stale))
    assert rows.reads == reads + 1
    now += CONFIRMED_FOR_S + 0.1
    assert store.confirmed(ANN) is None
    entries(store, run, ANN)
    assert rows.reads == reads + 2
    assert store.confirmed(ANN) == ENTRY


def test_what_is_known_already_is_learned_with_one_read_and_no_write(run: Run):
    rows = MemoryRows()
    users = {AliasKey(f"e{number}", "p1"): f"u{number}" for number in range(50)}
    run(IdentityStore(rows).learn(users))
    reads, writes = rows.reads, rows.writes
    run(IdentityStore(rows).learn(users))
    assert (rows.reads - reads, rows.writes - writes) == (1, 0)


def test_an_endpoint_pinpoint_named_and_then_an_event_ends_nothing(run: Run):
    rows = MemoryRows()
    put(IdentityStore(rows), run, ann=ENTRY)
    run(IdentityStore(rows).learn({PHONE: "ann"}))
    assert entries(IdentityStore(rows), run, ANN) == {"ann": ENTRY}


def test_a_row_of_version_0_1_is_read_and_rewritten(make_table: MakeTable, aws_clients: Clients, run: Run):
    name = make_table("identities")
    for row_id, attributes in {
        "endpoint#phone": {"UserId": {"S": "ann"}},
        "user#ann": {
            "EndpointId": {"S": "phone"},
            "EndpointStatus": {"S": "ACTIVE"},
            "Channel": {"S": "SMS"},
            "CheckedAt": {"N": "5"},
        },
    }.items():
        item = {"Id": {"S": row_id}, "PinpointProjectId": {"S": "p1"}, **attributes}
        run(aws_clients.dynamodb.put_item(TableName=name, Item=item))
    table = IdentityTable(aws_clients.dynamodb, name)
    assert run(table.find([PHONE])) == {PHONE: "ann"}
    assert entries(table, run, ANN) == {"ann": DirectoryEntry("phone", "ACTIVE", "SMS", 5)}
    run(table.learn({PHONE: "ann"}))
    written = run(IdentityRows(aws_clients.dynamodb, name).read([alias_row(PHONE), user_row(ANN)]))
    assert all(row.stamp and row.named for row in written.values())


def test_what_has_no_name_is_neither_learned_nor_found(store: IdentityStore, run: Run):
    nameless = [AliasKey("", "p1"), AliasKey("phone", ""), AliasKey("", "")]
    run(store.learn({**dict.fromkeys(nameless, "ann"), PHONE: "bob"}))
    assert run(store.find([*nameless, PHONE])) == {PHONE: "bob"}


@pytest.mark.parametrize(("ttl_days", "expires"), [(400, {"N": str(1000 + 400 * 86_400)}), (0, None)])
def test_rows_expire_unless_they_are_kept_for_ever(
    make_table: MakeTable, aws_clients: Clients, run: Run, ttl_days: int, expires: dict[str, str] | None
):
    name = make_table("identities")
    run(IdentityTable(aws_clients.dynamodb, name, ttl_days=ttl_days, wall_s=lambda: 1000.0).learn({PHONE: "ann"}))
    items = run(aws_clients.dynamodb.scan(TableName=name))["Items"]
    assert {item["Id"]["S"] for item in items} == {"endpoint#phone", "user#ann"}
    assert [item.get("ExpiresAt") for item in items] == [expires] * 2


def test_a_row_in_use_is_renewed_once_half_of_its_time_is_over(run: Run):
    rows, now_s = MemoryRows(), 1000.0
    store = IdentityStore(rows, ttl_days=10, wall_s=lambda: now_s)
    run(store.learn({PHONE: "ann"}))
    put(store, run, ann=ENTRY)
    for days, expires_days in ((4, 10), (6, 16)):
        now_s = 1000.0 + days * 86_400
        run(store.learn({PHONE: "ann"}))
        assert {row.expires_s for row in rows.rows.values()} == {1000 + expires_days * 86_400}
    assert entries(store, run, ANN) == {"ann": ENTRY}


def test_a_missing_table_is_named(aws_clients: Clients, run: Run):
    with pytest.raises(AwsSetupError, match="no-such-table"):
        run(IdentityTable(aws_clients.dynamodb, "no-such-table").learn({PHONE: "ann"}))
