"""Which shard may be read: one whose parents are all done with. Pure.

A parent blocks its children while it has an unfinished row, or no row although the stream lists it (its row comes
with the next discovery), or no row and its absence is not certain: rows of children are made by the owners of their
parents too, and so may be newer than the list. An open parent that already has children, which a DynamoDB stream may
show for a while, needs no rule of its own: its row is not finished.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from collections.abc import Set as AbstractSet

from service.stream.leases.lease import Lease


def may_start(lease: Lease, rows: Mapping[str, Lease], listed: AbstractSet[str], gone: AbstractSet[str]) -> bool:
    """Return whether every parent of `lease` is finished, or is neither known here nor to the stream.

    Args:
        lease: The shard in question.
        rows: Every row of the lease table, by shard id.
        listed: Shard ids of the newest list; empty when there is none yet.
        gone: Parents without row that enough lists did not name. The absence of the others is not certain, and holds
            up what was never begun; what was begun before had its parents looked at then.
    """
    for parent in lease.parents:
        row = rows.get(parent)
        if row is not None:
            if not row.finished:
                return False
        elif parent in listed or (parent not in gone and not lease.counter):
            return False
    return True


def children_of(leases: Iterable[Lease]) -> dict[str, list[str]]:
    """Return the known children of every shard, from both ends' rows, in the order of the rows."""
    children: dict[str, list[str]] = {}
    for lease in leases:
        for parent in lease.parents:
            children.setdefault(parent, []).append(lease.shard_id)
        if lease.children:
            known = children.setdefault(lease.shard_id, [])
            known.extend(child for child in lease.children if child not in known)
    return children
