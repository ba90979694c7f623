"""The daily sweep: scores that fade, and tiers that end, without an event of the person.

Once a day the leader scans the score table, looks at each score by rules as it is that day, and writes those that have
moved far enough, in the same compare-and-set as every score. The table's stream brings them to the sinks. How far it is
stands in a row of the lease table, so the next leader goes on there. Two sweeps at once cost money and do no harm.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from functools import partial

import msgspec
import structlog

from service.ingest.stores import MAX_COMMITS, Change, Committed, ScoreStore, Throttled
from service.observability.metrics import Metrics
from service.publish.pipeline import PipelineState, PipelineStore
from service.runtime.backoff import Backoff
from service.runtime.clock import Clock
from service.runtime.concurrency import keep_on
from service.scoring.fold import UserKey
from service.scoring.rules.decay import DAY_MS
from service.scoring.rules.model import RuleSet
from service.scoring.rules.state import StateFormatError
from service.scoring.rules.sweep import moved

SLICE = 100
"""Scores looked at before others get their turn, and the pace is kept."""

log = structlog.get_logger(__name__)


class SweepOptions(msgspec.Struct, frozen=True):
    """Bounds of a sweep.

    Attributes:
        per_s: Scores looked at per second.
        look_s: Seconds between two looks at whether one is due.
        save_s: Seconds between two notes of how far it is.
    """

    per_s: float = 1000.0
    look_s: float = 60.0
    save_s: float = 10.0


class Swept(msgspec.Struct):
    """How far a sweep is.

    Attributes:
        last: The last score dealt with; None before the first.
        counts: Scores `seen`, `written`, changed by somebody else meanwhile (`conflict`), not readable (`unusable`).
    """

    last: UserKey | None = None
    counts: Counter[str] = msgspec.field(default_factory=Counter)


async def sweep(
    scores: ScoreStore,
    rules: Callable[[], Mapping[str, RuleSet]],
    day: int,
    clock: Clock,
    rng: random.Random,
    per_s: float,
    after: UserKey | None = None,
    *,
    dry_run: bool = False,
) -> AsyncIterator[Swept]:
    """Look at every score behind `after` as it is on a day; yield now and then, when all up to `Swept.last` is written.

    Args:
        scores: The score table.
        rules: The rules in force, by project.
        day: Counted from 1970-01-01.
        clock: Time.
        rng: For jitter.
        per_s: Scores looked at per second.
        after: Where to begin; None: at the start.
        dry_run: Whether nothing is written; what would be counts as written.

    Raises:
        TransientError: The table cannot be read or written now; what was yielded is done.
    """
    swept, changes, started = Swept(), [], clock.monotonic()
    async for key, state in scores.scan_states(after):
        swept.counts["seen"] += 1
        swept.last = key
        of_project = rules().get(key.project_id)
        if of_project is not None:
            try:
                folded = moved(state, of_project, day)
            except StateFormatError:
                swept.counts["unusable"] += 1
                folded = None
            if folded is not None:
                changes.append(Change(key, folded))
        if len(changes) == MAX_COMMITS or swept.counts["seen"] % SLICE == 0:
            swept.counts += await _written(changes, scores, clock, rng, dry_run=dry_run)
            changes = []
            yield swept
            await clock.sleep(max(0.0, started + swept.counts["seen"] / per_s - clock.monotonic()))
    swept.counts += await _written(changes, scores, clock, rng, dry_run=dry_run)
    yield swept


async def _written(
    changes: Sequence[Change], scores: ScoreStore, clock: Clock, rng: random.Random, *, dry_run: bool
) -> Counter[str]:
    counts: Counter[str] = Counter()
    if dry_run:
        counts["written"] = len(changes)
        return counts
    backoff = Backoff(rng)
    left = list(changes)
    while left:
        outcomes = await scores.commit(left)
        throttled = []
        for change, outcome in zip(left, outcomes, strict=True):
            if isinstance(outcome, Throttled):
                throttled.append(change)
            else:
                # A conflict: an event came meanwhile, and its write has looked at the score.
                counts["written" if isinstance(outcome, Committed) else "conflict"] += 1
        left = throttled
        if left:
            await clock.sleep(backoff.failed())
    return counts


class Sweeper:
    """A worker's part in the daily sweep: the leader carries it out.

    Args:
        scores: The score table.
        store: Where it is noted how far it is: a row of its own, whose numbers are days.
        leading: Whether this worker leads.
        rules: The rules in force, by project.
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
        rules: Callable[[], Mapping[str, RuleSet]],
        clock: Clock,
        metrics: Metrics,
        rng: random.Random,
        options: SweepOptions,
    ) -> None:
        self._scores = scores
        self._store = store
        self._leading = leading
        self._rules = rules
        self._clock = clock
        self._metrics = metrics
        self._rng = rng
        self._options = options

    async def run(self) -> None:
        """Sweep once a day, while this worker leads, until cancelled."""
        await keep_on("sweep", self._look, self._clock, Backoff(self._rng, last=self._options.look_s))

    async def _look(self) -> None:
        await self._clock.sleep(self._options.look_s)
        if not self._leading() or not self._rules():
            return
        today = self._clock.wall_ms() // DAY_MS
        state = await self._store.load() or PipelineState()
        # Of one that was never complete, when it was due.
        if (done := state.done or state.owed - 1) > 0:
            self._metrics.sweep_completed.set((done + 1) * DAY_MS / 1000)
        if state.done >= today:
            return
        if state.owed < today:
            await self._update(lambda row: msgspec.structs.replace(row, counter=row.counter + 1, owed=today))
            state = await self._store.load() or state
        await self._sweep(today, state.resume_after if state.owed == today else None)

    async def _sweep(self, today: int, after: UserKey | None) -> None:
        clock, options = self._clock, self._options
        log.info("sweep.started", resumed=after is not None)
        counted: Counter[str] = Counter()
        saved_at = clock.monotonic()
        swept = Swept()
        async for swept in sweep(self._scores, self._rules, today, clock, self._rng, options.per_s, after):
            for outcome, count in (swept.counts - counted).items():
                self._metrics.swept.labels(outcome).inc(count)
            counted = Counter(swept.counts)
            if not self._leading():
                log.info("sweep.left_to_next_leader", **swept.counts)
                return
            if clock.monotonic() >= saved_at + options.save_s and swept.last is not None:
                saved_at = clock.monotonic()
                await self._update(partial(PipelineState.progressed, running=today, cursor=swept.last))
        await self._update(partial(PipelineState.completed, running=today))
        self._metrics.sweep_completed.set(clock.wall_ms() / 1000)
        log.info("sweep.completed", **swept.counts)

    async def _update(self, change: Callable[[PipelineState], PipelineState]) -> None:
        """Change the row; again where somebody else wrote first. May raise `TransientError`."""
        while True:
            state = await self._store.load()
            if await self._store.replace(state, change(state or PipelineState())):
                return
