"""An answer that says success but is not the service's (a proxy's page, an empty body) never counts as success."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Awaitable, Callable, Iterator
from decimal import Decimal

import pytest
from aiohttp import web

from service.aws import calls
from service.aws.clients import AwsSettings, Clients, clients
from service.aws.streams.dynamodb_streams import DynamoDbStreamSource
from service.aws.streams.kinesis import KinesisSource
from service.aws.streams.writer import KinesisWriter, Put
from service.aws.tables.dead_letters import DeadLetterTable
from service.aws.tables.definitions import DefinitionTable
from service.aws.tables.identities import IdentityTable
from service.aws.tables.leases import LeaseTable
from service.aws.tables.scores import ScoreTable
from service.ingest.identity_store import IdentityStore
from service.ingest.stores import AliasKey, Change, DeadLetter, DirectoryEntry, Found
from service.observability.metrics import Metrics
from service.runtime.clock import SystemClock
from service.runtime.errors import Trouble, TroubleError
from service.scoring.change import ScoreChange
from service.scoring.definitions import Definition
from service.scoring.event import Reason
from service.scoring.fold import ABSENT, Folded, Origin, ScoreState, UserKey
from service.scoring.marks import marking
from service.sinks.pinpoint.lookup import PinpointLookup
from service.sinks.pinpoint.sink import PinpointSink
from service.stream.leases.lease import Leadership, Lease, Member
from service.stream.ports import StreamId
from tests.fakes.identities import MemoryRows

STREAM = StreamId("events", "arn:aws:kinesis:us-east-1:000000000000:stream/events", "tag1")
ANN = UserKey("ann", "p1")
ROW = Lease(shard_id="shard", checkpoint="TRIM_HORIZON")
LETTER = DeadLetter("tag.1", "ingest", Reason.NOT_JSON, "", "s", "shard", "1", "k", 0, b"x", 1)
STATE = ScoreState(Origin.OURS, Decimal(1), 1, {"tag:0": marking("tag:0").set_at(bytes(24))}, 5)
CHANGE = Change(ANN, Folded(ABSENT, STATE, Decimal(1), 1))

BODIES = {
    "nothing": b"",
    "a page of html": b"<html>Sign in to continue</html>",
    "null": b"null",
    "a list": b"[]",
    "half an object": b'{"Responses": [',
}


async def publish(aws: Clients) -> None:
    known = IdentityStore(MemoryRows())
    entry = DirectoryEntry("e1", "ACTIVE", "EMAIL", SystemClock().wall_ms())
    await known.put({ANN: Found(entry, ["e1"], None)})
    client = await aws.client("pinpoint", attempts=1)
    await PinpointSink(client, known, SystemClock(), Metrics()).publish([ScoreChange(ANN, Decimal(1), 1, 0)])


async def look_up(aws: Clients) -> None:
    await PinpointLookup(await aws.client("pinpoint"), SystemClock(), Metrics()).user_of(AliasKey("1", "p1"))


CALLS: dict[str, Callable[[Clients], Awaitable[object]]] = {
    "create a lease": lambda aws: leases(aws).create(ROW),
    "replace a lease": lambda aws: leases(aws).replace(ROW, ROW.taken_by("worker")),
    "delete a lease": lambda aws: leases(aws).delete(ROW),
    "read a lease": lambda aws: leases(aws).get("shard"),
    "read the leases": lambda aws: leases(aws).snapshot(),
    "join": lambda aws: leases(aws).join(Member(worker="worker", beat_ms=1)),
    "beat": lambda aws: leases(aws).beat("worker", 1),
    "lead": lambda aws: leases(aws).lead(None, Leadership("worker", 1, "LATEST", discovered=True)),
    "leave": lambda aws: leases(aws).remove("worker"),
    "read scores": lambda aws: ScoreTable(aws.dynamodb, "scores", Metrics()).load([ANN]),
    "write scores": lambda aws: ScoreTable(aws.dynamodb, "scores", Metrics()).commit([CHANGE]),
    "write letters": lambda aws: DeadLetterTable(aws.dynamodb, "letters").put([LETTER]),
    "read a letter": lambda aws: DeadLetterTable(aws.dynamodb, "letters").get("tag.1"),
    "read identities": lambda aws: IdentityTable(aws.dynamodb, "ids").find([AliasKey("1", "p1")]),
    "learn identities": lambda aws: IdentityTable(aws.dynamodb, "ids").learn({AliasKey("1", "p1"): "ann"}),
    "read definitions": lambda aws: DefinitionTable(aws.dynamodb, "definitions").load(),
    "set a definition": lambda aws: DefinitionTable(aws.dynamodb, "definitions").set(
        Definition("_email.open", "p1", Decimal(1))
    ),
    "find the stream": lambda aws: KinesisSource.open(aws.kinesis, "events"),
    "list shards": lambda aws: KinesisSource(aws.kinesis, STREAM, 0).list_shards(),
    "get an iterator": lambda aws: KinesisSource(aws.kinesis, STREAM, 0).iterator("shard", "TRIM_HORIZON"),
    "get records": lambda aws: KinesisSource(aws.kinesis, STREAM, 0).fetch("iterator", 1),
    "put records": lambda aws: KinesisWriter(aws.kinesis, "events").put([Put("k", b"x")]),
    "find the table's stream": lambda aws: DynamoDbStreamSource.open(aws.dynamodb, aws.streams, "scores"),
    "list the table's shards": lambda aws: DynamoDbStreamSource(aws.streams, STREAM).list_shards(),
    "get changes": lambda aws: DynamoDbStreamSource(aws.streams, STREAM).fetch("iterator", 1),
    "look an endpoint up": look_up,
    "publish": publish,
}


def leases(aws: Clients) -> LeaseTable:
    return LeaseTable(aws.leases, "leases", "ingest", STREAM)


class Server:
    """Answers everything with one body."""

    def __init__(self) -> None:
        self.body = b""

    async def handle(self, request: web.Request) -> web.Response:
        # What UpdateEndpointsBatch says for success.
        status = 202 if request.path.startswith("/v1/") and request.method == "PUT" else 200
        return web.Response(status=status, body=self.body, content_type="text/html")


@pytest.fixture(scope="module")
def served() -> Iterator[tuple[asyncio.Runner, Server, Clients]]:
    """A server, and clients of it: they are shared, because making them takes 0.3 s."""
    server = Server()
    app = web.Application()
    app.router.add_route("*", "/{any:.*}", server.handle)
    site = web.AppRunner(app)
    with pytest.MonkeyPatch.context() as environment, asyncio.Runner() as runner:
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            environment.setenv(name, "test")
        environment.setattr(calls, "BACKOFF_BASE_S", 0.0)
        runner.run(site.setup())
        runner.run(web.TCPSite(site, "127.0.0.1", 0).start())
        environment.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{site.addresses[0][1]}")
        made = clients(AwsSettings(region="us-east-1", attempts=1))
        yield runner, server, runner.run(made.__aenter__())
        runner.run(made.__aexit__(None, None, None))
        runner.run(site.cleanup())


@pytest.mark.parametrize("body", BODIES)
@pytest.mark.parametrize("call", CALLS)
def test_what_is_no_answer_of_the_service_is_trouble_and_no_success(
    served: tuple[asyncio.Runner, Server, Clients], call: str, body: str
):
    runner, server, aws = served

    async def twice() -> None:
        server.body = b"{}"
        with contextlib.suppress(TroubleError):
            await CALLS[call](aws)  # from now on it may go the short way
        server.body = BODIES[body]
        with pytest.raises(TroubleError) as raised:
            await CALLS[call](aws)
        assert raised.value.kind is Trouble.ANSWER
        assert not raised.value.undone, "it may have been carried out all the same"

    runner.run(twice())


@pytest.mark.parametrize("record", [{}, {"Data": "eA=="}, {"SequenceNumber": "", "Data": "eA=="}])
def test_a_record_without_a_number_is_no_checkpoint(
    served: tuple[asyncio.Runner, Server, Clients], record: dict[str, str]
):
    runner, server, aws = served
    server.body = json.dumps({"Records": [record], "NextShardIterator": "next"}).encode()
    for source in (KinesisSource(aws.kinesis, STREAM, 0), DynamoDbStreamSource(aws.streams, STREAM)):
        with pytest.raises(TroubleError, match="sequence number"):
            runner.run(source.fetch("iterator", 1))
