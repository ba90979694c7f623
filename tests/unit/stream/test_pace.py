"""The pace at which a shard is read."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.stream.settings import ShardSettings
from service.stream.tail.pace import QUIET_RECORDS, Pace

KINESIS = ShardSettings()


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
def test_no_wait_is_shorter_than_the_stream_allows_or_longer_than_the_longest(
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
