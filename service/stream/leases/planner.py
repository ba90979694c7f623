"""From one reading of the lease table to a decision: who is dead, and who is to hold what. No I/O."""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Set as AbstractSet

import msgspec

from service.stream.leases.assignment import Memory, Patience, plan
from service.stream.leases.lease import Lease, Member
from service.stream.leases.lineage import may_start
from service.stream.leases.listing import Listing
from service.stream.leases.liveness import Liveness
from service.stream.settings import ShardSettings

_STALLED_BEATS = 3
"""Beats in a row that a worker must have missed to be given no more leases."""

_MARGIN = 0.01
"""Seconds; so that a plan due at a worker's death does not come a moment too early."""

_ALONE = 2
"""Times as long between two plans while there is one worker: only one that joins has anything to wait for."""

_SHORTEST = 0.05
"""Seconds between two plans when a worker's death is due."""


class View(msgspec.Struct, frozen=True):
    """One reading of the lease table.

    Attributes:
        rows: Every lease by shard id, sorted.
        owners: Every owner of a lease, empty ones included.
        members: Every worker's row.
        asked_at: Monotonic second at which the reading was asked for.
        answered_at: Monotonic second at which it was in.
        now_ms: Wall clock, epoch milliseconds.
    """

    rows: Mapping[str, Lease]
    owners: tuple[str, ...]
    members: tuple[Member, ...]
    asked_at: float
    answered_at: float
    now_ms: int


class Decision(msgspec.Struct, frozen=True):
    """What the leader is to write, in this order, and what it is to report.

    Attributes:
        remove: Dead workers whose rows are to be removed.
        assign: Rows of the workers whose assignment changes.
        sharing: The workers that share rates: all that have a row, but for those whose row is to be removed.
        leases: Number of leases by state, for metrics.
        alive: Number of living workers.
    """

    remove: tuple[str, ...]
    assign: tuple[Member, ...]
    sharing: frozenset[str]
    leases: Mapping[str, int]
    alive: int


class Planner:
    """What one leader remembers between its plans.

    Args:
        worker: The leader's id.
        settings: Limits.
        deposed: The leader before, where it fell silent: it counts as dead at once.
    """

    def __init__(self, worker: str, settings: ShardSettings, *, deposed: str = "") -> None:
        self._worker = worker
        self._settings = settings
        self._liveness = Liveness(
            lease_duration=settings.lease_duration, beat_interval=settings.beat_interval, deposed=deposed
        )
        self._memory = Memory()
        self._waits = Patience(patience=2 * settings.lease_duration, rest=6 * settings.lease_duration)

    def decide(self, view: View, listing: Listing, leaving: AbstractSet[str]) -> Decision:
        """Return what to write.

        Args:
            view: The table.
            listing: What the stream's lists have shown.
            leaving: Workers that are known to leave, whatever their rows say.
        """
        alive, dead = self._liveness.observe(
            view.members,
            view.owners,
            me=self._worker,
            asked_at=view.asked_at,
            answered_at=view.answered_at,
            now_ms=view.now_ms,
        )
        rows, listed, gone = view.rows, listing.listed, listing.gone
        active = [
            row for row in rows.values() if not row.finished and (row.owner or may_start(row, rows, listed, gone))
        ]
        leaving = leaving | {member.worker for member in view.members if member.leaving}
        takers = set(alive) - leaving
        stalled = self._liveness.stalled(view.asked_at, _STALLED_BEATS * self._settings.beat_interval)
        done = plan(
            active,
            [member for member in view.members if member.worker in takers],
            dead=frozenset(dead),
            leaving=leaving,
            stalled=stalled - {self._worker},
            now=view.answered_at,
            memory=self._memory,
            waits=self._waits,
        )
        self._memory = done.memory
        members = {member.worker for member in view.members}
        return Decision(
            remove=tuple(worker for worker in dead if worker in members),
            assign=done.assign,
            sharing=frozenset(members.difference(dead)),
            leases=_by_state(rows, active),
            alive=len(alive),
        )

    def pause(self, view: View, now: float) -> float:
        """Return seconds from monotonic second `now` to the next plan: a silent worker is noticed in time."""
        next_death = self._liveness.next_death(now) + _MARGIN
        interval = self._settings.cycle_interval(len(view.rows) + len(view.members))
        if len(view.members) == 1:
            interval *= _ALONE
        return min(interval, max(_SHORTEST, next_death))


def _by_state(rows: Mapping[str, Lease], active: list[Lease]) -> dict[str, int]:
    """Return the number of leases by state."""
    unfinished = sum(not row.finished for row in rows.values())
    owned = sum(bool(lease.owner) for lease in active)
    return {
        "owned": owned,
        "unowned": len(active) - owned,
        "waiting": unfinished - len(active),
        "finished": len(rows) - unfinished,
    }
