"""The event loop's AWS clients, created once and passed on.

Endpoints and credentials come from the standard AWS variables: `AWS_ENDPOINT_URL`, or one per service
(`AWS_ENDPOINT_URL_KINESIS`, `_DYNAMODB`, `_DYNAMODB_STREAMS`, `_PINPOINT`;
https://docs.aws.amazon.com/sdkref/latest/guide/feature-ss-endpoints.html).

Calls whose number grows with the events are made by `express` (unless SCORING_FAST_CALLS=off); all others by
aiobotocore. Timestamps in results are epoch seconds (`codec.epoch_seconds`).

Measured on two shared cores (Python 3.11, botocore 1.43): importing this module takes 0.3 to 0.4 s, and creating all
four clients 0.11 to 0.26 s, most of it for the first one's endpoint tables. Each further one takes 0.01 to 0.02 s of
pure CPU, so creating them concurrently or later would gain nothing.
"""

from __future__ import annotations

import gzip
import socket
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import PurePath
from typing import Any, TypeAlias

import msgspec
from aiobotocore.config import AioConfig
from botocore.httpsession import get_cert_path
from botocore.loaders import JSONFileLoader, create_loader

from service.aws.credentials import Credentials, SigningSession
from service.aws.fast.codec import epoch_seconds
from service.aws.fast.express import EVENT_NAMES, Express
from service.aws.fast.wire import Wire
from service.aws.translation import UnreadableAnswerError, outcome_of
from service.observability.metrics import Metrics, service_version

AwsClient: TypeAlias = Any
"""A client of aiobotocore. Its methods are created at run time, so it has no static type."""

_CALLED = frozenset({"kinesis", "dynamodb", "streams.dynamodb", "pinpoint"})
"""Endpoint prefixes of the services that are called; credentials use another session (`credentials`)."""

_REDIRECT = 300
"""The first HTTP status that is not a success."""

_KEEPALIVE = (
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    # A NAT gateway forgets a connection after 350 idle seconds
    # (https://docs.aws.amazon.com/vpc/latest/userguide/nat-gateway-troubleshooting.html).
    (socket.IPPROTO_TCP, getattr(socket, "TCP_KEEPIDLE", getattr(socket, "TCP_KEEPALIVE", 0)), 60),
    (socket.IPPROTO_TCP, getattr(socket, "TCP_KEEPINTVL", 0), 15),
    (socket.IPPROTO_TCP, getattr(socket, "TCP_KEEPCNT", 0), 3),
)


_read_object = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


class AwsSettings(msgspec.Struct, frozen=True):
    """How calls are made.

    Attributes:
        region: AWS region; empty leaves it to botocore (`AWS_DEFAULT_REGION`, or the profile).
        pool_size: Most calls of one operation in flight; further ones wait.
        connect_timeout_s: Seconds to connect.
        read_timeout_s: Seconds without a byte; far longer than any call here takes.
        attempts: Requests per call, the first included (`standard` retry mode).
        fast_calls: Whether `express` makes the calls that grow with the events.
    """

    region: str = ""
    pool_size: int = 50
    connect_timeout_s: float = 3.0
    read_timeout_s: float = 10.0
    attempts: int = 3
    fast_calls: bool = True

    def options(self) -> dict[str, Any]:
        """Return the options of aiobotocore's configuration."""
        return {
            "max_pool_connections": self.pool_size,
            "connect_timeout": self.connect_timeout_s,
            "read_timeout": self.read_timeout_s,
            "retries": {"mode": "standard", "total_max_attempts": self.attempts},
            "user_agent_extra": f"engagement-scoring/{service_version()}",
        }


class Clients(msgspec.Struct, frozen=True):
    """One client per API, and one without retries for callers that have a shorter back-off of their own.

    botocore's first retry waits up to 1 s, the second up to 2 s.

    Attributes:
        leases: DynamoDB, for the lease table, with few retries: other workers wait for a lease.
        client: Makes clients of further services, as `service.sinks.port.MakeClient` says.
        on_close: Registers what is to be awaited when the clients are closed.
    """

    kinesis: AwsClient
    dynamodb: AwsClient
    leases: AwsClient
    streams: AwsClient
    client: Callable[..., Awaitable[AwsClient]]
    on_close: Callable[[Callable[[], Awaitable[None]]], object]


