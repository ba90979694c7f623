"""Who is to hold which lease. Pure: a view of the lease table in, changed assignments out.

In this order:
1. What a living worker holds, or is already assigned, stays where it is.
2. What nobody living holds goes to the least loaded, each worker getting a limited number per plan, so that a fleet
   that starts together shares from the beginning. The limit doubles with every plan in which no worker came.
3. Then loads are levelled to within one by as few moves as that takes. A move takes the lease off its owner's
   assignment and puts it on another's: the owner hands over, the other takes it once it is free.
4. A hand-over that takes longer than `patience` is withdrawn, and that lease left alone for `rest`.
"""

from __future__ import annotations

import heapq
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet

import msgspec

from service.stream.leases.lease import Assigned, Lease, Member

MAX_NEW_PER_PLAN = 64
"""Leases a worker is given by the first plan that knows it."""

_MAX_DOUBLINGS = 20


class Memory(msgspec.Struct, frozen=True):
    """What a plan tells the next; a new leader starts with none.

    Attributes:
        moves: For each lease whose owner was asked to hand over: since when, monotonic seconds.
        resting: For each lease that was not handed over in time: until when it is left alone.
        workers: The workers of the last plan.
        calm: Plans in a row in which no worker came.
    """

    moves: Mapping[str, float] = {}
    resting: Mapping[str, float] = {}
    workers: tuple[str, ...] = ()
    calm: int = 0


class Plan(msgspec.Struct, frozen=True):
    """What to write.

    Attributes:
        assign: Members whose assignment changes, with the new one.
        memory: For the next plan.
        homeless: Leases that could not be given to anybody yet.
    """

    assign: tuple[Member, ...]
    memory: Memory
    homeless: int


class Patience(msgspec.Struct, frozen=True):
    """How long a plan waits for its hand-overs, seconds.

    Attributes:
        patience: After this a hand-over is withdrawn.
        rest: For this long the lease is then left alone.
    """

    patience: float
    rest: float


class _Draft:
    """A plan in the making: who is to hold what, and how many new leases each got."""

    def __init__(self, members: Mapping[str, Member], stalled: AbstractSet[str], limit: int) -> None:
        self.members = members
        self.limit = dict.fromkeys(members, limit) | dict.fromkeys(stalled, 0)
        self.target: dict[str, str] = {}
        self.load = dict.fromkeys(members, 0)
        self.had = {worker: {entry.shard_id for entry in member.assigned} for worker, member in members.items()}
        self.fresh = dict.fromkeys(members, 0)

    def give(self, shard_id: str, worker: str) -> None:
        before = self.target.get(shard_id)
        if before is not None:
            self.load[before] -= 1
        self.target[shard_id] = worker
        self.load[worker] += 1
        if shard_id not in self.had[worker]:
            self.fresh[worker] += 1

    def has_room(self, worker: str) -> bool:
        return self.fresh[worker] < self.limit[worker]


def plan(
    leases: Sequence[Lease],
    members: Sequence[Member],
    *,
    dead: AbstractSet[str],
    leaving: AbstractSet[str],
    stalled: AbstractSet[str] = frozenset(),
    now: float,
    memory: Memory,
    waits: Patience,
) -> Plan:
    """Decide who is to hold what.

    Args:
        leases: Those that may be read now, unfinished, sorted by shard id.
        members: The living that may hold leases.
        dead: Workers whose leases may be taken by force.
        leaving: Living workers that take no more and give up what they hold.
        stalled: Living workers that keep what they have and get nothing new.
        now: Monotonic seconds.
        memory: Of the plan before.
        waits: How long to wait for hand-overs.

    Leases of an owner that is in none of the three groups are left alone: it may be alive.
    """
    rows = {member.worker: member for member in sorted(members, key=lambda member: member.worker)}
    came = any(worker not in memory.workers for worker in rows)
    calm = 0 if came else memory.calm + 1
    draft = _Draft(rows, stalled, MAX_NEW_PER_PLAN << min(calm, _MAX_DOUBLINGS))
    asked: dict[str, list[str]] = {}
    for worker, member in rows.items():
        for entry in member.assigned:
            asked.setdefault(entry.shard_id, []).append(worker)
    moves: dict[str, float] = {}
    resting = {shard_id: until for shard_id, until in memory.resting.items() if until > now}
    homeless: list[Lease] = []
    for lease in leases:
        assigned = asked.get(lease.shard_id, [])
        if lease.owner in rows:
            if not assigned or lease.owner in assigned:
                draft.give(lease.shard_id, lease.owner)
                continue
            since = memory.moves.get(lease.shard_id, now)
            if now - since > waits.patience:
                resting[lease.shard_id] = now + waits.rest
                draft.give(lease.shard_id, lease.owner)
            else:
                moves[lease.shard_id] = since
                draft.give(lease.shard_id, assigned[0])
        elif lease.owner and lease.owner not in dead and lease.owner not in leaving:
            continue
        elif assigned:
            draft.give(lease.shard_id, assigned[0])
        else:
            homeless.append(lease)
    left = _place(homeless, draft)
    _level(leases, draft, moves, resting, now)
    return Plan(
        assign=_changed(leases, draft, dead),
        memory=Memory(moves=moves, resting=resting, workers=tuple(rows), calm=calm),
        homeless=left,
    )


