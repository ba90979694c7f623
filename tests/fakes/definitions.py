"""The definition table in memory: `DefinitionSource`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from service.scoring.definitions import Definition, Malformed
from service.scoring.rules.stored import RulesRow


class MemoryDefinitions:
    """`DefinitionSource` in a dict by key; `fault` is raised by the next load instead of an answer."""

    def __init__(self, rows: Iterable[Definition | Malformed | RulesRow] = ()) -> None:
        self.rows: dict[tuple[str, str], Definition | Malformed | RulesRow] = {}
        self.fault: Exception | None = None
        self.loads = 0
        for row in rows:
            self.rows["#rules" if isinstance(row, RulesRow) else row.event_type, row.project_id] = row

    async def load(self) -> Sequence[Definition | Malformed | RulesRow]:
        self.loads += 1
        if self.fault is not None:
            fault, self.fault = self.fault, None
            raise fault
        return list(self.rows.values())

    async def set(self, definition: Definition) -> None:
        """Write a definition over whatever its key held."""
        self.rows[definition.event_type, definition.project_id] = definition

    async def apply(self, row: RulesRow) -> None:
        """Put a project's rules in force."""
        self.rows["#rules", row.project_id] = row

    async def remove(self, event_type: str, project_id: str) -> bool:
        """Remove a definition; return whether there was one."""
        return self.rows.pop((event_type, project_id), None) is not None
