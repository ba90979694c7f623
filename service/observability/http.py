"""The HTTP endpoints of a worker: `/metrics` for Prometheus, `/healthz` and `/readyz` for its supervisor.

Plain HTTP without authentication, bound to loopback by default; answers contain no users, endpoints or
payloads.
"""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Awaitable, Callable, Mapping
from types import TracebackType
from typing import Self

import msgspec
import structlog
from aiohttp import web
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder

READY_TIMEOUT_S = 5.0
"""How long `/readyz` waits for an answer before it reports that the worker is not ready."""

PATHS: Mapping[str, str] = {
    "/metrics": "Prometheus metrics",
    "/healthz": "whether the worker is alive: 200 or 503",
    "/readyz": "whether the worker can work: 200 or 503",
}

log = structlog.get_logger(__name__)


class Health(msgspec.Struct, frozen=True):
    """An answer to `/healthz` or `/readyz`.

    Attributes:
        ok: True: 200; False: 503.
        reason: One sentence for a person, if `ok` is False.
        ages_s: Seconds since each loop last completed a round, by name.
    """

    ok: bool
    reason: str = ""
    ages_s: Mapping[str, float] = msgspec.field(default_factory=dict)


class BindError(Exception):
    """The address cannot be bound; the message has the address, the reason, and the variables that set it."""


class ObservabilityServer:
    """Serves the endpoints from `start` to `stop`; also an async context manager.

    Args:
        host: Address to bind.
        port: Port to bind; 0 takes a free one; read `port` afterwards.
        registry: The metrics of `/metrics`.
        health: Called by `/healthz`; must answer at once.
        ready: Called by `/readyz`; may call AWS. If it takes longer than `READY_TIMEOUT_S` or raises, the worker is
            not ready.
    """

    def __init__(
        self,
        host: str,
        port: int,
        registry: CollectorRegistry,
        health: Callable[[], Health],
        ready: Callable[[], Awaitable[Health]],
    ) -> None:
        self.host = host
        self._wanted_port = port
        self._registry = registry
        self._health = health
        self._ready = ready
        self._runner: web.AppRunner | None = None
        self._port = 0

    @property
    def port(self) -> int:
        """The bound port; 0 before `start`."""
        return self._port

    @property
    def url(self) -> str:
        """Base URL, without a slash at its end."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{host}:{self._port}"

    async def start(self) -> None:
        """Listen.

        Raises:
            BindError: The address is in use, belongs to another machine, or is forbidden.
        """
        app = web.Application(middlewares=[_not_found])
        app.router.add_get("/metrics", self._metrics)
        app.router.add_get("/healthz", self._healthz)
        app.router.add_get("/readyz", self._readyz)
        runner = web.AppRunner(app, access_log=None, handle_signals=False, shutdown_timeout=1.0)
        await runner.setup()
        site = web.TCPSite(runner, self.host, self._wanted_port)
        try:
            await site.start()
        except OSError as error:
            await runner.cleanup()
            raise BindError(_bind_message(self.host, self._wanted_port, error)) from error
        self._runner = runner
        self._port = int(runner.addresses[0][1])

    async def stop(self) -> None:
        """Stop listening; responses in progress get a second to finish."""
        runner, self._runner = self._runner, None
        if runner is not None:
            await runner.cleanup()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    async def _metrics(self, request: web.Request) -> web.Response:
        encode, content_type = choose_encoder(request.headers.get("Accept", ""))
        response = web.Response(body=encode(self._registry), headers={"Content-Type": content_type})
        response.enable_compression()
        return response

    async def _healthz(self, _request: web.Request) -> web.Response:
        return _answer(self._health())

    async def _readyz(self, _request: web.Request) -> web.Response:
        try:
            async with asyncio.timeout(READY_TIMEOUT_S):
                return _answer(await self._ready())
        except TimeoutError:
            return _answer(Health(ok=False, reason=f"no answer within {READY_TIMEOUT_S:g} s"))
        except Exception as error:  # noqa: BLE001 # whatever the error, the worker is not ready
            log.warning("readiness.check_failed", error=type(error).__name__)
            return _answer(Health(ok=False, reason=f"the check failed with {type(error).__name__}"))


def _answer(health: Health) -> web.Response:
    return _json(health, 200 if health.ok else 503)


def _json(value: object, status: int) -> web.Response:
    return web.Response(body=msgspec.json.encode(value) + b"\n", status=status, content_type="application/json")


@web.middleware
async def _not_found(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    try:
        return await handler(request)
    except web.HTTPNotFound:
        return _json({"error": "nothing here", "paths": PATHS}, 404)


def _bind_message(host: str, port: int, error: OSError) -> str:
    where = f"{host}:{port}"
    if error.errno == errno.EADDRINUSE:
        return f"{where} is in use: set SCORING_HTTP_PORT to another port, or to 0 for any free one"
    if error.errno in (errno.EACCES, errno.EPERM):
        return f"{where} is not allowed to this user: set SCORING_HTTP_PORT to 1024 or more"
    return f"{where} cannot be bound ({error.strerror or error}): set SCORING_HTTP_HOST to an address of this machine"
