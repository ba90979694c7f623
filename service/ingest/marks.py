"""Shard tags: how a score item names the shards whose events it holds, and when a name may be dropped.

A mark can be dropped only once nothing can be replayed from its shard any more; dropped earlier, a replay
would count twice. Marks cost little until a stream has been resharded often, so only long maps are pruned.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

from service.stream.leases.retirement import Retirement
from service.stream.ports import StreamId

PRUNE_ABOVE = 16
"""Marks an item may have before anybody asks which of them are still needed: 16 are about 0.6 KB of the
1 KB that a write unit pays for (https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/read-write-operations.html)."""

_PREFIX = "shardId-"


def shard_tag(stream: StreamId, shard_id: str) -> str:
    """Return the name of a shard in `Applied`: unique over all streams and their incarnations, and short."""
    number = shard_id.removeprefix(_PREFIX)
    return f"{stream.tag}-{number.lstrip('0') or '0'}" if number.isdecimal() else f"{stream.tag}-{shard_id}"


class ShardMarks:
    """Which marks of one stream can be dropped."""

    def __init__(self, stream: StreamId, retirement: Retirement) -> None:
        self._prefix = f"{stream.tag}-"
        self._retirement = retirement

    def droppable(self, applied: Mapping[str, bytes]) -> Collection[str]:
        """Return the tags in `applied` whose shards are gone for good; learns of new suspects in passing."""
        if len(applied) <= PRUNE_ABOVE:
            return ()
        ids = {tag: self._shard_id(tag) for tag in applied if tag.startswith(self._prefix)}
        for shard_id in ids.values():
            self._retirement.suspect(shard_id)
        retired = self._retirement.retired()
        return [tag for tag, shard_id in ids.items() if shard_id in retired]

    def _shard_id(self, tag: str) -> str:
        number = tag.removeprefix(self._prefix)
        return f"{_PREFIX}{int(number):012d}" if number.isdecimal() else number
