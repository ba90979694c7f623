"""The fault proxy: one port in front of Kinesis, DynamoDB, its streams and Pinpoint; a process of its own.

`python -m tests.chaos.proxy --kinesis URL --dynamodb URL --pinpoint URL` prints `{"port": N}` and serves until its
standard input closes. Which service a request is for, its `X-Amz-Target` says; Pinpoint's requests have none. Pages of
its own: `GET /_proxy/health`, `GET /_proxy/counts`, `POST /_proxy/rates` (`faults.Rates`).
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import socket
import struct
import sys
import time
import urllib.request
from collections import Counter
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from pathlib import Path
from random import Random
from typing import Any
from urllib.parse import urlsplit

import msgspec
import uvloop

from service.local.loopback import CREDENTIALS, LoopbackServer
from service.local.processes import exit_with_parent
from tests.chaos.faults import CALM, LOST, PARTIAL, RESET, SLOW, SLOW_S, Part, Rates, draw, part_of, refusal

ROOT = Path(__file__).parents[2]
MAX_HEAD = 1 << 20
IDLE_S = 1.5
"""Seconds after which a connection to an emulator is not used again: it may be closing it at this very moment, and a
fault that nobody asked for would be nobody's to count."""
ANSWER_TIMEOUT_S = 10.0
_SERVICES = {"Kinesis_20131202": "kinesis", "DynamoDB_20120810": "dynamodb", "DynamoDBStreams_20120810": "streams"}
_DROPPED = ("content-length", "transfer-encoding", "accept-encoding", "x-amz-crc32", "expect")


class Message(msgspec.Struct):
    """A request or an answer, read whole; header names in lower case."""

    first: str
    headers: dict[str, str]
    body: bytes

    def encoded(self) -> bytes:
        """Return it as it goes over the wire."""
        lines = [self.first, *(f"{name}: {value}" for name, value in self.headers.items() if name not in _DROPPED)]
        lines.append(f"content-length: {len(self.body)}")
        return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + self.body


