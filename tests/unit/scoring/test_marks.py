"""Marks by time: what they tell, how small they are, and when they may go."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.scoring.marks import (
    HOUR_MS,
    LONGEST_MS,
    MARGIN_MS,
    UNDATED,
    Mark,
    MarksFormatError,
    UncertainError,
    arrival_ms,
    by_shard,
    marking,
    pack_marks,
    shown,
    undated,
    unpack_marks,
)

START = 49590338271490256608559692538361571095921575989136588898
LATER = 49590338271490256608559692540925702759324208523137515618
"""Two sequence numbers of one shard, as in https://docs.aws.amazon.com/streams/latest/dev/kinesis-record-processor-implementation-app-java.html."""

NOW = 1_795_000_000_000
DAY_MS = 24 * HOUR_MS


def wide(sequence: int) -> bytes:
    return sequence.to_bytes(24, "big")


def mark_at(arrived_ms: int, sequence: int = LATER, starting: int = START) -> Mark:
    return marking("a-1", starting=starting, newest_ms=arrived_ms).set_at(wide(sequence))


shards = st.integers(0, 10**12).map(str) | st.from_regex(r"[a-z]{1,20}-[0-9]{0,4}", fullmatch=True) | st.just("")
streams = st.from_regex(r"[0-9a-zA-Z_-]{8}", fullmatch=True)
tags = st.builds("{}-{}".format, streams, shards) | st.sampled_from(["tag:0", "-", ""])
sequences = st.integers(0, 2**187)
marks = st.builds(mark_at, st.integers(NOW - 2000 * DAY_MS, NOW + 2000 * DAY_MS), sequences, sequences) | st.builds(
    undated, sequences.map(wide)
)


@given(st.dictionaries(tags, marks, max_size=40))
def test_bytes_tell_every_mark(given_marks: dict[str, Mark]):
    assert unpack_marks(pack_marks(given_marks)) == given_marks


@given(st.dictionaries(st.integers(0, 10**12).map("ab-{}".format), marks, min_size=1, max_size=5), st.data())
def test_marks_that_are_cut_off_are_a_named_error(given_marks: dict[str, Mark], data: st.DataObject):
    raw = pack_marks(given_marks)
    cut = data.draw(st.integers(0, len(raw) - 1))
    if cut == 1:
        assert unpack_marks(raw[:cut]) == {}
        return
    with pytest.raises(MarksFormatError):
        unpack_marks(raw[:cut])


@given(st.binary(max_size=60))
def test_any_bytes_are_marks_or_a_named_error(raw: bytes):
    try:
        found = unpack_marks(b"\x01" + raw)
    except MarksFormatError:
        return
    for tag, mark in found.items():
        assert len(marking(tag, starting=START).applied_up_to(mark)) == 24
        shown(mark)


def test_marks_of_another_format_are_a_named_error():
    with pytest.raises(MarksFormatError, match="format 2; this version reads 1"):
        unpack_marks(b"\x02")


@given(sequences, sequences)
def test_a_mark_stands_for_its_record_whether_or_not_the_start_is_known(sequence: int, start: int):
    made = marking("a-1", starting=start, newest_ms=NOW)
    assert made.applied_up_to(made.set_at(wide(sequence))) == wide(sequence)


def test_a_relative_mark_means_nothing_without_the_start():
    mark = mark_at(NOW)
    assert shown(mark) == f"+{LATER - START}"
    with pytest.raises(UncertainError, match="not known"):
        marking("a-1").applied_up_to(mark)


def test_a_mark_of_a_large_stream_takes_at_most_twenty_bytes():
    one = {f"0123abcd-{number}": mark_at(NOW) for number in range(4)}
    many = {f"0123abcd-{number}": mark_at(NOW) for number in range(1_000)}
    assert len(pack_marks(one)) <= 4 * 20 + 13
    assert len(pack_marks(many)) / len(many) <= 20


