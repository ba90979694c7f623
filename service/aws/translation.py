"""Translates failures of AWS calls into our errors; the only file that knows botocore's errors and their codes.

Every failure of a call becomes one of `service.runtime.errors`. deploy/decisions/0007-errors-by-who-must-act.md
describes what a worker does about each class.

Sources: the common errors (https://docs.aws.amazon.com/amazondynamodb/latest/APIReference/CommonErrors.html),
DynamoDB's (https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/Programming.Errors.html), Kinesis's
(https://docs.aws.amazon.com/kinesis/latest/APIReference/API_GetRecords.html) and those of DynamoDB streams
(https://docs.aws.amazon.com/amazondynamodb/latest/APIReference/API_streams_GetRecords.html).
"""

from __future__ import annotations

import contextvars
import ssl
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from types import TracebackType
from typing import Any, Final, Protocol

import aiohttp
from botocore import exceptions as boto

from service.runtime.errors import (
    IteratorExpiredError,
    LeaseLostError,
    RecordsTrimmedError,
    ReleasedError,
    SetupError,
    ShardGoneError,
    TransientError,
    Trouble,
    TroubleError,
)

THROTTLES = frozenset(
    {
        "BandwidthLimitExceeded",
        "KMSThrottlingException",
        "LimitExceededException",
        "ProvisionedThroughputExceededException",
        "RequestLimitExceeded",
        "RequestThrottled",
        "RequestThrottledException",
        "SlowDown",
        "ThrottledException",
        "Throttling",
        "ThrottlingException",
        "TooManyRequestsException",
    }
)
"""Codes of throttling, with or without status 429."""

_PASSING = frozenset(
    {
        "ExpiredNextTokenException",
        "InternalFailure",
        "InternalServerError",
        "InternalServerErrorException",
        "ReplicatedWriteConflictException",
        "ResourceInUse",
        "ResourceInUseException",
        "RequestTimeout",
        "RequestTimeoutException",
        "ServiceUnavailable",
        "TransactionConflictException",
        "TransactionInProgressException",
    }
)
"""Codes of temporary faults: a stream or table in use is being created or changed."""

_LOOKUPS = frozenset({"GetEndpoint", "GetUserEndpoints"})
"""Operations whose 404 (`NotFoundException`) is an expected answer
(https://docs.aws.amazon.com/pinpoint/latest/apireference/apps-application-id-endpoints-endpoint-id.html)."""

DENIED: Final = frozenset(
    {
        "AccessDenied",
        "AccessDeniedException",
        "ForbiddenException",
        "NotAuthorized",
        "NotAuthorizedException",
        "UnauthorizedOperation",
    }
)
"""Codes for a call that the policy does not allow; `ForbiddenException` is Pinpoint's
(https://docs.aws.amazon.com/pinpoint/latest/apireference/apps-application-id-endpoints-endpoint-id.html)."""

MISSING: Final = frozenset({"ResourceNotFound", "ResourceNotFoundException"})
"""Codes for a missing table or stream."""

BAD_CREDENTIALS: Final = frozenset(
    {
        "IncompleteSignature",
        "IncompleteSignatureException",
        "InvalidClientTokenId",
        "InvalidSignatureException",
        "MissingAuthenticationToken",
        "MissingAuthenticationTokenException",
        "OptInRequired",
        "SignatureDoesNotMatch",
        "UnrecognizedClientException",
    }
)
"""Codes for credentials or signatures that are not accepted. They may be temporary: new or renewed credentials are not
known everywhere at once (https://github.com/boto/boto3/issues/509)."""

EXPIRED_CREDENTIALS: Final = frozenset({"ExpiredToken", "ExpiredTokenException"})
"""Codes for expired credentials. A provider that renews them does so for the next call."""

_CLOCK = ("signature expired", "signature not yet current", "requestexpired", "requesttimetooskewed")
"""Texts of refusals, in lower case, if this machine's clock is wrong: a signature is valid for five minutes
(https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-troubleshooting.html), and a request for 15
(https://docs.aws.amazon.com/amazondynamodb/latest/APIReference/CommonErrors.html)."""

_KMS = ("kmsaccessdenied", "kmsdisabled", "kmsinvalidstate", "kmsnotfound", "kmsoptinrequired")
"""Beginnings of Kinesis's codes, in lower case, if the stream's key cannot be used
(https://docs.aws.amazon.com/kinesis/latest/APIReference/API_GetRecords.html)."""

