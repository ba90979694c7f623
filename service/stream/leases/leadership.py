"""What a leader does between its election and its end: find shards, plan, write the plan down.

One cycle reads the whole table once, plans, and writes what changes. The stream's list, which may be slow or fail, is
asked for beside it: nobody's shards wait for it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import msgspec
import structlog

from service.observability.metrics import Metrics
from service.runtime.clock import Clock
from service.runtime.concurrency import for_each
from service.stream.identity import Identity
from service.stream.leases.assignment import Memory, Patience, Plan, plan
from service.stream.leases.discovery import ORPHAN_LISTS, discover
from service.stream.leases.lease import Leadership, Lease, Member, Snapshot
from service.stream.leases.lineage import children_of, may_start
from service.stream.leases.liveness import Liveness
from service.stream.ports import LeaseStore, Membership, Shard, ShardSource
from service.stream.settings import ShardSettings

log = structlog.get_logger()

_FIRST_RELIST = 1.0
"""Seconds until the next list after a shard ended whose children are unknown; doubles up to the usual interval."""

_STALLED_BEATS = 3
"""Beats in a row that a worker must have missed to be given no more leases."""

_MARGIN = 0.01
"""Seconds; so that a cycle due at somebody's death does not come a moment too early."""

_ALONE = 2
"""Times as long between two cycles while there is one worker: only one that joins has anything to wait for."""

_SHORTEST = 0.05
"""Seconds between two cycles when somebody's death is due."""


class LeaderPorts(msgspec.Struct, frozen=True):
    """What a leader works with.

    Attributes:
        target: What the consumer writes to (see `target.py`); empty where that does not matter.
    """

    pipeline: str
    source: ShardSource[Any]
    store: LeaseStore
    membership: Membership
    settings: ShardSettings
    clock: Clock
    metrics: Metrics
    identity: Identity
    target: str = ""


class Office(Protocol):
    """What a reign asks of the leader that holds it."""

    @property
    def row(self) -> Leadership:
        """The leadership held."""
        ...

    @property
    def leaving(self) -> frozenset[str]:
        """This worker, once it was told to stop."""
        ...

    def in_office(self) -> bool:
        """Return whether the leadership is still this worker's for sure."""
        ...

    def carried_out(self, done: Plan) -> None:
        """Note a plan that is written."""
        ...

    def discovered(self) -> None:
        """Note that the first discovery is complete."""
        ...


