"""Conditional PartiQL statements, 25 to a call.

A statement's own error comes back inside a successful answer, with one of the codes of
https://docs.aws.amazon.com/amazondynamodb/latest/APIReference/API_BatchStatementError.html.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from service.aws.calls import chunks, each, until_nothing_is_left
from service.aws.clients import AwsClient
from service.aws.errors import AwsSetupError, translated, trouble_of
from service.ingest.stores import MAX_COMMITS
from service.runtime.errors import Trouble, TroubleError

K = TypeVar("K")

LATER = frozenset(
    {
        "InternalServerError",
        "ProvisionedThroughputExceeded",
        "RequestLimitExceeded",
        "ThrottlingError",
        "TransactionConflict",
    }
)
"""Codes of statements that may be carried out later."""

NOT_MET = frozenset({"ConditionalCheckFailed", "DuplicateItem"})
"""Codes of statements whose condition does not hold; an INSERT's is that there is no such item."""


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
        TroubleError: A statement failed with a code that nobody foresaw.
        AwsSetupError: The table does not exist, or its use is not allowed.
    """
    what = f"table {table}"
    not_met: set[K] = set()

    async def call(pending: Sequence[K]) -> Sequence[K]:
        left = []
        with translated(what, remedy=remedy):
            answer = await client.batch_execute_statement(Statements=[statements[key] for key in pending])
            for key, response in zip(pending, answer["Responses"], strict=True):
                error = response.get("Error", {})
                code, message = error.get("Code", ""), error.get("Message", "")
                if code in LATER:
                    left.append(key)
                elif code in NOT_MET:
                    not_met.add(key)
                elif code == "ResourceNotFound":
                    missing = f"{what} does not exist in this account and region: {remedy}"
                    raise AwsSetupError(missing, Trouble.MISSING)
                elif code == "AccessDenied":
                    raise AwsSetupError(f"{what}: {message}: allow {actions} on it", Trouble.PERMISSION)
                elif code:
                    raise TroubleError(f"{what}: a statement failed: {code}: {message}", *trouble_of(code, message))
        return left

    async def execute_chunk(keys: Sequence[K]) -> None:
        await until_nothing_is_left(table, "statements", call, keys)

    await each(execute_chunk, list(chunks(list(statements), MAX_COMMITS)))
    return not_met
