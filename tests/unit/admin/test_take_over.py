from __future__ import annotations

from service.admin.kinesis_python import Row, Taken, row_of
from service.admin.position import Move
from service.admin.position import plan as plan_reset
from service.admin.take_over import Act, Import, plan, running
from service.stream.leases.lease import Lease
from service.stream.ports import Shard
from service.stream.position import LATEST, SHARD_END, TRIM_HORIZON, at_timestamp

A, B = "shardId-000000000000", "shardId-000000000001"


def one(row: Row | None, shard: Shard | None = None, lease: Lease | None = None, *, listed: bool = True) -> Import:
    (planned,) = plan([row] if row else [], [shard or Shard(A)] if listed else [], {A: lease} if lease else {})
    return planned


def test_a_shard_goes_on_behind_the_last_record_processed():
    assert one(Row(A, "17")) == Import(A, Act.CREATE, "", "17")


def test_a_lease_that_was_not_read_yet_is_moved():
    for start in (TRIM_HORIZON, LATEST, at_timestamp(5)):
        assert one(Row(A, "17"), lease=Lease(A, start)) == Import(A, Act.MOVE, start, "17")


def test_what_this_service_has_read_stays():
    for checkpoint in ("9", "99", SHARD_END):
        assert one(Row(A, "17"), lease=Lease(A, checkpoint)).act is Act.KEEP


def test_a_shard_that_is_listed_no_more_is_left_alone():
    assert one(Row(A, "17"), listed=False).act is Act.KEEP


def test_a_shard_without_a_checkpoint_is_left_to_the_configuration():
    assert one(Row(A)).act is Act.KEEP
    assert one(None).act is Act.KEEP
    assert one(Row(A), Shard(A, parents=(B,))).act is Act.KEEP


def test_a_child_that_the_old_consumer_never_saw_is_all_new():
    child = Shard(A, parents=(B,))
    assert one(None, child).then == TRIM_HORIZON
    assert one(None, child, Lease(A, LATEST)) == Import(
        A, Act.MOVE, LATEST, TRIM_HORIZON, "the old consumer never read it"
    )
    assert one(None, child, Lease(A, TRIM_HORIZON)).act is Act.KEEP


def test_items_of_other_streams_and_broken_ones():
    item = {"shard": {"S": f"events_{A}"}, "fqdn": {"S": "host"}, "expires": {"N": "12.5"}, "seq": {"S": "17"}}
    assert row_of(item, "events") == Row(A, "17", "host", 12)
    assert row_of(item, "event") is None
    assert row_of(item | {"shard": {"S": f"events_too_{A}"}}, "events") is None
    assert row_of({}, "events") is None
    assert row_of(item | {"seq": {"N": "17"}}, "events") == Row(A, "", "host", 12)
    assert row_of(item | {"seq": {"S": "LATEST"}}, "events") == Row(A, "", "host", 12)


def test_locks_that_have_not_expired_are_named():
    rows = [Row(A, "1", "host", 100), Row(B, "1", "host", 130), Row(B, "1", "gone", 5)]
    assert running(rows, 99) == ["host until 1970-01-01T00:02:10.000Z"]
    assert running(rows, 130) == []


def test_a_reset_goes_not_behind_what_was_taken_over():
    taken = {A: Taken("17", 1000)}
    shards, rows = [Shard(A), Shard(B)], {A: Lease(A, "40"), B: Lease(B, "41")}
    assert plan_reset(shards, rows, TRIM_HORIZON, taken=taken) == [
        Move(A, "40", "17", "before it another consumer counted", rereads=True),
        Move(B, "41", TRIM_HORIZON, rereads=True),
    ]
    assert plan_reset(shards[:1], rows, at_timestamp(999), taken=taken)[0].then == "17"
    assert plan_reset(shards[:1], rows, at_timestamp(1000), taken=taken)[0].then == at_timestamp(1000)
    assert plan_reset(shards[:1], rows, LATEST, taken=taken)[0].then == LATEST
