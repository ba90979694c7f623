"""`LeaseStore` and `Membership`: one suite for the fake and for DynamoDB."""

from __future__ import annotations

from itertools import pairwise

import msgspec
import pytest

from service.aws.clients import Clients
from service.aws.tables.leases import LeaseTable
from service.aws.translation import AwsSetupError
from service.stream.leases.lease import Assigned, Leadership, Lease, Member
from service.stream.ports import StreamId
from service.stream.position import SHARD_END, TRIM_HORIZON, at_timestamp
from tests.fakes import leases as fakes
from tests.fakes.embedded import MakeTable, Run

pytestmark = pytest.mark.usefixtures("fast_calls")

SHARD = "shardId-000000000000"
CHECKPOINT = "49590338271490256608559692538361571095921575989136588898"
FREE = Lease(SHARD, TRIM_HORIZON)
STREAM = StreamId("events", "arn:aws:kinesis:us-east-1:000000000000:stream/events", "tag1")
LEADERSHIP = Leadership("ann.1", 1, TRIM_HORIZON, sharing=b"four")

Table = LeaseTable | fakes.FakeLeases


@pytest.fixture(params=["memory", "dynamodb"])
def table(request: pytest.FixtureRequest) -> Table:
    if request.param == "memory":
        return fakes.FakeLeases(fakes.LeaseTable())
    name = request.getfixturevalue("make_table")("leases")
    return LeaseTable(request.getfixturevalue("aws_clients").dynamodb, name, "ingest", STREAM)


def test_an_empty_table(table: Table, run: Run):
    snapshot = run(table.snapshot())
    assert (snapshot.leases, snapshot.members, snapshot.leadership) == ((), (), None)
    assert run(table.get(SHARD)) is None
    assert run(table.leadership()) is None


@pytest.mark.parametrize(
    "lease",
    [
        FREE,
        Lease(SHARD, at_timestamp(1_700_000_000_000)),
        Lease(SHARD, CHECKPOINT, "host.1", 7, ("shardId-a", "shardId-b"), (), 2, 0, 1_700_000_000_000),
        Lease(SHARD, TRIM_HORIZON, starting=CHECKPOINT),
        Lease(SHARD, SHARD_END, "", 9, (), ("shardId-c", "shardId-d"), 0, 1_700_000_000_001, 1_700_000_000_001),
    ],
)
def test_a_row_is_read_as_it_was_written(table: Table, run: Run, lease: Lease):
    assert run(table.create(lease)) is True
    assert run(table.get(SHARD)) == lease
    assert run(table.snapshot()).leases == (lease,)


def test_a_row_is_created_once(table: Table, run: Run):
    assert run(table.create(FREE)) is True
    assert run(table.create(Lease(SHARD, CHECKPOINT, "bob.1"))) is False
    assert run(table.get(SHARD)) == FREE


def test_a_life_of_a_lease(table: Table, run: Run):
    run(table.create(FREE))
    taken = FREE.taken_by("ann.1")
    moved = taken.checkpointed(CHECKPOINT, 5)
    released = moved.released(unsettled=True)
    again = released.taken_by("bob.1")
    ended = again.ended(("shardId-1", "shardId-2"), 6)
    steps = [FREE, taken, moved, released, again, ended]
    for before, after in pairwise(steps):
        assert run(table.replace(before, after)) is None
        assert run(table.get(SHARD)) == after
    assert run(table.get(SHARD)).finished


def test_who_lost_a_lease_writes_nothing(table: Table, run: Run):
    run(table.create(FREE))
    mine = FREE.taken_by("ann.1")
    run(table.replace(FREE, mine))
    seized = mine.taken_by("bob.1")
    assert run(table.replace(mine, seized)) is None
    assert run(table.replace(mine, mine.checkpointed(CHECKPOINT, 5))) == seized
    assert run(table.delete(mine)) is False
    assert run(table.get(SHARD)) == seized


