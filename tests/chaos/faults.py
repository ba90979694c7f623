"""Which faults there are, how often, and what they make of a request or an answer. Pure.

Every fault is one that AWS's SDKs are built for: throttles, 5xx, slow answers, connections reset before the request was
carried out or after it, and batch calls that do only a part
(https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/Programming.Errors.html,
https://docs.aws.amazon.com/kinesis/latest/APIReference/API_PutRecords.html).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from random import Random
from typing import Any, TypeVar

import msgspec

T = TypeVar("T")
Document = dict[str, Any]

THROTTLE = "throttled"
SERVER_ERROR = "5xx"
SLOW = "slow"
RESET = "reset before the request"
LOST = "response lost after the request"
PARTIAL = "part of a batch refused"
KINDS = (THROTTLE, SERVER_ERROR, SLOW, RESET, LOST, PARTIAL)

SLOW_S = (0.05, 1.0)
"""Shortest and longest delay of a slow call, seconds."""
BATCHES = frozenset({"BatchGetItem", "BatchWriteItem", "BatchExecuteStatement", "PutRecords"})
UNAMBIGUOUS = frozenset({SLOW, PARTIAL})
"""All that may happen to PutRecords: whether a record was put must be known, or the truth is not."""
_THROTTLED_STATEMENTS = ("ThrottlingError", "ProvisionedThroughputExceeded", "RequestLimitExceeded")


class Rates(msgspec.Struct, frozen=True):
    """The probability of each fault, per request; `partial` per batch call that had no other."""

    throttle: float = 0.0
    server_error: float = 0.0
    slow: float = 0.0
    reset: float = 0.0
    lost: float = 0.0
    partial: float = 0.0

    def times(self, factor: float) -> Rates:
        """Return all of them multiplied."""
        return Rates(*(min(1.0, rate * factor) for rate in msgspec.structs.astuple(self)))


STORM = Rates(throttle=0.02, server_error=0.01, slow=0.03, reset=0.01, lost=0.015, partial=0.08)
CALM = Rates()


def draw(rates: Rates, operation: str, rng: Random) -> str:
    """Return the kind of fault that a request meets; empty: none."""
    left = rng.random()
    kind = ""
    for name, rate in zip(KINDS, msgspec.structs.astuple(rates)[:-1], strict=False):
        if left < rate:
            kind = name
            break
        left -= rate
    if not kind and operation in BATCHES and rng.random() < rates.partial:
        kind = PARTIAL
    return "" if operation == "PutRecords" and kind not in UNAMBIGUOUS else kind


class Refusal(msgspec.Struct, frozen=True):
    """An error answer."""

    status: int
    headers: dict[str, str]
    body: bytes


def refusal(service: str, operation: str, kind: str, rng: Random) -> Refusal:
    """Return the answer of a service that throttles (`THROTTLE`) or fails (`SERVER_ERROR`)."""
    if kind == SERVER_ERROR and rng.random() < 1 / 3:
        # What a load balancer says that has nobody behind it.
        return Refusal(503, {"Content-Type": "text/html"}, b"<html><body>Service Unavailable</body></html>")
    if service == "pinpoint":
        status, code = (429, "TooManyRequestsException") if kind == THROTTLE else (500, "InternalServerErrorException")
        body = json.dumps({"Message": "a fault that was asked for", "RequestID": "chaos"}).encode()
        return Refusal(status, {"Content-Type": "application/json", "x-amzn-ErrorType": code}, body)
    if kind == THROTTLE:
        status, code = 400, rng.choice(_throttles(service, operation))
    else:
        status, code = 500, "InternalFailure" if service == "kinesis" else "InternalServerError"
    namespace = "kinesis" if service == "kinesis" else "dynamodb"
    body = json.dumps({"__type": f"com.amazonaws.{namespace}#{code}", "message": "a fault that was asked for"}).encode()
    return Refusal(status, {"Content-Type": "application/x-amz-json-1.0"}, body)


def _throttles(service: str, operation: str) -> Sequence[str]:
    if service == "dynamodb":
        return ("ProvisionedThroughputExceededException", "ThrottlingException", "RequestLimitExceeded")
    if operation in {"GetRecords", "GetShardIterator"} and service == "kinesis":
        return ("ProvisionedThroughputExceededException",)
    return ("LimitExceededException",)


class Part(msgspec.Struct, frozen=True):
    """A batch of which a part is refused.

    Attributes:
        request: What is carried out; None: nothing.
        complete: Makes the whole answer from the answer to `request` (`{}` where there was none).
        refused: How many members were refused.
    """

    request: Document | None
    complete: Callable[[Document], Document]
    refused: int


def part_of(operation: str, request: Document, rng: Random) -> Part | None:
    """Return how a batch call does only a part of its work; None where it cannot."""
    match operation:
        case "BatchExecuteStatement":
            return _in_place(request, "Statements", "Responses", lambda: _refused_statement(rng), rng)
        case "PutRecords":
            return _in_place(request, "Records", "Records", _refused_record, rng)
        case "BatchGetItem" | "BatchWriteItem":
            return _left_over(operation, request, rng)
        case _:
            return None


def _refused_statement(rng: Random) -> Document:
    return {"Error": {"Code": rng.choice(_THROTTLED_STATEMENTS), "Message": "a fault that was asked for"}}


def _refused_record() -> Document:
    return {"ErrorCode": "ProvisionedThroughputExceededException", "ErrorMessage": "a fault that was asked for"}


def _some(members: Sequence[T], rng: Random) -> list[bool]:
    """Return for each member whether it is refused; at least one is."""
    share = rng.choice((0.1, 0.5, 1.0))
    refused = [rng.random() < share for _ in members]
    refused[rng.randrange(len(members))] = True
    return refused


def _in_place(request: Document, asked: str, answered: str, refuse: Callable[[], Document], rng: Random) -> Part | None:
    members = request.get(asked, [])
    if not members:
        return None
    refused = _some(members, rng)
    kept = [member for member, no in zip(members, refused, strict=True) if not no]

    def complete(answer: Document) -> Document:
        given = iter(answer.get(answered, ()))
        whole = answer | {answered: [refuse() if no else next(given) for no in refused]}
        if asked == "Records":
            whole["FailedRecordCount"] = answer.get("FailedRecordCount", 0) + sum(refused)
        return whole

    return Part({**request, asked: kept} if kept else None, complete, sum(refused))


def _left_over(operation: str, request: Document, rng: Random) -> Part | None:
    """Leave keys or items unprocessed, but never all: DynamoDB would then answer with an error instead."""
    gets = operation == "BatchGetItem"
    tables = request.get("RequestItems", {})
    members = [(table, each) for table, asked in tables.items() for each in (asked["Keys"] if gets else asked)]
    if len(members) < 2:
        return None
    refused = set(rng.sample(range(len(members)), rng.randrange(1, len(members))))

    def of(wanted: bool) -> Document:  # noqa: FBT001 - read at the call
        chosen: Document = {}
        for number, (table, each) in enumerate(members):
            if (number in refused) is wanted:
                chosen.setdefault(table, []).append(each)
        return {table: {**tables[table], "Keys": each} if gets else each for table, each in chosen.items()}

    def complete(answer: Document) -> Document:
        name = "UnprocessedKeys" if gets else "UnprocessedItems"
        left: Document = dict(answer.get(name) or {})
        for table, each in of(wanted=True).items():
            there = left.get(table, {"Keys": []} if gets else [])
            left[table] = {**each, "Keys": there["Keys"] + each["Keys"]} if gets else there + each
        return answer | {name: left}

    return Part({**request, "RequestItems": of(wanted=False)}, complete, len(refused))