@asynccontextmanager
async def clients(settings: AwsSettings, metrics: Metrics | None = None) -> AsyncIterator[Clients]:
    """Create the clients; close them and their connections at the end.

    Args:
        settings: How calls are made.
        metrics: Where requests, retries and durations are counted; None: nowhere.
    """
    credentials = Credentials(settings.region)
    session = SigningSession(credentials)
    loader = create_loader(session.get_config_variable("data_path"))
    loader.file_loader = _ModelFiles()
    session.register_component("data_loader", loader)
    session.register("before-parse", refuse_unreadable)
    session.get_component("response_parser_factory").set_parser_defaults(timestamp_parser=epoch_seconds)
    wire = Wire(
        limit=settings.pool_size,
        connect_timeout_s=settings.connect_timeout_s,
        answer_timeout_s=settings.read_timeout_s,
        tls=lambda: ssl.create_default_context(cafile=get_cert_path(session.get_config_variable("ca_bundle") or True)),
        options=_KEEPALIVE,
    )
    express = Express(session, wire, None if metrics is None else _counted(metrics), enabled=settings.fast_calls)
    express.install()
    # aiobotocore ignores `tcp_keepalive` (httpsession.py: "TODO: handle socket_options"), so a factory sets it.
    config = AioConfig(connector_args={"socket_factory": _kept_alive}, **settings.options())
    async with AsyncExitStack() as stack:
        stack.push_async_callback(wire.close)
        stack.push_async_callback(credentials.close)

        async def client(service: str, *, attempts: int | None = None) -> AwsClient:
            retries = AioConfig(retries={"mode": "standard", "total_max_attempts": attempts or settings.attempts})
            made = await stack.enter_async_context(
                session.create_client(service, region_name=settings.region or None, config=config.merge(retries))
            )
            if metrics is not None:
                observe(made, metrics)
            return made

        yield Clients(
            kinesis=await client("kinesis"),
            dynamodb=await client("dynamodb"),
            leases=await client("dynamodb", attempts=1),
            streams=await client("dynamodbstreams"),
            client=client,
            on_close=stack.push_async_callback,
        )


def refuse_unreadable(response_dict: Mapping[str, Any], operation_model: Any, **_: object) -> None:  # noqa: ANN401 # botocore's
    """Refuse a successful answer that is not a JSON object; for botocore's `before-parse`.

    botocore treats an empty body, a page of HTML and half an object as an object without fields
    (`parsers.BaseJSONParser`). A write that a proxy answered like this would count as done.

    Raises:
        UnreadableAnswerError: The answer is not a JSON object.
    """
    json = operation_model.service_model.resolved_protocol in ("json", "rest-json")
    if response_dict["status_code"] >= _REDIRECT or not json or operation_model.output_shape is None:
        return
    body: bytes = response_dict["body"]
    try:
        _read_object(body)
    except msgspec.DecodeError as error:
        kind = response_dict["headers"].get("content-type", "no type")
        raise UnreadableAnswerError(size=len(body), kind=kind) from error


class _ModelFiles(JSONFileLoader):  # type: ignore[misc] # botocore has no types
    """botocore's service models, read by msgspec, and the endpoints of the services that are called.

    This takes half the time, and 9 of 16 MiB less: botocore's reader makes an `OrderedDict` of every object, and keeps
    the endpoints of all AWS services. A service that is not listed would get its partition's usual endpoint.
    """

    def load_file(self, file_path: str) -> Any:  # noqa: ANN401 # any JSON
        """Return the content of a file, named without its extension; None if it does not exist."""
        for ending, opened in ((".json", open), (".json.gz", gzip.open)):
            try:
                with opened(file_path + ending, "rb") as file:
                    found = msgspec.json.decode(file.read())
            except FileNotFoundError:
                continue
            if PurePath(file_path).name == "endpoints":
                for partition in found["partitions"]:
                    services = partition["services"]
                    partition["services"] = {name: services[name] for name in _CALLED & services.keys()}
            return found
        return None


def _kept_alive(address: tuple[Any, ...]) -> socket.socket:
    family, kind, protocol, _, _ = address
    made = socket.socket(family=family, type=kind, proto=protocol)
    for level, option, value in _KEEPALIVE:
        if option:
            made.setsockopt(level, option, value)
    return made


def observe(client: AwsClient, metrics: Metrics) -> None:
    """Count the requests of a client by service, operation and outcome."""
    labels: dict[str, tuple[str, str]] = {}

    def names(event_name: str) -> tuple[str, str]:
        found = labels.get(event_name)
        if found is None:
            _, service, operation = event_name.split(".", 2)
            found = labels[event_name] = (service, operation)
        return found

    def started(context: dict[str, Any], **_: object) -> None:
        context["scoring_started"] = time.perf_counter()

    def answered(event_name: str, context: dict[str, Any], parsed_response: dict[str, Any] | None, **_: object) -> None:
        service, operation = names(event_name)
        if parsed_response is None:
            outcome = "error"
        else:
            status = parsed_response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
            outcome = outcome_of(status, parsed_response.get("Error", {}).get("Code", ""), operation)
        metrics.aws_requests.labels(service, operation, outcome).inc()
        if context.get("retries", {}).get("attempt", 1) > 1:
            metrics.aws_retries.labels(service, operation).inc()

    def ended(event_name: str, context: dict[str, Any], **_: object) -> None:
        if "scoring_started" in context:
            metrics.aws_seconds.labels(*names(event_name)).observe(time.perf_counter() - context["scoring_started"])

    register: Callable[[str, Callable[..., None]], None] = client.meta.events.register
    register("before-call", started)
    register("response-received", answered)
    register("after-call", ended)
    register("after-call-error", ended)


def _counted(metrics: Metrics) -> Callable[[str, str, float], None]:
    """Count the calls that `observe` does not see: the fast ones."""
    children: dict[tuple[str, str], tuple[Any, Any]] = {}

    def count(service: str, operation: str, seconds: float) -> None:
        found = children.get((service, operation))
        if found is None:
            requests = metrics.aws_requests.labels(EVENT_NAMES[service], operation, "ok")
            found = children[service, operation] = (
                requests,
                metrics.aws_seconds.labels(EVENT_NAMES[service], operation),
            )
        found[0].inc()
        found[1].observe(seconds)

    return count