@pytest.mark.parametrize(
    "expected", [FREE.taken_by("bob.1"), Lease(SHARD, TRIM_HORIZON, "ann.1", 2), Lease(SHARD, TRIM_HORIZON, "", 1)]
)
def test_owner_and_counter_must_both_be_the_expected_ones(table: Table, run: Run, expected: Lease):
    mine = FREE.taken_by("ann.1")
    run(table.create(mine))
    assert run(table.replace(expected, expected.released())) == mine
    assert run(table.delete(expected)) is False


def test_two_cannot_take_one_free_lease(table: Table, run: Run):
    run(table.create(FREE))
    first = FREE.taken_by("ann.1")
    assert run(table.replace(FREE, first)) is None
    assert run(table.replace(FREE, FREE.taken_by("bob.1"))) == first


def test_a_write_repeated_because_its_answer_was_lost_shows_itself(table: Table, run: Run):
    run(table.create(FREE))
    ended = FREE.ended(("shardId-2", "shardId-1"), 5)
    assert run(table.replace(FREE, ended)) is None
    assert run(table.replace(FREE, ended)) == ended


def test_a_row_that_is_gone_is_told_by_its_counter(table: Table, run: Run):
    expected = Lease(SHARD, CHECKPOINT, "ann.1", 4)
    answer = run(table.replace(expected, expected.released()))
    assert (answer.owner, answer.counter) == ("", -1)
    assert run(table.get(SHARD)) is None


def test_a_deleted_row_is_gone_also_the_second_time(table: Table, run: Run):
    run(table.create(FREE))
    assert run(table.delete(FREE)) is True
    assert run(table.delete(FREE)) is True
    assert run(table.get(SHARD)) is None


def test_a_worker_joins_beats_and_leaves(table: Table, run: Run):
    run(table.join(Member("ann.1", beat_ms=5)))
    assert run(table.snapshot()).members == (Member("ann.1", 0, 5),)
    assert run(table.beat("ann.1", 1000)) == Member("ann.1", 1, 1000)
    assert run(table.beat("ann.1", 2000)) == Member("ann.1", 2, 2000)
    run(table.remove("ann.1"))
    assert run(table.beat("ann.1", 3000)) is None
    assert run(table.snapshot()).members == ()
    run(table.remove("ann.1"))


def test_an_assignment_arrives_with_the_next_beat(table: Table, run: Run):
    run(table.join(Member("ann.1")))
    assigned = (Assigned(SHARD), Assigned("shardId-000000000001", "bob:1/ü", 12))
    assert run(table.assign("ann.1", Member("ann.1", assigned=assigned, version=3))) is True
    assert run(table.beat("ann.1", 9)) == Member("ann.1", 1, 9, assigned, 3)
    assert run(table.assign("ann.1", Member("ann.1", version=4))) is True
    assert run(table.beat("ann.1", 10)) == Member("ann.1", 2, 10, (), 4)


def test_a_worker_that_leaves_says_so_and_keeps_what_it_was_assigned(table: Table, run: Run):
    run(table.join(Member("ann.1")))
    run(table.assign("ann.1", Member("ann.1", assigned=(Assigned(SHARD),), version=1)))
    left = Member("ann.1", 1, 7, (Assigned(SHARD),), 1, leaving=True)
    assert run(table.beat("ann.1", 7, leaving=True)) == left
    assert run(table.snapshot()).members == (left,)
    assert run(table.beat("ann.1", 8)) == msgspec.structs.replace(left, beats=2, beat_ms=8)
    run(table.join(Member("ann.1")))
    assert run(table.snapshot()).members == (Member("ann.1"),)


def test_the_dead_are_assigned_nothing(table: Table, run: Run):
    assert run(table.assign("ann.1", Member("ann.1", assigned=(Assigned(SHARD),)))) is False
    assert run(table.snapshot()).members == ()


def test_many_shards_are_assigned(table: Table, run: Run):
    assigned = tuple(Assigned(f"shardId-{number:012}") for number in range(2000))
    run(table.join(Member("ann.1")))
    run(table.assign("ann.1", Member("ann.1", assigned=assigned, version=1)))
    assert run(table.beat("ann.1", 1)).assigned == assigned


def test_one_worker_leads(table: Table, run: Run):
    assert run(table.lead(None, LEADERSHIP)) is True
    assert run(table.lead(None, Leadership("bob.1", 1, TRIM_HORIZON))) is False
    assert run(table.leadership()) == LEADERSHIP
    assert run(table.snapshot()).leadership == LEADERSHIP


