"""What the fault proxy makes of batch calls: every member is carried out or refused, none both, none neither."""

from random import Random
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from tests.chaos.faults import CALM, KINDS, PARTIAL, STORM, UNAMBIGUOUS, Rates, draw, part_of, refusal

seeds = st.integers(0, 2**32)
sizes = st.integers(1, 60)


def _keys(count: int) -> dict[str, Any]:
    return {
        "RequestItems": {
            "one": {"Keys": list(range(count)), "ConsistentRead": True},
            "two": {"Keys": list(range(count, 2 * count))},
        }
    }


@given(seeds, sizes)
def test_statements_keep_their_places(seed: int, count: int):
    request = {"Statements": list(range(count)), "ReturnConsumedCapacity": "TOTAL"}
    part = part_of("BatchExecuteStatement", request, Random(seed))
    assert part is not None
    done = part.request["Statements"] if part.request else []
    answer = part.complete({"Responses": [{"TableName": str(number)} for number in done]})
    assert len(answer["Responses"]) == count
    assert part.refused == sum("Error" in response for response in answer["Responses"]) == count - len(done) > 0
    for number, response in enumerate(answer["Responses"]):
        assert "Error" in response or response == {"TableName": str(number)}


@given(seeds, sizes)
def test_refused_records_are_counted(seed: int, count: int):
    part = part_of("PutRecords", {"Records": list(range(count)), "StreamName": "s"}, Random(seed))
    assert part is not None
    done = part.request["Records"] if part.request else []
    answer = part.complete({"FailedRecordCount": 0, "Records": [{"SequenceNumber": number} for number in done]})
    assert answer["FailedRecordCount"] == sum("ErrorCode" in record for record in answer["Records"]) == part.refused
    placed = {n: record["SequenceNumber"] for n, record in enumerate(answer["Records"]) if "ErrorCode" not in record}
    assert placed == {number: number for number in done}


@given(seeds, sizes)
def test_keys_are_read_or_left_over_and_something_is_read(seed: int, count: int):
    part = part_of("BatchGetItem", _keys(count), Random(seed))
    assert part is not None
    assert part.request is not None
    asked = part.request["RequestItems"]
    left = part.complete({"Responses": {}, "UnprocessedKeys": {}})["UnprocessedKeys"]
    read = [key for table in asked.values() for key in table["Keys"]]
    unread = [key for table in left.values() for key in table["Keys"]]
    assert sorted(read + unread) == list(range(2 * count))
    assert read
    assert len(unread) == part.refused > 0
    assert all(table.get("ConsistentRead") for name, table in (asked | left).items() if name == "one")


@given(seeds, sizes)
def test_what_was_left_over_already_stays_left_over(seed: int, count: int):
    request = {"RequestItems": {"table": list(range(count + 1))}}
    part = part_of("BatchWriteItem", request, Random(seed))
    assert part is not None
    assert part.request is not None
    answer = part.complete({"UnprocessedItems": {"table": part.request["RequestItems"]["table"][:1]}})
    assert len(answer["UnprocessedItems"]["table"]) == part.refused + 1


def test_a_batch_of_one_read_is_never_left_over():
    assert part_of("BatchGetItem", {"RequestItems": {"table": {"Keys": [1]}}}, Random(1)) is None
    assert part_of("GetItem", {"Key": 1}, Random(1)) is None


@given(seeds)
def test_whether_a_record_was_put_is_always_known(seed: int):
    rng = Random(seed)
    wild = Rates(*([0.15] * 5), partial=0.9)
    drawn = {draw(wild, "PutRecords", rng) for _ in range(200)}
    assert drawn <= UNAMBIGUOUS | {""}


def test_faults_come_as_often_as_asked_for():
    rng = Random(1)
    drawn = [draw(STORM.times(2), "BatchGetItem", rng) for _ in range(20_000)]
    for kind, rate in zip(KINDS[:-1], (0.04, 0.02, 0.06, 0.02, 0.03), strict=True):
        assert abs(drawn.count(kind) / len(drawn) - rate) < 0.01
    assert drawn.count(PARTIAL) > 0
    assert not any(draw(CALM, "BatchGetItem", rng) for _ in range(100))


def test_each_service_refuses_in_its_own_words():
    rng = Random(1)
    said = refusal("pinpoint", "GET endpoints", KINDS[0], rng)
    assert (said.status, said.headers["x-amzn-ErrorType"]) == (429, "TooManyRequestsException")
    assert refusal("kinesis", "GetRecords", KINDS[0], rng).status == 400
    assert b"ProvisionedThroughputExceededException" in refusal("kinesis", "GetRecords", KINDS[0], rng).body
    assert {refusal("dynamodb", "Scan", KINDS[1], rng).status for _ in range(50)} == {500, 503}
