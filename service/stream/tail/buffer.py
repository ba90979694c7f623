"""Pages in, batches out: what one shard's reader hands to the one that prepares its batches."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from typing import Generic, TypeVar

import msgspec

from service.runtime.clock import Clock
from service.runtime.concurrency import set_within
from service.stream.ports import Record
from service.stream.settings import ShardSettings

P = TypeVar("P")


class _Piece(msgspec.Struct, Generic[P]):
    """What is left of a page.

    Attributes:
        since: Monotonic second since when its records may have been waiting.
        at_tip: Whether it brought the shard's newest records.
    """

    since: float
    at_tip: bool
    records: Sequence[Record[P]]
    size: int


class Buffer(Generic[P]):
    """Holds less than one batch, and one page more: then its writer waits.

    One reader and one writer. `clock.monotonic` must be the event loop's time.

    Attributes:
        gap: Whether records were forgotten: nothing may be taken for read to the end.
    """

    def __init__(self, settings: ShardSettings, clock: Clock) -> None:
        self._settings = settings
        self._clock = clock
        self._pieces: deque[_Piece[P]] = deque()
        self._changed = asyncio.Event()
        self._emptied = asyncio.Event()
        self._closed = False
        self._dropped = False
        self._begun = False
        self.gap = False
        self.count = 0
        self.size = 0

    @property
    def full(self) -> bool:
        """Whether there is enough for a batch."""
        return self.count >= self._settings.batch_max_records or self.size >= self._settings.batch_max_bytes

    @property
    def oldest_arrival_ms(self) -> int | None:
        """When the stream took the first record in here, epoch milliseconds."""
        return self._pieces[0].records[0].arrival_ms if self._pieces else None

    def add(self, records: Sequence[Record[P]], size: int, *, since: float, at_tip: bool) -> None:
        """Append a page of `size` bytes; never blocks. See `_Piece` for the rest."""
        if not records:
            return
        if self._dropped:
            self.gap = True
            return
        self._pieces.append(_Piece(since=since, at_tip=at_tip, records=records, size=size))
        self.count += len(records)
        self.size += size
        self._changed.set()

    def close(self) -> None:
        """Say that nothing more comes: what is there goes out at once."""
        self._closed = True
        self._changed.set()

    def drop(self) -> int:
        """Forget what is here and all that still comes, as nothing may follow a gap; return its bytes."""
        self._dropped = True
        self.gap = self.gap or bool(self._pieces)
        size, self.size, self.count = self.size, 0, 0
        self._pieces.clear()
        self._emptied.set()
        self.close()
        return size

    async def room(self) -> None:
        """Wait until a page may be added."""
        while self.full:
            self._emptied.clear()
            await self._emptied.wait()

    async def take(self) -> tuple[list[Record[P]], int] | None:
        """Return the next batch, and its bytes, once it is due; None when all is taken and closed."""
        while self._pieces or not self._closed:
            left = self._left() if self._pieces else float("inf")
            if left <= 0:
                self._begun = True
                return self._cut()
            self._changed.clear()
            await set_within(self._changed, left)
        return None

    def _left(self) -> float:
        """Return seconds until what is here is due as a batch: full, or enough at the tip, or old enough, or last.

        The first batch of a shard is due at once: a worker that takes a shard over is behind.
        """
        enough = self._pieces[-1].at_tip and self.count >= self._settings.batch_enough
        if self._closed or self.full or enough or not self._begun:
            return 0
        return self._pieces[0].since + self._settings.batch_max_age - self._clock.monotonic()

    def _cut(self) -> tuple[list[Record[P]], int]:
        batch: list[Record[P]] = []
        size = 0
        max_records, max_bytes = self._settings.batch_max_records, self._settings.batch_max_bytes
        while self._pieces and len(batch) < max_records and size < max_bytes:
            piece = self._pieces[0]
            if len(batch) + len(piece.records) <= max_records and size + piece.size <= max_bytes:
                batch.extend(piece.records)
                size += piece.size
                self._pieces.popleft()
                continue
            taken = 0
            for record in piece.records:
                if batch and (len(batch) >= max_records or size + record.size > max_bytes):
                    break
                batch.append(record)
                size += record.size
                piece.size -= record.size
                taken += 1
            piece.records = piece.records[taken:]
            if not piece.records:
                self._pieces.popleft()
            break
        self.count -= len(batch)
        self.size -= size
        self._emptied.set()
        return batch, size
