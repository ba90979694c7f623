"""The pace at which a shard is read."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.app import publishing
from service.config.load import load
from service.stream.settings import ShardSettings
from service.stream.tail.pace import FRESH_S, FULL, QUIET_RECORDS, Pace, Seen

KINESIS = ShardSettings()
TABLE = publishing.shard_settings(load({"SCORING_STREAM": "s", "SCORING_SINKS": "log", "AWS_REGION": "us-east-1"}))
"""As a worker reads the stream of the score table."""


def settled(settings: ShardSettings, per_second: float, *, reads: int = 30, start: float = 0.4) -> list[float]:
    """Return the waits of a shard at its tip that gets so many records a second, less the first ten."""
    pace, now, last = Pace(settings, random.Random(1)), start, 0.0
    waits = []
    for _ in range(reads):
        wait = pace.after(int(now * per_second) - int(last * per_second), now)
        waits.append(wait)
        last, now = now, now + wait
    return waits[10:]


@pytest.mark.parametrize(
    ("per_second", "shortest", "longest"),
    [
        (0, 1.0, 1.0),
        (0.2, 1.0, 1.0),
        (5, 1.0, 1.0),
        (100, 0.8, 1.0),  # 500 records take five seconds: no reason to read sooner than the batch is due
        (1000, 0.5, 0.62),
        (5000, 0.2, 0.2),
    ],
)
def test_a_shard_is_read_as_often_as_it_fills_a_batch(per_second: float, shortest: float, longest: float):
    waits = settled(KINESIS, per_second)
    assert shortest - 0.001 <= min(waits)
    assert max(waits) <= longest + 0.001


def test_quiet_shards_are_read_together_busy_ones_are_not():
    pace = {start: Pace(KINESIS, random.Random(start)) for start in (0.1, 0.47, 0.9, 0.96)}
    now = {start: start for start in pace}
    for _ in range(20):
        now = {start: at + pace[start].after(0, at) for start, at in now.items()}
    assert len({round(at % 1.0, 6) for at in now.values()}) == 1
    for _ in range(20):
        now = {start: at + pace[start].after(QUIET_RECORDS + 1, at) for start, at in now.items()}
    assert len({round(at % 1.0, 6) for at in now.values()}) == len(pace)


def test_a_shard_that_gives_nothing_is_read_less_and_less_often():
    settings = ShardSettings(batch_max_age=0.1, poll_max=5.0)
    pace, now = Pace(settings, random.Random(1)), 100.0
    assert pace.after(1, now) < 0.201
    waits = []
    for _ in range(10):
        waits.append(pace.after(0, now))
        now += waits[-1]
    assert waits[0] < 0.4
    assert 4.9 < waits[-1] < 5.1
    assert pace.after(1, now) < 0.201


@given(
    st.floats(0, 1e6),
    st.lists(st.tuples(st.integers(0, 10_000), st.floats(0, 70)), min_size=1, max_size=30),
    st.sampled_from([0.2, 0.5]),
    st.floats(0.5, 60),
    st.floats(0.01, 60),
)
def test_no_wait_is_outside_the_limits(
    now: float, reads: list[tuple[int, float]], poll_min: float, poll_max: float, batch_max_age: float
):
    settings = ShardSettings(poll_min=poll_min, poll_max=poll_max, batch_max_age=batch_max_age)
    pace = Pace(settings, random.Random(1))
    for records, delay in reads:
        wait = pace.after(records, now)
        assert poll_min <= wait <= poll_max + 0.051
        if records:
            assert wait <= max(poll_min, batch_max_age) + 0.051
        now += wait + delay


def reads_of_a_table(per_second: float, seconds: float, *, backlog: int = 0) -> tuple[int, int, float]:
    """Read a shard of a table's stream; return the number of reads, records left, and the shortest wait.

    Its pages do not say how far behind they are, and a record's time is in whole seconds. The backlog is an hour old.
    """
    pace, now, done, reads, shortest = Pace(TABLE, random.Random(1)), 0.25, 0, 0, float("inf")
    while now < seconds:
        there = backlog + int(now * per_second)
        records = min(TABLE.fetch_limit, there - done)
        done += records
        put_at = -3600.0 if done <= backlog else (done - backlog) / per_second
        age = max(0.0, now - int(put_at)) if records else 0.0
        wait = pace.next(Seen(records, TABLE.fetch_limit, None, age), now)
        reads, shortest, now = reads + 1, min(shortest, wait), now + wait
    return reads, there - done, shortest


@pytest.mark.parametrize("per_second", [0, 1, 90, 110, 500, 990, 1500, 2500, 4000, 20_000])
def test_a_tables_stream_is_read_below_five_times_a_second(per_second: float):
    """It was read back to back from 100 changes a second on: 98 calls a second and shard."""
    reads, left, shortest = reads_of_a_table(per_second, 60)
    assert reads < 5 * 60
    assert shortest > 0.2
    if per_second < 1000:
        # A shard takes no more than 1,000 writes a second: two calls a second are enough for that.
        assert reads <= 2 * 60 + 1
    if per_second < 4500:
        assert left <= TABLE.fetch_limit


def test_a_tables_backlog_is_read_at_nearly_five_pages_a_second():
    reads, left, shortest = reads_of_a_table(100, 60, backlog=200_000)
    assert shortest > 0.2
    assert left <= 100
    assert reads < 205 + 2 * (60 - 205 * TABLE.read_gap)


def test_sparse_pages_of_an_old_backlog_do_not_look_like_the_tip():
    seen = Seen(records=3, limit=1000, behind_s=None, age_s=FRESH_S + 1)
    assert not seen.at_tip
    assert seen.lag_s == FRESH_S + 1
    assert Pace(TABLE, random.Random(1)).next(seen, 0.0) == TABLE.read_gap


pages = st.builds(
    Seen,
    records=st.integers(0, 1000),
    limit=st.just(1000),
    behind_s=st.none() | st.floats(0, 1e6),
    age_s=st.floats(0, 1e6),
)


@given(st.lists(st.tuples(pages, st.floats(0, 5)), min_size=1, max_size=30), st.booleans())
def test_whatever_pages_say_the_gap_is_kept(reads: list[tuple[Seen, float]], throttled: bool):  # noqa: FBT001 - drawn
    pace, now = Pace(TABLE, random.Random(1)), 0.0
    if throttled:
        pace.throttled()
    for seen, delay in reads:
        wait = pace.next(seen, now)
        assert wait >= (TABLE.poll_min if throttled else TABLE.read_gap)
        assert wait <= TABLE.poll_max + 0.051
        now += wait + delay


@given(pages)
def test_a_page_is_at_the_tip_if_stated_or_neither_full_nor_old(seen: Seen):
    if seen.behind_s is None:
        assert seen.at_tip == (seen.records < FULL * seen.limit and seen.age_s <= FRESH_S)
    else:
        assert seen.at_tip == (seen.behind_s == 0 and seen.records < seen.limit)
    assert (seen.lag_s == 0) or not seen.at_tip
