"""Many items in few calls: chunks, bounded concurrency, and retries of unprocessed parts."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

from service.aws.clients import AwsClient
from service.aws.fast.gather import Gatherer
from service.aws.translation import translated
from service.runtime.concurrency import together
from service.runtime.errors import TransientError

MAX_GETS = 100
"""Keys per BatchGetItem (https://docs.aws.amazon.com/amazondynamodb/latest/APIReference/API_BatchGetItem.html)."""

MAX_PUTS = 25
"""Items per BatchWriteItem
(https://docs.aws.amazon.com/amazondynamodb/latest/APIReference/API_BatchWriteItem.html)."""

MAX_CONCURRENT_CALLS = 4
"""Calls in flight for one request of a caller; callers bound how many requests they make."""

MAX_ROUNDS = 6
"""Consecutive calls without progress after which the caller must retry. While calls make progress, there is no limit:
giving up would throw away what was read and paid for, and the caller would start over forever."""

BACKOFF_BASE_S = 0.05
BACKOFF_CAP_S = 1.0

SETUP = "run `scoring setup`"
"""The remedy if a table does not exist."""

T = TypeVar("T")
R = TypeVar("R")
Item = Mapping[str, Mapping[str, Any]]
"""An item in DynamoDB's JSON."""

Key = tuple[str, str]
"""The values of an item's hash and range key."""

_rng = random.SystemRandom()


def chunks(items: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    """Yield `items` in order, `size` at a time."""
    for start in range(0, len(items), size):
        yield items[start : start + size]


async def pause(attempt: int) -> None:
    """Wait after attempt number `attempt` (from 1), for a random time below a ceiling that doubles each time."""
    await asyncio.sleep(_rng.uniform(0, min(BACKOFF_CAP_S, BACKOFF_BASE_S * 2 ** (attempt - 1))))


async def each(work: Callable[[T], Awaitable[R]], parts: Sequence[T]) -> list[R]:
    """Call `work` for each of `parts`, `MAX_CONCURRENT_CALLS` at a time; return the results in order.

    The first failure cancels the others and is raised, not in a group.
    """
    if len(parts) == 1:
        return [await work(parts[0])]
    left = iter(enumerate(parts))
    results: dict[int, R] = {}

    async def lane() -> None:
        for index, part in left:
            results[index] = await work(part)

    await together(lane() for _ in range(min(MAX_CONCURRENT_CALLS, len(parts))))
    return [results[index] for index in range(len(parts))]


class ItemReader:
    """Reads items of one table by their keys; combines small requests of different callers.

    Args:
        client: DynamoDB.
        table: Its name.
        key_names: Its hash and range key, both strings.
        attributes: What to return of an item, the key included.
        consistent: Whether everything written before counts; else it costs half as much.
    """

    def __init__(
        self,
        client: AwsClient,
        table: str,
        key_names: tuple[str, str],
        attributes: Sequence[str],
        *,
        consistent: bool = True,
    ) -> None:
        self._client = client
        self._table = table
        self._key_names = key_names
        names = {f"#{index}": name for index, name in enumerate(attributes)}
        self._wanted = {
            "ConsistentRead": consistent,
            "ProjectionExpression": ", ".join(names),
            "ExpressionAttributeNames": names,
        }
        self._small: Gatherer[Key, None, dict[Key, Item]] = Gatherer(self._get, MAX_GETS)

    async def get(self, keys: Collection[Key]) -> Mapping[Key, Item]:
        """Return the items of `keys` (different ones, any number) that exist.

        Raises:
            TransientError: Also when keys stay unprocessed for `MAX_ROUNDS`.
        """
        if not keys:
            return {}
        if len(keys) < MAX_GETS:
            found = await self._small.ask(dict.fromkeys(keys))
            return {key: found[key] for key in keys if key in found}
        items: dict[Key, Item] = {}
        for some in await each(self._get, list(chunks(list(keys), MAX_GETS))):
            items.update(some)
        return items

    async def _get(self, keys: Iterable[Key]) -> dict[Key, Item]:
        table, (hash_name, range_name) = self._table, self._key_names
        items: dict[Key, Item] = {}

        async def get(pending: Sequence[Item]) -> Sequence[Item]:
            with translated(f"table {table}"):
                answer = await self._client.batch_get_item(RequestItems={table: {"Keys": pending, **self._wanted}})
                for item in answer["Responses"].get(table, ()):
                    items[item[hash_name]["S"], item[range_name]["S"]] = item
            left: Sequence[Item] = answer.get("UnprocessedKeys", {}).get(table, {}).get("Keys", [])
            return left

        wanted: Sequence[Item] = [{hash_name: {"S": one}, range_name: {"S": other}} for one, other in keys]
        await until_nothing_is_left(table, "keys", get, wanted)
        return items


async def pages(
    call: Callable[..., Awaitable[Mapping[str, Any]]],
    what: str,
    *,
    remedy: str = SETUP,
    attempts: int = 1,
    **request: Any,  # noqa: ANN401 # whatever the call takes
) -> AsyncIterator[Sequence[Item]]:
    """Yield the items of each page of a Scan or Query, until there are no more.

    Args:
        call: A client's `scan` or `query`.
        what: The resource, for messages: `table userEngagementScore`.
        remedy: What to do if it does not exist.
        attempts: Calls for one page before its `TransientError` is raised; a scan may take hours.
        **request: Its parameters.

    Raises:
        TransientError: A page did not come.
        AwsSetupError: The resource does not exist, or reading it is not allowed.
    """
    while True:
        for attempt in range(1, attempts + 1):
            try:
                with translated(what, remedy=remedy):
                    page = await call(**request)
                    items: Sequence[Item] = page["Items"]
                break
            except TransientError:
                if attempt == attempts:
                    raise
                await pause(attempt)
        yield items
        if not page.get("LastEvaluatedKey"):
            return
        request["ExclusiveStartKey"] = page["LastEvaluatedKey"]


async def batch_put(client: AwsClient, table: str, items: Sequence[Item]) -> None:
    """Write any number of items with distinct keys, replacing existing ones.

    Raises:
        TransientError: Also when items stay unprocessed for `MAX_ROUNDS`.
    """

    async def put(chunk: Sequence[Item]) -> None:
        puts = [{"PutRequest": {"Item": item}} for item in chunk]
        await until_nothing_is_left(table, "items", write, puts)

    async def write(pending: Sequence[Any]) -> Sequence[Any]:
        with translated(f"table {table}"):
            answer = await client.batch_write_item(RequestItems={table: pending})
        left: Sequence[Any] = answer.get("UnprocessedItems", {}).get(table, [])
        return left

    await each(put, list(chunks(items, MAX_PUTS)))


async def until_nothing_is_left(
    table: str, what: str, call: Callable[[Sequence[T]], Awaitable[Sequence[T]]], parts: Sequence[T]
) -> None:
    """Repeat `call` for what it left unprocessed, until `MAX_ROUNDS` consecutive calls made no progress."""
    pending, attempt = parts, 0
    while attempt < MAX_ROUNDS:
        left = await call(pending)
        if not left:
            return
        attempt = attempt + 1 if len(left) == len(pending) else 1
        pending = left
        await pause(attempt)
    raise TransientError(f"table {table}: {len(pending)} {what} stay unprocessed", throttled=True)
