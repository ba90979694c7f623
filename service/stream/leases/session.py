"""One life of a worker under one id: join, beat, hold what the leader assigns, leave.

join ──► beating ──stop──► draining ──► left
           │  ▲  └─stream replaced──► finishing ──► over: the coordinator turns to the new stream
           │  └─ deadline passed: all tails cancelled, until a beat succeeds again
           └──── row gone, or leadership lost: taken for dead; over, a new life begins under a new id
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from enum import Enum

import msgspec
import structlog

from service.runtime.backoff import Backoff
from service.runtime.concurrency import first_of, for_each, keep_on, set_within
from service.runtime.errors import LeaseLostError, TransientError
from service.stream.leases.context import LeaseContext
from service.stream.leases.election import Election
from service.stream.leases.leader import Leader
from service.stream.leases.lease import Assigned, Member
from service.stream.position import Position
from service.stream.tail.held import Held, TailLike

log = structlog.get_logger()

FIRST_WAIT = 0.2
"""Seconds until a lease that is not free yet is looked at again: its owner is handing it over, mostly."""

LAST_WAIT = 1.0
"""Seconds, likewise, when it takes longer than `EAGER_S`."""

EAGER_S = 3.0
"""Seconds for which a lease is looked at as often as at first; then ever more rarely."""

LOOKS_PER_S = 100
"""Leases that are not free yet are looked at so often at most, all of a worker's together: it may await thousands."""

SETTLE_BEATS = 3
"""Heartbeats within which every worker has read a longer list of those that share rates, or takes nothing."""

GIVE_AWAY_TIMEOUT = 2.0
"""Seconds a leaving leader gives its last plan, the one that names its successors."""


class End(Enum):
    """How a session ended: an orderly leave, taken for dead by the others, or its stream was replaced."""

    LEFT = "left"
    TAKEN_FOR_DEAD = "taken for dead"
    REPLACED = "replaced"


class _TakenForDeadError(Exception):
    """The others no longer count on this worker: everything it holds may be another's."""


class _Wait(msgspec.Struct, frozen=True):
    """For a lease that could not be taken.

    Attributes:
        since: Monotonic second of the first try.
        at: Monotonic second of the next.
        seconds: Between the last try and the next.
    """

    since: float
    at: float
    seconds: float


