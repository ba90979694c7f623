"""The fake as an HTTP server: Pinpoint's REST API as AWS's SDKs speak it, and a few pages of its own under `/_fake/`.

| Page | |
|---|---|
| `GET /_fake/healthz` | 200 |
| `GET /_fake/endpoints[?app=ID]` | every endpoint with its user's attributes, one JSON object a line |
| `GET /_fake/stats` | requests by caller and operation, throttled requests, dropped batch items |
| `POST /_fake/apps` | `{"Id": ..., "Name": ...}`: an application with a chosen id |
| `POST /_fake/fail`, `DELETE /_fake/fail` | ask for failures (`faults.Fault`), forget them |

Signatures are not checked: there is nothing to protect.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, Self, TypeVar
from urllib.parse import unquote

import msgspec
from aiohttp import web

from service.local.loopback import CREDENTIALS
from service.local.pinpoint_fake import shapes
from service.local.pinpoint_fake.faults import Fault, Faults
from service.local.pinpoint_fake.quotas import UNLIMITED, Throttle
from service.local.pinpoint_fake.refusals import CODE_BY_STATUS, PinpointError, bad_request, not_found
from service.local.pinpoint_fake.state import PinpointState
from service.local.request_counts import OTHERS, OURS, Tally, caller_of

ENDPOINTS_PER_CHUNK = 200
"""Endpoints between two writes of `/_fake/endpoints`, so that other requests are served meanwhile."""
ANYTHING = "*"
SHUTDOWN_S = 0.1
"""Seconds that requests in flight get when the fake stops."""

T = TypeVar("T")
_encode = msgspec.json.Encoder().encode


@dataclass(slots=True)
class Call:
    """One request, read."""

    path: tuple[str, ...]
    """The variable parts of the path, decoded: application id, then endpoint or user id."""
    query: Mapping[str, str]
    body: bytes
    now: datetime
    members: int = 1
    """How many endpoints it carries, for the counts."""

    @property
    def app_id(self) -> str:
        """The application id in the path."""
        return self.path[0]

    @property
    def of_app(self) -> str:
        """The endpoint or user id in the path."""
        return self.path[1]

    def read(self, shape: type[T]) -> T:
        """The body as `shape`. Raises BadRequestException."""
        try:
            return msgspec.json.decode(self.body, type=shape)
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise bad_request(f"the request body is not valid: {error}") from None


@dataclass(frozen=True, slots=True)
class Operation:
    """An operation of the API: its name and success status are those of botocore's model."""

    name: str
    status: int
    carry_out: Callable[[PinpointState, Call], Any]


def _accepted(request_id: str) -> shapes.MessageBody:
    return shapes.MessageBody(message="Accepted", request_id=request_id)


def _create_app(state: PinpointState, call: Call) -> shapes.Application:
    request = call.read(shapes.CreateApplicationRequest)
    return state.create_app(request.name, call.now, tags=request.tags)


def _update_endpoint(state: PinpointState, call: Call) -> shapes.MessageBody:
    return _accepted(state.update_endpoint(call.app_id, call.of_app, call.read(shapes.EndpointRequest), call.now))


def _update_endpoints_batch(state: PinpointState, call: Call) -> shapes.MessageBody:
    items = call.read(shapes.EndpointBatchRequest).item
    call.members = len(items)
    return _accepted(state.update_endpoints_batch(call.app_id, items, call.now))


_APP = (ANYTHING,)
_ENDPOINTS = (ANYTHING, "endpoints")
_ENDPOINT = (ANYTHING, "endpoints", ANYTHING)
_USER = (ANYTHING, "users", ANYTHING)
_STREAM = (ANYTHING, "eventstream")

