"""A table stream that stays silent: some emulators emit no record for what PartiQL statements write.

Scores are written by `BatchExecuteStatement`. On ministack by itself, and on LocalStack with its default DynamoDB
provider, such a write never shows in the table's stream, so every score is right and none is published
(deploy/decisions/0001-ministack-stream-records.md). Records are kept for 24 hours: a score that changed within that
time, and a stream that shows no record at all, tell. AWS itself has no such fault, so there nobody asks.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from service.aws.clients import AwsClient
from service.aws.schema import updated_ms_of
from service.aws.streams.dynamodb_streams import DynamoDbStreamSource
from service.aws.translation import translated
from service.runtime.errors import IteratorExpiredError, RecordsTrimmedError, ShardGoneError
from service.stream.position import TRIM_HORIZON

SETTLE_MS = 30_000
"""Age of a change that must be in the stream by now."""
KEPT_MS = 23 * 3_600_000
"""Age of a change that must be in the stream still: 24 hours, less a margin for clocks."""
SAMPLE = 100
"""Scores looked at. An emulator's are all of this day, as its memory is."""
MAX_PAGES = 10
"""Pages read of a shard: one may be empty although records follow."""
MAX_SHARDS = 20

WHY = "scores changed, and the table's stream shows no change at all: nothing is published"
REMEDY = (
    "this emulator emits no stream record for what BatchExecuteStatement writes: use `scoring local up`, whose "
    "emulator does; LocalStack needs PROVIDER_OVERRIDE_DYNAMODB=v2 and PROVIDER_OVERRIDE_DYNAMODBSTREAMS=v2"
)


def changed_lately(items: Iterable[Mapping[str, Any]], now_ms: int) -> bool:
    """Return whether any of these scores changed so that its change must be in the stream at `now_ms`."""
    ages = (now_ms - updated_ms_of(item) for item in items)
    return any(SETTLE_MS <= age <= KEPT_MS for age in ages)


async def is_silent(dynamodb: AwsClient, table: str, source: DynamoDbStreamSource, now_ms: int) -> bool | None:
    """Return whether the stream of the score table is silent; None where no score changed lately, so nobody can tell.

    Raises:
        TransientError: AWS does not answer.
    """
    with translated(f"table {table}"):
        answer = await dynamodb.scan(TableName=table, Limit=SAMPLE)
        lately = changed_lately(answer["Items"], now_ms)
    if not lately:
        return None
    for shard in (await source.list_shards())[:MAX_SHARDS]:
        if await _shows_something(source, shard.shard_id):
            return False
    return True


async def _shows_something(source: DynamoDbStreamSource, shard_id: str) -> bool:
    try:
        iterator: str | None = await source.iterator(shard_id, TRIM_HORIZON)
        for _ in range(MAX_PAGES):
            if iterator is None:
                return False
            page = await source.fetch(iterator, 1)
            if page.records:
                return True
            iterator = page.next_iterator
    except (RecordsTrimmedError, IteratorExpiredError, ShardGoneError):
        return True  # something was there
    return False