def _place(homeless: Sequence[Lease], draft: _Draft) -> int:
    """Give each to the least loaded that has room; return how many are left over."""
    heap = [(load, worker) for worker, load in draft.load.items() if draft.has_room(worker)]
    heapq.heapify(heap)
    for done, lease in enumerate(homeless):
        if not heap:
            return len(homeless) - done
        load, worker = heap[0]
        draft.give(lease.shard_id, worker)
        if draft.has_room(worker):
            heapq.heapreplace(heap, (load + 1, worker))
        else:
            heapq.heappop(heap)
    return 0


def _level(
    leases: Sequence[Lease], draft: _Draft, moves: dict[str, float], resting: Mapping[str, float], now: float
) -> None:
    """Move leases from those with more than their share to those with less; the shares differ by one at most."""
    if not draft.load:
        return
    share, more = divmod(len(draft.target), len(draft.load))
    by_load = sorted(draft.load, key=lambda worker: (-draft.load[worker], worker))
    quota = {worker: share + (index < more) for index, worker in enumerate(by_load)}
    surplus = {worker: draft.load[worker] - quota[worker] for worker in by_load if draft.load[worker] > quota[worker]}
    needy = [worker for worker in reversed(by_load) if draft.load[worker] < quota[worker]]
    if not surplus or not needy:
        return
    # What its worker has not taken yet costs nothing to move: that goes first.
    movable = sorted(
        (
            lease
            for lease in leases
            if draft.target.get(lease.shard_id) in surplus
            and lease.shard_id not in moves
            and lease.shard_id not in resting
        ),
        key=lambda lease: (bool(lease.owner), lease.shard_id),
    )
    taker = iter(needy)
    worker = next(taker, None)
    for lease in movable:
        donor = draft.target[lease.shard_id]
        if not surplus[donor]:
            continue
        while worker is not None and (draft.load[worker] >= quota[worker] or not draft.has_room(worker)):
            worker = next(taker, None)
        if worker is None:
            return
        surplus[donor] -= 1
        draft.give(lease.shard_id, worker)
        if lease.owner == donor:
            moves[lease.shard_id] = now


def _changed(leases: Sequence[Lease], draft: _Draft, dead: AbstractSet[str]) -> tuple[Member, ...]:
    """Return the members whose assignment is not yet what the draft says."""
    wanted: dict[str, list[Assigned]] = {worker: [] for worker in draft.members}
    before = {worker: {entry.shard_id: entry for entry in member.assigned} for worker, member in draft.members.items()}
    for lease in leases:
        worker = draft.target.get(lease.shard_id)
        if worker is None:
            continue
        if lease.owner in dead:
            entry = Assigned(shard_id=lease.shard_id, seize_owner=lease.owner, seize_counter=lease.counter)
        else:
            # A spent permission to seize stays in the row: taking it out would be a write for nothing.
            entry = before[worker].get(lease.shard_id) or Assigned(shard_id=lease.shard_id)
        wanted[worker].append(entry)
    return tuple(
        msgspec.structs.replace(member, assigned=tuple(wanted[worker]), version=member.version + 1)
        for worker, member in draft.members.items()
        if tuple(wanted[worker]) != member.assigned
    )
