"""The deciding parts of reading shards: who holds what, which shard may start, what a list means, who is alive."""

from __future__ import annotations

import asyncio
import collections
import random

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.runtime.backoff import Backoff
from service.stream.leases.assignment import MAX_NEW_PER_PLAN, Memory, Patience, Plan, plan
from service.stream.leases.discovery import ORPHAN_LISTS, discover
from service.stream.leases.lease import Assigned, Leadership, Lease, Member
from service.stream.leases.lineage import may_start
from service.stream.leases.liveness import LeaderWatch, Liveness
from service.stream.ports import Shard
from service.stream.position import SHARD_END, TRIM_HORIZON
from service.stream.tail.budget import ByteBudget
from tests.fakes.aio import in_virtual_time

WAITS = Patience(patience=20, rest=60)
NONE: frozenset[str] = frozenset()


def leases_of(owners: list[str]) -> list[Lease]:
    return [
        Lease(shard_id=f"s{index:04d}", checkpoint=TRIM_HORIZON, owner=owner, counter=3)
        for index, owner in enumerate(owners)
    ]


def members_of(leases: list[Lease], workers: list[str]) -> list[Member]:
    """Members to whom everything they hold is assigned."""
    return [
        Member(worker=worker, assigned=tuple(Assigned(lease.shard_id) for lease in leases if lease.owner == worker))
        for worker in workers
    ]


def after(members: list[Member], done: Plan) -> list[Member]:
    changed = {member.worker: member for member in done.assign}
    return [changed.get(member.worker, member) for member in members]


def settle(leases: list[Lease], members: list[Member], dead: frozenset[str] = NONE) -> tuple[list[Lease], int, int]:
    """Plan and let everybody do as told until nothing changes; return leases, takes, plans."""
    memory, takes = Memory(), 0
    for plans in range(60):
        done = plan(leases, members, dead=dead, leaving=NONE, now=float(plans), memory=memory, waits=WAITS)
        memory, members = done.memory, after(members, done)
        wanted = {entry.shard_id: member.worker for member in members for entry in member.assigned}
        moved = []
        for lease in leases:
            target = wanted.get(lease.shard_id)
            if target is not None and target != lease.owner:
                takes += 1
                moved.append(lease.taken_by(target))
            else:
                moved.append(lease)
        if moved == leases and not done.assign and not done.homeless:
            return leases, takes, plans
        leases = moved
    raise AssertionError("never settles")


owners = st.lists(st.sampled_from(["", "a", "b", "c", "d", "gone"]), max_size=80)
workers = st.lists(st.sampled_from(["a", "b", "c", "d", "e"]), min_size=1, unique=True)


@given(owners=owners, workers=workers, data=st.data())
def test_a_plan_never_gives_one_shard_to_two(owners: list[str], workers: list[str], data: st.DataObject):
    leases = leases_of(owners)
    shard = st.sampled_from([lease.shard_id for lease in leases]) if leases else st.nothing()
    members = [
        Member(
            worker=worker,
            assigned=tuple(
                Assigned(shard_id) for shard_id in sorted(data.draw(st.sets(shard) if leases else st.just(set())))
            ),
        )
        for worker in workers
    ]
    dead = frozenset({"gone", "a", "b", "c", "d"} - set(workers))
    done = plan(leases, members, dead=dead, leaving=NONE, now=1.0, memory=Memory(), waits=WAITS)
    given_out = [entry.shard_id for member in after(members, done) for entry in member.assigned]
    assert len(given_out) == len(set(given_out))
    assert set(given_out) == {lease.shard_id for lease in leases}
    for member in after(members, done):
        for entry in member.assigned:
            row = leases[int(entry.shard_id[1:])]
            if entry.seize_owner:
                assert (entry.seize_owner, entry.seize_counter) == (row.owner, row.counter)
                assert row.owner in dead


