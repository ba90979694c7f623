from __future__ import annotations

from collections import defaultdict
from decimal import Decimal

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule

from service.publish.outbox import Offered, Outbox, Pending, Ticket
from service.scoring.change import ScoreChange
from service.scoring.fold import UserKey

ALWAYS = lambda _: True  # noqa: E731 - a name for a constant function


def change(revision: int, user: str = "u", score: int | None = None) -> ScoreChange:
    return ScoreChange(UserKey(user, "p"), Decimal(revision if score is None else score), revision, 0)


def removal(user: str = "u") -> ScoreChange:
    return ScoreChange(UserKey(user, "p"), None, 0, 0)


class Waiter:
    def __init__(self, shard_id: str = "s") -> None:
        self.settled = 0
        self.ticket = Ticket("stream", shard_id, self._settle)

    def _settle(self) -> None:
        self.settled += 1


def offer(outbox: Outbox, what: ScoreChange, shard_id: str = "s") -> tuple[Waiter, Offered]:
    waiter = Waiter(shard_id)
    offered = outbox.offer(what, waiter.ticket)
    waiter.ticket.offered()
    return waiter, offered


def test_the_newer_change_is_kept_and_both_wait_for_it():
    outbox = Outbox(10, 10)
    first, _ = offer(outbox, change(2))
    second, became = offer(outbox, change(3))
    third, _ = offer(outbox, change(1))
    assert became is Offered.COALESCED
    [taken] = outbox.take(10, 0, ALWAYS)
    assert taken.change.revision == 3
    assert (first.settled, second.settled, third.settled) == (0, 0, 0)
    outbox.acknowledge(taken)
    assert (first.settled, second.settled, third.settled) == (1, 1, 1)
    assert len(outbox) == 0


def test_an_older_revision_is_done_but_an_equal_one_is_published_again():
    outbox = Outbox(10, 10)
    offer(outbox, change(5))
    outbox.acknowledge(outbox.take(1, 0, ALWAYS)[0])
    stale, became = offer(outbox, change(4))
    assert became is Offered.STALE
    assert stale.settled == 1
    _, became = offer(outbox, change(5, score=77))
    assert became is Offered.KEPT


def test_one_change_of_a_user_is_in_flight_at_most():
    outbox = Outbox(10, 10)
    offer(outbox, change(1))
    [flying] = outbox.take(10, 0, ALWAYS)
    offer(outbox, change(2))
    assert outbox.take(10, 0, ALWAYS) == []
    outbox.acknowledge(flying)
    assert [taken.change.revision for taken in outbox.take(10, 0, ALWAYS)] == [2]


def test_a_replay_of_what_is_in_flight_waits_for_it():
    outbox = Outbox(10, 10)
    offer(outbox, change(2))
    [flying] = outbox.take(10, 0, ALWAYS)
    again, _ = offer(outbox, change(2))
    older, _ = offer(outbox, change(1))
    assert (again.settled, older.settled) == (0, 0)
    outbox.acknowledge(flying)
    assert (again.settled, older.settled) == (1, 1)
    assert len(outbox) == 0


def test_a_newer_change_replaces_a_failed_one_before_the_retry():
    outbox = Outbox(10, 10)
    first, _ = offer(outbox, change(1))
    [flying] = outbox.take(10, 0, ALWAYS)
    offer(outbox, change(2))
    outbox.fail(flying, 5.0)
    assert outbox.next_due == 5.0
    offer(outbox, change(3))
    assert outbox.take(10, 4.9, ALWAYS) == []
    [retried] = outbox.take(10, 5.0, ALWAYS)
    assert (retried.change.revision, retried.attempts) == (3, 1)
    outbox.acknowledge(retried)
    assert first.settled == 1


def test_a_removal_ends_a_life_and_the_next_one_counts_from_one():
    outbox = Outbox(10, 10)
    offer(outbox, change(7))
    outbox.acknowledge(outbox.take(1, 0, ALWAYS)[0])
    pending, _ = offer(outbox, change(8))
    removed, became = offer(outbox, removal())
    assert became is Offered.REMOVED
    assert (pending.settled, removed.settled, len(outbox)) == (1, 1, 0)
    _, became = offer(outbox, change(1))
    assert became is Offered.KEPT


