"""The definition table: `DefinitionSource`, and the writing side for the command line.

Keys `EventType` (HASH) and `PinpointProjectId` (RANGE), `ScoreOffset` N: the form of the system this one replaces.

Rows whose `EventType` starts with `#` are not definitions. `#rules` holds the rules of a project (see `rules`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from service.aws.calls import Item, pages
from service.aws.clients import AwsClient
from service.aws.schema import DEFINITION_KEYS, key_item
from service.aws.translation import translated
from service.scoring.change import number_of, whole_of
from service.scoring.definitions import RESERVED, RULES_TYPE, Definition, Malformed, points_fault
from service.scoring.rules.stored import RulesRow
from service.sources.stored import SourceRow

SOURCE_PREFIX = f"{RESERVED}source:"
"""What the `EventType` of a row with a source begins with."""

REMEDY = "run `scoring setup`, or set SCORING_DEFINITIONS_TABLE"


class DefinitionTable:
    """`DefinitionSource` on DynamoDB, and changes to single rows."""

    def __init__(self, client: AwsClient, table: str) -> None:
        self._client = client
        self._table = table
        self._what = f"table {table}"
        self._sources: Sequence[SourceRow] = ()

    async def load(self, *, consistent: bool = False) -> Sequence[Definition | Malformed | RulesRow]:
        """Return every row, those with rules included; see `DefinitionSource.load`.

        Args:
            consistent: Whether what was just written must be in it. Otherwise the read costs half (half a unit per
                4 KB), and a change is in force one refresh later at worst.
        """
        read = pages(self._client.scan, self._what, remedy=REMEDY, TableName=self._table, ConsistentRead=consistent)
        items = [item async for page in read for item in page]
        self._sources = [source_of(item) for item in items if is_source(item)]
        return [
            rules_of(item) if is_rules(item) else definition_of(item)
            for item in items
            if is_rules(item) or not is_reserved(item)
        ]

    def sources(self) -> Sequence[SourceRow]:
        """Return the rows of own sources that the last `load` came across: they cost no call of their own."""
        return self._sources

    async def definitions(self) -> list[Definition | Malformed]:
        """Return every definition, as just written."""
        rows = await self.load(consistent=True)
        return [
            row
            for row in rows
            if isinstance(row, Definition) or (isinstance(row, Malformed) and not row.event_type.startswith(RESERVED))
        ]

    async def set(self, definition: Definition) -> str | None:
        """Write a definition over whatever its key held; return the points it held as stored, None where it was new.

        Raises:
            ValueError: Its points cannot be a `ScoreOffset`.
        """
        fault = points_fault(definition.points)
        if fault is not None:
            raise ValueError(fault)
        with translated(self._what, remedy=REMEDY):
            answer = await self._client.put_item(
                TableName=self._table, Item=definition_item(definition), ReturnValues="ALL_OLD"
            )
        before: Mapping[str, Any] = answer.get("Attributes", {}).get("ScoreOffset", {})
        return next(iter(map(str, before.values())), "nothing") if answer.get("Attributes") else None

    async def remove(self, event_type: str, project_id: str) -> bool:
        """Remove a definition; return whether there was one."""
        with translated(self._what, remedy=REMEDY):
            answer = await self._client.delete_item(
                TableName=self._table,
                Key=key_item(DEFINITION_KEYS, (event_type, project_id)),
                ReturnValues="ALL_OLD",
            )
        return bool(answer.get("Attributes"))


def is_reserved(item: Item) -> bool:
    """Return whether a row is something else than a definition, such as a project's rules."""
    return str(item[DEFINITION_KEYS[0]]["S"]).startswith(RESERVED)


def definition_item(definition: Definition) -> dict[str, dict[str, str]]:
    """Return a definition as its row."""
    return {
        **key_item(DEFINITION_KEYS, (definition.event_type, definition.project_id)),
        "ScoreOffset": {"N": format(definition.points, "f")},
    }


def definition_of(item: Item) -> Definition | Malformed:
    """Read a row; its keys are strings, because the table says so."""
    event_type, project_id = (item[name]["S"] for name in DEFINITION_KEYS)
    if "ScoreOffset" not in item:
        return Malformed(event_type, project_id, "ScoreOffset is missing")
    points = number_of(item["ScoreOffset"])
    if points is None:
        return Malformed(event_type, project_id, f"ScoreOffset has type {next(iter(item['ScoreOffset']))}, not N")
    fault = points_fault(points)
    return Definition(event_type, project_id, points) if fault is None else Malformed(event_type, project_id, fault)


def is_rules(item: Item) -> bool:
    """Return whether a row of the definition table holds rules."""
    return bool(item[DEFINITION_KEYS[0]]["S"] == RULES_TYPE)


def rules_of(item: Item) -> RulesRow | Malformed:
    """Read a row that holds rules; what is inside `Rules` is not looked at."""
    project_id = item[DEFINITION_KEYS[1]]["S"]
    text, version = item.get("Rules", {}).get("S"), whole_of(item.get("Version", {}))
    if not isinstance(text, str):
        return Malformed(RULES_TYPE, project_id, "Rules is missing or not a text")
    if not version:
        return Malformed(RULES_TYPE, project_id, "Version is missing or not a whole number from 1")
    history = item.get("History", {}).get("B", b"")
    return RulesRow(project_id, version, text, bytes(history) if isinstance(history, bytes | bytearray) else b"")


def is_source(item: Item) -> bool:
    """Return whether a row holds a source of a user's own."""
    return str(item["EventType"]["S"]).startswith(SOURCE_PREFIX)


def source_of(item: Item) -> SourceRow:
    """Read a row with a source; what something else has written over it is a text that holds no source."""
    name = item["EventType"]["S"].removeprefix(SOURCE_PREFIX)
    return SourceRow(name, item.get("Source", {}).get("S", ""), whole_of(item.get("Position", {})) or 0)
