"""What the leader does: list the shards, read the lease table, decide, and write the decision down.

One cycle reads the whole table once and writes what changes. The stream's list, which may be slow or fail, is asked
for beside it: no shard waits for it. What to write is decided by `listing.py` and `planner.py`, which do no I/O.

Nothing here is read more often with more workers: followers read one row a second, the leader reads the table once
per cycle, and cycles get rarer as the table grows.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import msgspec
import structlog

from service.runtime.concurrency import for_each, set_within
from service.stream.leases.context import LeaseContext
from service.stream.leases.election import Election, Won
from service.stream.leases.lease import Lease, Member
from service.stream.leases.listing import Listing
from service.stream.leases.planner import Decision, Planner, View
from service.stream.ports import Shard

log = structlog.get_logger()


class Cycle(msgspec.Struct, frozen=True):
    """How a cycle ended.

    Attributes:
        own: This worker's new assignment; it takes effect without waiting for a heartbeat. None: unchanged.
        pause: Seconds until the next cycle.
    """

    own: Member | None
    pause: float


class Leader:
    """A worker's work as the leader. It begins with `begin`, and ends with the worker's session.

    Args:
        worker: Its id.
        context: What it works with.
        election: Whether it leads: asked before each write.

    Attributes:
        plans: Cycles carried out.
        given_away: Set once a plan without this worker was carried out, after `leave`.
    """

    def __init__(self, worker: str, context: LeaseContext, election: Election) -> None:
        self._worker = worker
        self._context = context
        self._election = election
        self._wake = asyncio.Event()
        self._leaving = False
        self._list_wanted = asyncio.Event()
        self._list: Sequence[Shard] | None = None
        self._listing = Listing(context.settings)
        self._planner = Planner(worker, context.settings)
        self.plans = 0
        self.given_away = asyncio.Event()

    @property
    def ended(self) -> bool:
        """Whether every shard is finished and several lists in a row named none that is open."""
        return self._election.leading and self._listing.ended

    def begin(self, won: Won) -> None:
        """Lead, after an election that this worker has won."""
        self._planner = Planner(self._worker, self._context.settings, deposed=won.deposed)

    def leave(self) -> None:
        """Give away this worker's leases with the next plan, which comes at once; bid no more."""
        self._leaving = True
        self._election.withdraw()
        self._wake.set()

    def hurry(self) -> None:
        """Plan again now: something changed that the plan depends on."""
        self._wake.set()

    async def list_shards(self) -> None:
        """Once elected, wait until a list of the shards is wanted, and get it. May raise `TransientError`."""
        await self._election.elected.wait()
        await self._list_wanted.wait()
        self._list = await self._context.source.list_shards()
        self._list_wanted.clear()
        self._wake.set()

    async def cycle(self) -> Cycle:
        """Wait until elected; look, decide and write once. May raise `TransientError`."""
        await self._election.elected.wait()
        self._wake.clear()
        context, clock = self._context, self._context.clock
        # Only a list that is complete before the table is read: what it does not know yet has no row either.
        listed = self._list
        asked_at = clock.monotonic()
        snapshot = await context.store.snapshot()
        answered_at = clock.monotonic()
        rows = {lease.shard_id: lease for lease in sorted(snapshot.leases, key=lambda lease: lease.shard_id)}
        if listed is not None:
            await self._take_in_list(listed, rows)
            self._list = None
        now = clock.monotonic()
        self._listing.take_in(rows, now)
        if self._listing.due(now) and self._list is None:
            self._list_wanted.set()
        view = View(
            rows=dict(sorted(rows.items())),
            owners=tuple(lease.owner for lease in snapshot.leases),
            members=snapshot.members,
            asked_at=asked_at,
            answered_at=answered_at,
            now_ms=clock.wall_ms(),
        )
        leaving = self._leaving
        decision = self._planner.decide(view, self._listing, {self._worker} if leaving else frozenset())
        self._report(decision)
        own = await self._carry_out(decision) if self._election.certain() else None
        if leaving:
            self.given_away.set()
        return Cycle(own=own, pause=self._planner.pause(view, clock.monotonic()))

    async def until_next_cycle(self, pause: float) -> None:
        """Wait `pause` seconds, or until a plan is needed earlier. Many changes at once get one plan."""
        gap = min(pause, self._context.settings.cycle_min / 4)
        await self._context.clock.sleep(gap)
        await set_within(self._wake, pause - gap)

    async def _take_in_list(self, shards: Sequence[Shard], rows: dict[str, Lease]) -> None:
        """Make and remove the rows that a list asks for, also in `rows`."""
        context, listing, clock = self._context, self._listing, self._context.clock
        starts = {shard_id: row.starting for shard_id, row in rows.items()}
        if shards and not await context.identity.confirms(shards, starts):
            listing.of_another_stream(clock.monotonic())
            return
        leadership = self._election.row
        found = listing.compare(shards, rows, leadership, clock.wall_ms())

        async def create(lease: Lease) -> None:
            if self._election.certain() and await context.store.create(lease):
                rows[lease.shard_id] = lease

        async def delete(lease: Lease) -> None:
            if self._election.certain() and await context.store.delete(lease):
                rows.pop(lease.shard_id, None)

        await for_each(found.create, create, context.settings.store_concurrency)
        await for_each(found.delete, delete, context.settings.store_concurrency)
        listing.carried_out(found, shards, rows, clock.monotonic())
        if shards and not self._election.row.discovered:
            self._election.discovered()
        if found.create or found.delete:
            log.info(
                "leader.shards_discovered", created=len(found.create), deleted=len(found.delete), listed=len(shards)
            )

    def _report(self, decision: Decision) -> None:
        metrics, pipeline = self._context.metrics, self._context.pipeline
        for state, count in decision.leases.items():
            metrics.leases.labels(pipeline, state).set(count)
        metrics.members.labels(pipeline).set(decision.alive)

    async def _carry_out(self, decision: Decision) -> Member | None:
        """Write a decision; return this worker's new assignment, if it changes."""
        membership, concurrency = self._context.membership, self._context.settings.store_concurrency

        async def remove(worker: str) -> None:
            if self._election.certain():
                await membership.remove(worker)
                log.warning("leader.removed_dead_worker", dead=worker)

        async def assign(member: Member) -> None:
            if self._election.certain():
                await membership.assign(member.worker, member)

        # First the rows of the dead: one that was not so dead then learns it from its next heartbeat.
        await for_each(decision.remove, remove, concurrency)
        await for_each(decision.assign, assign, concurrency)
        self.plans += 1
        self._election.share_rates(decision.sharing)
        if any(member.worker != self._worker for member in decision.assign):
            self._election.count_plan()
        return next((member for member in decision.assign if member.worker == self._worker), None)
