"""The leadership row: who leads, for how long, and how another worker takes over.

Followers read the row and bid for it once it is vacant. The leader renews it. Every write compares and sets, so two
workers never both believe that they lead: see `certain`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

import msgspec
import structlog

from service.runtime.concurrency import set_within
from service.stream.leases.context import LeaseContext
from service.stream.leases.lease import Leadership
from service.stream.leases.liveness import LeaderWatch
from service.stream.leases.share import tags_of
from service.stream.leases.target import other
from service.stream.position import LATEST, Position, at_timestamp

log = structlog.get_logger()

_MARGIN = 0.01
"""Seconds; so that a look at a leader due to be dead does not come a moment too early."""


class Look(msgspec.Struct, frozen=True):
    """What a follower's look at the leadership row shows.

    Attributes:
        row: The row; None before there ever was a leader.
        vacant: Whether to bid.
        new_plan: Whether a plan since the last look changed what somebody is to hold.
    """

    row: Leadership | None
    vacant: bool
    new_plan: bool


class Won(msgspec.Struct, frozen=True):
    """A bid that succeeded.

    Attributes:
        deposed: The leader before, where it fell silent; empty where it stepped down, or there was none.
    """

    deposed: str


class Election:
    """One worker's part in who leads.

    Args:
        worker: Its id.
        context: What it works with.
        start: Where a stream never read before starts.

    Attributes:
        follows: Whether a look has ever shown a leader.
        elected: Set while this worker leads, from its bid until it steps down.
    """

    def __init__(self, worker: str, context: LeaseContext, start: Position) -> None:
        self._worker = worker
        self._context = context
        self._start = start
        self._plans_seen = 0
        self._row: Leadership | None = None
        self._until = float("-inf")
        self._watch = LeaderWatch(context.settings.lease_duration)
        self._renew_now = asyncio.Event()
        self._withdrawn = False
        self.follows = False
        self.elected = asyncio.Event()

    @property
    def leading(self) -> bool:
        """Whether this worker has the leadership row."""
        return self._row is not None

    @property
    def deadline(self) -> float:
        """Monotonic second at which an unrenewed leadership ends, and this worker with it; infinity for followers."""
        return self._until if self.leading else float("inf")

    @property
    def row(self) -> Leadership:
        """The leadership held; only while leading."""
        if self._row is None:
            raise RuntimeError("not leading")
        return self._row

    def certain(self) -> bool:
        """Return whether the leadership is still this worker's for sure."""
        return self.leading and self._context.clock.monotonic() < self._until

    def withdraw(self) -> None:
        """Bid no more: this worker leaves."""
        self._withdrawn = True

    async def look(self) -> Look:
        """Look at the row; see it as not vacant once withdrawn. For followers. May raise `TransientError`."""
        context, clock = self._context, self._context.clock
        asked_at = clock.monotonic()
        row = await context.membership.leadership()
        context.share.saw(row, asked_at)
        self.follows = self.follows or (row is not None and bool(row.leader))
        new_plan = row is not None and row.plans != self._plans_seen
        if row is not None:
            self._plans_seen = row.plans
        return Look(
            row=row,
            vacant=(self._watch.vacant(row, asked_at, clock.monotonic()) or self._names_me(row))
            and not self._withdrawn,
            new_plan=new_plan,
        )

    async def bid(self, row: Leadership | None) -> Won | None:
        """Write this worker into a row that a look found vacant. May raise `TransientError`.

        Returns:
            None where another worker was faster.
        """
        context, clock = self._context, self._context.clock
        if row is None:
            initial = at_timestamp(clock.wall_ms()) if self._start == LATEST else self._start
            new = Leadership(leader=self._worker, counter=1, initial=initial, target=context.target, sharing=b"")
        else:
            target = row.target or context.target
            new = msgspec.structs.replace(
                row, leader=self._worker, counter=row.counter + 1, target=target, sharing=row.sharing or b""
            )
        sent_at = clock.monotonic()
        if not await context.membership.lead(row, new):
            return None
        deposed = row.leader if row is not None and not self._names_me(row) else ""
        log.info("leader.elected", worker=self._worker, deposed=deposed)
        self._row, self._until = new, sent_at + context.settings.lease_duration
        self.elected.set()
        context.metrics.leading.labels(context.pipeline).set(1)
        self._compare_targets(new, first=True)
        return Won(deposed)

    async def renew(self) -> bool:
        """Write the next count of the row held. May raise `TransientError`.

        Returns:
            False when the leadership is another's: the others take this worker for dead.
        """
        context, row = self._context, self.row
        self._renew_now.clear()
        while True:
            new = msgspec.structs.replace(row, counter=row.counter + 1, target=row.target or context.target)
            sent_at = context.clock.monotonic()
            if await context.membership.lead(row, new):
                break
            found = await context.membership.leadership()
            if found is None or found.leader != self._worker:
                log.warning("leader.deposed", worker=self._worker)
                return False
            # An earlier renewal was written although its answer was lost; when, is not known: write another.
            self._row = row = self._with_news(found)
        if self._row is not None:
            self._row = self._with_news(new)
            self._compare_targets(new)
            self._until = max(self._until, sent_at + context.settings.lease_duration)
            context.share.saw(new, sent_at)
        return True

    async def until_next_turn(self, last_beat: float) -> None:
        """Wait until the next look or renewal is due.

        A leader renews once per beat interval, and at once after a plan that others must learn of. A follower looks
        half-way between its heartbeats, which show the same: so it learns of a plan within half an interval. It also
        looks at the moment at which the leader, should it be silent, has been so for a lease duration.

        Args:
            last_beat: Monotonic second at which this worker's last heartbeat was sent.
        """
        interval, now = self._context.settings.beat_interval, self._context.clock.monotonic()
        if self.leading:
            await set_within(self._renew_now, interval)
            return
        wait = (last_beat + interval / 2 - now) % interval if last_beat > float("-inf") else interval
        wait += interval if wait < interval / 4 else 0.0
        if not self._withdrawn:
            # Zero also where that moment passed while the last look, asked too early, was under way.
            wait = min(wait, max(0.0, self._watch.vacant_in(now)) + _MARGIN)
        await self._context.clock.sleep(wait)

    def count_plan(self) -> None:
        """Count a plan that changed another worker's assignment, and renew at once so that the others see it."""
        if self._row is not None:
            self._row = msgspec.structs.replace(self._row, plans=self._row.plans + 1)
            self._renew_now.set()

    def share_rates(self, workers: Iterable[str]) -> None:
        """Have these workers share the rates; where others have to learn of it, renew at once."""
        sharing = tags_of(workers)
        if self._row is not None and sharing != self._row.sharing:
            self._row = msgspec.structs.replace(self._row, sharing=sharing)
            self._renew_now.set()

    def discovered(self) -> None:
        """Note that the first discovery is complete; written with the next renewal.

        A successor that does not see it starts new shards at the initial position: a time before they came, or the
        trim horizon, so nothing is missed.
        """
        if self._row is not None:
            self._row = msgspec.structs.replace(self._row, discovered=True)

    async def step_down(self) -> None:
        """Let another lead at once; to be repeated after a `TransientError`, which it may raise.

        A renewal that was cut off when the loops were ended may have been written all the same: the row is then
        newer than the one known here, and would name this worker until its silence is noticed.
        """
        self.elected.clear()
        membership, row = self._context.membership, self._row
        while row is not None and row.leader == self._worker:
            self._row = row
            if await membership.lead(row, msgspec.structs.replace(row, leader="", counter=row.counter + 1)):
                break
            row = await membership.leadership()
        self.lost()

    def lost(self) -> None:
        """Note that another leads, or will."""
        if self._row is not None:
            self._row = None
            self._context.metrics.no_longer_leading(self._context.pipeline)

    def _names_me(self, row: Leadership | None) -> bool:
        """Return whether the row names this worker: an earlier bid was written although its answer was lost."""
        return row is not None and row.leader == self._worker

    def _compare_targets(self, row: Leadership, *, first: bool = False) -> None:
        """Report that the positions are known to belong to something else than what is written to now."""
        context = self._context
        different = other(row.target, context.target)
        context.metrics.leases_of_another_target.labels(context.pipeline).set(different)
        if different and first:
            log.error(
                "leases.target_changed",
                before=row.target,
                now=context.target,
                consequence="events that were scored into the former table are not read again for this one",
                remedy="a restored table: `scoring position reset --to-time` of the backup; otherwise "
                "`scoring position confirm`",
            )

    def _with_news(self, written: Leadership) -> Leadership:
        """Return the row as written, with what has happened here since."""
        row = self.row
        return msgspec.structs.replace(
            written,
            discovered=written.discovered or row.discovered,
            plans=max(written.plans, row.plans),
            sharing=row.sharing,
        )