class Reign:
    """What one leader remembers between its cycles."""

    def __init__(self, worker: str, ports: LeaderPorts, *, deposed: str = "") -> None:
        self._worker = worker
        self._ports = ports
        settings = ports.settings
        self._liveness = Liveness(
            lease_duration=settings.lease_duration, beat_interval=settings.beat_interval, deposed=deposed
        )
        self._memory = Memory()
        self._waits = Patience(patience=2 * settings.lease_duration, rest=6 * settings.lease_duration)
        self._listed: frozenset[str] = frozenset()
        self._absent: Mapping[str, int] = {}
        self._unknown: Mapping[str, int] = {}
        self._gone: frozenset[str] = frozenset()
        self._list_at = float("-inf")
        self._list_wanted = asyncio.Event()
        self._list: Sequence[Shard] | None = None
        self._relist = settings.discovery_interval
        self._puzzling: frozenset[str] = frozenset()
        self._ended_lists = 0

    @property
    def ended(self) -> bool:
        """Whether every shard is finished and several lists in a row named none that is open."""
        return self._ended_lists >= self._ports.settings.absent_lists

    async def survey(self) -> None:
        """Wait until a list of the shards is wanted, and get it: the next cycle takes it in."""
        await self._list_wanted.wait()
        self._list = await self._ports.source.list_shards()
        self._list_wanted.clear()

    async def cycle(self, leader: Office) -> float:
        """Look, plan, write; return seconds until the next cycle. May raise `TransientError`."""
        clock, settings = self._ports.clock, self._ports.settings
        # Only a list that is complete before the table is read: what it does not know yet has no row either.
        listed = self._list
        asked_at = clock.monotonic()
        snapshot = await self._ports.store.snapshot()
        answered_at = clock.monotonic()
        rows = {lease.shard_id: lease for lease in sorted(snapshot.leases, key=lambda lease: lease.shard_id)}
        if listed is not None:
            starts = {shard_id: row.starting for shard_id, row in rows.items()}
            if not listed or await self._ports.identity.confirms(listed, starts):
                await self._discover(leader, listed, rows)
            else:
                # These shards are another stream's: they get no rows here.
                self._list_at = clock.monotonic() + settings.discovery_interval
            self._list = None
        self._puzzle(rows)
        if clock.monotonic() >= self._list_at and self._list is None:
            self._list_wanted.set()
        done = self._decide(leader, snapshot, rows, asked_at, answered_at)
        if leader.in_office():
            await self._carry_out(leader, *done)
        # Whoever falls silent is found out in time, however rare the cycles.
        next_death = self._liveness.next_death(clock.monotonic()) + _MARGIN
        interval = settings.cycle_interval(len(rows) + len(snapshot.members))
        if len(snapshot.members) == 1:
            interval *= _ALONE
        return min(interval, max(_SHORTEST, next_death))

    async def _discover(self, leader: Office, shards: Sequence[Shard], rows: dict[str, Lease]) -> None:
        ports, settings = self._ports, self._ports.settings
        found = discover(
            shards,
            rows,
            self._absent,
            self._unknown,
            initial=leader.row.initial,
            discovered=leader.row.discovered,
            absent_lists=settings.absent_lists,
            ended_before_ms=ports.clock.wall_ms() - settings.keep_ended_ms,
        )
        self._gone = frozenset(parent for parent, lists in found.unknown.items() if lists >= ORPHAN_LISTS)
        self._listed = frozenset(shard.shard_id for shard in shards)

        async def create(lease: Lease) -> None:
            if leader.in_office() and await ports.store.create(lease):
                rows[lease.shard_id] = lease

        async def delete(lease: Lease) -> None:
            if leader.in_office() and await ports.store.delete(lease):
                rows.pop(lease.shard_id, None)

        await for_each(found.create, create, settings.store_concurrency)
        await for_each(found.delete, delete, settings.store_concurrency)
        self._absent, self._unknown = found.absent, found.unknown
        done = bool(rows) and all(row.finished for row in rows.values()) and all(shard.closed for shard in shards)
        self._ended_lists = self._ended_lists + 1 if done and shards else 0
        if not leader.row.discovered and shards:
            leader.discovered()
        if found.create or found.delete:
            log.info(
                "leader.shards_discovered", created=len(found.create), deleted=len(found.delete), listed=len(shards)
            )
        if len(self._gone) < len(found.unknown):
            self._relist = _FIRST_RELIST
        self._list_at = ports.clock.monotonic() + self._relist
        self._relist = min(settings.discovery_interval, self._relist * 2)

    def _puzzle(self, rows: Mapping[str, Lease]) -> None:
        """List again soon when nobody knows the children of a shard that has ended, or the parents of a new one."""
        children = children_of(rows.values())
        childless = frozenset(shard_id for shard_id, row in rows.items() if row.finished and not children.get(shard_id))
        known = rows.keys() | self._gone
        orphans = frozenset(
            row.shard_id
            for row in rows.values()
            if not row.counter and row.parents and not all(parent in known for parent in row.parents)
        )
        puzzling = childless | orphans
        if puzzling - self._puzzling:
            self._relist = _FIRST_RELIST
            self._list_at = min(self._list_at, self._ports.clock.monotonic())
        self._puzzling = puzzling

    def _decide(
        self, leader: Office, snapshot: Snapshot, rows: Mapping[str, Lease], asked_at: float, answered_at: float
    ) -> tuple[Plan, tuple[str, ...]]:
        ports = self._ports
        alive, dead = self._liveness.observe(
            snapshot.members,
            (lease.owner for lease in snapshot.leases),
            me=self._worker,
            asked_at=asked_at,
            answered_at=answered_at,
            now_ms=ports.clock.wall_ms(),
        )
        listed, gone = self._listed, self._gone
        order = sorted(rows)
        active = [
            rows[shard_id]
            for shard_id in order
            if not rows[shard_id].finished and (rows[shard_id].owner or may_start(rows[shard_id], rows, listed, gone))
        ]
        leaving = leader.leaving | {member.worker for member in snapshot.members if member.leaving}
        takers = set(alive) - leaving
        done = plan(
            active,
            [member for member in snapshot.members if member.worker in takers],
            dead=frozenset(dead),
            leaving=leaving,
            stalled=self._liveness.stalled(asked_at, _STALLED_BEATS * ports.settings.beat_interval) - {self._worker},
            now=answered_at,
            memory=self._memory,
            waits=self._waits,
        )
        self._memory = done.memory
        unfinished = sum(not row.finished for row in rows.values())
        owned = sum(bool(lease.owner) for lease in active)
        states = {
            "owned": owned,
            "unowned": len(active) - owned,
            "waiting": unfinished - len(active),
            "finished": len(rows) - unfinished,
        }
        for state, count in states.items():
            ports.metrics.leases.labels(ports.pipeline, state).set(count)
        ports.metrics.members.labels(ports.pipeline).set(len(alive))
        members = {member.worker for member in snapshot.members}
        return done, tuple(worker for worker in dead if worker in members)

    async def _carry_out(self, leader: Office, done: Plan, dead: tuple[str, ...]) -> None:
        ports, concurrency = self._ports, self._ports.settings.store_concurrency
        for worker in dead:
            log.warning("leader.removed_dead_worker", dead=worker)

        async def bury(worker: str) -> None:
            if leader.in_office():
                await ports.membership.remove(worker)

        async def assign(member: Member) -> None:
            if leader.in_office():
                await ports.membership.assign(member.worker, member)

        # First the rows of the dead: one that was not so dead then learns it from its next heartbeat.
        await for_each(dead, bury, concurrency)
        await for_each(done.assign, assign, concurrency)
        leader.carried_out(done)