async def read_message(reader: asyncio.StreamReader) -> Message | None:
    """Read one; None where the other side has closed."""
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except (asyncio.IncompleteReadError, ConnectionError):
        return None
    first, *lines = head[:-4].decode("latin-1").split("\r\n")
    headers = {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    if "chunked" in headers.get("transfer-encoding", ""):
        body = b""
        while size := int((await reader.readuntil(b"\r\n")).split(b";")[0], 16):
            body += (await reader.readexactly(size + 2))[:-2]
        await reader.readuntil(b"\r\n")
    else:
        body = await reader.readexactly(int(headers.get("content-length", 0)))
    return Message(first, headers, body)


def named(request: Message) -> tuple[str, str]:
    """Return service and operation of a request."""
    target = request.headers.get("x-amz-target", "")
    if target:
        prefix, _, operation = target.partition(".")
        return _SERVICES[prefix], operation
    method, path, _ = request.first.split(" ", 2)
    return "pinpoint", f"{method} {'/'.join(path.split('?')[0].split('/')[4:5])}"


class _Upstreams:
    """The connections of one client's connection to the emulators."""

    def __init__(self, urls: Mapping[str, str]) -> None:
        self._urls = urls
        self._open: dict[str, tuple[asyncio.StreamReader, asyncio.StreamWriter, float]] = {}

    async def ask(self, service: str, request: Message) -> Message:
        reader, writer = await self._connection(service)
        writer.write(request.encoded())
        answer = await read_message(reader)
        if answer is None:
            raise ConnectionResetError(f"{service} closed the connection")
        if "close" in answer.headers.get("connection", "").lower():
            writer.close()
        else:
            self._open[service] = (reader, writer, time.monotonic())
        answer.headers.pop("connection", None)
        return answer

    async def _connection(self, service: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        kept = self._open.pop(service, None)
        if kept is not None:
            reader, writer, used_at = kept
            if time.monotonic() - used_at < IDLE_S and not reader.at_eof():
                return reader, writer
            writer.close()
        at = urlsplit(self._urls[service])
        return await asyncio.open_connection(at.hostname, at.port, limit=MAX_HEAD)

    def close(self) -> None:
        for _, writer, _ in self._open.values():
            writer.close()


class Proxy:
    """The server."""

    def __init__(self, urls: Mapping[str, str], seed: int) -> None:
        self._urls = urls
        self._rng = Random(f"proxy-{seed}")
        self._rates = CALM
        self.requests: Counter[str] = Counter()
        self.faults: Counter[str] = Counter()
        self.refused: Counter[str] = Counter()

    async def serve(self, port: int) -> None:
        """Bind, say the port, serve for ever."""
        server = await asyncio.start_server(self._client, "127.0.0.1", port, limit=MAX_HEAD)
        sys.stdout.write(json.dumps({"port": server.sockets[0].getsockname()[1]}) + "\n")
        sys.stdout.flush()
        async with server:
            await server.serve_forever()

    async def _client(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        upstreams = _Upstreams(self._urls)
        try:
            while (request := await read_message(reader)) is not None:
                if " /_proxy/" in request.first:
                    writer.write(self._own(request).encoded())
                elif (answer := await self._through(upstreams, request)) is not None:
                    writer.write(answer.encoded())
                else:
                    _reset(writer)
                    return
                await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError) as error:
            sys.stderr.write(f"{type(error).__name__}: {error}\n")
            _reset(writer)
        finally:
            upstreams.close()
            writer.close()

    async def _through(self, upstreams: _Upstreams, request: Message) -> Message | None:
        """Return the answer to a request, or None where its connection is to be reset."""
        service, operation = named(request)
        self.requests[service] += 1
        rng = self._rng
        kind = draw(self._rates, operation, rng)
        part: Part | None = None
        if kind == PARTIAL:
            part = part_of(operation, msgspec.json.decode(request.body), rng)
            if part is None:
                kind = ""
            else:
                self.refused[operation] += part.refused
        if kind:
            self.faults[f"{service}|{kind}"] += 1
        match kind:
            case "":
                return await upstreams.ask(service, request)
            case k if k == SLOW:
                await asyncio.sleep(rng.uniform(*SLOW_S))
                return await upstreams.ask(service, request)
            case k if k == RESET:
                return None
            case k if k == LOST:
                await upstreams.ask(service, request)
                return None
            case _ if part is not None:
                return await self._partly(upstreams, service, request, part)
            case _:
                said = refusal(service, operation, kind, rng)
                return Message(f"HTTP/1.1 {said.status} {HTTPStatus(said.status).phrase}", said.headers, said.body)

    async def _partly(self, upstreams: _Upstreams, service: str, request: Message, part: Part) -> Message:
        answer = Message("HTTP/1.1 200 OK", {"content-type": "application/x-amz-json-1.0"}, b"{}")
        if part.request is not None:
            request.body = msgspec.json.encode(part.request)
            answer = await upstreams.ask(service, request)
        if answer.first.split(" ", 2)[1] == "200":
            answer.body = msgspec.json.encode(part.complete(msgspec.json.decode(answer.body)))
        return answer

    def _own(self, request: Message) -> Message:
        if request.first.startswith("POST /_proxy/rates"):
            self._rates = msgspec.json.decode(request.body, type=Rates)
        said = {"requests": self.requests, "faults": self.faults, "refused": self.refused}
        return Message("HTTP/1.1 200 OK", {"content-type": "application/json"}, msgspec.json.encode(said))


def _reset(writer: asyncio.StreamWriter) -> None:
    """Close with RST, as a broken network does, instead of an orderly FIN."""
    with contextlib.suppress(OSError, AttributeError):
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


class ProxyProcess(LoopbackServer):
    """The proxy in a child process; a context manager."""

    def __init__(self, *, kinesis: str, dynamodb: str, pinpoint: str, seed: int, log_path: Path | None = None) -> None:
        super().__init__("the fault proxy", "tests.chaos.proxy", health_path="/_proxy/health", log_path=log_path)
        self._urls = ("--kinesis", kinesis, "--dynamodb", dynamodb, "--pinpoint", pinpoint, "--seed", str(seed))

    def arguments(self) -> Sequence[str]:
        return self._urls

    def child_environment(self) -> Mapping[str, str]:
        return {**os.environ, "PYTHONPATH": str(ROOT)}

    def environment(self) -> dict[str, str]:
        """The AWS_* variables with which any AWS SDK talks through it."""
        names = ("KINESIS", "DYNAMODB", "DYNAMODB_STREAMS", "PINPOINT")
        return CREDENTIALS | {f"AWS_ENDPOINT_URL_{name}": self.endpoint_url for name in names}

    def set_rates(self, rates: Rates) -> None:
        """Have these faults from now on."""
        self._open("rates", msgspec.json.encode(rates))

    def counts(self) -> dict[str, dict[str, int]]:
        """Return `requests` by service, `faults` by `service|kind`, and members `refused` by operation."""
        return self._open("counts")

    def _open(self, page: str, body: bytes | None = None) -> Any:  # noqa: ANN401 - JSON
        with urllib.request.urlopen(f"{self.endpoint_url}/_proxy/{page}", body, timeout=ANSWER_TIMEOUT_S) as answer:  # noqa: S310 - our own http URL
            return json.load(answer)


def main() -> None:
    """Entry point of the child process."""
    parser = argparse.ArgumentParser(description="Passes requests on to emulators, with faults")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--seed", type=int, default=1)
    for name in ("kinesis", "dynamodb", "pinpoint"):
        parser.add_argument(f"--{name}", required=True, help="base URL")
    options = parser.parse_args()
    exit_with_parent()
    urls = {"kinesis": options.kinesis, "dynamodb": options.dynamodb, "streams": options.dynamodb}
    with contextlib.suppress(KeyboardInterrupt):
        uvloop.run(Proxy({**urls, "pinpoint": options.pinpoint}, options.seed).serve(options.port))


if __name__ == "__main__":
    main()
