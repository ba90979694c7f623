"""`FormerUsers`: one suite for the fake and for DynamoDB."""

from __future__ import annotations

import pytest

from service.aws.tables.former import KEPT_DAYS, FormerTable
from service.aws.tables.identities import IdentityTable
from service.ingest.ownership import Former, Position
from service.ingest.stores import AliasKey, FormerUsers
from tests.fakes.embedded import Run
from tests.fakes.former import MemoryFormer

pytestmark = pytest.mark.usefixtures("fast_calls")

PHONE = AliasKey("phone", "p1")
FORMER = (
    Former("ann", Position("tag-0", "9" * 56, 1_700_000_000_000)),
    Former("", Position("tag-1", "7", 1_700_000_000_001)),
)


@pytest.fixture(params=["memory", "dynamodb"])
def former(request: pytest.FixtureRequest) -> FormerUsers:
    if request.param == "memory":
        return MemoryFormer()
    dynamodb = request.getfixturevalue("aws_clients").dynamodb
    return FormerTable(dynamodb, request.getfixturevalue("make_table")("identities"))


def found(former: FormerUsers, run: Run, *keys: AliasKey) -> dict[AliasKey, tuple[Former, ...]]:
    return {key: tuple(users) for key, users in run(former.find(keys)).items()}


def test_an_endpoint_that_never_changed_hands_has_none(former: FormerUsers, run: Run):
    assert found(former, run, PHONE) == found(former, run) == {}


def test_former_users_are_kept_and_replaced_by_project(former: FormerUsers, run: Run):
    other = AliasKey("phone", "p2")
    run(former.keep({PHONE: FORMER, other: FORMER[:1]}))
    run(former.keep({PHONE: FORMER[1:]}))
    assert found(former, run, PHONE, other, PHONE) == {PHONE: FORMER[1:], other: FORMER[:1]}


def test_nothing_kept_is_no_call(former: FormerUsers, run: Run):
    run(former.keep({}))


def test_any_number_is_kept_whatever_the_ids(former: FormerUsers, run: Run):
    many = {AliasKey(f"endpoint-{number}", "p1"): FORMER for number in range(120)}
    odd = {AliasKey(name, "prøject"): FORMER for name in ("Zoë", "a#b", "former#a", "ユ" * 600)}
    run(former.keep(many | odd))
    assert found(former, run, *many, *odd) == many | odd


def test_ids_that_differ_in_case_only_are_one_endpoint(former: FormerUsers, run: Run):
    capitals = AliasKey("PHONE", "p1")
    run(former.keep({capitals: FORMER}))
    assert found(former, run, PHONE, capitals) == {PHONE: FORMER, capitals: FORMER}


def test_rows_expire_and_are_not_the_endpoints_own(run: Run, request: pytest.FixtureRequest):
    dynamodb = request.getfixturevalue("aws_clients").dynamodb
    name = request.getfixturevalue("make_table")("identities")
    run(FormerTable(dynamodb, name, wall_s=lambda: 1000.0).keep({PHONE: FORMER}))
    (item,) = run(dynamodb.scan(TableName=name))["Items"]
    assert item["ExpiresAt"] == {"N": str(1000 + KEPT_DAYS * 86_400)}
    identities = IdentityTable(dynamodb, name)
    assert run(identities.find([PHONE])) == {}
    run(identities.learn({PHONE: "bob"}))
    assert found(FormerTable(dynamodb, name), run, PHONE) == {PHONE: FORMER}
