"""Conditional PartiQL statements, 25 to a call.

A statement's own error comes back inside a successful answer, with one of the codes of
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
    """What became of a statement."""

    DONE = "done"
    LATER = "later"
    """Not carried out; it may be later."""
    CONDITION = "condition"
    """Its condition does not hold. The error may bring the item that is there."""
    EXISTS = "exists"
    """An INSERT found an item of the same key."""
    REFUSED = "refused"
    """DynamoDB cannot store what the statement would write."""


def result_of(response: Mapping[str, Any], what: str, *, remedy: str, actions: str) -> Result:
    """Return what became of a statement, from its part of the answer.

    Args:
        response: `Responses[i]` of `BatchExecuteStatement`.
        what: The table, for people: `table userEngagementScore`.
        remedy: What to do where the table does not exist.
        actions: The IAM actions that the statements need, for people.

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
    """Carry out any number of statements on different items of a table, each by itself.

    Args:
        client: DynamoDB.
        table: Its name.
        statements: By a key of the caller's.
        remedy: What to do where the table does not exist.
        actions: The IAM actions that the statements need, for people.

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
