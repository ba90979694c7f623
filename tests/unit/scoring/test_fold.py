from collections.abc import Sequence
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.scoring.fold import ABSENT, Origin, Scorable, ScoreState, fold, sequence_bytes
from service.scoring.marks import UncertainError, by_shard, marking

points = st.decimals(min_value=-(10**6), max_value=10**6, places=3, allow_nan=False, allow_infinity=False)


@st.composite
def shard_events(draw: st.DrawFn) -> list[Scorable]:
    numbers = draw(st.lists(st.integers(1, 10**55), unique=True, max_size=12).map(sorted))
    return [Scorable(sequence_bytes(str(n)), draw(points), draw(st.integers(0, 10**6))) for n in numbers]


NOW = 1_795_000_000_000
S0 = marking("s-0")


def apply(state: ScoreState, tag: str, events: Sequence[Scorable], **times: int) -> ScoreState:
    folded = fold(state, marking(tag, **times), events)
    return state if folded is None else folded.after


def test_a_new_user_starts_with_the_points_of_the_first_batch():
    events = [Scorable(sequence_bytes("5"), Decimal(50), 100), Scorable(sequence_bytes("9"), Decimal("-0.5"), 90)]
    folded = fold(ABSENT, S0, events)
    assert folded is not None
    assert (folded.points, folded.counted) == (Decimal("49.5"), 2)
    assert folded.after == ScoreState(Origin.OURS, Decimal("49.5"), 1, {"s-0": S0.set_at(sequence_bytes("9"))}, 100)


def test_a_foreign_item_is_adopted_with_its_score():
    foreign = ScoreState(Origin.FOREIGN, Decimal(7), 0, {}, 0)
    folded = fold(foreign, S0, [Scorable(sequence_bytes("1"), Decimal(3), 1)])
    assert folded is not None
    assert (folded.after.score, folded.after.revision, folded.after.origin) == (Decimal(10), 1, Origin.OURS)
    no_score = ScoreState(Origin.FOREIGN, None, 0, {}, 0)
    assert apply(no_score, "s-0", [Scorable(sequence_bytes("1"), Decimal(3), 1)]).score == Decimal(3)


def test_only_marks_of_unreadable_records_are_dropped():
    hour = 3_600_000
    state = apply(ABSENT, "s-0", [Scorable(sequence_bytes("1"), Decimal(1), 0)], newest_ms=NOW - 49 * hour)
    state = apply(state, "s-1", [Scorable(sequence_bytes("1"), Decimal(1), 0)], newest_ms=NOW - 48 * hour)
    times = {"oldest_ms": NOW, "newest_ms": NOW, "keep_ms": 24 * hour}
    after = apply(state, "s-2", [Scorable(sequence_bytes("1"), Decimal(1), 0)], **times)
    assert by_shard(after.applied).keys() == {"s-1", "s-2"}


def test_an_event_whose_mark_may_have_been_dropped_is_not_counted_again():
    """A batch that was held for days, as by a stopped process, meets a score that went on without it."""
    hour, one = 3_600_000, [Scorable(sequence_bytes("1"), Decimal(1), 0)]
    state = apply(ABSENT, "s-0", one, newest_ms=NOW - 60 * hour)
    gone_on = apply(state, "s-1", one, oldest_ms=NOW, newest_ms=NOW, keep_ms=24 * hour)
    assert "s-0" not in gone_on.applied
    held = marking("s-0", oldest_ms=NOW - 60 * hour, newest_ms=NOW - 60 * hour, now_ms=NOW)
    with pytest.raises(UncertainError) as raised:
        fold(gone_on, held, one)
    assert not raised.value.for_good
    assert fold(gone_on, marking("s-0", oldest_ms=NOW - hour, newest_ms=NOW), one) is not None


def test_sums_beyond_28_digits_stay_exact():
    state = ScoreState(Origin.OURS, Decimal("1" * 30), 1, {}, 0)
    after = apply(state, "s-0", [Scorable(sequence_bytes("1"), Decimal("0.000001"), 0)])
    assert after.score == Decimal("1" * 30 + ".000001")


def test_sequence_bytes_have_one_width_and_keep_their_order():
    old, new = "49590338271490256608559692538361571095921575989136588898", "4" * 56
    assert len(sequence_bytes(old)) == len(sequence_bytes(new)) == 24
    assert (int(old) < int(new)) == (sequence_bytes(old) < sequence_bytes(new))
    assert sequence_bytes("9") < sequence_bytes("10")


@given(shard_events(), st.data())
def test_any_split_into_batches_with_any_replay_gives_the_sum(events: list[Scorable], data: st.DataObject):
    state, read = ABSENT, 0
    while read < len(events):
        start = data.draw(st.integers(0, read), label="replay from")
        read = data.draw(st.integers(read + 1, len(events)), label="up to")
        state = apply(state, "s-0", events[start:read])
    assert fold(state, S0, events) is None
    assert (state.score or 0) == sum(event.points for event in events)


@given(shard_events(), shard_events(), st.data())
def test_any_interleaving_of_two_shards_with_replays_gives_the_sum(
    left: list[Scorable], right: list[Scorable], data: st.DataObject
):
    state = ABSENT
    read = {"s-0": 0, "s-1": 0}
    shards = {"s-0": left, "s-1": right}
    while any(read[tag] < len(events) for tag, events in shards.items()):
        tag = data.draw(st.sampled_from([t for t, events in shards.items() if read[t] < len(events)]))
        start = data.draw(st.integers(0, read[tag]), label="replay from")
        end = data.draw(st.integers(read[tag] + 1, len(shards[tag])), label="up to")
        state = apply(state, tag, shards[tag][start:end])
        read[tag] = end
    for tag, events in shards.items():  # a full replay of everything changes nothing any more
        assert fold(state, marking(tag), events) is None
    assert (state.score or 0) == sum(event.points for event in left + right)


@given(shard_events())
def test_each_fold_that_writes_moves_the_revision_by_one(events: list[Scorable]):
    state = ABSENT
    for event in events:
        folded = fold(state, S0, [event])
        assert folded is not None
        assert folded.before is state
        assert folded.after.revision == state.revision + 1
        assert folded.points == event.points
        state = folded.after
