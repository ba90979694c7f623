"""From the stream's list and the lease rows: which rows to make, which to remove. Pure.

A list may be wrong for a while: `DescribeStream` of a DynamoDB stream is eventually consistent, as is `ListShards`
after a reshard. So a shard that a list does not name is not gone until several lists in a row agree, and only
when nothing depends on its row any more. Nor is a parent that neither a row nor the list knows: its children wait
until a few lists agree, but for the very first list, where such parents are those whose retention is over.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from service.stream.leases.lease import Lease
from service.stream.leases.lineage import children_of
from service.stream.ports import Shard
from service.stream.position import TRIM_HORIZON, Position

ORPHAN_LISTS = 10
"""Lists in a row, a second apart, that must not name an unknown parent before its children are begun without it."""


class Discovery(msgspec.Struct, frozen=True):
    """What a list asks for.

    Attributes:
        create: Rows to make.
        delete: Rows to remove.
        absent: For each finished shard the list does not name: how many lists in a row did not.
        unknown: For each parent that has no row and is not listed: how many lists in a row did not name it.
    """

    create: tuple[Lease, ...]
    delete: tuple[Lease, ...]
    absent: Mapping[str, int]
    unknown: Mapping[str, int]


def start_of(shard: Shard, initial: Position, *, discovered: bool) -> Position:
    """Return where a shard met for the first time starts.

    Until the first discovery is complete everything listed starts at the configured position. Later, a shard with a
    parent came out of a reshard: whatever was configured, all of it is new.
    """
    return TRIM_HORIZON if discovered and shard.parents else initial


def discover(
    shards: Sequence[Shard],
    rows: Mapping[str, Lease],
    absent: Mapping[str, int],
    unknown: Mapping[str, int],
    *,
    initial: Position,
    discovered: bool,
    absent_lists: int,
    ended_before_ms: int,
) -> Discovery:
    """Compare a list with the rows.

    Args:
        shards: The list, complete.
        rows: Every row, by shard id.
        absent: `Discovery.absent` of the list before.
        unknown: `Discovery.unknown` of the list before.
        initial: Configured start position, LATEST resolved to a time.
        discovered: Whether a discovery was ever complete.
        absent_lists: Lists in a row that must miss a shard before its row goes.
        ended_before_ms: Only rows of shards that ended at or before this go, epoch milliseconds.
    """
    create = tuple(
        Lease(
            shard_id=shard.shard_id,
            checkpoint=start_of(shard, initial, discovered=discovered),
            parents=tuple(shard.parents),
            starting=shard.starting,
        )
        for shard in sorted(shards, key=lambda shard: shard.shard_id)
        if shard.shard_id not in rows
    )
    if not shards:
        # No stream is without shards: a list that says so tells nothing.
        return Discovery(create=create, delete=(), absent=absent, unknown=unknown)
    listed = {shard.shard_id for shard in shards}
    still_absent = {
        shard_id: absent.get(shard_id, 0) + 1
        for shard_id in sorted(rows)
        if rows[shard_id].finished and shard_id not in listed
    }
    children = children_of(rows.values())
    delete = tuple(
        rows[shard_id]
        for shard_id, lists in still_absent.items()
        if lists >= absent_lists
        and rows[shard_id].ended_ms <= ended_before_ms
        and all(child not in rows or rows[child].finished for child in children.get(shard_id, ()))
    )
    parents = {parent for lease in (*rows.values(), *create) if not lease.finished for parent in lease.parents}
    seen = 1 if discovered else ORPHAN_LISTS
    still_unknown = {
        parent: unknown.get(parent, 0) + seen
        for parent in sorted(parents)
        if parent not in rows and parent not in listed
    }
    return Discovery(create=create, delete=delete, absent=still_absent, unknown=still_unknown)