def test_leadership_moves_from_what_it_was(table: Table, run: Run):
    run(table.lead(None, LEADERSHIP))
    renewed = msgspec.structs.replace(LEADERSHIP, counter=2, discovered=True, target="scores 1-2-3")
    assert run(table.lead(LEADERSHIP, renewed)) is True
    assert run(table.lead(LEADERSHIP, Leadership("bob.1", 2, TRIM_HORIZON))) is False
    down = msgspec.structs.replace(renewed, leader="", counter=3, plans=7)
    assert run(table.lead(renewed, down)) is True
    assert run(table.leadership()) == down
    assert run(table.lead(down, Leadership("bob.1", 4, TRIM_HORIZON, discovered=True))) is True


def test_a_renewal_repeated_because_its_answer_was_lost_holds(table: Table, run: Run):
    assert run(table.lead(None, LEADERSHIP)) is True
    assert run(table.lead(None, LEADERSHIP)) is True
    renewed = msgspec.structs.replace(LEADERSHIP, counter=2)
    assert run(table.lead(LEADERSHIP, renewed)) is True
    assert run(table.lead(LEADERSHIP, renewed)) is True


def test_leadership_expected_of_a_row_that_is_gone_is_refused(table: Table, run: Run):
    assert run(table.lead(LEADERSHIP, msgspec.structs.replace(LEADERSHIP, counter=2))) is False
    assert run(table.leadership()) is None


def test_rows_of_every_kind_are_told_apart(table: Table, run: Run):
    run(table.create(FREE))
    run(table.join(Member(SHARD)))
    run(table.lead(None, LEADERSHIP))
    snapshot = run(table.snapshot())
    assert (snapshot.leases, snapshot.members, snapshot.leadership) == ((FREE,), (Member(SHARD),), LEADERSHIP)


def test_streams_and_pipelines_share_a_table_without_meeting(make_table: MakeTable, aws_clients: Clients, run: Run):
    name = make_table("leases")
    other = msgspec.structs.replace(STREAM, tag="tag11")
    ingest, publish, elsewhere = (
        LeaseTable(aws_clients.dynamodb, name, pipeline, stream)
        for pipeline, stream in (("ingest", STREAM), ("publish", STREAM), ("ingest", other))
    )
    for number, each in enumerate((ingest, publish, elsewhere)):
        assert run(each.create(msgspec.structs.replace(FREE, counter=number))) is True
    assert [run(each.snapshot()).leases[0].counter for each in (ingest, publish, elsewhere)] == [0, 1, 2]


def test_the_row_has_the_names_of_the_kinesis_client_library(make_table: MakeTable, aws_clients: Clients, run: Run):
    name = make_table("leases")
    table = LeaseTable(aws_clients.dynamodb, name, "ingest", STREAM)
    run(table.create(Lease(SHARD, CHECKPOINT, "ann.1", 4, ("shardId-p",), ("shardId-c",), 2, 0, 7)))
    assert run(aws_clients.dynamodb.scan(TableName=name))["Items"] == [
        {
            "leaseKey": {"S": f"ingest:tag1:{SHARD}"},
            "leaseOwner": {"S": "ann.1"},
            "leaseCounter": {"N": "4"},
            "checkpoint": {"S": CHECKPOINT},
            "parentShardId": {"SS": ["shardId-p"]},
            "childShardIds": {"SS": ["shardId-c"]},
            "ownerSwitchesSinceCheckpoint": {"N": "2"},
            "shardId": {"S": SHARD},
            "stream": {"S": "events"},
            "checkpointedAt": {"N": "7"},
            "endedAt": {"N": "0"},
        }
    ]


def test_a_missing_table_is_named(aws_clients: Clients, run: Run):
    table = LeaseTable(aws_clients.dynamodb, "no-such-table", "ingest", STREAM)
    for call in (table.snapshot(), table.create(FREE), table.beat("ann.1", 1)):
        with pytest.raises(AwsSetupError, match="no-such-table"):
            run(call)
