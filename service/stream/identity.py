"""Whether a stream is still the one whose leases are held.

The ARN of a Kinesis stream holds nothing but its name. A stream that is deleted and created again under its name has
the same ARN and the same shard ids, and a worker that lived through that would read the new stream under the old
one's leases and marks; a worker started later reads it under its own, and every event counts twice. (The Kinesis
Client Library has the same trouble: https://github.com/awslabs/amazon-kinesis-client/issues/187.)

`ListShards` gives the `StartingSequenceNumber` of each shard
(https://docs.aws.amazon.com/kinesis/latest/APIReference/API_SequenceNumberRange.html). A lease row keeps it. Another
one for the same shard id means another stream. A stream never comes back, so one check *after* an answer proves that
the answer came from the right stream. Two kinds of answers need that proof:

- a list from which lease rows are made (the leader's);
- a shard iterator, before anything is fetched with it (every reader's). An iterator belongs to the stream that
  issued it, so one check serves for as long as reading goes on from page to page.

Where a list has no shard in common with the rows, or the rows are of a version that did not keep the number, the
stream's creation time decides (`ShardSource.is_current`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from enum import Enum
from typing import Any

import structlog

from service.observability.metrics import Metrics
from service.runtime.clock import Clock
from service.stream.ports import Shard, ShardSource

log = structlog.get_logger()


class Verdict(Enum):
    """What a list says about the stream it came from."""

    SAME = "same"
    OTHER = "other"
    UNKNOWN = "unknown"


def judge(shards: Iterable[Shard], starts: Mapping[str, str]) -> Verdict:
    """Compare the shards listed with the starting sequence numbers known. Pure.

    Args:
        shards: The list.
        starts: Starting sequence numbers by shard id; empty ones are not known.

    Returns:
        `OTHER` as soon as one differs, also where others agree: the list may have been read page by page while the
        stream was replaced.
    """
    verdict = Verdict.UNKNOWN
    for shard in shards:
        known = starts.get(shard.shard_id, "")
        if not known or not shard.starting:
            continue
        if known != shard.starting:
            return Verdict.OTHER
        verdict = Verdict.SAME
    return verdict


class Identity:
    """Checks one stream for all tasks of one pipeline; lists are shared among those that ask at the same time.

    Attributes:
        replaced: Set once the stream is known to be another.
    """

    def __init__(self, source: ShardSource[Any], clock: Clock, metrics: Metrics, pipeline: str) -> None:
        self._source = source
        self._clock = clock
        self._metrics = metrics
        self._pipeline = pipeline
        self._listing = asyncio.Lock()
        self._listed_at = float("-inf")
        self._listed: Mapping[str, Shard] = {}
        self._describing = asyncio.Lock()
        self._current_at = float("-inf")
        self._current = True
        self.replaced = asyncio.Event()

    async def confirms(self, shards: Iterable[Shard], starts: Mapping[str, str]) -> bool:
        """Return whether a list came from the stream whose shards start where `starts` says.

        May raise `TransientError`.
        """
        if not self._source.replaceable:
            return True
        verdict = judge(shards, starts)
        if verdict is Verdict.UNKNOWN:
            verdict = Verdict.SAME if await self._is_current(self._clock.monotonic()) else Verdict.OTHER
        if verdict is Verdict.OTHER and not self.replaced.is_set():
            log.warning(
                "stream.replaced",
                stream=self._source.stream.name,
                why="the stream was deleted and created again under its name",
                consequence="the new stream is read from its start; unread records of the old one are lost",
            )
            self._metrics.streams_replaced.labels(self._pipeline).inc()
            self.replaced.set()
        return verdict is Verdict.SAME

    async def start_of(self, shard_id: str, known: str) -> str | None:
        """Return where a shard starts, or None if the stream was replaced. May raise `TransientError`.

        What was answered before this call is then known to come from the right stream.

        Args:
            shard_id: The shard.
            known: Its starting sequence number as its lease has it; empty where it has none.
        """
        if not self._source.replaceable:
            return known
        shard = (await self._list(self._clock.monotonic())).get(shard_id)
        if not await self.confirms([shard] if shard else [], {shard_id: known}):
            return None
        return shard.starting if shard else known

    async def _list(self, since: float) -> Mapping[str, Shard]:
        """Return the shards as listed at or after `since`, monotonic seconds."""
        async with self._listing:
            if self._listed_at < since:
                asked_at = self._clock.monotonic()
                listed = await self._source.list_shards()
                self._listed = {shard.shard_id: shard for shard in listed}
                self._listed_at = asked_at
            return self._listed

    async def _is_current(self, since: float) -> bool:
        """Return whether the ARN named the same stream at or after `since`, monotonic seconds."""
        async with self._describing:
            if self._current_at < since:
                asked_at = self._clock.monotonic()
                self._current = await self._source.is_current()
                self._current_at = asked_at
            return self._current
