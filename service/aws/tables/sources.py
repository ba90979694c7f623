"""Rows of the definition table that hold a user's own sources, for commands; workers read them with the definitions.

| attribute | |
|---|---|
| `EventType` (HASH, S) | `#source:<name>` |
| `PinpointProjectId` (RANGE, S) | `*` |
| `Source` (S) | a source file with this source alone |
| `Position` (N) | its place in the file that it came from |
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from service.aws.calls import pages
from service.aws.clients import AwsClient
from service.aws.tables.definitions import REMEDY, SOURCE_PREFIX, source_of
from service.aws.translation import translated
from service.sources.stored import SourceRow

_RANGE = "*"


class SourceTable:
    """Own sources in the definition table."""

    def __init__(self, client: AwsClient, table: str) -> None:
        self._client = client
        self._table = table
        self._what = f"table {table}"

    async def load(self, *, consistent: bool = False) -> Sequence[SourceRow]:
        """Return every source, in no order.

        Args:
            consistent: Whether what was just written must be in it.
        """
        read = pages(
            self._client.scan,
            self._what,
            remedy=REMEDY,
            TableName=self._table,
            ConsistentRead=consistent,
            FilterExpression="begins_with(EventType, :prefix)",
            ExpressionAttributeValues={":prefix": {"S": SOURCE_PREFIX}},
        )
        return [source_of(item) async for page in read for item in page]

    async def put(self, row: SourceRow) -> bool:
        """Write a source over whatever its name held; return whether it held one."""
        item = {
            **_key(row.name),
            "Source": {"S": row.text},
            "Position": {"N": str(row.position)},
        }
        with translated(self._what, remedy=REMEDY):
            answer = await self._client.put_item(TableName=self._table, Item=item, ReturnValues="ALL_OLD")
        return bool(answer.get("Attributes"))

    async def remove(self, name: str) -> bool:
        """Remove a source; return whether there was one."""
        with translated(self._what, remedy=REMEDY):
            answer = await self._client.delete_item(TableName=self._table, Key=_key(name), ReturnValues="ALL_OLD")
        return bool(answer.get("Attributes"))


def _key(name: str) -> dict[str, Any]:
    return {"EventType": {"S": f"{SOURCE_PREFIX}{name}"}, "PinpointProjectId": {"S": _RANGE}}