ROUTES: Mapping[tuple[str, ...], Mapping[str, Operation]] = {
    (): {
        "POST": Operation("CreateApp", 201, _create_app),
        "GET": Operation("GetApps", 200, lambda s, c: s.get_apps(c.query.get("page-size"), c.query.get("token"))),
    },
    _APP: {
        "GET": Operation("GetApp", 200, lambda s, c: s.get_app(c.app_id)),
        "DELETE": Operation("DeleteApp", 200, lambda s, c: s.delete_app(c.app_id)),
    },
    _ENDPOINTS: {"PUT": Operation("UpdateEndpointsBatch", 202, _update_endpoints_batch)},
    _ENDPOINT: {
        "PUT": Operation("UpdateEndpoint", 202, _update_endpoint),
        "GET": Operation("GetEndpoint", 200, lambda s, c: s.get_endpoint(c.app_id, c.of_app)),
        "DELETE": Operation("DeleteEndpoint", 202, lambda s, c: s.delete_endpoint(c.app_id, c.of_app)),
    },
    _USER: {
        "GET": Operation("GetUserEndpoints", 200, lambda s, c: s.get_user_endpoints(c.app_id, c.of_app)),
        "DELETE": Operation("DeleteUserEndpoints", 202, lambda s, c: s.delete_user_endpoints(c.app_id, c.of_app)),
    },
    (ANYTHING, "events"): {
        "POST": Operation("PutEvents", 202, lambda s, c: s.put_events(c.app_id, c.read(shapes.EventsRequest), c.now)),
    },
    _STREAM: {
        "POST": Operation(
            "PutEventStream", 200, lambda s, c: s.put_event_stream(c.app_id, c.read(shapes.WriteEventStream), c.now)
        ),
        "GET": Operation("GetEventStream", 200, lambda s, c: s.get_event_stream(c.app_id)),
        "DELETE": Operation("DeleteEventStream", 200, lambda s, c: s.delete_event_stream(c.app_id)),
    },
}
"""Operations by the path below `/v1/apps` and the method. Paths are those of botocore's model."""


def route(method: str, raw_path: str) -> tuple[Operation, tuple[str, ...]]:
    """The operation and the variable parts of the path. Raises NotFoundException or MethodNotAllowedException."""
    parts = raw_path.partition("?")[0].rstrip("/").split("/")[1:]
    if parts[:2] != ["v1", "apps"]:
        raise not_found("no such resource")
    rest = parts[2:]
    shape = tuple(ANYTHING if index in {0, 2} else part for index, part in enumerate(rest))
    methods = ROUTES.get(shape)
    if methods is None:
        raise not_found("no such resource")
    operation = methods.get(method)
    if operation is None:
        raise PinpointError("MethodNotAllowedException", f"{method} is not allowed here")
    return operation, tuple(unquote(part) for index, part in enumerate(rest) if index in {0, 2})


