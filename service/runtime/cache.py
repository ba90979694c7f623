"""A bounded map that drops the entries used least recently."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")

SLOT_BYTES = 256
"""Bytes of an entry beside its texts: key, small value, and its share of the dictionary; measured, rounded up."""

ENTRY_BYTES = 512
"""Average bytes allowed per entry: ids have about 40 characters, and at most 2,000."""


class RecentCache(Generic[K, V]):
    """Keeps at most `limit` entries of at most `limit * entry_bytes` bytes, the most recently used ones.

    Each entry is kept at least until `limit / 2` others, or half of the bytes, were used after it.

    There are two generations. An entry that is put or used is in the young one. When that reaches half of the limit, it
    becomes the old one, and the entries of the former old one are dropped. Unlike a list in the order of use, this
    costs one plain dictionary write, and no memory beside the entries. All operations take constant time.

    Args:
        limit: Most entries.
        size_of: Bytes of an entry beside `SLOT_BYTES`; called when it becomes young. A dropped entry counts until its
            generation is full.
        entry_bytes: Average bytes per entry; if entries take more, fewer are kept.
    """

    def __init__(self, limit: int, size_of: Callable[[K, V], int], entry_bytes: int = ENTRY_BYTES) -> None:
        if limit < 2:  # noqa: PLR2004 # one for each generation
            raise ValueError(f"a cache holds at least 2 entries, not {limit}")
        self._half = limit // 2
        self._half_bytes = self._half * entry_bytes
        self._size_of = size_of
        self._young: dict[K, V] = {}
        self._young_bytes = 0
        self._old: dict[K, V] = {}

    def __len__(self) -> int:
        return len(self._young) + len(self._old)

    def get(self, key: K) -> V | None:
        """Return the value and mark it as used; None if it is not cached."""
        value = self._young.get(key)
        if value is None and self._old:
            value = self._old.pop(key, None)
            if value is not None:
                self._add(key, value)
        return value

    def put(self, key: K, value: V) -> None:
        """Store `value` and mark it as used."""
        if self._old:
            self._old.pop(key, None)
        self._add(key, value)

    def drop(self, key: K) -> None:
        """Remove an entry, if it is cached."""
        self._young.pop(key, None)
        self._old.pop(key, None)

    def clear(self) -> None:
        """Forget everything."""
        self._young, self._old, self._young_bytes = {}, {}, 0

    def _add(self, key: K, value: V) -> None:
        young = self._young
        before = len(young)
        young[key] = value
        if len(young) == before:
            return
        size = SLOT_BYTES + self._size_of(key, value)
        self._young_bytes += size
        if before == self._half or self._young_bytes > self._half_bytes:
            del young[key]
            self._old, self._young, self._young_bytes = young, {key: value}, size