@given(owners=owners, workers=workers)
def test_loads_are_levelled_by_as_few_moves_as_possible(owners: list[str], workers: list[str]):
    dead = frozenset({"gone", "a", "b", "c", "d"} - set(workers))
    leases = leases_of(owners)
    result, takes, _ = settle(leases, members_of(leases, workers), dead)
    loads = collections.Counter(lease.owner for lease in result)
    assert set(loads) <= set(workers)
    if leases:
        every = [loads[worker] for worker in workers]
        assert max(every) - min(every) <= 1
    homeless = sum(owner not in workers for owner in owners)
    share, more = divmod(len(leases), len(workers))
    before = sorted((sum(owner == worker for owner in owners) for worker in workers), reverse=True)
    excess = sum(max(0, load - share - (index < more)) for index, load in enumerate(before))
    assert takes <= homeless + excess


@given(owners=owners, workers=workers)
def test_a_level_fleet_is_left_alone(owners: list[str], workers: list[str]):
    dead = frozenset({"gone", "a", "b", "c", "d"} - set(workers))
    leases = leases_of(owners)
    result, _, _ = settle(leases, members_of(leases, workers), dead)
    members = members_of(result, workers)
    done = plan(result, members, dead=dead, leaving=NONE, now=0.0, memory=Memory(), waits=WAITS)
    assert done.assign == ()


def test_a_workers_first_leases_are_limited_and_more_follow():
    leases = leases_of([""] * 400)
    first = plan(leases, [Member("a")], dead=NONE, leaving=NONE, now=0, memory=Memory(), waits=WAITS)
    assert len(first.assign[0].assigned) == MAX_NEW_PER_PLAN
    assert first.homeless == 400 - MAX_NEW_PER_PLAN
    second = plan(leases, list(first.assign), dead=NONE, leaving=NONE, now=1, memory=first.memory, waits=WAITS)
    assert len(second.assign[0].assigned) == 3 * MAX_NEW_PER_PLAN


def test_a_hand_over_that_takes_too_long_is_withdrawn_and_left_alone():
    leases = leases_of(["a", "a"])
    members = members_of(leases, ["a", "b"])
    asked = plan(leases, members, dead=NONE, leaving=NONE, now=0, memory=Memory(), waits=WAITS)
    members = after(members, asked)
    assert [len(member.assigned) for member in members] == [1, 1]
    waiting = plan(leases, members, dead=NONE, leaving=NONE, now=15, memory=asked.memory, waits=WAITS)
    assert waiting.assign == ()
    withdrawn = plan(leases, members, dead=NONE, leaving=NONE, now=21, memory=waiting.memory, waits=WAITS)
    members = after(members, withdrawn)
    # The lease that was not handed over rests; the other one is asked for instead.
    moved = set(withdrawn.memory.moves) | set(withdrawn.memory.resting)
    assert moved == {"s0000", "s0001"}
    assert set(withdrawn.memory.resting) == set(asked.memory.moves)


def test_what_nobody_known_to_be_dead_owns_is_left_alone():
    leases = leases_of(["stranger", ""])
    done = plan(leases, [Member("a")], dead=NONE, leaving=NONE, now=0, memory=Memory(), waits=WAITS)
    assert [entry.shard_id for entry in done.assign[0].assigned] == ["s0001"]


def test_a_leaving_worker_gives_up_all_and_a_stalled_one_gets_nothing():
    leases = leases_of(["a", "a", "b", "c", "c"])
    members = [member for member in members_of(leases, ["a", "b", "c"]) if member.worker != "a"]
    done = plan(
        leases, members, dead=NONE, leaving=frozenset("a"), stalled=frozenset("b"), now=0, memory=Memory(), waits=WAITS
    )
    assert [len(member.assigned) for member in after(members, done)] == [1, 4]
    assert not any(entry.seize_owner for member in done.assign for entry in member.assigned)


def lineage_rows(finished: list[bool], parents: list[list[int]]) -> dict[str, Lease]:
    return {
        f"s{index}": Lease(
            shard_id=f"s{index}",
            checkpoint=SHARD_END if done else TRIM_HORIZON,
            parents=tuple(f"s{parent}" for parent in parents[index]),
        )
        for index, done in enumerate(finished)
    }


