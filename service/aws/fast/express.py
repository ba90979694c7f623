"""The hot operations' short way: what aiobotocore decided for a request once is used again for the next ones.

The first call of an operation goes aiobotocore's way. The request that came out of it, endpoint, headers and signature
scope, becomes a template, provided that signing it here gives the very signature that aiobotocore gave it. The calls
that follow put body, date and signature into the template and send it over `wire`.

Whatever does not end in a success (an error answer, an answer that `codec` cannot read, a lost connection) is handed to
aiobotocore as what became of the first attempt of a call of its own: so errors, their parsing, backoff and retries are
aiobotocore's, whatever they are. Credentials, endpoints, headers, timeouts and the number of attempts are too.

Only extension points are used: `creating-client-class` and `before-send`
(https://boto3.amazonaws.com/v1/documentation/api/latest/guide/events.html), and `get_frozen_credentials`. Why, and what
it brings: deploy/decisions/0004-fast-codec.md.
"""

from __future__ import annotations

import contextvars
import hashlib
import hmac
import random
import ssl
import time
import zlib
from collections.abc import Awaitable, Callable, Hashable, Mapping
from typing import Any
from urllib.parse import urlsplit

import msgspec
from aiobotocore.awsrequest import AioAWSResponse
from aiobotocore.session import AioSession
from botocore.credentials import ReadOnlyCredentials
from botocore.exceptions import ConnectionClosedError, EndpointConnectionError, ReadTimeoutError, SSLError
from botocore.utils import get_environ_proxies

from service.aws.fast.codec import OPERATIONS, Operation, Params
from service.aws.fast.wire import Address, Answer, UnfitAnswerError, Wire

MAX_TEMPLATES = 256
"""Templates kept: one for each operation, and for each project or set of tables."""

RETRY_QUOTA = 500
"""Successes after a failure that aiobotocore hears of: what its quota of retries holds (botocore.retries.quota)."""

_SCHEME = "AWS4-HMAC-SHA256"
_OWN_HEADERS = frozenset(
    {"authorization", "x-amz-date", "content-length", "host", "amz-sdk-invocation-id", "amz-sdk-request"}
)
"""Headers that differ in every request."""

_UNSUITABLE = frozenset({"transfer-encoding", "expect", "x-amzn-trace-id"})

Observe = Callable[[str, str, float], None]
"""Called for every successful call with service, operation and seconds."""


class Template(msgspec.Struct, frozen=True):
    """A request of an operation, less body, date and signature.

    Attributes:
        address: Where it goes.
        url: Where it goes, for error messages.
        credentials: What it was signed with; other credentials need another template.
        head: Request line and unchanging headers.
        canonical: The canonical request's text before the date, and between date and payload hash.
        scope: Region and service of the signature.
        signed_headers: Their names.
    """

    address: Address
    url: str
    credentials: ReadOnlyCredentials
    head: str
    canonical: tuple[str, str]
    scope: str
    signed_headers: str

    def signature(self, date: str, body: bytes) -> str:
        """Return the signature of a request with this body, sent at `date` (`20261001T120000Z`).

        Source: https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-create-signed-request.html.
        """
        before, after = self.canonical
        canonical = f"{before}{date}{after}{hashlib.sha256(body).hexdigest()}"
        scope = f"{date[:8]}/{self.scope}"
        text = f"{_SCHEME}\n{date}\n{scope}\n{hashlib.sha256(canonical.encode()).hexdigest()}"
        return hmac.digest(_signing_key(self.credentials.secret_key, scope), text.encode(), "sha256").hex()

    def request(self, date: str, body: bytes) -> bytes:
        """Return a whole request."""
        head = (
            f"{self.head}X-Amz-Date: {date}\r\nAuthorization: {_SCHEME} Credential={self.credentials.access_key}/"
            f"{date[:8]}/{self.scope}, SignedHeaders={self.signed_headers}, Signature={self.signature(date, body)}\r\n"
            f"amz-sdk-invocation-id: {_invocation_id()}\r\namz-sdk-request: attempt=1\r\n"
            f"Content-Length: {len(body)}\r\n\r\n"
        )
        return head.encode("latin-1") + body


def _invocation_id() -> str:
    """Return a random UUID. It only distinguishes calls, so it need not come from the system's random source."""
    text = f"{random.getrandbits(128):032x}"
    return f"{text[:8]}-{text[8:12]}-4{text[13:16]}-a{text[17:20]}-{text[20:]}"


_keys: dict[tuple[str, str], bytes] = {}
_MAX_KEYS = 16


def _signing_key(secret_key: str, scope: str) -> bytes:
    """Return the key of a day, region and service."""
    key = _keys.get((secret_key, scope))
    if key is None:
        key = b"AWS4" + secret_key.encode()
        for part in scope.split("/"):
            key = hmac.digest(key, part.encode(), "sha256")
        if len(_keys) >= _MAX_KEYS:
            _keys.clear()
        _keys[secret_key, scope] = key
    return key


