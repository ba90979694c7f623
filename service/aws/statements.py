"""Conditional PartiQL statements, 25 per call.

A statement's own error is part of a successful answer, with one of the codes of
https://docs.aws.amazon.com/amazondynamodb/latest/APIReference/API_BatchStatementError.html.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import Enum
from typing import Any, TypeVar

from service.aws.calls import chunks, each, until_nothing_is_left
from service.aws.clients import AwsClient
from service.aws.translation import AwsSetupError, translated, trouble_of
from service.ingest.stores import MAX_COMMITS
from service.runtime.errors import Trouble, TroubleError

K = TypeVar("K")

_LATER = frozenset(
    {
        "InternalServerError",
        "ProvisionedThroughputExceeded",
        "RequestLimitExceeded",
        "ThrottlingError",
        "TransactionConflict",
    }
)
_REFUSED = frozenset({"ItemCollectionSizeLimitExceeded", "ValidationError"})


class Result(Enum):
    """The outcome of a statement."""

    DONE = "done"
    LATER = "later"
    """Not carried out; a retry may succeed."""
    CONDITION = "condition"
    """Its condition does not hold. The error may contain the existing item."""
    EXISTS = "exists"
    """An INSERT found an item with the same key."""
    REFUSED = "refused"
    """DynamoDB cannot store the resulting item."""


def result_of(response: Mapping[str, Any], what: str, *, remedy: str, actions: str) -> Result:
    """Return the outcome of a statement from its part of the answer.

    Args:
        response: `Responses[i]` of `BatchExecuteStatement`.
        what: The table, for messages: `table userEngagementScore`.
        remedy: What to do if the table does not exist.
        actions: The IAM actions that the statements need, for messages.

    Raises:
        AwsSetupError: The table does not exist, or its use is not allowed.
        TroubleError: The code is unknown.
    """
    error = response.get("Error", {})
    code, message = error.get("Code", ""), error.get("Message", "")
    if not error:
        return Result.DONE
    if code == "ConditionalCheckFailed":
        return Result.CONDITION
    if code == "DuplicateItem":
        return Result.EXISTS
    if code in _LATER:
        return Result.LATER
    if code in _REFUSED:
        return Result.REFUSED
    if code == "ResourceNotFound":
        raise AwsSetupError(f"{what} does not exist in this account and region: {remedy}", Trouble.MISSING)
    if code == "AccessDenied":
        raise AwsSetupError(f"{what}: {message}: allow {actions} on it", Trouble.PERMISSION)
    raise TroubleError(
        f"{what}: a statement failed with an unknown code: {code}: {message}", *trouble_of(code, message)
    )


async def execute(
    client: AwsClient, table: str, statements: Mapping[K, Mapping[str, Any]], *, remedy: str, actions: str
) -> set[K]:
    """Run any number of statements on different items of a table, independently of each other.

    Args:
        client: DynamoDB.
        table: Its name.
        statements: Statements by a key that the caller chooses.
        remedy: What to do if the table does not exist.
        actions: The IAM actions that the statements need, for messages.

    Returns:
        The keys of those whose condition does not hold.

    Raises:
        TransientError: Also when statements stay undone for `calls.MAX_ROUNDS`; some may have been carried out.
        TroubleError: A statement is refused, or failed with an unknown code.
        AwsSetupError: The table does not exist, or its use is not allowed.
    """
    what = f"table {table}"
    not_met: set[K] = set()

    async def call(pending: Sequence[K]) -> Sequence[K]:
        left = []
        with translated(what, remedy=remedy):
            answer = await client.batch_execute_statement(Statements=[statements[key] for key in pending])
            for key, response in zip(pending, answer["Responses"], strict=True):
                match result_of(response, what, remedy=remedy, actions=actions):
                    case Result.LATER:
                        left.append(key)
                    case Result.CONDITION | Result.EXISTS:
                        not_met.add(key)
                    case Result.REFUSED:
                        code, message = response["Error"]["Code"], response["Error"].get("Message", "")
                        raise TroubleError(f"{what}: a statement is refused: {code}: {message}", Trouble.REFUSED)
        return left

    async def execute_chunk(keys: Sequence[K]) -> None:
        await until_nothing_is_left(table, "statements", call, keys)

    await each(execute_chunk, list(chunks(list(statements), MAX_COMMITS)))
    return not_met
