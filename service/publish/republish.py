"""Scores a sink may hold an older value of, mended: another worker may have written them late, or the stream lost them.

A sink has no compare-and-set, so a worker that was paused may write an old score after its successor wrote a
newer one (deploy/decisions/0003). Once no such call can take effect any more, the score's item is written again, the
same but for `Revision`: so its stream brings it anew, to whoever holds its shard then, in order with all that comes
later. That is durable with one write, needs no lease and no sink, and so outlives the worker that found the doubt.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from itertools import islice

import structlog

from service.ingest.stores import COMMITTED, MAX_COMMITS, ScoreStore, Throttled
from service.observability.metrics import Metrics
from service.publish.outbox import Ticket
from service.publish.sender import MIN_WAIT_S, Sender
from service.runtime.backoff import Backoff
from service.runtime.clock import Clock
from service.runtime.errors import TransientError
from service.runtime.retry import retried
from service.scoring.change import ScoreChange
from service.scoring.event import Rejected
from service.scoring.fold import ScoreState, UserKey

CHUNK = 100
"""Users a reconciliation reads and publishes at a time: what one BatchGetItem returns, and one sink call takes."""

MAX_WATCHED = 100_000
"""Users of seized shards of which a worker keeps track; with more, what such shards bring waits."""

PAUSE_S = 0.1
"""Pause after each `MAX_COMMITS` users: sinks take no more than some 200 users a second anyway."""

BACKOFF_FIRST_S, BACKOFF_LAST_S = 0.5, 20.0
"""Range of the ceiling of a wait after the table throttled all of them: scoring needs it more."""

LEAVING_LAST_S = 1.0
"""Longest such wait of a worker that leaves."""

SETTLE_S = 60.0
"""Longest wait for who is in doubt, once a reconciliation has failed."""

log = structlog.get_logger(__name__)


class Mender:
    """See the module.

    Args:
        scores: The score table.
        clock: Time.
        metrics: The catalogue.
        rng: For jitter.
        reconcile_per_s: Users a reconciliation publishes per second.
        project_ids: Projects whose scores it publishes; empty for all.
    """

    def __init__(
        self,
        scores: ScoreStore,
        clock: Clock,
        metrics: Metrics,
        rng: random.Random,
        *,
        reconcile_per_s: float,
        project_ids: Collection[str] = (),
    ) -> None:
        self._senders: Mapping[str, Sender] = {}
        self._scores = scores
        self._clock = clock
        self._metrics = metrics
        self._rng = rng
        self._reconcile_per_s = reconcile_per_s
        self._project_ids = project_ids
        # When each may be mended; ordered by when it was last doubted, which is as good within one call's longest time.
        self._doubts: dict[UserKey, float] = {}
        self._in_hand = 0
        self._wake = asyncio.Event()
        self._room = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._at_work = 0
        self._reconcile_wanted = asyncio.Event()
        self._left = asyncio.Event()
        self._reconciling = False
        self._published: Ticket | None = None

    def connect(self, senders: Mapping[str, Sender]) -> None:
        """Set whom a reconciliation publishes through, by sink name."""
        self._senders = senders

    @property
    def in_doubt(self) -> int:
        """Users who wait to be mended, or are being mended."""
        return len(self._doubts) + self._in_hand

    @property
    def idle(self) -> bool:
        """Whether nobody is in doubt, and nothing is being published that no lease keeps in order."""
        return not self._doubts and not self._at_work

    def doubt(self, keys: Iterable[UserKey], due: float) -> None:
        """Have the scores of `keys` told anew, from `due` (monotonic seconds) on: older ones may land until then."""
        for key in keys:
            self._doubts[key] = max(due, self._doubts.pop(key, due))
        self._noted()
        self._wake.set()

    async def watch(self, keys: Sequence[UserKey], until: float) -> None:
        """`doubt` what a seized shard brought while calls of its last owner may land; waits while that is too much."""
        while len(self._doubts) > MAX_WATCHED:
            self._room.clear()
            await self._room.wait()
        self.doubt(keys, until)

    def request_reconcile(self) -> None:
        """Publish every stored score, soon; once, however often it is asked for before that begins."""
        self._reconcile_wanted.set()

    async def settled(self) -> None:
        """Return once `idle`; by the time the caller runs, it may be so no longer."""
        await self._idle.wait()

    def leave(self) -> None:
        """End a reconciliation, which nobody else knows is owed: what is in flight is waited for."""
        self._left.set()
        if self._reconciling or self._reconcile_wanted.is_set():
            log.error("reconcile.cut_short", remedy="scoring reconcile")
        self._let_go()

    def _let_go(self) -> None:
        if self._published is not None:
            for sender in self._senders.values():
                sender.let_go(self._published)

    async def run(self) -> None:
        """Mend and reconcile until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._run_mending())
            tasks.create_task(self._run_reconciliation())

    async def reconcile(self, scan: AsyncIterator[ScoreChange]) -> int:
        """Publish every score of `scan` at a limited rate; return how many, once whoever changed meanwhile is mended.

        Raises:
            TransientError: From `scan`; what was published so far stays so.
        """
        count = 0
        chunk: list[ScoreChange] = []
        try:
            async for change in scan:
                if self._left.is_set():
                    break
                foreign = self._project_ids and change.key.project_id not in self._project_ids
                if change.is_removal or foreign:
                    continue
                chunk.append(change)
                if len(chunk) == CHUNK:
                    count += await self._reconcile_chunk(chunk)
                    chunk = []
            count += await self._reconcile_chunk(chunk)
        except TransientError:
            with suppress(TimeoutError):
                async with asyncio.timeout(SETTLE_S):
                    await self.settled()
            raise
        await self.settled()
        return count

    async def _reconcile_chunk(self, changes: list[ScoreChange]) -> int:
        if not changes or self._left.is_set():
            return 0
        started = self._clock.monotonic()
        with self._working():
            await self._publish(changes)
            await self._compare(changes)
        spent = self._clock.monotonic() - started
        await self._clock.sleep(max(0.0, len(changes) / self._reconcile_per_s - spent))
        return len(changes)

    async def _publish(self, changes: Sequence[ScoreChange]) -> None:
        """Return once every sink has `changes`, or newer ones, or this worker leaves."""
        settled = asyncio.Event()
        ticket = self._published = Ticket("", "", settled.set)
        for sender in self._senders.values():
            await sender.offer(changes, ticket)
        ticket.offered()
        if self._left.is_set():
            self._let_go()
        await settled.wait()
        self._published = None

    async def _compare(self, changes: Sequence[ScoreChange]) -> None:
        """Doubt whoever is stored differently by now: no lease ordered what was published with what came meanwhile.

        The score is compared too: an increment by somebody else leaves `Revision` as it is.
        """
        stored = await self._load([change.key for change in changes])
        differing = [
            change.key
            for change in changes
            if (now := stored.get(change.key)) is not None
            and (now.revision, now.score) != (change.revision, change.score)
        ]
        self.doubt(differing, self._clock.monotonic())

    async def _load(self, keys: Sequence[UserKey]) -> dict[UserKey, ScoreState]:
        """Return what is stored, as far as there is a score to tell."""
        states = await retried(lambda: self._scores.load(keys), self._clock, self._rng)
        return {key: s for key, s in states.items() if isinstance(s, ScoreState) and s.score is not None}

    async def _run_reconciliation(self) -> None:
        while True:
            await self._reconcile_wanted.wait()
            self._reconcile_wanted.clear()
            self._reconciling = True
            await retried(lambda: self.reconcile(self._scores.scan()), self._clock, self._rng)
            self._reconciling = False

    async def _run_mending(self) -> None:
        backoff = Backoff(self._rng, first=BACKOFF_FIRST_S, last=BACKOFF_LAST_S)
        while True:
            self._wake.clear()
            now = self._clock.monotonic()
            due = list(islice((key for key, at in self._next() if at <= now), MAX_COMMITS))
            if not due:
                await self._wait()
                continue
            with self._working():
                self._in_hand = len(due)
                for key in due:
                    del self._doubts[key]
                throttled = await self._restate(due)
                self._in_hand = 0
                self.doubt(throttled, now)
            self._room.set()
            if len(throttled) == len(due):
                await self._rest(backoff.failed())
            else:
                backoff.succeeded()
                await self._rest(PAUSE_S)

    async def _rest(self, seconds: float) -> None:
        """Wait; a worker that is told to leave waits no longer than it must."""
        if self._left.is_set():
            await self._clock.sleep(min(seconds, LEAVING_LAST_S))
            return
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._left.wait()

    def _next(self) -> Iterator[tuple[UserKey, float]]:
        return islice(self._doubts.items(), MAX_COMMITS)

    async def _wait(self) -> None:
        due = min((at for _, at in self._next()), default=None)
        try:
            async with asyncio.timeout(None if due is None else max(due - self._clock.monotonic(), MIN_WAIT_S)):
                await self._wake.wait()
        except TimeoutError:
            return

    async def _restate(self, keys: Sequence[UserKey]) -> list[UserKey]:
        """Write up to `MAX_COMMITS` scores as they are, under their next `Revision`; return whom the table throttled.

        Where somebody else writes first, that is as good: their change is told from now on.
        """
        states = await self._load(keys)
        if not states:
            return []
        outcomes = await retried(lambda: self._scores.restate(states), self._clock, self._rng)
        refused = [outcome for outcome in outcomes if isinstance(outcome, Rejected)]
        if refused:
            log.error("mend.refused", scores=len(refused), why=refused[0].detail, remedy="scoring reconcile")
        self._metrics.scores_restated.inc(sum(outcome == COMMITTED for outcome in outcomes))
        return [key for key, outcome in zip(states, outcomes, strict=True) if isinstance(outcome, Throttled)]

    @contextmanager
    def _working(self) -> Iterator[None]:
        self._at_work += 1
        self._noted()
        try:
            yield
        finally:
            self._at_work -= 1
            self._noted()

    def _noted(self) -> None:
        self._metrics.scores_in_doubt.set(self.in_doubt)
        if self.idle:
            self._idle.set()
        else:
            self._idle.clear()
