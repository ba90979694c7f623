"""The adapters before a server that throttles, fails, forgets and hangs up: botocore is real, the server is not AWS."""

from __future__ import annotations

import asyncio
import json
import os
import socket
from collections import deque
from collections.abc import Callable, Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec
import pytest
from aiohttp import web

from service.aws import calls
from service.aws.clients import AwsSettings, Clients, clients
from service.aws.streams.dynamodb_streams import DynamoDbStreamSource
from service.aws.streams.kinesis import KinesisSource
from service.aws.tables.dead_letters import DeadLetterTable
from service.aws.tables.identities import IdentityTable
from service.aws.tables.scores import ScoreTable
from service.aws.translation import AwsSetupError
from service.ingest.stores import AliasKey, Change, Committed, Conflict, DeadLetter, Throttled
from service.observability.metrics import Metrics
from service.runtime.errors import (
    IteratorExpiredError,
    RecordsTrimmedError,
    ShardGoneError,
    TransientError,
    Trouble,
    TroubleError,
)
from service.scoring.event import Reason, Rejected
from service.scoring.fold import ABSENT, Folded, Origin, ScoreState, UserKey
from service.scoring.marks import marking
from service.stream.ports import Shard, StreamId
from tests.fakes.embedded import Run

HANG_UP = "hang up"
PATIENCE_S = 30.0
"""Of the clients: nothing here waits for it, and a loaded machine may well take a second to answer."""
STREAM = StreamId("events", "arn:aws:kinesis:us-east-1:000000000000:stream/events", "tag1")
ANN = UserKey("ann", "p1")


class Server:
    """Answers what is queued, in order; keeps what was asked."""

    def __init__(self) -> None:
        self.answers: deque[Any] = deque()
        self.asked: list[dict[str, Any]] = []

    def fail(self, code: str, status: int = 400) -> None:
        self.answers.append((status, {"__type": code, "message": f"{code}, says the server"}))

    def answer(self, body: dict[str, Any]) -> None:
        self.answers.append((200, body))

    async def handle(self, request: web.Request) -> web.Response:
        self.asked.append(json.loads(await request.read()))
        answer = self.answers.popleft()
        if answer == HANG_UP:
            assert request.transport is not None
            request.transport.abort()
            raise asyncio.CancelledError
        status, body = answer
        if isinstance(body, bytes):
            return web.Response(status=status, body=body, content_type="text/html")
        return web.Response(status=status, body=json.dumps(body), content_type="application/x-amz-json-1.0")


Connect = Callable[..., Clients]


@pytest.fixture(scope="module")
def listening(runner: asyncio.Runner) -> Iterator[tuple[Server, int]]:
    server = Server()
    app = web.Application()
    app.router.add_post("/", server.handle)
    site = web.AppRunner(app)
    runner.run(site.setup())
    runner.run(web.TCPSite(site, "127.0.0.1", 0).start())
    yield server, site.addresses[0][1]
    runner.run(site.cleanup())


@pytest.fixture(scope="module", params=[True, False], ids=["fast calls", "stock calls"])
def connect(request: pytest.FixtureRequest, listening: tuple[Server, int], runner: asyncio.Runner) -> Iterator[Connect]:
    """Make clients of the server; those without metrics are shared, because making them takes 0.3 s."""
    made: dict[Any, Clients] = {}
    contexts = []

    def connect(*, attempts: int = 1, port: int = listening[1], metrics: Metrics | None = None) -> Clients:
        which = (attempts, port, metrics, os.environ.get("AWS_ACCESS_KEY_ID"))
        if which not in made:
            environment.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{port}")
            settings = AwsSettings(
                region="us-east-1",
                attempts=attempts,
                connect_timeout_s=PATIENCE_S,
                read_timeout_s=PATIENCE_S,
                fast_calls=request.param,
            )
            contexts.append(clients(settings, metrics))
            made[which] = runner.run(contexts[-1].__aenter__())
        return made[which]

    with pytest.MonkeyPatch.context() as environment:
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            environment.setenv(name, "test")
        yield connect
        for context in contexts:
            runner.run(context.__aexit__(None, None, None))


@pytest.fixture
def server(listening: tuple[Server, int], monkeypatch: pytest.MonkeyPatch) -> Server:
    monkeypatch.setattr(calls, "BACKOFF_BASE_S", 0.0)
    listening[0].answers.clear()
    listening[0].asked.clear()
    return listening[0]


