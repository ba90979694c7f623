"""The definitions in force, kept fresh: one read of the table every few seconds, none per event."""

from __future__ import annotations

import structlog

from service.ingest.stores import DefinitionSource
from service.observability.metrics import Metrics
from service.runtime.clock import Clock
from service.runtime.errors import TransientError
from service.scoring.definitions import RESERVED, DefinitionBook, Malformed
from service.scoring.rules.stored import StoredRulesError

_log = structlog.get_logger()


class CurrentDefinitions:
    """Answers what an event is worth by the last table read.

    Args:
        refresh_s: Seconds between reads; a change counts for events decoded that long after it.
    """

    def __init__(self, source: DefinitionSource, clock: Clock, metrics: Metrics, *, refresh_s: float = 5.0) -> None:
        self._source = source
        self._clock = clock
        self._metrics = metrics
        self._refresh_s = refresh_s
        self._book = DefinitionBook()
        self._reported: frozenset[Malformed] = frozenset()

    @property
    def book(self) -> DefinitionBook:
        """What every event is worth by the last table read."""
        return self._book

    async def refresh(self) -> None:
        """Read the table once.

        Raises:
            TransientError: It cannot be read now, or it holds rules that this version cannot score by and that were
                never in force here; the last definitions and rules stay in force.
        """
        rows = await self._source.load()
        try:
            self._book = self._book.refreshed(rows)
        except StoredRulesError as error:
            raise TransientError(f"{error}: run the version of this program that applied them") from error
        malformed = frozenset(self._book.faults)
        for row in sorted(malformed - self._reported, key=lambda row: (row.project_id, row.event_type)):
            _log.error(
                "definition.rejected",
                event_type=row.event_type,
                project=row.project_id,
                why=row.detail,
                remedy="correct it; until then its last valid value is used: "
                + ("scoring rules apply" if row.event_type.startswith(RESERVED) else "scoring definitions set"),
            )
        self._reported = malformed
        self._metrics.definitions.set(len(self._book))
        self._metrics.definitions_malformed.set(len(malformed))
        self._metrics.rules_version.clear()
        for project_id in self._metrics.project_labels(self._book.rules):
            self._metrics.rules_version.labels(project_id).set(self._book.rules[project_id].version)
        self._metrics.definitions_refreshed.set(self._clock.wall_ms() / 1000)

    async def run(self) -> None:
        """Refresh until cancelled; a failed read is reported and tried again."""
        while True:
            await self._clock.sleep(self._refresh_s)
            try:
                await self.refresh()
            except TransientError as error:
                _log.warning("definitions.refresh_failed", why=str(error), remedy="none needed: retried shortly")
