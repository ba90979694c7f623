import asyncio
import random
from collections.abc import Sequence
from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.ingest.commit import Committer, Groups, Tally
from service.ingest.stores import Change
from service.observability.metrics import Metrics
from service.runtime.adaptive_limit import AdaptiveLimit
from service.runtime.errors import TransientError
from service.scoring.event import Reason, Rejected
from service.scoring.fold import ABSENT, Scorable, ScoreState, UserKey, fold, sequence_bytes
from service.scoring.marks import marking
from tests.fakes.aio import VirtualClock, in_virtual_time, run
from tests.fakes.scores import MemoryScores

SHARD = "stream-0"


def user(name: str) -> UserKey:
    return UserKey(name, "project")


def event(sequence: int, points: int | str = 1, event_type: str = "open") -> Scorable:
    return Scorable(sequence_bytes(str(sequence)), Decimal(points), sequence * 10, event_type)


def committer(store: MemoryScores, metrics: Metrics | None = None, cache: int = 100) -> Committer:
    return Committer(
        store, VirtualClock(), metrics or Metrics(), AdaptiveLimit(), cache_entries=cache, rng=random.Random(1)
    )


def commit(store: MemoryScores, *batches: Groups, metrics: Metrics | None = None, cache: int = 100) -> list[Tally]:
    async def main() -> list[Tally]:
        subject = committer(store, metrics, cache)
        return [await subject.commit(marking(SHARD), groups) for groups in batches]

    return run(main())


def score(store: MemoryScores, name: str) -> Decimal | None:
    state = store.items[user(name)]
    assert isinstance(state, ScoreState)
    return state.score


def value(metrics: Metrics, name: str, **labels: str) -> float:
    return metrics.registry.get_sample_value(f"scoring_{name}", labels) or 0


def test_a_batch_costs_one_write_a_user_and_one_call_for_25_of_them():
    store = MemoryScores()
    [tally] = commit(store, {user(str(n)): [event(n * 10 + 1), event(n * 10 + 2)] for n in range(60)})
    assert (tally.scored, tally.replayed, tally.refused) == (120, 0, {})
    assert (store.loads, store.commits, store.written) == (1, 3, 60)
    assert score(store, "59") == 2


def test_the_last_state_is_remembered_for_the_next_batch():
    store = MemoryScores()
    commit(store, {user("a"): [event(1)]}, {user("a"): [event(2)]})
    assert (store.loads, store.written, score(store, "a")) == (1, 2, 2)


def test_a_replay_writes_nothing():
    store = MemoryScores()
    batch = {user("a"): [event(1), event(2)]}
    first, second = commit(store, batch, batch)
    assert (first.scored, second.scored, second.replayed) == (2, 0, 2)
    assert (store.written, score(store, "a")) == (1, 2)


def test_a_lost_response_is_harmless():
    store = MemoryScores()
    store.lost_responses = 1
    [tally] = commit(store, {user("a"): [event(1, 5)], user("b"): [event(2, 7)]})
    assert tally.scored + tally.replayed == 2
    assert (score(store, "a"), score(store, "b"), store.written) == (5, 7, 2)


def test_a_rival_worker_that_wrote_first_costs_that_user_one_more_try():
    store = MemoryScores()

    def interfere(changes: Sequence[Change]) -> None:
        store.before_commit = None
        folded = fold(ABSENT, marking("stream-1"), [event(9, 100)])
        assert folded is not None
        assert user("a") in [change.key for change in changes]
        store.items[user("a")] = folded.after

    store.before_commit = interfere
    metrics = Metrics()
    [tally] = commit(store, {user("a"): [event(1)], user("b"): [event(2)]}, metrics=metrics)
    assert tally.scored == 2
    assert (score(store, "a"), score(store, "b")) == (101, 1)
    assert value(metrics, "commits_total", outcome="conflict") == 1
    assert value(metrics, "commits_total", outcome="written") == 2


def test_throttled_users_are_written_in_the_end_and_the_concurrency_falls():
    store = MemoryScores()
    store.throttled = 30
    metrics = Metrics()
    [tally] = commit(store, {user(str(n)): [event(n + 1)] for n in range(100)}, metrics=metrics)
    assert (tally.scored, store.written) == (100, 100)
    assert value(metrics, "commits_total", outcome="throttled") == 30


def test_an_unreachable_table_is_said_and_a_second_call_finishes_the_work():
    store = MemoryScores()
    store.faults.append(TransientError("unreachable"))

    async def main() -> Tally:
        subject = committer(store)
        with pytest.raises(TransientError):
            await subject.commit(marking(SHARD), {user("a"): [event(1)]})
        return await subject.commit(marking(SHARD), {user("a"): [event(1)]})

    assert run(main()).scored == 1


def test_items_that_are_no_scores_are_refused_and_the_others_written():
    store = MemoryScores()
    store.spoil(user("bad"))
    [tally] = commit(store, {user("bad"): [event(1)], user("good"): [event(2)]})
    assert {key: refusal.why for key, refusal in tally.refused.items()} == {
        user("bad"): Rejected(Reason.BAD_SCORE_ITEM, "Score is not a number")
    }
    assert (tally.scored, score(store, "good")) == (1, 1)


def test_an_item_of_the_old_system_is_adopted_with_what_it_holds():
    store = MemoryScores()
    store.put_foreign(user("a"), Decimal(40))
    store.put_foreign(user("b"), None)
    commit(store, {user("a"): [event(1, 2)], user("b"): [event(2, 3)]})
    assert (score(store, "a"), score(store, "b")) == (42, 3)


