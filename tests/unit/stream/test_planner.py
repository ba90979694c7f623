"""The leader's decision: a reading of the lease table in, a value that says what to write out."""

from collections.abc import Iterable

from service.stream.leases.lease import Assigned, Lease, Member
from service.stream.leases.listing import Listing
from service.stream.leases.planner import Decision, Planner, View
from service.stream.position import SHARD_END, TRIM_HORIZON
from service.stream.settings import ShardSettings

SETTINGS = ShardSettings(lease_duration=10)


def view(leases: Iterable[Lease], members: Iterable[Member], at: float) -> View:
    rows = {lease.shard_id: lease for lease in leases}
    return View(
        rows=rows,
        owners=tuple(lease.owner for lease in rows.values()),
        members=tuple(members),
        asked_at=at,
        answered_at=at,
        now_ms=round(at * 1000),
    )


def decide(planner: Planner, seen: View, leaving: frozenset[str] = frozenset()) -> Decision:
    return planner.decide(seen, Listing(SETTINGS), leaving)


def free(shard_id: str) -> Lease:
    return Lease(shard_id=shard_id, checkpoint=TRIM_HORIZON)


def holds(decision: Decision, worker: str) -> tuple[Assigned, ...]:
    return next(member.assigned for member in decision.assign if member.worker == worker)


def test_free_leases_are_shared_out_and_counted():
    leases = [free("a"), free("b"), Lease(shard_id="c", checkpoint=SHARD_END)]
    decision = decide(Planner("me", SETTINGS), view(leases, [Member("me"), Member("other")], 0))
    assert len(holds(decision, "me")) == len(holds(decision, "other")) == 1
    assert decision.leases == {"owned": 0, "unowned": 2, "waiting": 0, "finished": 1}
    assert decision.alive == 2
    assert decision.remove == ()


def test_a_silent_workers_row_is_removed_and_its_lease_may_be_seized():
    planner = Planner("me", SETTINGS)
    held = Lease(shard_id="a", checkpoint=TRIM_HORIZON, owner="other", counter=7)
    members = [Member("me"), Member("other", assigned=(Assigned("a"),))]
    for at in (0.0, 5.0, 9.9):
        assert decide(planner, view([held], members, at)).remove == ()
    decision = decide(planner, view([held], members, 20.0))
    assert decision.remove == ("other",)
    assert holds(decision, "me") == (Assigned("a", seize_owner="other", seize_counter=7),)


def test_a_silent_leader_that_was_deposed_counts_as_dead_at_once():
    decision = decide(Planner("me", SETTINGS, deposed="before"), view([], [Member("me"), Member("before")], 0))
    assert decision.remove == ("before",)


def test_what_a_leaving_worker_holds_goes_to_others():
    held = Lease(shard_id="a", checkpoint=TRIM_HORIZON, owner="me", counter=1)
    members = [Member("me", assigned=(Assigned("a"),)), Member("other")]
    decision = decide(Planner("me", SETTINGS), view([held], members, 0), leaving=frozenset({"me"}))
    assert holds(decision, "other") == (Assigned("a"),)


def test_the_next_plan_comes_when_the_first_worker_would_be_dead():
    planner = Planner("me", SETTINGS)
    seen = view([], [Member("me"), Member("other")], 0)
    decide(planner, seen)
    assert planner.pause(seen, 0.0) == SETTINGS.cycle_min
    assert 0 < planner.pause(seen, 9.8) < SETTINGS.cycle_min
    assert planner.pause(seen, 30.0) > 0


def test_a_leader_that_is_alone_plans_half_as_often():
    planner = Planner("me", SETTINGS)
    seen = view([], [Member("me")], 0)
    decide(planner, seen)
    assert planner.pause(seen, 0.0) == 2 * SETTINGS.cycle_min
