"""Answers that hold a part of what was asked: the rest is asked for again, and kept in its place."""

# ruff: noqa: F811 # parameters are named after fixtures, which are imported
from __future__ import annotations

from typing import Any

import pytest

from service.aws import calls
from service.aws.streams.writer import KinesisWriter, Put
from service.aws.tables.former import FormerTable
from service.aws.tables.identities import IdentityTable
from service.aws.tables.scores import ScoreTable
from service.ingest.stores import AliasKey
from service.observability.metrics import Metrics
from service.runtime.errors import (
    TransientError,
)
from service.scoring.fold import UserKey
from tests.fakes.embedded import Run
from tests.integration.test_aws_faults import (
    ANN,
    Connect,
    Server,
    connect,  # noqa: F401 # a fixture
    listening,  # noqa: F401 # likewise
    server,  # noqa: F401 # likewise
)


def test_refused_records_are_put_again_and_keep_their_places(server: Server, connect: Connect, run: Run):
    landed = [{"ShardId": "s1", "SequenceNumber": str(number)} for number in (1, 2, 3)]
    refused = {"ErrorCode": "ProvisionedThroughputExceededException", "ErrorMessage": "slower"}
    server.answer({"FailedRecordCount": 1, "Records": [landed[0], refused, landed[1]]})
    server.answer({"FailedRecordCount": 0, "Records": [landed[2]]})
    writer = KinesisWriter(connect().kinesis, "events")
    answer = run(writer.put([Put("k", each) for each in (b"a", b"b", b"c")]))
    assert [each.sequence for each in answer] == ["1", "3", "2"]
    assert len(server.asked[1]["Records"]) == 1


def test_records_that_stay_refused_are_an_error(server: Server, connect: Connect, run: Run):
    for _ in range(calls.MAX_ROUNDS):
        server.answer({"FailedRecordCount": 1, "Records": [{"ErrorCode": "InternalFailure", "ErrorMessage": "x"}]})
    with pytest.raises(TransientError, match="InternalFailure"):
        run(KinesisWriter(connect().kinesis, "events").put([Put("k", b"a")]))


def test_unprocessed_keys_and_items_are_asked_again(server: Server, connect: Connect, run: Run):
    table = IdentityTable(connect().dynamodb, "ids", wall_s=lambda: 0.0)
    first, second = AliasKey("1", "p"), AliasKey("2", "p")

    def row(key: AliasKey) -> dict[str, Any]:
        return {"Id": {"S": f"endpoint#{key.value}"}, "PinpointProjectId": {"S": "p"}}

    server.answer(
        {
            "Responses": {"ids": [{**row(first), "UserId": {"S": "a"}}]},
            "UnprocessedKeys": {"ids": {"Keys": [row(second)]}},
        }
    )
    server.answer({"Responses": {"ids": [{**row(second), "UserId": {"S": "b"}}]}, "UnprocessedKeys": {}})
    assert run(table.find([first, second])) == {first: "a", second: "b"}
    assert server.asked[1]["RequestItems"]["ids"]["Keys"] == [row(second)]
    server.asked.clear()
    rows = [{"Id": {"S": f"former#{key.value}"}, "PinpointProjectId": {"S": "p"}} for key in (first, second)]
    server.answer({"UnprocessedItems": {"ids": [{"PutRequest": {"Item": rows[1]}}]}})
    server.answer({"UnprocessedItems": {}})
    run(FormerTable(connect().dynamodb, "ids", wall_s=lambda: 0.0).keep({first: (), second: ()}))
    assert [len(asked["RequestItems"]["ids"]) for asked in server.asked] == [2, 1]


def test_as_long_as_every_call_gets_something_nothing_is_thrown_away(server: Server, connect: Connect, run: Run):
    table, count = IdentityTable(connect().dynamodb, "ids"), calls.MAX_ROUNDS + 2
    rows = [{"Id": {"S": f"endpoint#{number}"}, "PinpointProjectId": {"S": "p"}} for number in range(count)]
    for number, row in enumerate(rows):
        left = {"ids": {"Keys": rows[number + 1 :]}} if number + 1 < count else {}
        server.answer({"Responses": {"ids": [{**row, "UserId": {"S": "ann"}}]}, "UnprocessedKeys": left})
    keys = [AliasKey(str(number), "p") for number in range(count)]
    assert run(table.find(keys)) == dict.fromkeys(keys, "ann")


def test_keys_that_stay_unprocessed_are_a_throttle(server: Server, connect: Connect, run: Run):
    keys = {"Keys": [{"UserId": {"S": "ann"}, "PinpointProjectId": {"S": "p1"}}]}
    for _ in range(calls.MAX_ROUNDS):
        server.answer({"Responses": {}, "UnprocessedKeys": {"scores": keys}})
    with pytest.raises(TransientError, match="unprocessed") as raised:
        run(ScoreTable(connect().dynamodb, "scores", Metrics()).load([ANN]))
    assert raised.value.throttled


def test_one_failing_call_of_many_is_raised_as_it_is(server: Server, connect: Connect, run: Run):
    for _ in range(3):
        server.fail("ThrottlingException")
    with pytest.raises(TransientError):
        run(ScoreTable(connect().dynamodb, "scores", Metrics()).load([UserKey(str(n), "p") for n in range(250)]))
