"""What a batch means for the marks of the scores it goes into."""

from __future__ import annotations

from typing import TypeVar

from service.ingest.retention import Retention
from service.scoring.marks import Marking, marking
from service.stream.ports import Batch, StreamId

_PREFIX = "shardId-"

P = TypeVar("P")


def shard_tag(stream: StreamId, shard_id: str) -> str:
    """Return the name of a shard in `Applied`: unique over all streams and their incarnations, and short."""
    number = shard_id.removeprefix(_PREFIX)
    return f"{stream.tag}-{number.lstrip('0') or '0'}" if number.isdecimal() else f"{stream.tag}-{shard_id}"


def marking_of(batch: Batch[P], retention: Retention | None, *, now_ms: int, now: float) -> Marking:
    """Return what a batch means for marks.

    The newest record dates the mark of every user of the batch, and the oldest decides what is dropped: both err on the
    side of marks that are kept too long.

    Args:
        batch: The batch.
        retention: How long the stream keeps records; None: not known, no mark is dropped.
        now_ms: This worker's wall clock, epoch milliseconds.
        now: Its monotonic clock, seconds.
    """
    arrivals = [record.arrival_ms for record in batch.records]
    return marking(
        shard_tag(batch.stream, batch.shard_id),
        starting=int(batch.starting or 0),
        oldest_ms=min(arrivals),
        newest_ms=max(arrivals),
        now_ms=now_ms,
        keep_ms=None if retention is None else retention.keep_ms(now),
        shortened=retention is not None and retention.shortened(now),
    )
