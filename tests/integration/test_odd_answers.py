"""Answers that nobody foresaw are trouble of one call: no answer on this list ends a worker."""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections import Counter
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

import aiohttp
import boto3
import pytest
from aiohttp import web

from service.app.worker import Worker
from service.config.load import Purpose, load
from service.local.emulator import Emulator
from service.observability.metrics import Metrics
from tests.fakes.embedded import FreshName
from tests.integration.test_worker_signals import PROJECT, scoring

FAULTY_CALLS = 12
"""Calls that meet each answer: several of the heartbeat, the fetch and the listing of shards."""

BOUND_S = 30.0

ODD: Mapping[str, tuple[int, str, bytes]] = {
    "a clock that is wrong": (
        400,
        "application/x-amz-json-1.1",
        b'{"__type":"InvalidSignatureException","message":"Signature expired: 20261127T000000Z is now earlier than"}',
    ),
    "credentials that are not known yet": (
        400,
        "application/x-amz-json-1.1",
        b'{"__type":"UnrecognizedClientException","message":"The security token included in the request is invalid."}',
    ),
    "a key that may not be used": (
        400,
        "application/x-amz-json-1.1",
        b'{"__type":"KMSAccessDeniedException","message":"User is not authorized to decrypt records"}',
    ),
    "a key that is disabled": (
        400,
        "application/x-amz-json-1.1",
        b'{"__type":"KMSInvalidStateException","message":"The key is pending deletion"}',
    ),
    "a stream that is in use": (
        400,
        "application/x-amz-json-1.1",
        b'{"__type":"ResourceInUseException","message":"The resource is not available for this operation."}',
    ),
    "a proxy that forbids": (403, "text/html", b"<html><h1>Forbidden by policy</h1></html>"),
    "a proxy that waited too long": (408, "text/html", b"<html><h1>Request Time-out</h1></html>"),
    "a proxy that redirects": (302, "text/html", b"<html>log in</html>"),
    "an empty body": (200, "application/x-amz-json-1.1", b""),
    "an object that lacks everything": (200, "application/x-amz-json-1.1", b"{}"),
    "a page of html that says it is well": (200, "text/html", b"<html>hello</html>"),
    "a code that nobody has heard of": (
        400,
        "application/x-amz-json-1.1",
        b'{"__type":"BrandNewException","message":"new"}',
    ),
    "access denied for a while": (
        400,
        "application/x-amz-json-1.1",
        b'{"__type":"AccessDeniedException","message":"User is not authorized to perform this"}',
    ),
}


class Proxy:
    """Passes requests on to the embedded AWS, but for as many of them as it is told to answer itself."""

    def __init__(self, upstream: str) -> None:
        self._upstream = upstream
        self.answer: tuple[int, str, bytes] | None = None
        self.left = 0
        self.spoiled: Counter[str] = Counter()

    async def handle(self, request: web.Request) -> web.Response:
        body = await request.read()
        target = request.headers.get("x-amz-target", "").rpartition(".")[2]
        if self.answer is not None and self.left > 0:
            self.left -= 1
            self.spoiled[target] += 1
            status, kind, text = self.answer
            headers = {"location": "http://127.0.0.1:1/login"} if status == 302 else {}
            return web.Response(status=status, body=text, content_type=kind, headers=headers)
        headers = {k: v for k, v in request.headers.items() if k.lower() not in {"host", "content-length"}}
        async with (
            aiohttp.ClientSession(auto_decompress=False) as session,
            session.post(self._upstream, data=body, headers=headers) as answer,
        ):
            kept = {k: v for k, v in answer.headers.items() if k.lower().startswith(("x-amz", "content-type"))}
            return web.Response(status=answer.status, body=await answer.read(), headers=kept)


async def until(condition: Any, what: str) -> None:  # noqa: ANN401 - sync or async
    """Wait until `condition()` holds; the loop goes on meanwhile."""
    deadline = time.monotonic() + BOUND_S
    while not await asyncio.to_thread(condition):
        assert time.monotonic() < deadline, f"not in {BOUND_S:g} s: {what}"
        await asyncio.sleep(0.05)


def test_no_odd_answer_ends_a_worker(aws: Emulator, fresh_name: FreshName, monkeypatch: pytest.MonkeyPatch):
    tables = ("SCORES", "DEFINITIONS", "IDENTITIES", "LEASES", "DEAD_LETTERS")
    own = {
        **aws.environment(),
        "SCORING_STREAM": fresh_name("events"),
        **{f"SCORING_{table}_TABLE": fresh_name(table.lower()) for table in tables},
        "SCORING_HTTP_PORT": "0",
        "SCORING_SINKS": "log",
        "SCORING_IDENTITY_LOOKUP": "false",
        "SCORING_LEASE_DURATION_S": "3",
    }
    scoring({**os.environ, **own}, "setup", "--project", PROJECT)
    for name, value in own.items():
        monkeypatch.setenv(name, value)
    kinesis, dynamodb = boto3.client("kinesis"), boto3.client("dynamodb")

    def send() -> None:
        event = {"event_type": "_email.open", "application": {"app_id": PROJECT}, "client": {"client_id": "e"}}
        event["client_context"] = {"custom": {"endpoint": json.dumps({"User": {"UserId": "ann"}})}}
        kinesis.put_record(StreamName=own["SCORING_STREAM"], Data=json.dumps(event).encode(), PartitionKey="ann")

    def score() -> Decimal:
        key = {"UserId": {"S": "ann"}, "PinpointProjectId": {"S": PROJECT}}
        item = dynamodb.get_item(TableName=own["SCORING_SCORES_TABLE"], Key=key, ConsistentRead=True).get("Item")
        return Decimal(item["Score"]["N"]) if item else Decimal(0)

    async def main() -> None:
        endpoints = [name for name in own if name.startswith("AWS_ENDPOINT_URL")]
        proxy = Proxy(own[endpoints[0]])
        app = web.Application()
        app.router.add_post("/{any:.*}", proxy.handle)
        site = web.AppRunner(app)
        await site.setup()
        await web.TCPSite(site, "127.0.0.1", 0).start()
        for name in endpoints:
            monkeypatch.setenv(name, f"http://127.0.0.1:{site.addresses[0][1]}")
        metrics = Metrics()
        worker = Worker(load(os.environ, Purpose.RUN), metrics)
        running = asyncio.create_task(worker.run())
        await asyncio.wait_for(worker.started.wait(), BOUND_S)
        expected = Decimal(0)
        try:
            for name, answer in ODD.items():
                proxy.answer, proxy.left = answer, FAULTY_CALLS
                await asyncio.to_thread(send)
                expected += 10
                await until(lambda: proxy.left == 0 or running.done(), f"{name}: all faulty answers given")
                assert not running.done(), (name, running.exception())
                await until(lambda due=expected: score() == due or running.done(), f"{name}: the event is scored")
                assert not running.done(), (name, running.exception())
        finally:
            worker.stop()
            await asyncio.wait_for(running, BOUND_S)
            await site.cleanup()
        kinds = {labels[0] for labels in metrics.aws_trouble._metrics}
        assert kinds >= {"clock", "credentials", "encryption", "answer", "refused", "permission"}
        assert len(proxy.spoiled) >= 4, proxy.spoiled

    asyncio.run(main())
