"""The one worker that plans for all: wins the leadership row, finds shards, and says who is to hold what.

Nothing here is read more often with more workers: followers read one row a second, the leader reads the table once
per cycle, and cycles get rarer as the table grows.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

import msgspec
import structlog

from service.observability.metrics import Metrics
from service.shards.assignment import Memory, Patience, Plan, plan
from service.shards.concurrency import for_each
from service.shards.discovery import ORPHAN_LISTS, discover
from service.shards.lease import Leadership, Lease, Member, Snapshot
from service.shards.lineage import children_of, may_start
from service.shards.liveness import Liveness, Watch
from service.shards.ports import Clock, LeaseStore, Membership, ShardSource
from service.shards.position import LATEST, Position, at_timestamp
from service.shards.retirement import Retirement
from service.shards.settings import ShardSettings

log = structlog.get_logger()

_FIRST_RELIST = 1.0
"""Seconds until the next list after a shard ended whose children are unknown; doubles up to the usual interval."""


_STALLED_BEATS = 3
"""Beats in a row that a worker must have missed to be given no more leases."""

_MARGIN = 0.01
"""Seconds; so that a cycle due at somebody's death does not come a moment too early."""


class LeaderPorts(msgspec.Struct, frozen=True):
    """What a leader works with."""

    pipeline: str
    source: ShardSource[Any]
    store: LeaseStore
    membership: Membership
    settings: ShardSettings
    clock: Clock
    metrics: Metrics
    retirement: Retirement


class Leader:
    """A worker's bid for the leadership, and the leader's work while it has it.

    Attributes:
        follows: Whether there is a leader, this worker or another.
        given_away: Set once a plan without this worker was carried out, after `leave`.
        planned: Plans carried out.
    """

    def __init__(self, worker: str, ports: LeaderPorts, start: Position, assigned: Callable[[Member], None]) -> None:
        self._worker = worker
        self._ports = ports
        self._start = start
        self._assigned = assigned
        self._row: Leadership | None = None
        self._until = float("-inf")
        self._watch = Watch(ports.settings.lease_duration)
        self._elected = asyncio.Event()
        self._wake = asyncio.Event()
        self._leaving = False
        self._reign = _Reign(worker, ports)
        self.given_away = asyncio.Event()
        self.follows = False
        self.planned = 0

    @property
    def leading(self) -> bool:
        """Whether this worker has the leadership row."""
        return self._row is not None

    @property
    def deadline(self) -> float:
        """Monotonic second at which an unrenewed leadership ends, and this worker with it; infinity for followers."""
        return self._until if self.leading else float("inf")

    def leave(self) -> None:
        """Give away this worker's leases with the next plan, which comes at once."""
        self._leaving = True
        self._wake.set()

    async def campaign(self) -> bool:
        """Take one look: bid for a vacant leadership, or renew the one held. May raise `TransientError`.

        Returns:
            False when the leadership held became another's: the others take this worker for dead.
        """
        if self._row is not None:
            return await self._renew(self._row)
        if not self._leaving:
            await self._bid()
        return True

    async def rule(self) -> None:
        """Wait until elected; plan once and carry it out; wait for the next cycle. May raise `TransientError`."""
        await self._elected.wait()
        self._wake.clear()
        leaving = self._leaving
        pause = await self._reign.cycle(self)
        if leaving:
            self.given_away.set()
        # Many things may happen at once: one plan for all of them.
        gap = min(pause, self._ports.settings.cycle_min / 4)
        await self._ports.clock.sleep(gap)
        try:
            async with asyncio.timeout(pause - gap):
                await self._wake.wait()
        except TimeoutError:
            pass

    def hurry(self) -> None:
        """Plan again now: something changed that the plan depends on."""
        self._wake.set()

    async def step_down(self) -> None:
        """Let another lead at once; to be repeated after a `TransientError`, which it may raise.

        A renewal that was cut off when the loops were ended may have been written all the same: the row is then
        newer than the one known here, and would name this worker until its silence is noticed.
        """
        self._elected.clear()
        ports, row = self._ports, self._row
        while row is not None and row.leader == self._worker:
            self._row = row
            if await ports.membership.lead(row, msgspec.structs.replace(row, leader="", counter=row.counter + 1)):
                break
            row = await ports.membership.leadership()
        if self._row is not None:
            self._row = None
            ports.metrics.leading.labels(ports.pipeline).set(0)

    @property
    def row(self) -> Leadership:
        """The leadership held; only while leading."""
        if self._row is None:
            raise RuntimeError("not leading")
        return self._row

    @property
    def leaving(self) -> frozenset[str]:
        """Workers known to leave: this one, or none."""
        return frozenset((self._worker,)) if self._leaving else frozenset()

    def in_office(self) -> bool:
        """Return whether the leadership is still this worker's for sure."""
        return self.leading and self._ports.clock.monotonic() < self._until

    def carried_out(self, done: Plan) -> None:
        """Note a plan that is written; this worker's own part takes effect without waiting for a heartbeat."""
        self.planned += 1
        for member in done.assign:
            if member.worker == self._worker:
                self._assigned(member)

    def discovered(self) -> None:
        """Note that the first discovery is complete; written with the next renewal.

        A successor that does not see it starts new shards at the initial position: a time before they came, or the
        trim horizon, so nothing is missed.
        """
        if self._row is not None:
            self._row = msgspec.structs.replace(self._row, discovered=True)

    async def _bid(self) -> None:
        ports, clock = self._ports, self._ports.clock
        asked_at = clock.monotonic()
        row = await ports.membership.leadership()
        self.follows = self.follows or (row is not None and bool(row.leader))
        # A row that names this worker: an earlier bid was written although its answer was lost.
        mine = row is not None and row.leader == self._worker
        if not self._watch.vacant(row, asked_at, clock.monotonic()) and not mine:
            return
        if row is None:
            initial = at_timestamp(clock.wall_ms()) if self._start == LATEST else self._start
            new = Leadership(leader=self._worker, counter=1, initial=initial)
        else:
            new = msgspec.structs.replace(row, leader=self._worker, counter=row.counter + 1)
        sent_at = clock.monotonic()
        if await ports.membership.lead(row, new):
            deposed = row.leader if row is not None and not mine else ""
            log.info("leader.elected", worker=self._worker, deposed=deposed)
            self._enter(new, deposed=deposed, until=sent_at + ports.settings.lease_duration)

    def _enter(self, row: Leadership, *, deposed: str, until: float) -> None:
        self._row, self._until = row, until
        self._reign = _Reign(self._worker, self._ports, deposed=deposed)
        self._elected.set()
        self._ports.metrics.leading.labels(self._ports.pipeline).set(1)

    async def _renew(self, row: Leadership) -> bool:
        """Write the next count; return False when the leadership is another's."""
        ports = self._ports
        new = msgspec.structs.replace(row, counter=row.counter + 1)
        sent_at = ports.clock.monotonic()
        if not await ports.membership.lead(row, new):
            found = await ports.membership.leadership()
            if found is None or found.leader != self._worker:
                log.warning("leader.deposed", worker=self._worker)
                return False
            # An earlier renewal was written although its answer was lost; when, is not known: write another.
            self._row = found
            return await self._renew(found)
        if self._row is not None:
            self._row = msgspec.structs.replace(new, discovered=self._row.discovered)
            self._until = max(self._until, sent_at + ports.settings.lease_duration)
        return True