@given(st.data())
def test_no_shard_starts_before_its_parents_are_finished(data: st.DataObject):
    count = data.draw(st.integers(1, 8))
    finished = data.draw(st.lists(st.booleans(), min_size=count, max_size=count))
    parents = [
        data.draw(st.lists(st.integers(0, index - 1), max_size=2, unique=True)) if index else []
        for index in range(count)
    ]
    rows = lineage_rows(finished, parents)
    known = {shard_id for shard_id in rows if data.draw(st.booleans())}
    some = {shard_id: row for shard_id, row in rows.items() if shard_id in known}
    for row in some.values():
        starts = may_start(row, some, rows.keys(), NONE)
        assert starts == all(parent in some and some[parent].finished for parent in row.parents)
        assert may_start(row, some, NONE, rows.keys()) == all(
            parent not in some or some[parent].finished for parent in row.parents
        )
        if may_start(row, some, NONE, NONE):
            assert all(parent in some for parent in row.parents)


def test_a_parent_perhaps_absent_holds_up_only_what_was_never_begun():
    fresh = Lease("c", TRIM_HORIZON, parents=("p",))
    begun = fresh.taken_by("a").released()
    assert not may_start(fresh, {}, NONE, NONE)
    assert may_start(fresh, {}, NONE, frozenset("p"))
    assert may_start(begun, {}, NONE, NONE)
    assert not may_start(begun, {}, frozenset("p"), frozenset("p"))


def find(shards: list[Shard], rows: dict[str, Lease], absent: dict[str, int] | None = None, **options: object):
    wanted = {"initial": "AT_TIMESTAMP#5", "discovered": True, "absent_lists": 2, "ended_before_ms": 100} | options
    return discover(shards, rows, absent or {}, {}, **wanted)


def test_where_new_shards_start():
    shards = [Shard("old"), Shard("child", parents=("old",))]
    first = find(shards, {}, discovered=False)
    assert {row.shard_id: row.checkpoint for row in first.create} == {
        "old": "AT_TIMESTAMP#5",
        "child": "AT_TIMESTAMP#5",
    }
    later = find([*shards, Shard("new")], {"old": Lease("old", TRIM_HORIZON)})
    assert {row.shard_id: row.checkpoint for row in later.create} == {"child": TRIM_HORIZON, "new": "AT_TIMESTAMP#5"}


def test_a_row_goes_only_when_nothing_can_depend_on_it():
    done = Lease("p", SHARD_END, ended_ms=50, children=("c",))
    child = Lease("c", TRIM_HORIZON, parents=("p",))
    ended = Lease("c", SHARD_END, parents=("p",), ended_ms=90)
    listed = [Shard("c", parents=("p",))]
    once = find(listed, {"p": done, "c": ended})
    assert once.delete == ()
    assert find(listed, {"p": done, "c": ended}, {"p": 1}).delete == (done,)
    assert find(listed, {"p": done, "c": child}, {"p": 1}).delete == ()
    assert find(listed, {"p": done, "c": ended}, {"p": 1}, ended_before_ms=49).delete == ()
    assert find([Shard("p"), *listed], {"p": done, "c": ended}, {"p": 1}).absent == {}
    assert find([], {"p": done}, {"p": 1}).absent == {"p": 1}
    assert find(listed, {"q": Lease("q", TRIM_HORIZON), "c": ended}, {"q": 9}).delete == ()


def test_children_of_an_unknown_parent_wait_except_at_first_start():
    shards = [Shard("child", parents=("gone",))]
    first = find(shards, {}, discovered=False)
    assert first.unknown["gone"] >= ORPHAN_LISTS
    later = find(shards, {})
    assert later.unknown == {"gone": 1}
    again = discover(
        shards, {}, {}, later.unknown, initial=TRIM_HORIZON, discovered=True, absent_lists=2, ended_before_ms=0
    )
    assert again.unknown == {"gone": 2}


def read(life: Liveness, at: float, beats: dict[str, int], owners: tuple[str, ...] = (), now_ms: int = 0):
    members = [Member(worker=worker, beats=count, beat_ms=now_ms) for worker, count in beats.items()]
    return life.observe(members, owners, me="me", asked_at=at, answered_at=at + 0.1, now_ms=now_ms)


