"""`PipelineStore`: one suite for the fake and for DynamoDB."""

from __future__ import annotations

import pytest

from service.aws.tables.pipeline import PipelineTable
from service.publish.pipeline import PipelineState
from service.scoring.fold import UserKey
from tests.fakes.embedded import Run
from tests.fakes.pipeline import FakePipeline, PipelineRow

pytestmark = pytest.mark.usefixtures("fast_calls")

Store = PipelineTable | FakePipeline


@pytest.fixture(params=["memory", "dynamodb"])
def store(request: pytest.FixtureRequest) -> Store:
    if request.param == "memory":
        return FakePipeline(PipelineRow())
    name = request.getfixturevalue("make_table")("leases")
    return PipelineTable(request.getfixturevalue("aws_clients").dynamodb, name, "publish", "scores")


def test_there_is_no_row_at_first(store: Store, run: Run):
    assert run(store.load()) is None


def test_a_row_is_read_back_as_it_was_written(store: Store, run: Run):
    state = PipelineState(counter=7, stream_arn="arn", owed=3, done=1, running=2, cursor=UserKey("ann ä", "p1"))
    assert run(store.replace(None, state))
    assert run(store.load()) == state
    without = state.completed(2)
    assert run(store.replace(state, without))
    assert run(store.load()) == without


def test_only_the_row_that_was_read_is_replaced(store: Store, run: Run):
    first = PipelineState().owing()
    assert run(store.replace(None, first))
    assert not run(store.replace(None, first.owing()))
    second = first.owing()
    assert run(store.replace(first, second))
    assert not run(store.replace(first, first.completed(1)))
    assert run(store.load()) == second
