"""A fake of a service on 127.0.0.1: an HTTP server in this process, and what goes wrong with its next requests."""

from __future__ import annotations

import asyncio
import ssl
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Mapping
from types import TracebackType
from typing import Self

import msgspec
from aiohttp import web

MAX_BODY = 16 * 1024 * 1024
SHUTDOWN_S = 0.1
"""Seconds that requests in flight get when the fake stops."""


class Trick(msgspec.Struct, frozen=True):
    """What happens to one request instead of an answer.

    Attributes:
        status: HTTP status; 0: the connection is cut.
        headers: Of the answer.
        body: Of the answer.
        delay_s: Seconds before that.
        carried_out: Whether the request takes effect all the same.
    """

    status: int
    headers: Mapping[str, str] = {}
    body: bytes = b""
    delay_s: float = 0.0
    carried_out: bool = False


class FakeServer(ABC):
    """The server; an asynchronous context manager.

    Args:
        certificate: For https; None: http.
        latency_s: Seconds that each answer takes.

    Attributes:
        url: Where it listens, without a path.
        tricks: For the next requests, one each.
        received: The headers of each request, in order.
    """

    def __init__(self, certificate: ssl.SSLContext | None = None, *, latency_s: float = 0.0) -> None:
        self._certificate = certificate
        self._latency_s = latency_s
        self.url = ""
        self.tricks: deque[Trick] = deque()
        self.received: list[Mapping[str, str]] = []

    @abstractmethod
    def answer(self, request: web.Request, body: bytes) -> web.Response:
        """Carry a request out, and return its answer."""

    async def __aenter__(self) -> Self:
        """Listen on a free port."""
        app = web.Application(client_max_size=MAX_BODY)
        app.router.add_route("*", "/{path:.*}", self._handle)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=SHUTDOWN_S)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0, ssl_context=self._certificate).start()
        self.url = f"{'https' if self._certificate else 'http'}://127.0.0.1:{self._runner.addresses[0][1]}"
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop."""
        await self._runner.cleanup()

    async def _handle(self, request: web.Request) -> web.Response:
        body = await request.read()
        self.received.append(request.headers)
        if self._latency_s:
            await asyncio.sleep(self._latency_s)
        if not self.tricks:
            return self.answer(request, body)
        trick = self.tricks.popleft()
        if trick.carried_out:
            self.answer(request, body)
        await asyncio.sleep(trick.delay_s)
        if not trick.status:
            assert request.transport is not None  # noqa: S101 - aiohttp's own
            request.transport.close()
            return web.Response()
        return web.Response(status=trick.status, headers=trick.headers, body=trick.body)