CLOCK_REMEDY: Final = "set this machine's clock (NTP); `scoring doctor` shows how far it is off"
CREDENTIALS_REMEDY: Final = (
    "check AWS_PROFILE, AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY or the role in use, and AWS_REGION"
)
EXPIRED_REMEDY: Final = (
    "get new credentials (for a profile with SSO: aws sso login); a worker reads those in its environment only once: "
    "give it a role or a profile"
)
KMS_REMEDY: Final = (
    "enable the KMS key that encrypts this resource (or cancel its deletion), and allow kms:Decrypt on it "
    "in the policy of the role in use and in the key's own policy"
)
CERTIFICATE_REMEDY: Final = "check this machine's clock, AWS_CA_BUNDLE, and the proxy between here and AWS"
FOREIGN_REMEDY: Final = "this is not an answer of AWS: check the proxy, and AWS_ENDPOINT_URL"

_UNREACHABLE = (
    boto.ConnectTimeoutError,
    boto.ConnectionClosedError,
    boto.ConnectionError,
    boto.EndpointConnectionError,
    boto.HTTPClientError,
    boto.IncompleteReadError,
    boto.ReadTimeoutError,
    boto.ResponseStreamingError,
    aiohttp.ClientConnectionError,
    aiohttp.ClientPayloadError,
    ConnectionError,
    TimeoutError,
)

_UNTRUSTED = (aiohttp.ClientConnectorCertificateError, ssl.SSLCertVerificationError)
"""Causes of an `SSLError` if the other side's certificate is not trusted."""

_CREDENTIALS = (
    boto.CredentialRetrievalError,
    boto.InvalidConfigError,
    boto.MetadataRetrievalError,
    boto.RefreshWithMFAUnsupportedError,
    boto.SSOError,
    boto.TokenRetrievalError,
)

_OURS = (
    IteratorExpiredError,
    LeaseLostError,
    ReleasedError,
    RecordsTrimmedError,
    ShardGoneError,
    TransientError,
)

_REQUEST_TIMEOUT = 408
_TOO_MANY_REQUESTS = 429
_SERVER_ERROR = 500

_MAX_SAID = 300
"""Most characters kept of the other side's text: a proxy's page may be long."""


class AwsSetupError(SetupError):
    """A person must create, allow or configure something in AWS; the text says what and how."""


class UnreadableAnswerError(boto.BotoCoreError):  # type: ignore[misc] # botocore has no types
    """A successful answer that the service would not send."""

    fmt = "{size} bytes of {kind} instead of a JSON object"


class Watch(Protocol):
    """Observer of AWS calls. Called from the event loop; must not raise."""

    def worked(self) -> None:
        """Record a call that was answered as expected."""
        ...

    def trouble(self, error: TroubleError) -> None:
        """Record an answer that is unexpected, or that a person must act on."""
        ...


_watch: contextvars.ContextVar[Watch | None] = contextvars.ContextVar("scoring_aws_watch", default=None)


@contextmanager
def watched(watch: Watch) -> Iterator[None]:
    """Report the outcomes of calls made inside, also in tasks started inside, to `watch`."""
    token = _watch.set(watch)
    try:
        yield
    finally:
        _watch.reset(token)


def code_of(error: boto.ClientError) -> str:
    """Return the error code of a response."""
    return str(error.response.get("Error", {}).get("Code", ""))


def item_of(error: boto.ClientError) -> Mapping[str, Mapping[str, Any]] | None:
    """Return the item that failed a condition (`ReturnValuesOnConditionCheckFailure`); None if there is none."""
    item: Mapping[str, Mapping[str, Any]] | None = error.response.get("Item")
    return item


def is_condition_failure(error: boto.ClientError) -> bool:
    """Return whether the condition of a write did not hold."""
    return code_of(error) == "ConditionalCheckFailedException"


def outcome_of(status: int, code: str, operation: str = "") -> str:
    """Return the outcome of a request as a metric label: `ok`, `absent`, `throttled` or `error`.

    A condition that does not hold is an answer, not an error; the same goes for a missing endpoint or user.
    """
    if not code or code == "ConditionalCheckFailedException":
        return "ok"
    if code == "NotFoundException" and operation in _LOOKUPS:
        return "absent"
    return "throttled" if code in THROTTLES or status == _TOO_MANY_REQUESTS else "error"


def note_trouble(error: TroubleError) -> None:
    """Report trouble that does not make a call fail."""
    watch = _watch.get()
    if watch is not None:
        watch.trouble(error)


