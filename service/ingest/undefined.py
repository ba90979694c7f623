"""Events whose type has no definition: worth nothing, and made visible, as a missing definition looks just like that.

They are counted by type, logged once per type and hour, and added up in a table, where `scoring definitions missing`
finds them. Type names are foreign text: only well-formed ones, and a bounded number of them, are counted separately.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import msgspec
import structlog

from service.ingest.stores import ProjectType, Undefined, UndefinedStore
from service.observability.metrics import OTHER_TYPE, Metrics
from service.runtime.clock import Clock
from service.runtime.errors import TransientError

_log = structlog.get_logger()

LOG_EVERY_S = 3600.0
"""Seconds between two log lines about one type."""

STORE_EVERY_S = 30.0
"""Seconds between two writes of what was counted meanwhile."""

MAX_STORED = 200
"""Types kept in the table: an item below 64 KB with the longest names."""


def merged(stored: Iterable[Undefined], counted: Iterable[Undefined], *, oldest_ms: int) -> list[Undefined]:
    """Return the sum of both, the most frequent first; without what came last before `oldest_ms`.

    Of more than `MAX_STORED` types, those that came last are kept.
    """
    sums: dict[ProjectType, Undefined] = {}
    for each in (*stored, *counted):
        kind = each.project_id, each.event_type
        before = sums.get(kind)
        sums[kind] = (
            each if before is None else Undefined(*kind, before.events + each.events, max(before.last_ms, each.last_ms))
        )
    recent = sorted((each for each in sums.values() if each.last_ms >= oldest_ms), key=lambda each: -each.last_ms)
    return sorted(recent[:MAX_STORED], key=lambda each: (-each.events, each.project_id, each.event_type))


class UndefinedTypes:
    """Counts, logs and stores the events of one process."""

    def __init__(self, store: UndefinedStore, clock: Clock, metrics: Metrics) -> None:
        self._store = store
        self._clock = clock
        self._metrics = metrics
        self._to_store: dict[ProjectType, Undefined] = {}
        self._to_log: dict[ProjectType, int] = {}
        self._logged: dict[ProjectType, float] = {}

    def note(self, counts: Mapping[ProjectType, int]) -> None:
        """Count events by project and type; log the types that are due."""
        now, now_ms = self._clock.monotonic(), self._clock.wall_ms()
        for (project_id, event_type), count in counts.items():
            label = self._metrics.undefined_type_label(project_id, event_type)
            self._metrics.events_without_definition.labels(label).inc(count)
            kind = ("", label) if label == OTHER_TYPE else (project_id, label)
            before = self._to_store.get(kind)
            self._to_store[kind] = Undefined(*kind, count + (before.events if before else 0), now_ms)
            self._to_log[kind] = self._to_log.get(kind, 0) + count
            logged = self._logged.get(kind)
            if logged is None or now - logged >= LOG_EVERY_S:
                self._logged[kind] = now
                _log.info(
                    "event_type.ignored",
                    event_type=label,
                    project=kind[0],
                    events=self._to_log.pop(kind),
                    remedy="to count such events, `scoring definitions set TYPE POINTS --project ID`; the next "
                    "line about this type follows in an hour",
                )

    async def store(self) -> None:
        """Store what was counted since the last time.

        Raises:
            TransientError: Not now; the call can be repeated.
        """
        counted, self._to_store = self._to_store, {}
        if not counted:
            return
        try:
            await self._store.add(counted)
        except TransientError:
            for kind, undefined in counted.items():
                since = self._to_store.get(kind)
                events = undefined.events + (since.events if since else 0)
                self._to_store[kind] = msgspec.structs.replace(since or undefined, events=events)
            raise

    async def run(self) -> None:
        """Store what is counted until cancelled; a failed write is reported and tried again."""
        while True:
            await self._clock.sleep(STORE_EVERY_S)
            try:
                await self.store()
            except TransientError as error:
                _log.warning("event_type.count_failed", why=str(error), remedy="none needed: retried")