@given(st.integers(0, 20 * DAY_MS), st.integers(DAY_MS, 8 * DAY_MS))
def test_a_mark_is_kept_while_its_record_can_be_read_again(age_ms: int, keep_ms: int):
    """Whatever applies it now: a record that the stream may still hold is never without its mark."""
    now = marking("a-2", oldest_ms=NOW, newest_ms=NOW, keep_ms=keep_ms // HOUR_MS * HOUR_MS)
    left = by_shard(now.kept({"a-1": mark_at(NOW - age_ms)}))
    if age_ms <= keep_ms + MARGIN_MS - HOUR_MS:
        assert left
    if age_ms > keep_ms + MARGIN_MS + HOUR_MS:
        assert not left


def test_a_worker_that_is_behind_drops_by_the_clock_of_its_records():
    old = {"a-1": mark_at(NOW - 3 * DAY_MS)}
    behind = marking("a-2", oldest_ms=NOW - 3 * DAY_MS, newest_ms=NOW, now_ms=NOW, keep_ms=DAY_MS)
    assert by_shard(behind.kept(old))
    at_the_tip = marking("a-2", oldest_ms=NOW, newest_ms=NOW, now_ms=NOW - 9 * DAY_MS, keep_ms=DAY_MS)
    assert not by_shard(at_the_tip.kept(old))


def test_nothing_is_dropped_while_the_retention_is_not_known():
    old = {"a-1": mark_at(NOW - 900 * DAY_MS)}
    assert marking("a-2", oldest_ms=NOW, newest_ms=NOW).kept(old) == old


def test_a_mark_of_another_stream_is_kept_for_the_longest_retention():
    """Its own retention is not known here: a team that moves to a new stream and back reads the old one again."""
    now = marking("new-2", oldest_ms=NOW, newest_ms=NOW, keep_ms=DAY_MS)
    assert now.kept({"old-1": mark_at(NOW - LONGEST_MS)})
    assert not by_shard(now.kept({"old-1": mark_at(NOW - LONGEST_MS - MARGIN_MS - HOUR_MS)}))


@pytest.mark.parametrize("clock_ms", [NOW - DAY_MS, NOW, NOW + DAY_MS, NOW + 9000 * DAY_MS])
def test_a_mark_without_a_date_gets_the_latest_that_it_can_be_of(clock_ms: int):
    """A score of version 0.1: written by a worker that reads old records, the mark may stand for a new one."""
    behind = marking("a-2", oldest_ms=NOW - 5 * DAY_MS, newest_ms=NOW - 5 * DAY_MS, now_ms=clock_ms, keep_ms=DAY_MS)
    (dated,) = behind.kept({"a-1": undated(wide(LATER))}).values()
    assert (arrival_ms(dated) or 0) // HOUR_MS == max(clock_ms, NOW - 5 * DAY_MS) // HOUR_MS
    assert marking("a-1").applied_up_to(dated) == wide(LATER)
    assert dated < UNDATED


def drop(late_ms: int, keep_ms: int = DAY_MS) -> dict[str, Mark]:
    """Return what is left of a mark of NOW once a record that is so much younger is applied."""
    dropper = marking("a-1", oldest_ms=NOW + late_ms, newest_ms=NOW + late_ms, keep_ms=keep_ms)
    return {**dropper.kept({"a-0": mark_at(NOW)}), "a-1": dropper.set_at(wide(LATER))}


def test_a_batch_that_was_held_for_longer_than_the_margin_is_not_trusted():
    held = marking("a-0", oldest_ms=NOW, newest_ms=NOW + DAY_MS)
    held.check(drop(2 * DAY_MS - HOUR_MS))
    with pytest.raises(UncertainError) as raised:
        held.check(drop(2 * DAY_MS + HOUR_MS))
    assert not raised.value.for_good
    marking("b-0", oldest_ms=NOW).check(drop(2 * DAY_MS + HOUR_MS))  # of another stream nothing was dropped


def test_how_far_marks_were_dropped_is_kept_by_a_worker_that_is_behind():
    left = drop(9 * DAY_MS)
    behind = marking("a-2", oldest_ms=NOW, newest_ms=NOW, keep_ms=DAY_MS)
    after = unpack_marks(pack_marks(behind.kept(left)))
    assert after["a-"] == left["a-"]
    assert by_shard(after).keys() == {"a-1"}


@given(st.integers(0, 10 * DAY_MS), st.integers(0, 10 * DAY_MS), st.integers(1, 4), st.booleans())
def test_what_was_dropped_is_never_taken_for_new(
    late_ms: int,
    span_ms: int,
    days: int,
    shortened: bool,  # noqa: FBT001 - drawn
):
    left = drop(late_ms, days * DAY_MS)
    late = marking("a-0", oldest_ms=NOW, newest_ms=NOW + span_ms, keep_ms=7 * DAY_MS, shortened=shortened)
    if "a-0" in left:
        late.check(left)
        return
    with pytest.raises(UncertainError) as raised:
        late.check(left)
    assert raised.value.for_good == shortened
