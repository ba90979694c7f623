"""`UndefinedStore`: one suite for the fake and for DynamoDB."""

from __future__ import annotations

import pytest

from service.aws.tables.undefined import KEPT_DAYS, UndefinedTable
from service.ingest.stores import Undefined
from tests.fakes.embedded import Run
from tests.fakes.undefined import MemoryUndefined

pytestmark = pytest.mark.usefixtures("fast_calls")

NOW_S = 1_790_000_000
NOW_MS = NOW_S * 1000
CART = Undefined("shop", "cart.abandoned", 3, NOW_MS)


@pytest.fixture(params=["memory", "dynamodb"])
def store(request: pytest.FixtureRequest) -> MemoryUndefined | UndefinedTable:
    if request.param == "memory":
        return MemoryUndefined()
    dynamodb = request.getfixturevalue("aws_clients").dynamodb
    return UndefinedTable(dynamodb, request.getfixturevalue("make_table")("identities"), wall_s=lambda: NOW_S)


def test_nothing_is_there_at_first(store: MemoryUndefined | UndefinedTable, run: Run):
    assert run(store.load()) == []


def test_counts_of_workers_add_up_and_the_most_frequent_comes_first(store: MemoryUndefined | UndefinedTable, run: Run):
    other = Undefined("", "other", 1, NOW_MS)
    run(store.add({("shop", "cart.abandoned"): CART, ("", "other"): other}))
    run(store.add({("shop", "cart.abandoned"): CART}))
    assert run(store.load()) == [Undefined("shop", "cart.abandoned", 6, NOW_MS), other]


def test_a_type_that_has_not_come_for_long_is_forgotten(run: Run, request: pytest.FixtureRequest):
    dynamodb = request.getfixturevalue("aws_clients").dynamodb
    name = request.getfixturevalue("make_table")("identities")
    later = NOW_S + KEPT_DAYS * 86_400 + 1
    run(UndefinedTable(dynamodb, name, wall_s=lambda: NOW_S).add({("shop", "cart.abandoned"): CART}))
    new = Undefined("shop", "cart.filled", 1, later * 1000)
    table = UndefinedTable(dynamodb, name, wall_s=lambda: later)
    run(table.add({("shop", "cart.filled"): new}))
    assert run(table.load()) == [new]
    (item,) = run(dynamodb.scan(TableName=name))["Items"]
    assert item["ExpiresAt"] == {"N": str(later + KEPT_DAYS * 86_400)}
