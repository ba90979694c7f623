"""The sources in force, kept fresh: one read of the user's own every few seconds, none per event."""

from __future__ import annotations

from typing import TYPE_CHECKING

import structlog

from service.runtime.errors import TransientError
from service.sources.registry import Registry
from service.sources.stored import OwnSources

if TYPE_CHECKING:
    from collections.abc import Iterable

    from service.ingest.stores import SourceStore
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
    """Reads the user's sources again and again.

    Args:
        store: Where they are kept.
        current: What is kept fresh.
        clock: Time.
        metrics: What is in force.
        refresh_s: Seconds between reads.
    """

    def __init__(
        self, store: SourceStore, current: CurrentSources, clock: Clock, metrics: Metrics, *, refresh_s: float = 5.0
    ) -> None:
        self._store = store
        self._current = current
        self._clock = clock
        self._metrics = metrics
        self._refresh_s = refresh_s
        self._reported: frozenset[tuple[str, str]] = frozenset()

    async def refresh(self) -> None:
        """Read the sources once.

        Raises:
            TransientError: They cannot be read now; the last ones stay in force.
        """
        self._current.update(await self._store.load())
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
        """Refresh until cancelled; a failed read is reported and tried again."""
        while True:
            await self._clock.sleep(self._refresh_s)
            try:
                await self.refresh()
            except TransientError as error:
                _log.warning("sources.refresh_failed", why=str(error), remedy="none needed: read again shortly")
