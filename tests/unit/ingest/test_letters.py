import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.ingest.letters import publish_letter_id, record_letter_id, sortable, split_letter_id

sequences = st.integers(0, 2**192 - 1)


@given(sequences, sequences)
def test_ids_of_a_shard_differ_and_sort_as_its_records_do(one: int, other: int):
    left, right = record_letter_id("tag-0", str(one)), record_letter_id("tag-0", str(other))
    assert (left < right, left == right) == (one < other, one == other)


@given(sequences)
def test_an_id_splits_into_what_it_was_made_of(sequence: int):
    assert split_letter_id(record_letter_id("t-7", str(sequence))) == ("t-7", sortable(str(sequence)))


def test_a_refused_change_has_one_id_per_sink_and_change():
    assert publish_letter_id("pinpoint", "u", "1") == publish_letter_id("pinpoint", "u", "1")
    assert publish_letter_id("pinpoint", "u", "1") != publish_letter_id("log", "u", "1")
    assert split_letter_id(publish_letter_id("x"))[0] == "publish"


@pytest.mark.parametrize("text", ["", "nothing", ".x", "x."])
def test_what_is_no_id_says_where_to_find_one(text: str):
    with pytest.raises(ValueError, match="dead-letters list"):
        split_letter_id(text)


@pytest.mark.parametrize("sequence", ["-1", str(2**192)])
def test_what_is_no_sequence_number_is_refused(sequence: str):
    with pytest.raises(ValueError, match="not a sequence number"):
        sortable(sequence)