class translated:  # noqa: N801 # used like a function, in `with`
    """Translate failures of the AWS calls inside, and of reading their answers, into our errors.

    May span `await`. Answers should be read inside, so that an unexpected answer is a fault of
    this call, not of the program.

    Args:
        what: The resource, for messages: `table userEngagementScore`.
        remedy: What to do if it does not exist.
        shard: The shard of the call; `ResourceNotFoundException` then means the shard.
        expected: Codes that the caller handles; these are raised as botocore's `ClientError`.

    Raises:
        ClientError: A refusal with an expected code.
        TransientError: Throttled, timed out, refused, cut off, or failed on the other side.
        TroubleError: Anything unexpected, such as an unreadable answer; see `failure`.
        IteratorExpiredError: The iterator is too old.
        RecordsTrimmedError: The position is older than anything the stream still has.
        ShardGoneError: `shard` is unknown.
        AwsSetupError: The resource does not exist, or its use is not allowed.
    """

    __slots__ = ("_expected", "_remedy", "_shard", "_what")

    def __init__(
        self,
        what: str,
        *,
        remedy: str = "run `scoring setup`",
        shard: str = "",
        expected: Collection[str] = (),
    ) -> None:
        self._expected = expected
        self._what = what
        self._remedy = remedy
        self._shard = shard

    def __enter__(self) -> None:
        pass

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        watch = _watch.get()
        if error is None:
            if watch is not None:
                watch.worked()
            return
        if self._expected and isinstance(error, boto.ClientError) and code_of(error) in self._expected:
            if watch is not None:
                watch.worked()
            return
        found = failure(error, self._what, self._remedy, self._shard)
        trouble = error if found is None else found
        if watch is not None and isinstance(trouble, TroubleError):
            watch.trouble(trouble)
        if found is not None:
            raise found from error


def failure(error: BaseException, what: str, remedy: str = "", shard: str = "") -> Exception | None:
    """Return our error for a call's failure; None if the original is to be raised.

    The original is raised if it is one of our errors already, a cancellation, or our own misuse of a call (a bug).
    """
    match error:
        case boto.ParamValidationError() | AssertionError():
            return None
        case _ if isinstance(error, _OURS) or not isinstance(error, Exception):
            return None
        case boto.ClientError():
            return _answer(error, what, remedy, shard)
        case boto.SSLError() if isinstance(error.kwargs.get("error"), _UNTRUSTED):
            return TroubleError(said(what, error), Trouble.CERTIFICATE, CERTIFICATE_REMEDY)
        case boto.NoCredentialsError() | boto.PartialCredentialsError():
            return AwsSetupError(
                f"{said(what, error)}: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, AWS_PROFILE, "
                "or run with a role",
                Trouble.CREDENTIALS,
            )
        case _ if isinstance(error, _CREDENTIALS):
            return TroubleError(said(what, error), Trouble.CREDENTIALS, CREDENTIALS_REMEDY)
        case _ if isinstance(error, _UNREACHABLE):
            return TransientError(said(what, error))
    return TroubleError(f"{what}: the answer cannot be read: {said('', error)}", Trouble.ANSWER, FOREIGN_REMEDY)


def _answer(error: boto.ClientError, what: str, remedy: str, shard: str) -> Exception:  # one per class
    """Return our error for an error answer."""
    code = code_of(error)
    status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    text = said(what, error)
    if code in THROTTLES or status == _TOO_MANY_REQUESTS:
        return TransientError(text, throttled=True)
    if code in _PASSING or status >= _SERVER_ERROR or status == _REQUEST_TIMEOUT:
        return TransientError(text)
    if code == "ExpiredIteratorException":
        return IteratorExpiredError(text)
    if code == "TrimmedDataAccessException":
        return RecordsTrimmedError(text)
    if code in MISSING:
        if shard:
            return ShardGoneError(f"{what}: shard {shard}: {said('', error)}")
        return AwsSetupError(f"{what} does not exist in this account and region: {remedy}", Trouble.MISSING)
    kind, remedy = trouble_of(code, str(error))
    if kind is Trouble.PERMISSION:
        remedy = f"allow {error.operation_name} in the policy of the role in use"
        return AwsSetupError(f"{text}: {remedy}", kind)
    return TroubleError(text, kind, remedy)


def trouble_of(code: str, text: str) -> tuple[Trouble, str]:
    """Return the kind of trouble and the remedy for a refusal that no caller expects."""
    lowered = f"{code}: {text}".lower()
    if any(sign in lowered for sign in _CLOCK):
        return Trouble.CLOCK, CLOCK_REMEDY
    if code in EXPIRED_CREDENTIALS:
        return Trouble.CREDENTIALS, EXPIRED_REMEDY
    if code in BAD_CREDENTIALS:
        return Trouble.CREDENTIALS, CREDENTIALS_REMEDY
    # DynamoDB says it as AccessDeniedException or ValidationException with a text that names KMS.
    if code.lower().startswith(_KMS) or "kms key" in lowered or "kms:" in lowered:
        return Trouble.ENCRYPTION, KMS_REMEDY
    if code in DENIED:
        return Trouble.PERMISSION, ""
    if not code or code.isdecimal():
        return Trouble.ANSWER, FOREIGN_REMEDY
    return Trouble.REFUSED, ""


def said(what: str, error: BaseException) -> str:
    """Return the operation and an error's text in one line of bounded length."""
    text = " ".join(str(error).split())
    if not isinstance(error, boto.ClientError):
        text = f"{type(error).__name__}: {text}"
    if len(text) > _MAX_SAID:
        text = f"{text[:_MAX_SAID]}..."
    return f"{what}: {text}" if what else text
