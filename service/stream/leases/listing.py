"""What the lists of a stream's shards have shown so far, and when to list again. No I/O: times are arguments."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from service.stream.leases.discovery import ORPHAN_LISTS, Discovery, discover
from service.stream.leases.lease import Leadership, Lease
from service.stream.leases.lineage import children_of
from service.stream.ports import Shard
from service.stream.settings import ShardSettings

_FIRST_RELIST = 1.0
"""Seconds until the next list after a shard ended whose children are unknown; doubles up to the usual interval."""


class Listing:
    """What one leader remembers of the lists.

    Attributes:
        listed: Shards of the last list.
        gone: Parents that several lists in a row did not name, and that have no row.
    """

    def __init__(self, settings: ShardSettings) -> None:
        self._settings = settings
        self._absent: Mapping[str, int] = {}
        self._unknown: Mapping[str, int] = {}
        self._at = float("-inf")
        self._relist = settings.discovery_interval
        self._unexplained: frozenset[str] = frozenset()
        self._ended_lists = 0
        self.listed: frozenset[str] = frozenset()
        self.gone: frozenset[str] = frozenset()

    @property
    def ended(self) -> bool:
        """Whether every shard is finished and several lists in a row named none that is open."""
        return self._ended_lists >= self._settings.absent_lists

    def due(self, now: float) -> bool:
        """Return whether to list the shards, at monotonic second `now`."""
        return now >= self._at

    def compare(
        self, shards: Sequence[Shard], rows: Mapping[str, Lease], leadership: Leadership, now_ms: int
    ) -> Discovery:
        """Return which rows a list asks for; `carried_out` then counts the list."""
        found = discover(
            shards,
            rows,
            self._absent,
            self._unknown,
            initial=leadership.initial,
            discovered=leadership.discovered,
            absent_lists=self._settings.absent_lists,
            ended_before_ms=now_ms - self._settings.keep_ended_ms,
        )
        self.gone = frozenset(parent for parent, lists in found.unknown.items() if lists >= ORPHAN_LISTS)
        self.listed = frozenset(shard.shard_id for shard in shards)
        return found

    def carried_out(self, found: Discovery, shards: Sequence[Shard], rows: Mapping[str, Lease], now: float) -> None:
        """Count a list whose rows are made and removed, at monotonic second `now`.

        Args:
            found: What `compare` returned.
            shards: The list.
            rows: Every row, as they are now.
            now: Monotonic seconds.
        """
        self._absent, self._unknown = found.absent, found.unknown
        done = bool(rows) and all(row.finished for row in rows.values()) and all(shard.closed for shard in shards)
        self._ended_lists = self._ended_lists + 1 if done and shards else 0
        if len(self.gone) < len(found.unknown):
            self._relist = _FIRST_RELIST
        self._at = now + self._relist
        self._relist = min(self._settings.discovery_interval, self._relist * 2)

    def of_another_stream(self, now: float) -> None:
        """Count a list whose shards belong to a stream that replaced this one: they get no rows."""
        self._at = now + self._settings.discovery_interval

    def take_in(self, rows: Mapping[str, Lease], now: float) -> None:
        """List again soon when the children of a shard that has ended, or the parents of a new one, are unknown."""
        children = children_of(rows.values())
        childless = frozenset(shard_id for shard_id, row in rows.items() if row.finished and not children.get(shard_id))
        known = rows.keys() | self.gone
        orphans = frozenset(
            row.shard_id
            for row in rows.values()
            if not row.counter and row.parents and not all(parent in known for parent in row.parents)
        )
        unexplained = childless | orphans
        if unexplained - self._unexplained:
            self._relist = _FIRST_RELIST
            self._at = min(self._at, now)
        self._unexplained = unexplained