@pytest.mark.parametrize(
    ("code", "status", "throttled"),
    [
        ("ProvisionedThroughputExceededException", 400, True),
        ("ThrottlingException", 400, True),
        ("LimitExceededException", 400, True),
        ("KMSThrottlingException", 400, True),
        ("RequestLimitExceeded", 400, True),
        ("TooManyRequestsException", 429, True),
        ("Whatever", 429, True),
        ("InternalServerError", 500, False),
        ("ServiceUnavailable", 503, False),
        ("Whatever", 502, False),
        ("ExpiredTokenException", 400, False),
        ("ExpiredNextTokenException", 400, False),
    ],
)
def test_what_passes_is_transient(
    server: Server,
    connect: Connect,
    run: Run,
    code: str,
    status: int,
    throttled: bool,  # noqa: FBT001
):
    server.fail(code, status)
    with pytest.raises(TransientError, match="stream events") as raised:
        run(KinesisSource(connect().kinesis, STREAM, 0).list_shards())
    assert raised.value.throttled is throttled


@pytest.mark.parametrize(
    ("code", "error"),
    [
        ("ExpiredIteratorException", IteratorExpiredError),
        ("TrimmedDataAccessException", RecordsTrimmedError),
        ("ResourceNotFoundException", ShardGoneError),
        ("AccessDeniedException", AwsSetupError),
    ],
)
def test_a_fetch_tells_who_must_act(server: Server, connect: Connect, run: Run, code: str, error: type[Exception]):
    server.fail(code)
    with pytest.raises(error):
        run(DynamoDbStreamSource(connect().streams, STREAM).fetch("iterator", 10))


def test_an_unknown_refusal_is_trouble_of_that_call(server: Server, connect: Connect, run: Run):
    server.fail("ValidationException")
    with pytest.raises(TroubleError, match="ValidationException") as raised:
        run(KinesisSource(connect().kinesis, STREAM, 0).list_shards())
    assert raised.value.kind is Trouble.REFUSED
    assert not isinstance(raised.value, AwsSetupError)


def test_a_refused_and_a_broken_connection_are_transient(server: Server, connect: Connect, run: Run):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        with pytest.raises(TransientError):
            run(KinesisSource(connect(port=unused.getsockname()[1]).kinesis, STREAM, 0).list_shards())
    server.answers.append(HANG_UP)
    with pytest.raises(TransientError):
        run(KinesisSource(connect().kinesis, STREAM, 0).list_shards())