def template_of(request: Any, credentials: ReadOnlyCredentials) -> Template | None:  # noqa: ANN401 # botocore's prepared request
    """Return the template in a request that aiobotocore has signed; None when it cannot be one.

    Args:
        request: Its `AWSPreparedRequest`.
        credentials: What it was signed with, as far as known; the signature tells whether that is so.
    """
    headers = {name.lower(): _text(value) for name, value in request.headers.items()}
    scheme, _, rest = headers.get("authorization", "").partition(" ")
    parts = dict(part.strip().split("=", 1) for part in rest.split(",") if "=" in part)
    signed, body = parts.get("SignedHeaders", ""), request.body or b""
    names = signed.split(";")
    url = urlsplit(request.url)
    if (
        scheme != _SCHEME
        or "x-amz-date" not in names
        or (_OWN_HEADERS - {"host", "x-amz-date"}).intersection(names)
        or _UNSUITABLE.intersection(headers)
        or not isinstance(body, bytes)
        or url.query
        or url.scheme not in {"http", "https"}
        or url.hostname is None
        or get_environ_proxies(request.url)
    ):
        return None
    values = {**headers, "host": url.netloc}
    lines = {name: f"{name}:{' '.join(values.get(name, '').split())}\n" for name in names}
    at = names.index("x-amz-date")
    path = url.path or "/"
    before = f"{request.method}\n{path.replace('%', '%25')}\n\n{''.join(lines[name] for name in names[:at])}x-amz-date:"
    after = f"\n{''.join(lines[name] for name in names[at + 1 :])}\n{signed}\n"
    kept = "".join(f"{name}: {value}\r\n" for name, value in headers.items() if name not in _OWN_HEADERS)
    template = Template(
        address=Address(url.hostname, url.port or (443 if url.scheme == "https" else 80), url.scheme == "https"),
        url=request.url,
        credentials=credentials,
        head=f"{request.method} {path} HTTP/1.1\r\nHost: {url.netloc}\r\nAccept-Encoding: identity\r\n{kept}",
        canonical=(before, after),
        scope=parts.get("Credential", "").partition("/")[2].partition("/")[2],
        signed_headers=signed,
    )
    same = hmac.compare_digest(template.signature(headers.get("x-amz-date", ""), body), parts.get("Signature", ""))
    return template if same and "\n" not in kept.replace("\r\n", "") else None


def _text(value: str | bytes) -> str:
    return value.decode("latin-1") if isinstance(value, bytes) else value


