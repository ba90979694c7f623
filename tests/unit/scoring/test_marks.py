"""Marks by time: what they tell, how small they are, and when they may go."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.scoring.marks import (
    HOUR_MS,
    MARGIN_MS,
    Mark,
    MarksFormatError,
    applied_up_to,
    kept,
    mark_of,
    pack_marks,
    unpack_marks,
)

START = 49590338271490256608559692538361571095921575989136588898
LATER = 49590338271490256608559692540925702759324208523137515618
"""Two sequence numbers of one shard, as in https://docs.aws.amazon.com/streams/latest/dev/kinesis-record-processor-implementation-app-java.html."""

NOW = 1_795_000_000_000
DAY_MS = 24 * HOUR_MS

shards = st.integers(0, 10**12).map(str) | st.from_regex(r"[a-z]{1,20}-[0-9]{0,4}", fullmatch=True)
tags = st.builds(lambda stream, shard: f"{stream}-{shard}", st.from_regex(r"[0-9a-f]{8}", fullmatch=True), shards)
marks = st.builds(Mark, st.integers(0, 2**187), st.integers(438_288, 438_288 + 2**24 - 1), st.booleans())


@given(st.dictionaries(tags, marks, max_size=40))
def test_bytes_tell_every_mark(given_marks: dict[str, Mark]):
    assert unpack_marks(pack_marks(given_marks)) == given_marks


@given(st.dictionaries(shards.map("ab-{}".format), marks, min_size=1, max_size=5), st.data())
def test_marks_that_are_cut_off_are_a_named_error(given_marks: dict[str, Mark], data: st.DataObject):
    raw = pack_marks(given_marks)
    cut = data.draw(st.integers(0, len(raw) - 1))
    if cut == 1:
        assert unpack_marks(raw[:cut]) == {}
        return
    with pytest.raises(MarksFormatError):
        unpack_marks(raw[:cut])


@given(st.integers(0, 2**187), st.integers(0, 2**187))
def test_a_mark_stands_for_its_record_whether_or_not_the_start_is_known(sequence: int, start: int):
    assert applied_up_to(mark_of(sequence, start, NOW), start) == sequence


def test_a_relative_mark_means_nothing_without_the_start():
    with pytest.raises(ValueError, match="not known"):
        applied_up_to(mark_of(LATER, START, NOW), 0)


def test_a_mark_of_a_large_stream_takes_at_most_twenty_bytes():
    one = {f"0123abcd-{number}": mark_of(LATER, START, NOW) for number in range(4)}
    many = {f"0123abcd-{number}": mark_of(LATER, START, NOW) for number in range(1_000)}
    assert len(pack_marks(one)) <= 4 * 20 + 12
    assert len(pack_marks(many)) / len(many) <= 20


@given(st.integers(0, 20 * DAY_MS), st.integers(DAY_MS, 8 * DAY_MS))
def test_a_mark_is_kept_while_its_record_can_be_read_again(age_ms: int, retention_ms: int):
    """Whatever applies it now: a record that the stream may still hold is never without its mark."""
    left = kept({"a-1": mark_of(LATER, START, NOW - age_ms)}, NOW, retention_ms)
    if age_ms <= retention_ms + MARGIN_MS:
        assert left
    if age_ms > retention_ms + MARGIN_MS + HOUR_MS:
        assert not left