class PinpointFake:
    """The fake in this process: `async with PinpointFake() as pinpoint: ... pinpoint.endpoint_url ...`."""

    def __init__(
        self,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        quotas: Mapping[str, float] = UNLIMITED,
        apps: Sequence[str] = (),
    ) -> None:
        """Describe it; nothing is bound yet.

        Args:
            host: Address to bind.
            port: Port to bind; 0 takes any free one.
            quotas: Requests per second by operation (`quotas.AWS_DEFAULT`, `quotas.parse_quotas`).
            apps: Ids of applications that exist from the start.
        """
        self.state = PinpointState()
        self.faults = Faults()
        self._host = host
        self._port = port
        self._bound: int | None = None
        self._throttle = Throttle(quotas)
        self._throttled: dict[str, int] = {}
        self._tallies = {OURS: Tally(), OTHERS: Tally()}
        self._runner: web.ServerRunner | None = None
        for app_id in apps:
            self.state.create_app(app_id, _utc_now(), app_id=app_id)

    async def start(self) -> None:
        """Bind and serve. Raises OSError when the port is taken."""
        self._runner = web.ServerRunner(web.Server(self._serve, access_log=None), shutdown_timeout=SHUTDOWN_S)
        await self._runner.setup()
        await web.TCPSite(self._runner, self._host, self._port).start()
        self._bound = self._runner.addresses[0][1]

    async def stop(self) -> None:
        """Close every connection. Does nothing when not started."""
        runner, self._runner, self._bound = self._runner, None, None
        if runner:
            await runner.cleanup()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    @property
    def port(self) -> int:
        """The port it is bound to. Raises RuntimeError unless started."""
        if self._bound is None:
            raise RuntimeError("the Pinpoint fake is not running")
        return self._bound

    @property
    def endpoint_url(self) -> str:
        """`http://HOST:PORT`. Raises RuntimeError unless started."""
        return f"http://{self._host}:{self.port}"

    def environment(self) -> dict[str, str]:
        """The AWS_* variables with which any AWS SDK talks to it."""
        return CREDENTIALS | {"AWS_ENDPOINT_URL_PINPOINT": self.endpoint_url}

    def stats(self) -> dict[str, Any]:
        """What `/_fake/stats` answers."""
        return {
            "requests": {caller: tally.as_json() for caller, tally in self._tallies.items()},
            "throttled": dict(self._throttled),
            "dropped": self.state.dropped,
            "dropped_reasons": list(self.state.dropped_reasons),
        }

    async def _serve(self, request: web.BaseRequest) -> web.StreamResponse:
        if request.path.startswith("/_fake/"):
            return await self._serve_own(request)
        try:
            operation, path = route(request.method, request.raw_path)
        except PinpointError as error:
            return self._refusal(error)
        fault = self.faults.next(operation.name)
        call = Call(path, request.query, b"", _utc_now())
        try:
            if fault and fault.delay_s:
                await asyncio.sleep(fault.delay_s)
            call.body = await _read(request)
            answer = self._answer(operation, call, fault)
        except PinpointError as error:
            answer = self._refusal(error)
        failed = answer.status >= 400  # noqa: PLR2004 - where HTTP's errors start
        self._tallies[caller_of(request.headers.get("User-Agent", ""))].add(
            f"pinpoint.{operation.name}", members=call.members, failed=failed
        )
        if fault and fault.lose_response and request.transport:
            request.transport.abort()
        return answer

    def _answer(self, operation: Operation, call: Call, fault: Fault | None) -> web.Response:
        if fault and fault.status:
            raise PinpointError(CODE_BY_STATUS[fault.status], "a failure that was asked for")
        if not self._throttle.admits(operation.name, time.monotonic()):
            self._throttled[operation.name] = self._throttled.get(operation.name, 0) + 1
            raise PinpointError("TooManyRequestsException", "Too many requests")
        return self._json(operation.carry_out(self.state, call), operation.status)

    def _json(self, document: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> web.Response:  # noqa: ANN401
        headers = headers or {"x-amzn-RequestId": self.state.request_id()}
        return web.Response(body=_encode(document), status=status, content_type="application/json", headers=headers)

    def _refusal(self, error: PinpointError) -> web.Response:
        request_id = self.state.request_id()
        headers = {"x-amzn-ErrorType": error.code, "x-amzn-RequestId": request_id}
        return self._json(shapes.MessageBody(message=str(error), request_id=request_id), error.status, headers)

    async def _serve_own(self, request: web.BaseRequest) -> web.StreamResponse:
        page = (request.method, request.path.removeprefix("/_fake/"))
        try:
            if page == ("GET", "healthz"):
                return self._json({"status": "ok"})
            if page == ("GET", "stats"):
                return self._json(self.stats())
            if page == ("GET", "endpoints"):
                return await self._stream_endpoints(request)
            if page == ("POST", "fail"):
                self.faults.add(msgspec.json.decode(await _read(request), type=Fault))
                return self._json({})
            if page == ("DELETE", "fail"):
                self.faults.clear()
                return self._json({})
            if page == ("POST", "apps"):
                wanted = msgspec.json.decode(await _read(request), type=dict[str, str])
                name = wanted.get("Name") or wanted["Id"]
                return self._json(self.state.create_app(name, _utc_now(), app_id=wanted["Id"]), 201)
        except PinpointError as error:
            return self._refusal(error)
        except (ValueError, KeyError) as error:
            return self._refusal(bad_request(f"the request is not valid: {error}"))
        return self._refusal(not_found("no such page"))

    async def _stream_endpoints(self, request: web.BaseRequest) -> web.StreamResponse:
        lines = [_encode(endpoint) for endpoint in self.state.all_endpoints(request.query.get("app"))]
        response = web.StreamResponse(headers={"Content-Type": "application/x-ndjson"})
        await response.prepare(request)
        for start in range(0, len(lines), ENDPOINTS_PER_CHUNK):
            await response.write(b"\n".join(lines[start : start + ENDPOINTS_PER_CHUNK]) + b"\n")
        await response.write_eof()
        return response


async def _read(request: web.BaseRequest) -> bytes:
    """The body; raises PayloadTooLargeException above 7 MB, without reading the rest."""
    body = bytearray()
    if (request.content_length or 0) <= shapes.MAX_PAYLOAD_BYTES:
        async for chunk in request.content.iter_any():
            body += chunk
            if len(body) > shapes.MAX_PAYLOAD_BYTES:
                break
        else:
            return bytes(body)
    raise PinpointError("PayloadTooLargeException", f"a request has at most {shapes.MAX_PAYLOAD_BYTES} bytes")


def _utc_now() -> datetime:
    return datetime.now(UTC)
