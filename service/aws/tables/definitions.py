"""The definition table: `DefinitionSource`, and the writing side for the command line.

Keys `EventType` (HASH) and `PinpointProjectId` (RANGE), `ScoreOffset` N: the form of the system this one replaces.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from service.aws.calls import Item
from service.aws.clients import AwsClient
from service.aws.errors import translated
from service.scoring.change import number_of
from service.scoring.definitions import Definition, Malformed, points_fault

_REMEDY = "run `scoring setup`, or set SCORING_DEFINITIONS_TABLE"


class DefinitionTable:
    """`DefinitionSource` on DynamoDB, and changes to single rows."""

    def __init__(self, client: AwsClient, table: str) -> None:
        self._client = client
        self._table = table
        self._what = f"table {table}"

    async def load(self) -> Sequence[Definition | Malformed]:
        """Return every row; see `DefinitionSource.load`.

        The scan is eventually consistent (half a unit per 4 KB): a change is in force one refresh later at worst.
        """
        rows: list[Definition | Malformed] = []
        start: dict[str, Any] = {}
        while True:
            with translated(self._what, remedy=_REMEDY):
                page = await self._client.scan(TableName=self._table, **start)
            rows += [definition_of(item) for item in page["Items"]]
            if not page.get("LastEvaluatedKey"):
                return rows
            start = {"ExclusiveStartKey": page["LastEvaluatedKey"]}

    async def set(self, definition: Definition) -> None:
        """Write a definition over whatever its key held.

        Raises:
            ValueError: Its points cannot be a `ScoreOffset`.
        """
        fault = points_fault(definition.points)
        if fault is not None:
            raise ValueError(fault)
        with translated(self._what, remedy=_REMEDY):
            await self._client.put_item(TableName=self._table, Item=definition_item(definition))

    async def remove(self, event_type: str, project_id: str) -> bool:
        """Remove a definition; return whether there was one."""
        with translated(self._what, remedy=_REMEDY):
            answer = await self._client.delete_item(
                TableName=self._table,
                Key={"EventType": {"S": event_type}, "PinpointProjectId": {"S": project_id}},
                ReturnValues="ALL_OLD",
            )
        return bool(answer.get("Attributes"))


def definition_item(definition: Definition) -> dict[str, dict[str, str]]:
    """Return a definition as its row."""
    return {
        "EventType": {"S": definition.event_type},
        "PinpointProjectId": {"S": definition.project_id},
        "ScoreOffset": {"N": format(definition.points, "f")},
    }


def definition_of(item: Item) -> Definition | Malformed:
    """Read a row; its keys are strings, because the table says so."""
    event_type, project_id = item["EventType"]["S"], item["PinpointProjectId"]["S"]
    if "ScoreOffset" not in item:
        return Malformed(event_type, project_id, "ScoreOffset is missing")
    points = number_of(item["ScoreOffset"])
    if points is None:
        return Malformed(event_type, project_id, f"ScoreOffset has type {next(iter(item['ScoreOffset']))}, not N")
    fault = points_fault(points)
    return Definition(event_type, project_id, points) if fault is None else Malformed(event_type, project_id, fault)
