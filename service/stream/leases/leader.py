"""The one worker that plans for all: wins the leadership row, finds shards, and says who is to hold what.

Nothing here is read more often with more workers: followers read one row a second, the leader reads the table once
per cycle, and cycles get rarer as the table grows.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import msgspec
import structlog

from service.stream.leases.assignment import Plan
from service.stream.leases.leadership import LeaderPorts, Reign
from service.stream.leases.lease import Leadership, Member
from service.stream.leases.liveness import Watch
from service.stream.leases.target import other
from service.stream.position import LATEST, Position, at_timestamp

log = structlog.get_logger()

_MARGIN = 0.01
"""Seconds; so that a look at a leader due to be dead does not come a moment too early."""


class Leader:
    """A worker's bid for the leadership, and the leader's work while it has it.

    Args:
        worker: Its id.
        ports: What it works with.
        start: Where a stream never read before starts.
        assigned: Told what this worker is to hold by a plan of its own.
        planned: Called by a follower that sees that somebody's assignment has changed.

    Attributes:
        follows: Whether there is a leader, this worker or another.
        given_away: Set once a plan without this worker was carried out, after `leave`.
        planned: Plans carried out.
    """

    def __init__(
        self,
        worker: str,
        ports: LeaderPorts,
        start: Position,
        assigned: Callable[[Member], None],
        planned: Callable[[], None],
    ) -> None:
        self._worker = worker
        self._ports = ports
        self._start = start
        self._assigned = assigned
        self._planned = planned
        self._plans_seen = 0
        self._row: Leadership | None = None
        self._until = float("-inf")
        self._watch = Watch(ports.settings.lease_duration)
        self._elected = asyncio.Event()
        self._wake = asyncio.Event()
        self._announce = asyncio.Event()
        self._leaving = False
        self._reign = Reign(worker, ports)
        self.given_away = asyncio.Event()
        self.follows = False
        self.planned = 0

    @property
    def leading(self) -> bool:
        """Whether this worker has the leadership row."""
        return self._row is not None

    @property
    def ended(self) -> bool:
        """Whether every shard is finished and several lists in a row named none that is open; for a leader."""
        return self.leading and self._reign.ended

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
        self._announce.clear()
        if self._row is not None:
            return await self._renew(self._row)
        if not self._leaving:
            await self._bid()
        return True

    async def until_next_campaign(self, last_beat: float) -> None:
        """Wait until the next `campaign` is due.

        A leader renews once per beat interval, and at once after a plan that others must learn of. A follower looks
        half-way between its heartbeats, which tell the same: so it hears of a plan within half an interval. It also
        looks at the moment at which the leader, should it be silent, has been so for a lease duration.

        Args:
            last_beat: Monotonic second at which this worker's last heartbeat was sent.
        """
        interval, now = self._ports.settings.beat_interval, self._ports.clock.monotonic()
        if self.leading:
            try:
                async with asyncio.timeout(interval):
                    await self._announce.wait()
            except TimeoutError:
                pass
            return
        wait = (last_beat + interval / 2 - now) % interval if last_beat > float("-inf") else interval
        wait += interval if wait < interval / 4 else 0.0
        if not self._leaving:
            # Zero also where that moment passed while the last look, asked too early, was under way.
            wait = min(wait, max(0.0, self._watch.vacant_in(now)) + _MARGIN)
        await self._ports.clock.sleep(wait)

    async def survey(self) -> None:
        """Once elected, wait until a list of the shards is wanted, and get it. May raise `TransientError`."""
        await self._elected.wait()
        await self._reign.survey()
        self._wake.set()

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
        self.deposed()

    def deposed(self) -> None:
        """Take note that another leads, or will."""
        if self._row is not None:
            self._row = None
            self._ports.metrics.no_longer_leading(self._ports.pipeline)

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
        if self._row is not None and any(member.worker != self._worker for member in done.assign):
            self._row = msgspec.structs.replace(self._row, plans=self._row.plans + 1)
            self._announce.set()
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
        if row is not None and row.plans != self._plans_seen:
            self._plans_seen = row.plans
            self._planned()
        # A row that names this worker: an earlier bid was written although its answer was lost.
        mine = row is not None and row.leader == self._worker
        if not self._watch.vacant(row, asked_at, clock.monotonic()) and not mine:
            return
        if row is None:
            initial = at_timestamp(clock.wall_ms()) if self._start == LATEST else self._start
            new = Leadership(leader=self._worker, counter=1, initial=initial, target=ports.target)
        else:
            target = row.target or ports.target
            new = msgspec.structs.replace(row, leader=self._worker, counter=row.counter + 1, target=target)
        sent_at = clock.monotonic()
        if await ports.membership.lead(row, new):
            deposed = row.leader if row is not None and not mine else ""
            log.info("leader.elected", worker=self._worker, deposed=deposed)
            self._enter(new, deposed=deposed, until=sent_at + ports.settings.lease_duration)

    def _enter(self, row: Leadership, *, deposed: str, until: float) -> None:
        self._row, self._until = row, until
        self._reign = Reign(self._worker, self._ports, deposed=deposed)
        self._elected.set()
        self._ports.metrics.leading.labels(self._ports.pipeline).set(1)
        self._compare_targets(row, first=True)

    def _compare_targets(self, row: Leadership, *, first: bool = False) -> None:
        """Say so while the positions are known to belong to something else than what is written to now."""
        ports = self._ports
        different = other(row.target, ports.target)
        ports.metrics.leases_of_another_target.labels(ports.pipeline).set(different)
        if different and first:
            log.error(
                "leases.target_changed",
                before=row.target,
                now=ports.target,
                consequence="events that were scored into the former table are not read again for this one",
                remedy="a restored table: `scoring position reset --to-time` of the backup; otherwise "
                "`scoring position confirm`",
            )

    async def _renew(self, row: Leadership) -> bool:
        """Write the next count; return False when the leadership is another's."""
        ports = self._ports
        new = msgspec.structs.replace(row, counter=row.counter + 1, target=row.target or ports.target)
        sent_at = ports.clock.monotonic()
        if not await ports.membership.lead(row, new):
            found = await ports.membership.leadership()
            if found is None or found.leader != self._worker:
                log.warning("leader.deposed", worker=self._worker)
                return False
            # An earlier renewal was written although its answer was lost; when, is not known: write another.
            self._row = self._with_news(found)
            return await self._renew(self._row)
        if self._row is not None:
            self._row = self._with_news(new)
            self._compare_targets(new)
            self._until = max(self._until, sent_at + ports.settings.lease_duration)
        return True

    def _with_news(self, written: Leadership) -> Leadership:
        """Return the row as written, with what has happened here since."""
        row = self.row
        return msgspec.structs.replace(
            written, discovered=written.discovered or row.discovered, plans=max(written.plans, row.plans)
        )
