"""Publishing every stored score again: a paced scan that gives each item its next `Revision`.

The table's stream then brings each score to the sinks, in order with everything else that happens to it
(deploy/decisions/0008). `scoring reconcile` does this by itself; a worker does it where the stream lost changes.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Sequence
from functools import partial

import msgspec
import structlog

from service.ingest.stores import MAX_COMMITS, ScoreStore
from service.observability.metrics import Metrics
from service.publish.pipeline import PipelineState, PipelineStore
from service.publish.republish import BACKOFF_FIRST_S, BACKOFF_LAST_S, restate
from service.runtime.backoff import Backoff
from service.runtime.clock import Clock
from service.runtime.concurrency import keep_on, set_within
from service.runtime.errors import TransientError
from service.runtime.retry import retried
from service.scoring.fold import UserKey

PATIENCE_S = 120.0
"""Seconds without a single write after which it gives up; a worker begins again where it was."""

CHUNK = MAX_COMMITS
"""Scores written at a time."""

log = structlog.get_logger(__name__)


class ReconcileOptions(msgspec.Struct, frozen=True):
    """Bounds of a worker's reconciliation.

    Attributes:
        per_s: Scores written per second.
        look_s: Seconds between two looks at whether one is owed.
        settle_s: Seconds that the leader waits once it has seen that one is owed.
        save_s: Seconds between two notes of how far it is.
        project_ids: Projects whose scores are published; empty for all.
        insists: See `restate`.
    """

    per_s: float = 100.0
    look_s: float = 15.0
    settle_s: float = 0.0
    save_s: float = 5.0
    project_ids: Collection[str] = ()
    insists: bool = False


async def restated(
    keys: AsyncIterator[UserKey],
    scores: ScoreStore,
    clock: Clock,
    metrics: Metrics,
    rng: random.Random,
    per_s: float,
    *,
    insists: bool = False,
) -> AsyncIterator[Sequence[UserKey]]:
    """Write the scores of `keys` again, `per_s` a second; yield them as they are done, in their order.

    What the table throttles or does not answer is tried again, at growing intervals of up to `BACKOFF_LAST_S` seconds.

    Raises:
        TransientError: From `keys`; or nothing could be written for `PATIENCE_S`. What was yielded is written.
    """
    chunk: list[UserKey] = []
    async for key in keys:
        chunk.append(key)
        if len(chunk) == CHUNK:
            yield await _restated(
                chunk, partial(restate, scores=scores, metrics=metrics, insists=insists), clock, rng, per_s
            )
            chunk = []
    if chunk:
        yield await _restated(
            chunk, partial(restate, scores=scores, metrics=metrics, insists=insists), clock, rng, per_s
        )


async def _restated(
    keys: Sequence[UserKey],
    again: Callable[[Sequence[UserKey]], Awaitable[list[UserKey]]],
    clock: Clock,
    rng: random.Random,
    per_s: float,
) -> Sequence[UserKey]:
    started = progressed_at = clock.monotonic()
    backoff = Backoff(rng, first=BACKOFF_FIRST_S, last=BACKOFF_LAST_S)
    left = list(keys)
    while left:
        before, error = len(left), TransientError("the score table throttles every write", throttled=True)
        try:
            left = await again(left)
        except TransientError as failed:
            error = failed
        if len(left) < before:
            progressed_at = clock.monotonic()
        elif clock.monotonic() >= progressed_at + PATIENCE_S:
            raise error
        if left:
            await clock.sleep(backoff.failed())
    await clock.sleep(max(0.0, started + len(keys) / per_s - clock.monotonic()))
    return keys


class Reconciler:
    """A worker's part in reconciliations: any worker notes that one is owed, the leader of the pipeline carries it out.

    Args:
        scores: The score table.
        store: Where it is noted.
        leading: Whether this worker leads the pipeline.
        clock: Time.
        metrics: The catalogue.
        rng: For jitter.
        options: Bounds.
    """

    def __init__(
        self,
        scores: ScoreStore,
        store: PipelineStore,
        leading: Callable[[], bool],
        clock: Clock,
        metrics: Metrics,
        rng: random.Random,
        options: ReconcileOptions,
    ) -> None:
        self._scores = scores
        self._store = store
        self._leading = leading
        self._clock = clock
        self._metrics = metrics
        self._rng = rng
        self._options = options
        self._wake = asyncio.Event()
        self._seen = 0
        self._seen_at = float("-inf")

    async def owe(self, why: str) -> None:
        """Note, durably, that every score is to be published again; tries until that is done."""
        log.warning("reconcile.owed", why=why)
        await retried(lambda: self._update(PipelineState.owing), self._clock, self._rng)
        self._wake.set()

    async def run(self) -> None:
        """Carry out what is owed, while this worker leads, until cancelled."""
        await keep_on("reconcile", self._look, self._clock, Backoff(self._rng, last=self._options.look_s))

    async def _look(self) -> None:
        await set_within(self._wake, self._options.look_s)
        self._wake.clear()
        state = await self._store.load() if self._leading() else None
        if state is None or not state.owes:
            self._seen = 0
            return
        if self._seen != state.owed:
            self._seen, self._seen_at = state.owed, self._clock.monotonic()
        if self._clock.monotonic() >= self._seen_at + self._options.settle_s:
            await self._reconcile(state)

    async def _reconcile(self, state: PipelineState) -> None:
        options, clock = self._options, self._clock
        running, after = state.owed, state.resume_after
        log.warning("reconcile.started", resumed=after is not None, per_s=options.per_s)
        scores, saved_at = 0, clock.monotonic()
        keys = self._ours(self._scores.scan(after))
        told = restated(keys, self._scores, clock, self._metrics, self._rng, options.per_s, insists=options.insists)
        async for done in told:
            scores += len(done)
            if not self._leading():
                log.warning("reconcile.left_to_next_leader", scores=scores)
                return
            if clock.monotonic() >= saved_at + options.save_s:
                saved_at = clock.monotonic()
                await self._update(partial(PipelineState.progressed, running=running, cursor=done[-1]))
        await self._update(partial(PipelineState.completed, running=running))
        log.warning("reconcile.completed", scores=scores)

    async def _ours(self, keys: AsyncIterator[UserKey]) -> AsyncIterator[UserKey]:
        wanted = self._options.project_ids
        async for key in keys:
            if not wanted or key.project_id in wanted:
                yield key

    async def _update(self, change: Callable[[PipelineState], PipelineState]) -> None:
        """Change the row; again where somebody else wrote first. May raise `TransientError`."""
        while True:
            state = await self._store.load()
            if await self._store.replace(state, change(state or PipelineState())):
                return