def test_without_credentials_it_says_what_to_set(
    connect: Connect, run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    for name in ("AWS_SHARED_CREDENTIALS_FILE", "AWS_CONFIG_FILE"):
        monkeypatch.setenv(name, str(tmp_path / "none"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    with pytest.raises(AwsSetupError, match="AWS_ACCESS_KEY_ID"):
        run(KinesisSource(connect().kinesis, STREAM, 0).list_shards())


def test_requests_and_retries_are_counted_by_operation_and_outcome(server: Server, connect: Connect, run: Run):
    metrics = Metrics()
    server.fail("ProvisionedThroughputExceededException")
    server.answer({"Shards": []})
    server.fail("ResourceInUseException")
    made = connect(attempts=2, metrics=metrics)
    source = KinesisSource(made.kinesis, STREAM, 0)
    assert run(source.list_shards()) == []
    with pytest.raises(Exception, match="ResourceInUse"):
        run(source.list_shards())
    count = metrics.registry.get_sample_value
    labels = {"service": "kinesis", "operation": "ListShards"}
    requests = [
        count("scoring_aws_requests_total", {**labels, "outcome": outcome}) for outcome in ("ok", "throttled", "error")
    ]
    assert requests == [1, 1, 1]
    assert count("scoring_aws_retries_total", labels) == 1
    assert count("scoring_aws_request_seconds_count", labels) == 2


def test_a_continued_listing_does_not_name_the_stream_again(server: Server, connect: Connect, run: Run):
    closed = {"StartingSequenceNumber": "1", "EndingSequenceNumber": "9"}
    hashes = {"StartingHashKey": "0", "EndingHashKey": "9"}
    listed = {"ShardId": "shardId-1", "HashKeyRange": hashes, "SequenceNumberRange": closed}
    child = {
        "ShardId": "shardId-3",
        "ParentShardId": "shardId-1",
        "AdjacentParentShardId": "shardId-2",
        "HashKeyRange": hashes,
        "SequenceNumberRange": {"StartingSequenceNumber": "10"},
    }
    server.answer({"Shards": [listed], "NextToken": "more"})
    server.answer({"Shards": [child]})
    shards = run(KinesisSource(connect().kinesis, STREAM, 0).list_shards())
    assert shards == [
        Shard("shardId-1", (), closed=True, starting="1"),
        Shard("shardId-3", ("shardId-1", "shardId-2"), starting="10"),
    ]
    assert server.asked == [{"StreamARN": STREAM.arn}, {"NextToken": "more"}]


def test_the_end_of_a_shard_names_its_children(server: Server, connect: Connect, run: Run):
    hashes = {"StartingHashKey": "0", "EndingHashKey": "9"}
    children = [{"ShardId": "shardId-3", "ParentShards": ["shardId-1", "shardId-2"], "HashKeyRange": hashes}]
    server.answer({"Records": [], "MillisBehindLatest": 77, "ChildShards": children})
    page = run(KinesisSource(connect().kinesis, STREAM, 0).fetch("iterator", 10))
    assert (page.next_iterator, page.behind_ms) == (None, 77)
    assert page.children == [Shard("shardId-3", ("shardId-1", "shardId-2"))]


def test_a_table_streams_shards_are_listed_over_pages(server: Server, connect: Connect, run: Run):
    def page(*shards: dict[str, Any], last: str = "") -> dict[str, Any]:
        more = {"LastEvaluatedShardId": last} if last else {}
        return {"StreamDescription": {"Shards": list(shards), **more}}

    first, second = (f"shardId-{number:020}-abcdef01" for number in (1, 2))
    ended = {"StartingSequenceNumber": "1", "EndingSequenceNumber": "9"}
    server.answer(page({"ShardId": first, "SequenceNumberRange": ended}, last=first))
    server.answer(page({"ShardId": second, "ParentShardId": first, "SequenceNumberRange": {}}))
    shards = run(DynamoDbStreamSource(connect().streams, STREAM).list_shards())
    assert shards == [Shard(first, (), closed=True), Shard(second, (first,))]
    assert server.asked[1]["ExclusiveStartShardId"] == first


def test_a_time_that_kinesis_has_not_reached_is_asked_for_again(server: Server, connect: Connect, run: Run):
    source = KinesisSource(connect().kinesis, STREAM, 0)
    server.fail("InvalidArgumentException")
    with pytest.raises(TransientError, match="InvalidArgumentException"):
        run(source.iterator("shard", "AT_TIMESTAMP#1790000000000"))
    server.fail("InvalidArgumentException")
    with pytest.raises(TroubleError):
        run(source.iterator("shard", "17"))


def change() -> Change:
    after = ScoreState(Origin.OURS, Decimal(1), 1, {"tag:0": marking("tag:0").set_at(bytes(24))}, 5)
    return Change(ANN, Folded(ABSENT, after, Decimal(1), 1))


@pytest.mark.parametrize(
    ("code", "outcome"),
    [
        ("ConditionalCheckFailed", Conflict(ABSENT)),
        ("DuplicateItem", Conflict(None)),
        ("ThrottlingError", Throttled()),
        ("ProvisionedThroughputExceeded", Throttled()),
        ("RequestLimitExceeded", Throttled()),
        ("TransactionConflict", Throttled()),
        ("InternalServerError", Throttled()),
        ("ValidationError", Reason.SCORE_REFUSED),
        ("ItemCollectionSizeLimitExceeded", Reason.SCORE_REFUSED),
    ],
)
def test_a_statements_own_error_is_that_changes_outcome(
    server: Server, connect: Connect, run: Run, code: str, outcome: object
):
    server.answer({"Responses": [{"Error": {"Code": code, "Message": "m"}, "TableName": "scores"}]})
    (answer,) = run(ScoreTable(connect().dynamodb, "scores", Metrics()).commit([change()]))
    assert (answer.reason if isinstance(answer, Rejected) else answer) == outcome


@pytest.mark.parametrize(
    ("code", "text"), [("ResourceNotFound", "scoring setup"), ("AccessDenied", "dynamodb:PartiQLUpdate")]
)
def test_a_statement_that_nobody_may_make_is_said_loudly(
    server: Server, connect: Connect, run: Run, code: str, text: str
):
    server.answer({"Responses": [{"Error": {"Code": code, "Message": "m"}, "TableName": "scores"}]})
    with pytest.raises(AwsSetupError, match=f"table scores.*{text}"):
        run(ScoreTable(connect().dynamodb, "scores", Metrics()).commit([change()]))


def test_capacity_is_counted_from_the_answer(server: Server, connect: Connect, run: Run):
    metrics = Metrics()
    server.answer({"Responses": [{"TableName": "s"}], "ConsumedCapacity": [{"TableName": "s", "CapacityUnits": 2.5}]})
    assert run(ScoreTable(connect().dynamodb, "s", metrics).commit([change()])) == [Committed()]
    assert metrics.registry.get_sample_value("scoring_write_units_total") == 2.5


def test_shards_that_have_little_share_their_calls(server: Server, connect: Connect, run: Run):
    scores, ids = ScoreTable(connect().dynamodb, "scores", Metrics()), IdentityTable(connect().dynamodb, "ids")
    bob = UserKey("bob", "p1")
    key = {"UserId": {"S": "bob"}, "PinpointProjectId": {"S": "p1"}}

    async def both() -> list[Any]:
        server.answer({"Responses": {"scores": [{**key, "Score": {"N": "2"}, "Revision": {"N": "7"}}]}})
        loaded = await asyncio.gather(scores.load([ANN]), scores.load([bob]))
        server.answer({"Responses": [{}, {"Error": {"Code": "DuplicateItem", "Message": "m"}}]})
        written = await asyncio.gather(
            scores.commit([change()]), scores.commit([msgspec.structs.replace(change(), key=bob)])
        )
        server.answer({"Responses": {"ids": []}})
        found = await asyncio.gather(ids.find([AliasKey("1", "p")]), ids.find([AliasKey("2", "p")]))
        return [*loaded, *written, *found]

    ann, bobs, *rest = run(both())
    assert ann == {ANN: ABSENT}
    assert (set(bobs), bobs[bob].revision) == ({bob}, 7)
    assert rest == [[Committed()], [Conflict(None)], {}, {}]
    assert [
        len(asked["RequestItems"][table]["Keys"]) for asked in server.asked for table in asked.get("RequestItems", ())
    ] == [2, 2]
    assert [len(asked["Statements"]) for asked in server.asked if "Statements" in asked] == [2]


def test_a_throttled_letter_is_written_again_and_one_that_is_there_is_not(server: Server, connect: Connect, run: Run):
    def letter(number: int) -> DeadLetter:
        return DeadLetter(f"tag.{number}", "ingest", Reason.NOT_JSON, "", "s", "shard", "1", "k", 0, b"x", 1)

    errors = [{"Error": {"Code": code}} for code in ("ThrottlingError", "DuplicateItem")]
    server.answer({"Responses": [*errors, {}]})
    server.answer({"Responses": [{}]})
    run(DeadLetterTable(connect().dynamodb, "letters").put([letter(number) for number in range(3)]))
    assert [len(asked["Statements"]) for asked in server.asked] == [3, 1]


def test_a_scan_goes_on_at_the_page_that_did_not_come(server: Server, connect: Connect, run: Run):
    def item(user: str) -> dict[str, Any]:
        return {"UserId": {"S": user}, "PinpointProjectId": {"S": "p1"}, "Score": {"N": "1"}}

    table = ScoreTable(connect().dynamodb, "scores", Metrics())

    async def scanned() -> list[str]:
        return [key.user_id async for key in table.scan()]

    server.answer({"Items": [item("ann")], "LastEvaluatedKey": {"UserId": {"S": "ann"}}})
    server.fail("ProvisionedThroughputExceededException")
    server.answer({"Items": [item("bob")]})
    assert run(scanned()) == ["ann", "bob"]
    assert [asked.get("ExclusiveStartKey") for asked in server.asked] == [None, *[{"UserId": {"S": "ann"}}] * 2]
    for _ in range(calls.MAX_ROUNDS):
        server.fail("InternalServerError", 500)
    with pytest.raises(TransientError):
        run(scanned())