def test_only_growth_seen_here_keeps_a_worker_alive():
    life = Liveness(lease_duration=10, beat_interval=1)
    assert read(life, 0, {"me": 1, "a": 1}) == (("a", "me"), ())
    assert read(life, 9, {"me": 1, "a": 2}) == (("a", "me"), ())
    assert read(life, 19, {"me": 1, "a": 2}) == (("a", "me"), ())
    assert read(life, 19.2, {"me": 1, "a": 2}) == (("me",), ("a",))
    assert read(life, 20, {"me": 1}, ("a", "b", "")) == (("me",), ("a",))
    assert read(life, 21, {"me": 1}, ("a", "b")) == (("me",), ("a", "b"))


def test_a_new_leader_trusts_wall_clocks_only_so_far():
    life = Liveness(lease_duration=10, beat_interval=1, deposed="old")
    members = [Member("old", beats=5), Member("silent", beats=5, beat_ms=0), Member("ahead", beats=5, beat_ms=10**9)]
    seen = life.observe(members, (), me="me", asked_at=0, answered_at=0, now_ms=60_000)
    assert seen == (("ahead", "silent"), ("old",))
    seen = life.observe(members, (), me="me", asked_at=1.6, answered_at=1.6, now_ms=60_000)
    assert seen == (("ahead",), ("old", "silent"))


def test_a_leadership_is_vacant_when_it_stands_still():
    watch = LeaderWatch(10)
    row = Leadership(leader="a", counter=1, initial=TRIM_HORIZON)
    assert watch.vacant(None, 0, 0)
    assert watch.vacant_in(0) == float("inf")
    assert not watch.vacant(row, 0, 0.1)
    assert not watch.vacant(row, 10, 10.1)
    assert watch.vacant_in(4.1) == pytest.approx(6.0)
    assert watch.vacant(row, 10.2, 10.3)
    assert not watch.vacant(msgspec.structs.replace(row, counter=2), 11, 11)
    assert not watch.vacant(msgspec.structs.replace(row, leader="b", counter=2), 22, 22)
    assert watch.vacant(msgspec.structs.replace(row, leader=""), 23, 23)


def test_back_off_draws_below_a_ceiling_that_doubles_up_to_a_limit():
    backoff = Backoff(random.Random(1), first=0.1, last=2.0)
    waits = [backoff.failed() for _ in range(2000)]
    assert all(wait <= min(2.0, 0.1 * 2**index) for index, wait in enumerate(waits[:50]))
    assert max(waits) == pytest.approx(2.0, abs=0.05)
    backoff.succeeded()
    assert backoff.failed() <= 0.1


@settings(max_examples=50)
@given(st.lists(st.integers(0, 30), min_size=1, max_size=60), st.integers(0, 2**16))
@in_virtual_time
async def test_the_budget_is_kept_and_everybody_gets_through(sizes: list[int], seed: int):
    rng = random.Random(seed)
    budget = ByteBudget(100, page=30, fetches=3)
    fetching = 0

    async def shard(pages: list[int]) -> None:
        nonlocal fetching
        for size in pages:
            spare = await budget.admit(empty_handed=True)
            fetching += 1
            assert fetching <= 3
            await asyncio.sleep(rng.random())
            fetching -= 1
            budget.settle(size, spare=spare)
            assert budget.used <= 130
            await asyncio.sleep(rng.random() * 3)
            if size:
                budget.release(size, spare=spare)

    async with asyncio.TaskGroup() as group:
        for index in range(6):
            group.create_task(shard(sizes[index::6]))
        quitter = group.create_task(shard(sizes))
        await asyncio.sleep(0.5)
        if budget.used <= 100 - 30:
            quitter.cancel()
    assert budget._free_fetches >= 0


@in_virtual_time
async def test_a_waiter_that_gives_up_gives_its_reservation_back():
    budget = ByteBudget(30, page=30, fetches=1)
    spare = await budget.admit(empty_handed=True)
    second = asyncio.create_task(budget.admit(empty_handed=False))
    await asyncio.sleep(0)
    budget.settle(0, spare=spare)
    second.cancel()
    await asyncio.gather(second, return_exceptions=True)
    assert budget.used == 0
    assert await budget.admit(empty_handed=False) is False
