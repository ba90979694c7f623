"""What AWS says went wrong, in our words: the only file that knows botocore's errors and their codes.

Sources: the common errors (https://docs.aws.amazon.com/amazondynamodb/latest/APIReference/CommonErrors.html),
DynamoDB's (https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/Programming.Errors.html), Kinesis's
(https://docs.aws.amazon.com/kinesis/latest/APIReference/API_GetRecords.html) and those of DynamoDB streams
(https://docs.aws.amazon.com/amazondynamodb/latest/APIReference/API_streams_GetRecords.html).
"""

from __future__ import annotations

from collections.abc import Mapping
from types import TracebackType
from typing import Any

import aiohttp
from botocore import exceptions as boto

from service.runtime.errors import IteratorExpiredError, RecordsTrimmedError, ShardGoneError, TransientError

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
"""Codes that ask for less, with or without status 429."""

_PASSING = frozenset(
    {
        "ExpiredNextTokenException",
        "ExpiredToken",
        "ExpiredTokenException",
        "InternalFailure",
        "InternalServerError",
        "InternalServerErrorException",
        "ReplicatedWriteConflictException",
        "RequestExpired",
        "RequestTimeout",
        "RequestTimeoutException",
        "ServiceUnavailable",
        "TransactionConflictException",
        "TransactionInProgressException",
    }
)
"""Codes of faults that pass by themselves; credentials that expired are renewed by the next call."""

_LOOKUPS = frozenset({"GetEndpoint", "GetUserEndpoints"})
"""Operations whose 404 (`NotFoundException`) is what was asked
(https://docs.aws.amazon.com/pinpoint/latest/apireference/apps-application-id-endpoints-endpoint-id.html)."""

_DENIED = frozenset({"AccessDenied", "AccessDeniedException", "NotAuthorizedException", "UnauthorizedOperation"})

_UNREACHABLE = (
    boto.ConnectTimeoutError,
    boto.ConnectionClosedError,
    boto.CredentialRetrievalError,
    boto.EndpointConnectionError,
    boto.HTTPClientError,
    boto.IncompleteReadError,
    boto.MetadataRetrievalError,
    boto.ReadTimeoutError,
    boto.ResponseStreamingError,
    aiohttp.ClientConnectionError,
    aiohttp.ClientPayloadError,
    ConnectionError,
    TimeoutError,
)

_TOO_MANY_REQUESTS = 429
_SERVER_ERROR = 500


class AwsSetupError(Exception):
    """Something must be created, allowed or configured by a person; the text says what, and how."""


def code_of(error: boto.ClientError) -> str:
    """Return the error code that a response carries."""
    return str(error.response.get("Error", {}).get("Code", ""))


def item_of(error: boto.ClientError) -> Mapping[str, Mapping[str, Any]] | None:
    """Return the item that failed a condition (`ReturnValuesOnConditionCheckFailure`); None: there is none."""
    item: Mapping[str, Mapping[str, Any]] | None = error.response.get("Item")
    return item


def is_condition_failure(error: boto.ClientError) -> bool:
    """Return whether a conditional write found something else than it expected."""
    return code_of(error) == "ConditionalCheckFailedException"


def outcome_of(status: int, code: str, operation: str = "") -> str:
    """Return how a request went, as a metric label: `ok`, `absent`, `throttled` or `error`.

    A condition that did not hold is an answer, not an error; so is that an endpoint, or a user's, is not there.
    """
    if not code or code == "ConditionalCheckFailedException":
        return "ok"
    if code == "NotFoundException" and operation in _LOOKUPS:
        return "absent"
    return "throttled" if code in THROTTLES or status == _TOO_MANY_REQUESTS else "error"


class translated:  # noqa: N801 # used like a function, in `with`
    """Turn the errors of the AWS calls inside into ours; may be held around `await`.

    Args:
        what: The resource called, for people: `table userEngagementScore`.
        remedy: What to do when it does not exist.
        shard: The shard asked about: then it is the shard that `ResourceNotFoundException` means.

    Raises:
        TransientError: Throttled, timed out, refused, cut off, or failed on the other side.
        IteratorExpiredError: An iterator too old.
        RecordsTrimmedError: A position older than what the stream still holds.
        ShardGoneError: `shard` is unknown.
        AwsSetupError: The resource does not exist, or its use is not allowed.
    """

    __slots__ = ("_remedy", "_shard", "_what")

    def __init__(self, what: str, *, remedy: str = "run `scoring setup`", shard: str = "") -> None:
        self._what = what
        self._remedy = remedy
        self._shard = shard

    def __enter__(self) -> None:
        pass

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            _raise_ours(error, self._what, self._remedy, self._shard)


def _raise_ours(error: BaseException, what: str, remedy: str, shard: str) -> None:
    """Raise what an error means to us; return where it is none of AWS's."""
    match error:
        case boto.ClientError():
            _raise_answer(error, what, remedy, shard)
        case boto.SSLError():
            if isinstance(error.kwargs.get("error"), aiohttp.ClientConnectorCertificateError):
                return
            raise TransientError(f"{what}: {error}") from error
        case boto.NoCredentialsError() | boto.PartialCredentialsError():
            raise AwsSetupError(
                f"{what}: {error}: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, AWS_PROFILE, or run with a role"
            ) from error
        case _ if isinstance(error, _UNREACHABLE):
            raise TransientError(f"{what}: {type(error).__name__}: {error}") from error


def _raise_answer(error: boto.ClientError, what: str, remedy: str, shard: str) -> None:
    code = code_of(error)
    status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    text = f"{what}: {error}"
    if code in THROTTLES or status == _TOO_MANY_REQUESTS:
        raise TransientError(text, throttled=True) from error
    if code in _PASSING or status >= _SERVER_ERROR:
        raise TransientError(text) from error
    if code == "ExpiredIteratorException":
        raise IteratorExpiredError(text) from error
    if code == "TrimmedDataAccessException":
        raise RecordsTrimmedError(text) from error
    if code in {"ResourceNotFoundException", "ResourceNotFound"}:
        if shard:
            raise ShardGoneError(f"{what}: shard {shard}: {error}") from error
        raise AwsSetupError(f"{what} does not exist in this account and region: {remedy}") from error
    if code in _DENIED:
        raise AwsSetupError(
            f"{what}: {error}: allow {error.operation_name} in the policy of the role in use"
        ) from error
