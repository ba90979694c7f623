"""The sources in force, kept fresh: the user's own are read with the definitions, every few seconds."""

from __future__ import annotations

from typing import TYPE_CHECKING

import structlog

from service.sources.registry import Registry
from service.sources.stored import OwnSources

if TYPE_CHECKING:
    from collections.abc import Iterable

    from service.ingest.stores import SourceRows
    from service.observability.metrics import Metrics
    from service.runtime.clock import Clock
    from service.sources.stored import SourceRow

_log = structlog.get_logger()


class CurrentSources:
    """Answers which sources read the records.

    Args:
        default_project: The project of events that name none; empty: such events are dead letters.
    """

    def __init__(self, *, default_project: str = "") -> None:
        self._default_project = default_project
        self.own = OwnSources()
        self._registry = Registry(default_project=default_project)

    def reading(self, detailed: frozenset[str]) -> Registry:
        """Return the sources in force now, reading the payload of events of some types.

        Args:
            detailed: Types of which rules read the payload.
        """
        if self._registry.detailed != detailed:
            self._registry = self._registry.with_details(detailed)
        return self._registry

    @property
    def registry(self) -> Registry:
        """The sources in force now: immutable, so a batch reads it once."""
        return self._registry

    def update(self, rows: Iterable[SourceRow]) -> None:
        """Take over the user's sources; nothing is made again where none has changed."""
        before, self.own = self.own, self.own.refreshed(rows)
        if self.own.sources != before.sources:
            self._registry = Registry(self.own.sources, default_project=self._default_project)


class SourceBook:
    """Takes over the user's sources again and again.

    Args:
        store: What reads them.
        current: What is kept fresh.
        clock: Time.
        metrics: What is in force.
        refresh_s: Seconds between two looks.
    """

    def __init__(
        self, store: SourceRows, current: CurrentSources, clock: Clock, metrics: Metrics, *, refresh_s: float = 5.0
    ) -> None:
        self._store = store
        self._current = current
        self._clock = clock
        self._metrics = metrics
        self._refresh_s = refresh_s
        self._reported: frozenset[tuple[str, str]] = frozenset()

    def refresh(self) -> None:
        """Take over the sources that the last reading of the table found."""
        self._current.update(self._store.sources())
        own = self._current.own
        faulty = frozenset((each.name, each.why) for each in own.faulty)
        for each in own.faulty:
            if (each.name, each.why) not in self._reported:
                _log.error(
                    "source.malformed",
                    source=each.name,
                    why=each.why,
                    consequence="its last good version stays in force" if each.kept else "it is not in force",
                    remedy="correct it with `scoring sources apply FILE`, or `scoring sources remove NAME`",
                )
        self._reported = faulty
        self._metrics.sources.set(len(own.sources))
        self._metrics.sources_malformed.set(len(faulty))

    async def run(self) -> None:
        """Refresh until cancelled."""
        while True:
            await self._clock.sleep(self._refresh_s)
            self.refresh()