@in_virtual_time
async def test_increments_of_others_survive_between_two_batches():
    store = MemoryScores()

    subject = committer(store)
    await subject.commit(marking(SHARD), {user("a"): [event(1, 1)]})
    store.increment(user("a"), Decimal(1000))
    await subject.commit(marking(SHARD), {user("a"): [event(2, 1)]})
    assert score(store, "a") == 1002


@in_virtual_time
async def test_a_removed_item_begins_anew():
    store = MemoryScores()

    subject = committer(store)
    await subject.commit(marking(SHARD), {user("a"): [event(1, 5)]})
    store.remove(user("a"))
    await subject.commit(marking(SHARD), {user("a"): [event(2, 7)]})
    assert score(store, "a") == 7


@in_virtual_time
async def test_shards_that_meet_on_a_user_take_turns():
    store = MemoryScores()
    metrics = Metrics()

    subject = committer(store, metrics)
    async with asyncio.TaskGroup() as shards:
        for shard in range(8):
            groups = {user(str(n)): [event(shard * 100 + n + 1)] for n in range(40)}
            shards.create_task(subject.commit(marking(f"stream-{shard}"), groups))
    assert store.written == 8 * 40
    assert {score(store, str(n)) for n in range(40)} == {Decimal(8)}
    assert value(metrics, "commits_total", outcome="conflict") == 0


def test_a_cancelled_commit_holds_nobody_up():
    store = MemoryScores()

    async def main() -> Tally:
        subject = committer(store)
        first = asyncio.create_task(subject.commit(marking(SHARD), {user("a"): [event(1)]}))
        await asyncio.sleep(0)
        first.cancel()
        await asyncio.wait([first])
        return await subject.commit(marking("stream-1"), {user("a"): [event(1)]})

    assert run(main()).scored == 1


def test_a_stale_absence_is_found_out_by_the_write():
    store = MemoryScores()
    commit(store, {user("a"): [event(1, 5)]})
    store.stale, before = {}, store.loads
    [tally] = commit(store, {user("a"): [event(1, 5), event(2, 7)]})
    assert (tally.scored, tally.replayed, score(store, "a")) == (1, 1, 12)
    assert store.loads - before == 2, "once cheaply; once consistently, as a failed insert brings no item"


def test_a_stale_state_conflicts_and_the_answer_brings_what_is_stored():
    store = MemoryScores()
    commit(store, {user("a"): [event(1, 5)]})
    store.stale = dict(store.items)
    commit(store, {user("a"): [event(2, 7)]})
    before = store.loads
    [tally] = commit(store, {user("a"): [event(2, 7), event(3, 1)]})
    assert (tally.scored, tally.replayed, score(store, "a"), store.loads - before) == (1, 1, 13, 1)


def test_an_item_that_was_repaired_is_not_refused_by_a_stale_read():
    store = MemoryScores()
    commit(store, {user("a"): [event(1, 5)]})
    store.stale = {user("a"): Rejected(Reason.BAD_SCORE_ITEM, "Score is not a number")}
    [tally] = commit(store, {user("a"): [event(2, 7)]})
    assert (tally.refused, score(store, "a")) == ({}, 12)


def test_the_marketers_statistics_count_what_was_added_and_no_replay():
    store = MemoryScores()
    metrics = Metrics()
    batch = {user("a"): [event(1, 60, "click"), event(2, -5, "bounce")], user("b"): [event(3, 10, "click")]}
    commit(store, batch, batch, metrics=metrics)
    assert value(metrics, "events_total", event_type="click") == 2
    assert value(metrics, "points_given_total", event_type="click") == 70
    assert value(metrics, "points_taken_total", event_type="bounce") == 5
    assert value(metrics, "band_entered_total", band="50-100") == 1
    assert value(metrics, "band_entered_total", band="10-50") == 1


@settings(max_examples=60, deadline=None)
@given(st.data())
@in_virtual_time
async def test_whatever_fails_every_event_counts_once(data: st.DataObject):
    """Two workers with small caches commit the same two shards, in overlapping batches, on a table with faults."""
    users = [user(name) for name in "abcd"]
    shards = {
        f"stream-{shard}": [(data.draw(st.sampled_from(users)), event(n + 1, shard * 100 + 1)) for n in range(8)]
        for shard in range(2)
    }
    store = MemoryScores()

    async def read(subject: Committer, tag: str, batch: int) -> None:
        records = shards[tag]
        for start in range(0, len(records), batch):
            # Each batch begins two records early: a restart behind what was done.
            groups: dict[UserKey, list[Scorable]] = {}
            for key, scorable in records[max(0, start - 2) : start + batch]:
                groups.setdefault(key, []).append(scorable)
            while True:
                store.lost_responses = data.draw(st.integers(0, 1))
                store.throttled = data.draw(st.integers(0, 2))
                try:
                    await subject.commit(marking(tag), groups)
                except TransientError:
                    continue
                break
            await asyncio.sleep(0)

    async with asyncio.TaskGroup() as workers:
        for _ in range(2):
            subject = committer(store, cache=2)
            for tag in shards:
                workers.create_task(read(subject, tag, data.draw(st.integers(1, 4))))
    for key in users:
        expected = sum(scorable.points for records in shards.values() for owner, scorable in records if owner == key)
        state = store.items.get(key)
        assert (state.score if isinstance(state, ScoreState) else 0) == expected