class _Reign:
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
        self._relist = settings.discovery_interval
        self._puzzling: frozenset[str] = frozenset()

    async def cycle(self, leader: Leader) -> float:
        """Look, plan, write; return seconds until the next cycle. May raise `TransientError`."""
        clock, settings = self._ports.clock, self._ports.settings
        asked_at = clock.monotonic()
        shards = None
        if asked_at >= self._list_at:
            shards = await self._ports.source.list_shards()
        asked_at_table = clock.monotonic()
        snapshot = await self._ports.store.snapshot()
        answered_at = clock.monotonic()
        rows = {lease.shard_id: lease for lease in sorted(snapshot.leases, key=lambda lease: lease.shard_id)}
        if shards is not None:
            await self._discover(leader, shards, rows)
            self._ports.retirement.synced(asked_at, self._listed | rows.keys())
        self._puzzle(rows)
        done = self._decide(leader, snapshot, rows, asked_at_table, answered_at)
        if leader.in_office():
            await self._carry_out(leader, *done)
        # Whoever falls silent is found out in time, however rare the cycles.
        next_death = self._liveness.next_death(clock.monotonic()) + _MARGIN
        return min(settings.cycle_interval(len(rows) + len(snapshot.members)), max(settings.cycle_min, next_death))

    async def _discover(self, leader: Leader, shards: Any, rows: dict[str, Lease]) -> None:  # noqa: ANN401 - any payload
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
        if not leader.row.discovered and shards:
            leader.discovered()
        if found.create or found.delete:
            log.info("leader.discovered", created=len(found.create), deleted=len(found.delete), listed=len(shards))
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
        self, leader: Leader, snapshot: Snapshot, rows: Mapping[str, Lease], asked_at: float, answered_at: float
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
        takers = set(alive) - leader.leaving
        done = plan(
            active,
            [member for member in snapshot.members if member.worker in takers],
            dead=frozenset(dead),
            leaving=leader.leaving,
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

    async def _carry_out(self, leader: Leader, done: Plan, dead: tuple[str, ...]) -> None:
        ports, concurrency = self._ports, self._ports.settings.store_concurrency
        for worker in dead:
            log.warning("leader.buries", dead=worker)

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
