"""A score's item means the same from a stream's image and from a scan."""

from __future__ import annotations

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from service.scoring.change import change_of, change_of_item

VALUE = st.one_of(
    st.fixed_dictionaries({"N": st.sampled_from(["1", "-2.5", "1E+3", "x", "", "NaN", "99999999999999999999"])}),
    st.fixed_dictionaries({"S": st.sampled_from(["", "ann", "é" * 1_500])}),
    st.fixed_dictionaries({"BOOL": st.booleans()}),
    st.just({}),
)
ITEM = st.dictionaries(
    st.sampled_from(["UserId", "PinpointProjectId", "Score", "Revision", "UpdatedAt", "Other"]), VALUE
)


@given(ITEM)
def test_an_item_means_the_same_from_a_scan_as_from_the_stream(item: dict[str, dict[str, object]]):
    text = msgspec.json.encode(item)
    assert change_of_item(item) == change_of(text, text)
