"""Which user an endpoint belonged to, at every position."""

from __future__ import annotations

from bisect import bisect_left

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from service.ingest.ownership import MAX_FORMER, NOBODY, Former, Ownership, Position, after_naming


def at(sequence: int, shard: str = "s", arrival_ms: int | None = None) -> Position:
    return Position(shard, str(sequence), sequence if arrival_ms is None else arrival_ms)


def test_a_change_of_hands_keeps_who_it_was_before():
    kiosk = Ownership("u1").named("u2", at(20))
    assert [kiosk.at(at(sequence)) for sequence in (1, 19, 20, 21)] == ["u1", "u1", "u2", "u2"]


def test_signing_out_is_a_naming_too():
    kiosk = Ownership("u1").named(NOBODY, at(20)).named("u2", at(30))
    assert [kiosk.at(at(sequence)) for sequence in (10, 20, 29, 30)] == ["u1", NOBODY, NOBODY, "u2"]


def test_a_naming_that_is_read_again_changes_nothing():
    once = Ownership("u1").named("u2", at(20)).named("u1", at(30))
    assert once.named("u2", at(20)).named("u1", at(30)) == once
    assert once.named("u2", at(25)) == once


def test_a_naming_from_a_shard_that_is_behind_does_not_undo_a_later_one():
    """The last one told used to win: an endpoint went back to a former user when a slow shard caught up."""
    kiosk = Ownership("u1").named("u3", at(5, "fast", arrival_ms=300)).named("u2", at(9, "slow", arrival_ms=200))
    assert kiosk.user_id == "u3"
    arrivals = {arrival: kiosk.at(at(1, "other", arrival_ms=arrival)) for arrival in (199, 200, 299, 300)}
    assert arrivals == {199: "u1", 200: "u2", 299: "u2", 300: "u3"}


def test_within_a_shard_the_sequence_number_decides_not_the_clock():
    kiosk = Ownership("u1").named("u2", at(20, arrival_ms=1000))
    assert kiosk.at(at(19, arrival_ms=2000)) == "u1"
    assert kiosk.at(at(21, arrival_ms=10)) == "u2"
    assert kiosk.at(Position("s", "9" * 56, 0)) == "u2"


def test_a_first_naming_is_kept_without_a_position():
    assert after_naming(None, "u1", at(7)) == Ownership("u1")


def test_former_users_are_bounded():
    kiosk = Ownership("u0")
    for number in range(1, 100):
        kiosk = kiosk.named(f"u{number}", at(number))
    assert len(kiosk.former) == MAX_FORMER
    assert kiosk.at(at(98)) == "u98"
    assert kiosk.at(at(0)) == kiosk.former[0].user_id


namings = st.lists(st.tuples(st.integers(1, 60), st.sampled_from(["u1", "u2", NOBODY])), max_size=MAX_FORMER)


@given(namings, st.lists(st.integers(0, MAX_FORMER), max_size=4))
def test_reading_a_shard_again_from_anywhere_changes_nothing(pairs: list[tuple[int, str]], again_from: list[int]):
    in_order = sorted(dict(pairs).items())
    kiosk = Ownership("u0")
    for start in (0, *again_from):
        for sequence, user in in_order[start:]:
            kiosk = kiosk.named(user, at(sequence))
    for sequence in range(62):
        before = bisect_left(in_order, (sequence + 1, ""))
        assert kiosk.at(at(sequence)) == (in_order[before - 1][1] if before else "u0")


def test_it_is_json_that_a_person_can_read():
    former = Ownership("u1").named("u2", at(20)).former
    text = msgspec.json.encode(former)
    assert text == b'[["u1",["s","20",20]]]'
    assert msgspec.json.decode(text, type=tuple[Former, ...]) == former