class _Body:
    """What `AioAWSResponse` reads an answer's body from."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    async def read(self) -> bytes:
        return self._data


class _Call(msgspec.Struct):
    """A call that aiobotocore makes for us.

    Attributes:
        key: The template to be learned from it.
        credentials: What its first attempt will be signed with; None once that is made.
        outcome: What became of its first attempt, made here; None lets aiobotocore make it.
    """

    key: Hashable
    credentials: ReadOnlyCredentials | None
    outcome: AioAWSResponse | Exception | None


class _Known(msgspec.Struct, frozen=True):
    """What is known of an operation under some credentials; other credentials need their own.

    Attributes:
        credentials: The credentials.
        template: None: the operation cannot be called the fast way.
    """

    credentials: ReadOnlyCredentials
    template: Template | None


_call: contextvars.ContextVar[_Call | None] = contextvars.ContextVar("scoring_aws_call", default=None)


class Express:
    """The fast calls of all clients of one session.

    Args:
        session: Its credentials are used.
        wire: Where requests go out.
        observe: Called for fast calls that succeed; aiobotocore's own events cover all others.
        enabled: False makes every call through aiobotocore; results have the same form.
    """

    def __init__(
        self, session: AioSession, wire: Wire, observe: Observe | None = None, *, enabled: bool = True
    ) -> None:
        self._enabled = enabled
        self._session = session
        self._wire = wire
        self._observe = observe
        self._templates: dict[Hashable, _Known] = {}
        self._second = 0
        self._date = ""
        self._strained = 0
        self._provider: Any = None

    def install(self) -> None:
        """Have the clients that the session makes from now on take the short way where there is one."""
        for service in {operation.service for operation in OPERATIONS}:
            mine = [operation for operation in OPERATIONS if operation.service == service]
            self._session.register(f"creating-client-class.{EVENT_NAMES[service]}", _replacing(mine, self._method))
            for operation in mine:
                self._session.register(f"before-send.{EVENT_NAMES[service]}.{operation.name}", self._before_send)

    def _method(self, operation: Operation, stock: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
        async def call(client: Any, **params: Any) -> Any:  # noqa: ANN401 # a generated method of aiobotocore's
            if not self._enabled:
                return operation.narrow(await stock(client, **params))
            credentials = await self._credentials()
            key = (operation.service, operation.name, operation.route(params))
            known = self._templates.get(key)
            outcome = None
            if known is not None and known.credentials == credentials:
                if known.template is None:
                    return operation.narrow(await stock(client, **params))
                try:
                    result, outcome = await self._send(operation, known.template, params)
                except UnfitAnswerError:
                    # What answers here answers so to every call: asking twice each time would double them all.
                    self._learn(key, _Known(known.credentials, None))
                    return operation.narrow(await stock(client, **params))
                if result is not None:
                    if self._strained:
                        await self._relieve(client, operation, result)
                    return result
                self._strained = RETRY_QUOTA
            # Either learn from aiobotocore's own request, or let it deal with what became of ours.
            token = _call.set(_Call(key, credentials, outcome))
            try:
                return operation.narrow(await stock(client, **params))
            finally:
                _call.reset(token)

        return call

    async def _send(
        self, operation: Operation, template: Template, params: Params
    ) -> tuple[dict[str, Any] | None, AioAWSResponse | Exception | None]:
        """Make the first attempt; return the result, or else what aiobotocore must know of it.

        Raises:
            UnfitAnswerError: The answer cannot be understood here.
        """
        started = time.perf_counter()
        try:
            request = template.request(self._now(), operation.encode(params))
        except (TypeError, ValueError):
            return None, None  # parameters that aiobotocore may know what to do with, or complain about
        try:
            # A lane of its own: look-ups that hang must not keep heartbeats waiting.
            answer = await self._wire.exchange(template.address, request, (operation.service, operation.name))
        except TimeoutError as error:
            return None, ReadTimeoutError(endpoint_url=template.url, error=error)
        except ConnectionError as error:
            return None, ConnectionClosedError(endpoint_url=template.url, error=error)
        except ssl.SSLError as error:
            return None, SSLError(endpoint_url=template.url, error=error)
        except OSError as error:
            return None, EndpointConnectionError(endpoint_url=template.url, error=error)
        if answer.status == operation.status and _intact(answer):
            try:
                result = operation.decode(answer.body)
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
                pass
            else:
                result["ResponseMetadata"] = _metadata(answer)
                if self._observe is not None:
                    self._observe(operation.service, operation.name, time.perf_counter() - started)
                return result, None
        return None, AioAWSResponse(template.url, answer.status, answer.headers, _Body(bytes(answer.body)))

    async def _relieve(self, client: Any, operation: Operation, result: Mapping[str, Any]) -> None:  # noqa: ANN401
        """Tell aiobotocore of a success: after failures, successes fill its quota of retries up again."""
        self._strained -= 1
        metadata = result["ResponseMetadata"]
        await client.meta.events.emit(
            f"after-call.{EVENT_NAMES[operation.service]}.{operation.name}",
            http_response=AioAWSResponse("", metadata["HTTPStatusCode"], metadata["HTTPHeaders"], _Body(b"")),
            parsed=result,
            model=client.meta.service_model.operation_model(operation.name),
            context={},
        )

    async def _before_send(self, request: Any, **_: object) -> AioAWSResponse | None:  # noqa: ANN401 # botocore's
        """Answer aiobotocore's first attempt with what became of ours; learn from those it makes itself."""
        call = _call.get()
        if call is None:
            return None
        # A retry may be signed with credentials renewed since: only the first attempt tells.
        outcome, credentials = call.outcome, call.credentials
        call.outcome = call.credentials = None
        if isinstance(outcome, Exception):
            raise outcome
        if outcome is None and credentials is not None:
            self._learn(call.key, _Known(credentials, template_of(request, credentials)))
        return outcome

    def _learn(self, key: Hashable, known: _Known) -> None:
        if len(self._templates) >= MAX_TEMPLATES:
            self._templates.clear()
        self._templates[key] = known

    async def _credentials(self) -> ReadOnlyCredentials | None:
        """Return what to sign with now; who provides them, found once, renews them by itself."""
        if self._provider is None:
            self._provider = await self._session.get_credentials()
            if self._provider is None:
                return None
        frozen: ReadOnlyCredentials = await self._provider.get_frozen_credentials()
        return frozen

    def _now(self) -> str:
        second = int(time.time())
        if second != self._second:
            self._second = second
            self._date = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(second))
        return self._date


EVENT_NAMES = {
    "dynamodb": "dynamodb",
    "dynamodbstreams": "dynamodb-streams",
    "kinesis": "kinesis",
    "pinpoint": "pinpoint",
}
"""What botocore's events call its services: their hyphenized ids."""


def _replacing(
    operations: list[Operation],
    method: Callable[[Operation, Callable[..., Awaitable[Any]]], Callable[..., Awaitable[Any]]],
) -> Callable[..., None]:
    def replace(class_attributes: dict[str, Any], **_: object) -> None:
        for operation in operations:
            class_attributes[operation.method] = method(operation, class_attributes[operation.method])

    return replace


def _intact(answer: Answer) -> bool:
    """Return whether the body is what DynamoDB sent, where it says so (`x-amz-crc32`)."""
    checksum = answer.headers.get("x-amz-crc32")
    return checksum is None or checksum == str(zlib.crc32(answer.body))


def _metadata(answer: Answer) -> Mapping[str, Any]:
    metadata: dict[str, Any] = {
        "HTTPStatusCode": answer.status,
        "HTTPHeaders": answer.headers,
        "RetryAttempts": 0,
    }
    request_id = answer.headers.get("x-amzn-requestid")
    if request_id is not None:
        metadata["RequestId"] = request_id
    return metadata
