"""Token buckets, faults and what is counted at the wire: all pure."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.local.meter import Counts
from service.local.pinpoint_fake.faults import MAX_FAULTS, Fault, Faults
from service.local.pinpoint_fake.quotas import AWS_DEFAULT, UNLIMITED, Throttle, TokenBucket, parse_quotas
from service.local.request_counts import MAX_OPERATIONS, OTHERS, OURS, Tally, caller_of


def test_quotas_are_read_from_text():
    assert parse_quotas("none") == UNLIMITED
    assert parse_quotas("aws") == AWS_DEFAULT
    assert parse_quotas("GetEndpoint=2.5, *=100") == {"GetEndpoint": 2.5, "*": 100.0}


@pytest.mark.parametrize("text", ["GetEndpoint", "GetEndpoint=", "=3", "GetEndpoint=0", "GetEndpoint=-1", "x=y"])
def test_quotas_that_are_no_quotas(text: str):
    with pytest.raises(ValueError, match="quotas"):
        parse_quotas(text)


def test_a_throttle_admits_the_burst_and_then_the_rate():
    throttle = Throttle({"GetEndpoint": 2, "*": 1})
    assert [throttle.admits("GetEndpoint", 0.0) for _ in range(3)] == [True, True, False]
    assert [throttle.admits("GetEndpoint", 0.5) for _ in range(2)] == [True, False]
    assert [throttle.admits("DeleteApp", 0.5) for _ in range(2)] == [True, False]
    assert all(Throttle().admits("GetEndpoint", 0.0) for _ in range(1000))


@given(st.lists(st.floats(0, 10), max_size=200), st.integers(1, 20))
def test_a_bucket_never_gives_more_than_burst_plus_rate(waits: list[float], rate: int):
    bucket, now, given_out = TokenBucket(rate, rate, rate, 0.0), 0.0, 0
    for wait in waits:
        now += wait
        given_out += bucket.take(now)
    assert given_out <= rate + rate * now + 1e-6


def test_faults_meet_their_operation_as_often_as_asked_for():
    faults = Faults()
    faults.add(Fault(operation="GetEndpoint", times=2, status=500))
    faults.add(Fault(operation="*", status=429))
    met = [faults.next(name) for name in ("GetEndpoint", "DeleteApp", "GetEndpoint", "GetEndpoint")]
    assert [fault and fault.status for fault in met] == [500, 429, 500, None]


def test_waiting_faults_are_bounded():
    faults = Faults()
    for _ in range(MAX_FAULTS):
        faults.add(Fault(operation="*"))
    with pytest.raises(ValueError, match="waiting"):
        faults.add(Fault(operation="*"))


def test_callers_are_told_apart_by_their_product_token():
    assert caller_of("aiobotocore/3.9.2 md/Botocore ua/2.1 engagement-scoring/0.1.0") == OURS
    assert caller_of("Boto3/1.43") == OTHERS


def test_operations_told_apart_are_bounded():
    tally = Tally()
    for n in range(MAX_OPERATIONS + 50):
        tally.add(f"dynamodb.Op{n}")
    assert len(tally.operations) == MAX_OPERATIONS + 1
    assert tally.operations["other.Other"].requests == 50


def test_counts_are_compared():
    before, after = Tally(), Tally()
    before.add("dynamodb.BatchExecuteStatement", members=25, write_units=25)
    for _ in range(3):
        after.add("dynamodb.BatchExecuteStatement", members=25, write_units=26)
    after.add("pinpoint.GetEndpoint")
    counts = Counts(Tally.from_json(after.as_json()).operations).since(Counts(before.operations))
    assert (counts.requests, counts.write_units) == (3, 53)
    assert counts.by_operation == {"dynamodb.BatchExecuteStatement": 2, "pinpoint.GetEndpoint": 1}