class Session:
    """See the module.

    Attributes:
        tails: What is being read, by shard id.
        last_beat: Monotonic second of the last successful heartbeat's sending; minus infinity before.
    """

    def __init__(
        self,
        worker: str,
        context: LeaseContext,
        *,
        start: Position,
        rng: random.Random,
        open_tail: Callable[[Held], TailLike],
        stop: asyncio.Event,
    ) -> None:
        self.worker = worker
        self._context = context
        self._rng = rng
        self._open_tail = open_tail
        self._stop = stop
        self._beat_now = asyncio.Event()
        self.election = Election(worker, context, start)
        self.leader = Leader(worker, context, self.election)
        self.tails: dict[str, TailLike] = {}
        self.last_beat = float("-inf")
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._group: asyncio.TaskGroup | None = None
        self._until = float("-inf")
        self._beaten = asyncio.Event()
        self._version = -1
        self._assigned_here_at = float("-inf")
        self._wanted: dict[str, Assigned] = {}
        self._done: set[str] = set()
        self._waits: dict[str, _Wait] = {}
        self._look = asyncio.Event()
        self._taking = asyncio.Lock()
        self._pace = FIRST_WAIT
        self._leaving = False

    @property
    def synced(self) -> bool:
        """Whether this worker beats, and there is a leader whose first plan, if it is this one, is written."""
        return self._until > float("-inf") and (
            self.leader.plans > 0 if self.election.leading else self.election.follows
        )

    def deadline(self) -> float:
        """Return the monotonic second until which this worker may work."""
        return min(self._until, self.election.deadline)

    async def run(self) -> End:
        """Live; return how it ended."""
        self._context.share.begin(self.worker, self.deadline, SETTLE_BEATS * self._context.settings.beat_interval)
        await self._join()
        if self._stop.is_set() and self._until == float("-inf"):
            await self._say_goodbye()
            return End.LEFT
        replaced = self._context.identity.replaced
        try:
            async with asyncio.TaskGroup() as group:
                self._group = group
                steps = {"beat": self._beat, "guard": self._guard, "election": self._elect}
                steps |= {"list shards": self.leader.list_shards, "plan": self._plan, "take": self._take}
                loops = [
                    group.create_task(keep_on(what, step, self._context.clock, self._backoff()), name=what)
                    for what, step in steps.items()
                ]
                await first_of(self._stop.wait(), replaced.wait())
                if self._stop.is_set():
                    await self._drain()
                else:
                    await self._finish()
                for loop in loops:
                    loop.cancel()
        except BaseExceptionGroup as errors:
            rest = errors.split(_TakenForDeadError)[1]
            if rest is not None:
                raise rest from None
            log.warning("worker.declared_dead", worker=self.worker)
            self.election.lost()
            return End.TAKEN_FOR_DEAD
        finally:
            self._owned()
        await self._say_goodbye()
        return End.LEFT if self._stop.is_set() else End.REPLACED

    def _backoff(self) -> Backoff:
        return Backoff(self._rng, last=self._context.settings.beat_interval)

    async def _join(self) -> None:
        backoff = self._backoff()
        while not self._stop.is_set():
            try:
                context = self._context
                await context.membership.join(
                    Member(worker=self.worker, beat_ms=context.clock.wall_ms(), capability=context.settings.capability)
                )
            except TransientError as error:
                log.warning("worker.join_failed", worker=self.worker, error=str(error))
                await self._context.clock.sleep(backoff.failed())
            else:
                log.info("worker.joined", worker=self.worker)
                return

    async def _beat(self) -> None:
        context, clock = self._context, self._context.clock
        self._beat_now.clear()
        sent_at = clock.monotonic()
        member = await context.membership.beat(self.worker, clock.wall_ms(), leaving=self._leaving)
        if member is None:
            raise _TakenForDeadError
        self.last_beat = sent_at
        self._until = sent_at + context.settings.lease_duration
        self._beaten.set()
        context.metrics.heartbeat.labels(context.pipeline).set(clock.wall_ms() / 1000)
        # The row is right, also where its version went back: an old request may land late. Only a plan that this
        # process made as the leader while the heartbeat was under way may be newer than the answer.
        if member.version >= self._version or sent_at > self._assigned_here_at:
            self._assign(member)
        await set_within(self._beat_now, max(0.0, sent_at + context.settings.beat_interval - clock.monotonic()))

    async def _elect(self) -> None:
        """Renew the leadership held, or look at the row and bid for it once it is vacant; wait for the next turn."""
        election = self.election
        if election.leading:
            if not await election.renew():
                raise _TakenForDeadError
        else:
            look = await election.look()
            if look.new_plan:
                self._beat_now.set()
            if look.vacant and (won := await election.bid(look.row)) is not None:
                self.leader.begin(won)
        await election.until_next_turn(self.last_beat)

    async def _plan(self) -> None:
        """Plan for all while this worker leads. Its own part takes effect at once, without a heartbeat."""
        cycle = await self.leader.cycle()
        if cycle.own is not None:
            self._assigned_here_at = self._context.clock.monotonic()
            if cycle.own.version >= self._version:
                self._assign(cycle.own)
        await self.leader.until_next_cycle(cycle.pause)

    async def _guard(self) -> None:
        clock = self._context.clock
        if self._until == float("-inf"):
            await self._beaten.wait()
        wait = self.deadline() - clock.monotonic()
        if wait > 0:
            await clock.sleep(wait)
            return
        self._beaten.clear()
        if self.election.deadline <= clock.monotonic():
            # A successor takes a silent leader for dead at once, whatever its heartbeats say.
            raise _TakenForDeadError
        log.error("worker.deadline_passed", worker=self.worker, dropped=len(self._tasks))
        for task in list(self._tasks.values()):
            task.cancel()
        await self._beaten.wait()

    def _assign(self, member: Member) -> None:
        """Take in what this worker is to hold."""
        if self._leaving:
            return
        self._version = member.version
        self._wanted = {entry.shard_id: entry for entry in member.assigned}
        for shard_id, tail in self.tails.items():
            if shard_id not in self._wanted:
                tail.hand_over()
        self._done &= self._wanted.keys()
        self._waits = {shard_id: wait for shard_id, wait in self._waits.items() if shard_id in self._wanted}
        self._look.set()

    async def _take(self) -> None:
        """Try to take what is wanted and not held; then wait until something changes or may have."""
        clock = self._context.clock
        self._look.clear()
        if not self._leaving and clock.monotonic() < self.deadline():
            async with self._taking:
                missing, now = self._missing(), clock.monotonic()
                due = [entry for entry in missing if self._next_try(entry) <= now]
                self._pace = max(FIRST_WAIT, len(missing) / LOOKS_PER_S)
                await for_each(due, self._try, self._context.settings.store_concurrency)
        waits = [self._waits[entry.shard_id].at for entry in self._missing() if entry.shard_id in self._waits]
        wait = max(0.0, min(waits) - clock.monotonic()) if waits and not self._leaving else float("inf")
        if clock.monotonic() >= self.deadline():
            wait = max(wait, FIRST_WAIT)
        await set_within(self._look, wait)

    def _next_try(self, entry: Assigned) -> float:
        wait = self._waits.get(entry.shard_id)
        return wait.at if wait is not None else float("-inf")

    def _missing(self) -> list[Assigned]:
        return [
            entry
            for shard_id, entry in self._wanted.items()
            if shard_id not in self.tails and shard_id not in self._done
        ]

    async def _try(self, entry: Assigned) -> None:
        """Take one lease, when it is free, or its owner dead, or ours from a write whose answer was lost."""
        context, clock, shard_id = self._context, self._context.clock, entry.shard_id
        row = await context.store.get(shard_id)
        if row is None or clock.monotonic() >= self.deadline():
            self._later(shard_id)
            return
        if row.finished:
            self._done.add(shard_id)
            return
        may_seize = row.owner == self.worker or (row.owner, row.counter) == (entry.seize_owner, entry.seize_counter)
        if row.owner and not may_seize:
            self._later(shard_id)
            return
        new = row.taken_by(self.worker)
        found = await context.store.replace(row, new)
        if (found is not None and found != new) or clock.monotonic() >= self.deadline() or self._group is None:
            self._later(shard_id)
            return
        self._waits.pop(shard_id, None)
        self._event("seized" if row.owner else "taken")
        log.info("lease.taken", shard=shard_id, worker=self.worker, seized_from=row.owner, checkpoint=row.checkpoint)
        seized_at = clock.monotonic() if row.owner or row.unsettled else float("-inf")
        tail = self._open_tail(Held(lease=new, worker=self.worker, deadline=self.deadline, seized_at=seized_at))
        self.tails[shard_id] = tail
        if self._leaving or shard_id not in self._wanted:
            tail.hand_over()
        task = self._group.create_task(self._read(shard_id, tail), name=f"tail {shard_id}")
        self._tasks[shard_id] = task
        # A task that is cancelled before its first step never gets to its own clean-up.
        task.add_done_callback(lambda _: self._ended(shard_id, tail, "lost"))
        self._owned()

    def _later(self, shard_id: str) -> None:
        now = self._context.clock.monotonic()
        before = self._waits.get(shard_id) or _Wait(since=now, at=now, seconds=0.0)
        eager = now - before.since < EAGER_S
        seconds = self._pace if eager else max(self._pace, min(LAST_WAIT, before.seconds * 1.5))
        self._waits[shard_id] = _Wait(since=before.since, at=now + seconds, seconds=seconds)

    async def _read(self, shard_id: str, tail: TailLike) -> None:
        event = "lost"
        try:
            if await tail.run():
                event = "finished"
                self._done.add(shard_id)
            else:
                event = "released" if self._leaving else "handed_over"
        except LeaseLostError as error:
            log.warning("lease.lost", shard=shard_id, worker=self.worker, error=str(error))
            self._later(shard_id)
        finally:
            self._ended(shard_id, tail, event)

    def _ended(self, shard_id: str, tail: TailLike, event: str) -> None:
        """Take note, once, that a shard is not read any more."""
        if self.tails.get(shard_id) is not tail:
            return
        del self.tails[shard_id], self._tasks[shard_id]
        self._event(event)
        self._owned()
        self._look.set()
        self.leader.hurry()
        log.info("lease.ended", shard=shard_id, worker=self.worker, outcome=event)

    async def _drain(self) -> None:
        """Finish what is in hand, release every lease; say so at once, so that successors are named meanwhile."""
        log.info("worker.leave_started", worker=self.worker, shards=len(self.tails))
        self.leader.leave()
        await self._end_tails(lambda tail: tail.hand_over())
        if self.election.leading and not await set_within(self.leader.given_away, GIVE_AWAY_TIMEOUT):
            log.warning("leader.left_unplanned", worker=self.worker)

    async def _finish(self) -> None:
        """Finish everything in hand: the stream is gone, and nobody can read it again."""
        log.info("worker.finish_started", worker=self.worker, shards=len(self.tails))
        await self._end_tails(lambda tail: tail.finish())

    async def _end_tails(self, end: Callable[[TailLike], None]) -> None:
        """Take no more leases, say so with the next heartbeat, and end every tail."""
        self._leaving = True
        self._beat_now.set()
        self._wanted = {}
        for tail in list(self.tails.values()):
            end(tail)
        async with self._taking:
            pass
        if self._tasks:
            await asyncio.wait(list(self._tasks.values()))

    async def _say_goodbye(self) -> None:
        """Remove this worker's row, then step down, so that a successor no longer sees it."""
        context, backoff = self._context, self._backoff()
        context.share.end()

        async def remove() -> None:
            await context.membership.remove(self.worker)

        for call in (remove, self.election.step_down):
            for _ in range(context.settings.retries_when_leaving):
                try:
                    await call()
                    break
                except TransientError as error:
                    log.warning("worker.leave_failed", worker=self.worker, error=str(error))
                    await context.clock.sleep(backoff.failed())
        log.info("worker.left", worker=self.worker)

    def _event(self, event: str) -> None:
        self._context.metrics.lease_events.labels(self._context.pipeline, event).inc()

    def _owned(self) -> None:
        self._context.metrics.leases_owned.labels(self._context.pipeline).set(len(self.tails))
