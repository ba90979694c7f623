"""Publishing a score again: its item gets its next `Revision`, and the table's stream brings it to the sinks.

A sink has no compare-and-set, so a worker that was paused may write an old score after its successor wrote a newer one
(deploy/decisions/0003). Once no such call can take effect any more, the score's item is written again, the same but for
`Revision`. Its stream then brings it to the worker that holds its shard, in order with all later changes. One write
makes that durable. It needs neither a lease nor a sink, so it outlives the worker that found the uncertainty.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import islice

import structlog

from service.ingest.stores import COMMITTED, MAX_COMMITS, Conflict, ScoreStore, Throttled
from service.observability.metrics import Metrics
from service.runtime.backoff import Backoff
from service.runtime.clock import MIN_WAIT_S, Clock
from service.runtime.concurrency import set_within
from service.runtime.retry import retried
from service.scoring.event import Rejected
from service.scoring.fold import ScoreState, UserKey

MAX_WATCHED = 100_000
"""Users of seized shards of which a worker keeps track; with more, the records of such shards wait."""

PAUSE_S = 0.1
"""Pause after each `MAX_COMMITS` users: sinks take no more than some 200 users a second anyway."""

BACKOFF_FIRST_S, BACKOFF_LAST_S = 0.5, 20.0
"""Range of the ceiling of a wait after the table throttled all of them: scoring needs it more."""

LEAVING_LAST_S = 1.0
"""Longest such wait of a worker that leaves."""

log = structlog.get_logger(__name__)


async def restate(
    keys: Sequence[UserKey], scores: ScoreStore, metrics: Metrics, *, insists: bool = False
) -> list[UserKey]:
    """Write up to `MAX_COMMITS` scores as they are, under their next `Revision`; return those the table throttled.

    Where somebody else writes first, that is as good: the stream brings that change. Items without a score are left
    alone.

    With `insists`, those that somebody else wrote first are returned too: that change may be too small to be published.

    Raises:
        TransientError: All of it is to be repeated.
    """
    loaded = await scores.load(keys)
    states = {key: s for key, s in loaded.items() if isinstance(s, ScoreState) and s.score is not None}
    if not states:
        return []
    outcomes = await scores.restate(states)
    refused = [outcome for outcome in outcomes if isinstance(outcome, Rejected)]
    if refused:
        log.error("republish.refused", scores=len(refused), why=refused[0].detail, remedy="scoring reconcile")
    metrics.scores_restated.inc(sum(outcome == COMMITTED for outcome in outcomes))
    left = (Throttled, Conflict) if insists else Throttled
    return [key for key, outcome in zip(states, outcomes, strict=True) if isinstance(outcome, left)]


class Republisher:
    """Publishes scores again that a sink may hold an older value of, once no late call can take effect any more.

    Args:
        scores: The score table.
        clock: Time.
        metrics: The catalogue.
        rng: For jitter.
        insists: Whether a score that somebody else writes first is written again all the same.
    """

    def __init__(
        self, scores: ScoreStore, clock: Clock, metrics: Metrics, rng: random.Random, *, insists: bool = False
    ) -> None:
        self._scores = scores
        self._insists = insists
        self._clock = clock
        self._metrics = metrics
        self._rng = rng
        # When each is due; in the order of the last `later`, which is as good within one call's longest time.
        self._due: dict[UserKey, float] = {}
        self._in_hand = 0
        self._wake = asyncio.Event()
        self._room = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._at_work = False
        self._left = asyncio.Event()

    @property
    def waiting(self) -> int:
        """Users whose score is to be published again and is not yet written."""
        return len(self._due) + self._in_hand

    @property
    def idle(self) -> bool:
        """Whether nobody waits and nothing is being written."""
        return not self._due and not self._at_work

    def later(self, keys: Iterable[UserKey], due: float) -> None:
        """Publish the scores of `keys` again, from `due` (monotonic seconds) on: older ones may land until then."""
        for key in keys:
            self._due[key] = max(due, self._due.pop(key, due))
        self._noted()
        self._wake.set()

    async def watch(self, keys: Sequence[UserKey], until: float) -> None:
        """`later` for what a seized shard brought while calls of its last owner may land; waits for room."""
        while len(self._due) > MAX_WATCHED:
            self._room.clear()
            await self._room.wait()
        self.later(keys, until)

    async def settled(self) -> None:
        """Return once `idle`; that may have changed by the time the caller runs."""
        await self._idle.wait()

    def leave(self) -> None:
        """Wait no longer than necessary from now on: this worker is stopping."""
        self._left.set()

    async def run(self) -> None:
        """Write until cancelled."""
        backoff = Backoff(self._rng, first=BACKOFF_FIRST_S, last=BACKOFF_LAST_S)
        while True:
            self._wake.clear()
            now = self._clock.monotonic()
            due = list(islice((key for key, at in self._next() if at <= now), MAX_COMMITS))
            if not due:
                await self._wait()
                continue
            with self._working(len(due)):
                for key in due:
                    del self._due[key]
                again = partial(restate, due, self._scores, self._metrics, insists=self._insists)
                throttled = await retried(again, self._clock, self._rng)
                self._in_hand = 0
                self.later(throttled, now)
            self._room.set()
            if len(throttled) == len(due):
                await self._rest(backoff.failed())
            else:
                backoff.succeeded()
                await self._rest(PAUSE_S)

    async def _rest(self, seconds: float) -> None:
        if self._left.is_set():
            await self._clock.sleep(min(seconds, LEAVING_LAST_S))
            return
        await set_within(self._left, seconds)

    def _next(self) -> Iterator[tuple[UserKey, float]]:
        return islice(self._due.items(), MAX_COMMITS)

    async def _wait(self) -> None:
        due = min((at for _, at in self._next()), default=float("inf"))
        await set_within(self._wake, max(due - self._clock.monotonic(), MIN_WAIT_S))

    @contextmanager
    def _working(self, users: int) -> Iterator[None]:
        self._at_work, self._in_hand = True, users
        self._noted()
        try:
            yield
        finally:
            self._at_work, self._in_hand = False, 0
            self._noted()

    def _noted(self) -> None:
        self._metrics.scores_uncertain.set(self.waiting)
        if self.idle:
            self._idle.set()
        else:
            self._idle.clear()
