"""A tail's phases: what may follow what, and what two requests in either order come to."""

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.stream.tail.phase import NEXT, Phase, Progress
from tests.fakes.aio import in_virtual_time

ORDER = list(Phase)


def test_a_tail_never_goes_back():
    assert all(ORDER.index(after) > ORDER.index(before) for before, nexts in NEXT.items() for after in nexts)


@given(asked=st.lists(st.sampled_from(Phase)))
def test_whatever_is_asked_in_whatever_order_only_allowed_phases_follow(asked: list[Phase]):
    progress = Progress()
    passed = [progress.phase]
    for phase in asked:
        allowed = phase in NEXT[progress.phase]
        assert progress.to(phase) is allowed
        assert (progress.phase is phase) or not allowed
        passed.append(progress.phase)
    assert progress.handing_over.is_set() == (Phase.HANDING_OVER in passed)


@pytest.mark.parametrize(
    ("before", "asked", "after"),
    [
        (Phase.FINISHING, Phase.HANDING_OVER, Phase.HANDING_OVER),
        (Phase.HANDING_OVER, Phase.FINISHING, Phase.HANDING_OVER),
        (Phase.DRAINED, Phase.HANDING_OVER, Phase.DRAINED),
        (Phase.READING, Phase.CUT_SHORT, Phase.READING),
    ],
)
def test_a_request_that_comes_too_late_changes_nothing(before: Phase, asked: Phase, after: Phase):
    progress = Progress()
    progress.to(before)
    progress.to(asked)
    assert progress.phase is after


@in_virtual_time
async def test_a_hand_over_can_be_waited_for():
    progress = Progress()
    waiting = asyncio.create_task(progress.handing_over.wait())
    progress.to(Phase.HANDING_OVER)
    await asyncio.wait_for(waiting, 1)
