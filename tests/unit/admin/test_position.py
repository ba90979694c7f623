from __future__ import annotations

import pytest

from service.admin.position import Move, alive, moved, plan, refuse_behind_marks, rereading
from service.queries.lag import state_of
from service.runtime.errors import RefusedError
from service.stream.leases.lease import Lease, Member
from service.stream.ports import Shard
from service.stream.position import LATEST, SHARD_END, TRIM_HORIZON, at_timestamp

PARENT = Shard("parent", closed=True)
CHILD = Shard("child", parents=("parent",))
ROWS = {
    "parent": Lease("parent", SHARD_END, counter=4, children=("child",), ended_ms=9),
    "child": Lease("child", "17", owner="dead", counter=2, parents=("parent",)),
    "forgotten": Lease("forgotten", SHARD_END),
}


def test_everything_listed_starts_again():
    assert plan([PARENT, CHILD], ROWS, TRIM_HORIZON) == [
        Move("child", "17", TRIM_HORIZON, rereads=True),
        Move("parent", SHARD_END, TRIM_HORIZON, rereads=True),
    ]


def test_what_is_finished_has_passed_the_tip():
    assert plan([PARENT, CHILD], ROWS, LATEST, finished=False) == [Move("child", "17", LATEST)]


def test_one_shard_alone():
    assert plan([PARENT, CHILD], ROWS, TRIM_HORIZON, "parent") == [
        Move("parent", SHARD_END, TRIM_HORIZON, rereads=True)
    ]


def test_what_is_there_already_does_not_move():
    assert plan([CHILD], {"child": Lease("child", TRIM_HORIZON)}, TRIM_HORIZON) == []


def test_a_shard_without_a_lease_gets_one():
    assert plan([CHILD], {}, LATEST) == [Move("child", "", LATEST)]


def test_a_moved_lease_is_fenced_free_and_unfinished():
    lease = moved(ROWS["parent"], TRIM_HORIZON, 42)
    assert lease == Lease("parent", TRIM_HORIZON, counter=5, checkpoint_ms=42)


def test_alive_is_who_beats():
    before = [Member("dead", beats=3), Member("living", beats=3), Member("left", beats=3)]
    after = [Member("dead", beats=3), Member("living", beats=4), Member("fresh", beats=0)]
    assert alive(before, after) == ["fresh", "living"]


def test_state_of_a_shard():
    assert state_of(None, ROWS) == "new"
    assert state_of(ROWS["parent"], ROWS) == "finished"
    assert state_of(ROWS["child"], ROWS) == "owned"
    waiting = Lease("child", TRIM_HORIZON, parents=("parent",))
    assert state_of(waiting, ROWS) == "unowned"
    assert state_of(waiting, {"parent": Lease("parent", "3")}) == "waiting"


@pytest.mark.parametrize(
    ("checkpoint", "to", "rereads"),
    [
        ("17", TRIM_HORIZON, True),
        ("17", at_timestamp(4), True),
        ("17", at_timestamp(5), False),
        (SHARD_END, TRIM_HORIZON, True),
        (SHARD_END, at_timestamp(4), True),
        ("17", LATEST, False),
        (LATEST, TRIM_HORIZON, False),
        (at_timestamp(9), TRIM_HORIZON, False),
        (TRIM_HORIZON, at_timestamp(4), False),
    ],
)
def test_going_back_is_known_from_going_on(checkpoint: str, to: str, rereads: bool):  # noqa: FBT001 - a parameter
    (move,) = plan([CHILD], {"child": Lease("child", checkpoint, checkpoint_ms=5)}, to)
    assert move.rereads is rereads
    assert rereading([move]) == ([move] if rereads else [])


def test_a_shard_that_nobody_has_read_is_not_read_again():
    (move,) = plan([CHILD], {}, TRIM_HORIZON)
    assert not move.rereads


DAY_MS = 86_400_000
NOW_MS = 1_795_000_000_000
AGAIN = [Move("shardId-0", "77", TRIM_HORIZON, rereads=True)]


@pytest.mark.parametrize("to", [TRIM_HORIZON, at_timestamp(NOW_MS - 2 * DAY_MS - 1)])
def test_events_whose_marks_may_be_dropped_are_not_read_again(to: str):
    with pytest.raises(RefusedError, match=r"48 h only \(SCORING_MARKS_KEPT_HOURS\)") as raised:
        refuse_behind_marks(to, AGAIN, 48, 365 * 86_400, NOW_MS)
    assert "the stream keeps records for 8760 h" in raised.value.why
    assert "2026-11-16T" in raised.value.why
    assert "restored from a backup" in raised.value.remedy


@pytest.mark.parametrize(
    ("to", "moves", "kept_hours", "retention_s"),
    [
        (TRIM_HORIZON, AGAIN, 0, 365 * 86_400),
        (TRIM_HORIZON, AGAIN, 48, 2 * 86_400),
        (at_timestamp(NOW_MS - 2 * DAY_MS), AGAIN, 48, 365 * 86_400),
        (LATEST, AGAIN, 48, 365 * 86_400),
        (TRIM_HORIZON, [Move("shardId-0", "", TRIM_HORIZON)], 48, 365 * 86_400),
    ],
)
def test_what_still_has_its_marks_is_read_again(to: str, moves: list[Move], kept_hours: int, retention_s: int):
    refuse_behind_marks(to, moves, kept_hours, retention_s, NOW_MS)