def test_another_stream_may_begin_with_revisions_published_before():
    """Of a score table that was made again: revision 7 of the old one, in flight or published, stops nothing."""
    outbox = Outbox(10, 10)
    offer(outbox, change(7, "published"))
    outbox.acknowledge(outbox.take(1, 0, ALWAYS)[0])
    offer(outbox, change(7, "flying"))
    [flying] = outbox.take(1, 0, ALWAYS)
    outbox.forget()
    outbox.acknowledge(flying)
    for user in ("published", "flying"):
        _, became = offer(outbox, change(1, user))
        assert became is Offered.KEPT


def test_an_outcome_of_an_ended_life_says_nothing_of_the_next():
    for outcome in ("told", "failed"):
        outbox = Outbox(10, 10)
        old, _ = offer(outbox, change(7))
        [flying] = outbox.take(1, 0, ALWAYS)
        offer(outbox, removal())
        offer(outbox, change(1))
        if outcome == "told":
            outbox.acknowledge(flying)
        else:
            outbox.fail(flying, 0.0)
        assert old.settled == 1
        [next_life] = outbox.take(1, 0, ALWAYS)
        assert next_life.change.revision == 1
        outbox.acknowledge(next_life)
        assert offer(outbox, change(2))[1] is Offered.KEPT


def test_a_change_is_dropped_only_when_every_lease_it_waits_for_is_lost():
    outbox = Outbox(10, 10)
    lost, _ = offer(outbox, change(1, "a"), "lost")
    both, _ = offer(outbox, change(1, "b"), "lost")
    kept, _ = offer(outbox, change(2, "b"), "held")
    taken = outbox.take(10, 0, lambda shard: shard == "held")
    assert [pending.change.key.user_id for pending in taken] == ["b"]
    assert lost.ticket.lost
    assert both.ticket.lost
    assert (lost.settled, both.settled, kept.settled) == (1, 1, 0)
    outbox.acknowledge(taken[0])
    assert (both.settled, kept.settled) == (1, 1)


def test_a_full_outbox_still_has_room_for_users_it_holds():
    outbox = Outbox(1, 10)
    offer(outbox, change(1, "a"))
    assert outbox.has_room(UserKey("a", "p"))
    assert not outbox.has_room(UserKey("b", "p"))


class Machine(RuleBasedStateMachine):
    """Any order of offers, acknowledgements, failures: the rules at the top of outbox.py hold."""

    flights = Bundle("flights")

    def __init__(self) -> None:
        super().__init__()
        self.outbox = Outbox(1000, 1000)
        self.now = 0.0
        self.waiters: list[Waiter] = []
        self.newest: dict[UserKey, int] = defaultdict(int)
        self.told: dict[UserKey, int] = {}
        self.flying: set[UserKey] = set()

    @rule(user=st.sampled_from("abc"), step=st.integers(-3, 2))
    def offers(self, user: str, step: int) -> None:
        key = UserKey(user, "p")
        revision = max(1, self.newest[key] + step)
        self.newest[key] = max(self.newest[key], revision)
        self.waiters.append(offer(self.outbox, change(revision, user))[0])

    @rule(target=flights, limit=st.integers(1, 3))
    def takes(self, limit: int) -> list[Pending]:
        taken = self.outbox.take(limit, self.now, ALWAYS)
        for pending in taken:
            assert pending.change.key not in self.flying
            assert pending.change.revision >= self.told.get(pending.change.key, 0)
            self.flying.add(pending.change.key)
        return taken

    @rule(flight=consumes(flights), good=st.integers(0, 3), delay=st.floats(0, 10))
    def lands(self, flight: list[Pending], good: int, delay: float) -> None:
        for index, pending in enumerate(flight):
            self.flying.discard(pending.change.key)
            if index < good:
                self.told[pending.change.key] = pending.change.revision
                self.outbox.acknowledge(pending)
            else:
                self.outbox.fail(pending, self.now + delay)

    @rule(seconds=st.floats(0, 20))
    def passes(self, seconds: float) -> None:
        self.now += seconds

    @invariant()
    def nobody_is_told_twice_over(self) -> None:
        assert all(waiter.settled <= 1 for waiter in self.waiters)

    def teardown(self) -> None:
        for key in list(self.flying):
            pending = self.outbox._flying[key]
            self.told[key] = pending.change.revision
            self.outbox.acknowledge(pending)
        while taken := self.outbox.take(10, float("inf"), ALWAYS):
            for pending in taken:
                self.told[pending.change.key] = pending.change.revision
                self.outbox.acknowledge(pending)
        assert self.told == dict(self.newest)
        assert all(waiter.settled == 1 for waiter in self.waiters)
        assert len(self.outbox) == 0


TestMachine = Machine.TestCase
TestMachine.settings = settings(max_examples=100, stateful_step_count=40, deadline=None)
