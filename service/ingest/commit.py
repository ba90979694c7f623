"""The commit: a batch's events become durable in the scores, each exactly once, one write per user.

The rules, all of them needed (`tests/simulation` shows what breaks without each):

- A write is made only where the stored state is the one folded on (compare-and-set on `Revision`).
- Where it is not, the events are folded again on what is stored, and that user alone is tried again.
- Nobody is skipped: `commit` returns when every user is durable, or refused by the table for good.
- A lost response needs no care: the retry finds the events in the score, and has nothing to write.

Scores are read eventually consistently, at half the price. A stale state is an earlier one of the same score, or none:
- Where events are to be written, the comparison fails, and the answer brings what is stored. An insert where there is
  an item fails too, without bringing it: only then is the item read consistently.
- Where nothing is to be written, the state has a mark that covers the events. Marks only move up, and are dropped only
  when their records cannot be read any more, so the events are in what is stored now. That a score has *no* such mark
  is never believed without a write that proves it.
- An item that cannot be a score is read once more, consistently: somebody may have repaired it.

Shards commit side by side. Within a process, two that meet on one user take turns, so that neither pays for a write
that is bound to fail; between processes, compare-and-set settles it.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from sys import getsizeof

import msgspec
import structlog

from service.ingest.stores import MAX_COMMITS, Change, Committed, Conflict, Outcome, ScoreStore, Throttled
from service.observability.metrics import Metrics, score_band
from service.runtime.adaptive_limit import AdaptiveLimit
from service.runtime.backoff import Backoff
from service.runtime.cache import RecentCache
from service.runtime.clock import Clock
from service.runtime.concurrency import for_each
from service.runtime.errors import LeaseLostError, TransientError
from service.scoring.event import Reason, Rejected
from service.scoring.fold import Folded, Origin, Scorable, ScoreState, UserKey, fold
from service.scoring.marks import Marking, UncertainError
from service.scoring.rules.decay import DAY_MS
from service.scoring.rules.model import RuleSet
from service.scoring.rules.score import fold_by_rules
from service.scoring.rules.state import StateFormatError

_log = structlog.get_logger()

SLICE = 500
"""Users folded before others get their turn."""

STATE_BYTES = 1024
"""What a user's state in memory may take on average."""

_MARK_BYTES = 96  # about 17 bytes as an object, and its place in a dictionary
_BY_RULES_BYTES = 100  # an object, and its bytes as one
_SCORE_BYTES = 500  # the state, its number, and an empty dictionary of marks

BACKOFF_FIRST_S = 0.05
BACKOFF_LAST_S = 5.0

NO_RULES: Mapping[str, RuleSet] = {}

Groups = Mapping[UserKey, Sequence[Scorable]]
"""A batch's events by user, each user's in the shard's order."""


class Refusal(msgspec.Struct, frozen=True):
    """A user whose item the table refuses, or whose item is not a score.

    Attributes:
        why: The fault.
        events: What is in no score: all of the batch's, or those after what an earlier reader of the shard committed.
    """

    why: Rejected
    events: Sequence[Scorable]


class Tally(msgspec.Struct):
    """What became of a batch's events.

    Attributes:
        scored: Events added to a score by this commit.
        replayed: Events that were in their score already.
        refused: Users of whom nothing was added.
    """

    scored: int = 0
    replayed: int = 0
    refused: dict[UserKey, Refusal] = msgspec.field(default_factory=dict)


class Committer:
    """Writes the batches of all shards of a process.

    Args:
        store: The score table.
        limit: How many calls may be in flight.
        cache_entries: Users whose last state is kept in memory, in `STATE_BYTES` each on average.
        rng: Jitter.
    """

    def __init__(
        self,
        store: ScoreStore,
        clock: Clock,
        metrics: Metrics,
        limit: AdaptiveLimit,
        *,
        cache_entries: int,
        rng: random.Random,
    ) -> None:
        self._store = store
        self._clock = clock
        self._metrics = metrics
        self._limit = limit
        self._states: RecentCache[UserKey, ScoreState] = RecentCache(cache_entries, _state_bytes, STATE_BYTES)
        self._rng = rng
        self._busy: set[UserKey] = set()
        self._freed = asyncio.Event()
        self._waiting = 0

    async def commit(self, marking: Marking, groups: Groups, rules: Mapping[str, RuleSet] = NO_RULES) -> Tally:
        """Return once every event of the batch is in its user's score, or its user is refused.

        Args:
            marking: The one shard all events come from, and what the batch means for marks.
            groups: At least one event for each user.
            rules: By project, for projects that have any: those that the events were matched with.

        Raises:
            LeaseLostError: Nothing tells whether an event is in its score: the batch must be read again.
            TransientError: The table cannot be read now; what was written stays, and a second call finds it so.
        """
        tally = Tally()
        pending = dict(groups)
        unknown: set[UserKey] = set()
        backoff = Backoff(self._rng, first=BACKOFF_FIRST_S, last=BACKOFF_LAST_S)
        while pending:
            mine = {key: events for key, events in pending.items() if key not in self._busy}
            if not mine:
                await self._wait_for_others()
                continue
            round_ = await self._round(marking, mine, tally, rules, unknown)
            for key in round_.settled:
                del pending[key]
            if round_.throttled:
                await self._clock.sleep(backoff.failed())
        return tally

    async def _wait_for_others(self) -> None:
        self._waiting += 1
        try:
            await self._freed.wait()
        finally:
            self._waiting -= 1

    async def _round(
        self, marking: Marking, groups: Groups, tally: Tally, rules: Mapping[str, RuleSet], unknown: set[UserKey]
    ) -> _Round:
        """Try each user once."""
        round_ = _Round(groups, tally, set(groups), rules, self._clock.wall_ms() // DAY_MS, unknown)
        self._busy |= round_.held
        try:
            states = await self._load(list(groups), unknown)
            changes: list[Change] = []
            keys = list(states)
            for start in range(0, len(keys), SLICE):
                some = {key: states[key] for key in keys[start : start + SLICE]}
                changes += self._fold(marking, some, round_)
                await asyncio.sleep(0)
            self._free(round_.held, round_.settled)
            await for_each(list(_chunks(changes)), lambda chunk: self._write(chunk, round_), self._limit.maximum)
        finally:
            self._free(round_.held, list(round_.held))
            round_.statistics.tell(self._metrics)
        return round_

    def _fold(
        self,
        marking: Marking,
        states: Mapping[UserKey, ScoreState | Rejected],
        round_: _Round,
    ) -> list[Change]:
        """Return what is to be written; settle whom nothing is to be written for."""
        changes: list[Change] = []
        tally = round_.tally
        for key, state in states.items():
            if isinstance(state, Rejected):
                tally.refused[key] = Refusal(state, round_.groups[key])
                round_.settled.append(key)
                continue
            try:
                folded = _folded(key, state, marking, round_)
            except StateFormatError as error:
                why = Rejected(Reason.BAD_SCORE_ITEM, f"State cannot be used: {error}")
                tally.refused[key] = Refusal(why, round_.groups[key])
                round_.settled.append(key)
                continue
            except UncertainError as error:
                if not error.for_good:
                    # As if the lease were lost: its next owner reads the shard again, as far as that is possible.
                    raise LeaseLostError(f"{marking.tag}: {error}; the shard is read again") from error
                tally.refused[key] = Refusal(Rejected(Reason.MARK_EXPIRED, str(error)), round_.groups[key])
                round_.settled.append(key)
                continue
            if folded is None:
                tally.replayed += len(round_.groups[key])
                round_.settled.append(key)
            else:
                changes.append(Change(key, folded))
        return changes

    async def _load(self, keys: Sequence[UserKey], unknown: set[UserKey]) -> dict[UserKey, ScoreState | Rejected]:
        states: dict[UserKey, ScoreState | Rejected] = {}
        missing: list[UserKey] = []
        for key in keys:
            state = self._states.get(key)
            if state is None:
                missing.append(key)
            else:
                states[key] = state
        self._metrics.state_cache.labels("hit").inc(len(states))
        if missing:
            self._metrics.state_cache.labels("miss").inc(len(missing))
            states.update(await self._read(missing, unknown))
        return states

    async def _read(self, keys: Sequence[UserKey], unknown: set[UserKey]) -> dict[UserKey, ScoreState | Rejected]:
        """Return what the table says; see above for when it must be the newest."""
        cheap = [key for key in keys if key not in unknown]
        states = dict(await self._store.load(cheap, consistent=False)) if cheap else {}
        sure = [key for key in keys if key in unknown or isinstance(states.get(key), Rejected)]
        if sure:
            states.update(await self._store.load(sure))
            unknown.difference_update(sure)
        return states

    async def _write(self, chunk: Sequence[Change], round_: _Round) -> None:
        """Send one call; keep in memory what is stored now; free its users for other shards."""
        async with self._limit:
            try:
                outcomes = await self._store.commit(chunk)
            except TransientError as error:
                # It may have been written all the same. Trying again finds out: see the rules above.
                _log.warning("commit.failed", why=str(error), users=len(chunk))
                round_.throttled = True
                if not error.throttled:
                    self._metrics.commits.labels("failed").inc(len(chunk))
                    return
                outcomes = [Throttled()] * len(chunk)
        counts: dict[str, int] = {}
        for change, outcome in zip(chunk, outcomes, strict=True):
            name = self._take_in(change, outcome, round_)
            counts[name] = counts.get(name, 0) + 1
        for name, count in counts.items():
            self._metrics.commits.labels(name).inc(count)
        if "throttled" in counts:
            round_.throttled = True
            self._limit.throttled()
        else:
            self._limit.succeeded()
        self._metrics.commit_concurrency.set(self._limit.allowed)
        self._free(round_.held, [change.key for change in chunk])

    def _take_in(self, change: Change, outcome: Outcome, round_: _Round) -> str:
        """Keep in memory what is stored now, as far as the outcome tells; return the outcome's name."""
        key, folded, tally = change.key, change.folded, round_.tally
        match outcome:
            case Committed():
                self._states.put(key, folded.after)
                events = round_.groups[key]
                tally.scored += folded.counted
                tally.replayed += len(events) - folded.counted
                round_.settled.append(key)
                round_.statistics.add(folded, events)
                return "written"
            case Conflict(current=ScoreState() as current):
                self._states.put(key, current)
                return "conflict"
            case Conflict():
                self._states.drop(key)
                round_.unknown.add(key)
                return "conflict"
            case Throttled():
                return "throttled"
            case Rejected():
                self._states.drop(key)
                tally.refused[key] = Refusal(outcome, round_.groups[key][-folded.counted :])
                round_.settled.append(key)
                return "refused"

    def _free(self, held: set[UserKey], keys: Collection[UserKey]) -> None:
        """Let other shards have `keys`; only what this round holds still, for a key freed may be theirs by now."""
        mine = held.intersection(keys)
        held -= mine
        self._busy -= mine
        if self._waiting:
            # All waiters check again; later waiters need a new event.
            self._freed.set()
            self._freed = asyncio.Event()


class _Statistics:
    """The marketer's statistics of committed changes: added up here, and passed to the metrics once a round."""

    def __init__(self) -> None:
        self._events: dict[str, list[float]] = {}
        self._entered: Counter[str] = Counter()
        self._left: Counter[str] = Counter()
        self._outcomes: Counter[str] = Counter()

    def add(self, folded: Folded, events: Sequence[Scorable]) -> None:
        """Take note of one committed change."""
        for event in events if folded.counted == len(events) else events[-folded.counted :]:
            sums = self._events.get(event.event_type)
            if sums is None:
                sums = self._events[event.event_type] = [0, 0.0, 0.0]
            points = float(event.points)
            sums[0] += 1
            sums[1 if points >= 0 else 2] += abs(points)
        if (absorbed := folded.absorbed) is not None:
            self._outcomes.update(
                duplicate=absorbed.duplicates,
                repeat=absorbed.repeats,
                capped=absorbed.capped,
                late=absorbed.late,
                evicted=absorbed.evicted,
            )
        after = score_band(float(folded.after.score or 0))
        if folded.before.origin is Origin.ABSENT:
            self._entered[after] += 1
            return
        before = score_band(float(folded.before.score or 0))
        if before != after:
            self._left[before] += 1
            self._entered[after] += 1

    def tell(self, metrics: Metrics) -> None:
        """Add everything noted to the metrics."""
        for event_type, (count, given, taken) in self._events.items():
            label = metrics.event_type_label(event_type)
            metrics.events.labels(label).inc(count)
            if given:
                metrics.points_given.labels(label).inc(given)
            if taken:
                metrics.points_taken.labels(label).inc(taken)
        for band, count in self._entered.items():
            metrics.band_entered.labels(band).inc(count)
        for band, count in self._left.items():
            metrics.band_left.labels(band).inc(count)
        for outcome, count in self._outcomes.items():
            metrics.rule_outcomes.labels(outcome).inc(count)


class _Round(msgspec.Struct):
    """One try of a batch's users.

    Attributes:
        groups: Whom it tries, and their events.
        tally: What became of the events.
        held: Users no other shard of the process may write meanwhile.
        rules: By project.
        day: Today, counted from 1970-01-01.
        unknown: Users who have an item that was not seen: it must be read consistently.
        settled: Users done with.
        throttled: Whether the table asked for less, or did not answer.
        statistics: Of what was committed.
    """

    groups: Groups
    tally: Tally
    held: set[UserKey]
    rules: Mapping[str, RuleSet]
    day: int
    unknown: set[UserKey]
    settled: list[UserKey] = msgspec.field(default_factory=list)
    throttled: bool = False
    statistics: _Statistics = msgspec.field(default_factory=_Statistics)


def _folded(key: UserKey, state: ScoreState, marking: Marking, round_: _Round) -> Folded | None:
    rules = round_.rules.get(key.project_id) if round_.rules else None
    if rules is None:
        return fold(state, marking, round_.groups[key])
    return fold_by_rules(state, marking, round_.groups[key], rules, round_.day)


def _state_bytes(key: UserKey, state: ScoreState) -> int:
    by_rules = 0 if state.by_rules is None else _BY_RULES_BYTES + len(state.by_rules.state)
    return _SCORE_BYTES + getsizeof(key.user_id) + _MARK_BYTES * len(state.applied) + by_rules


def _chunks(changes: Sequence[Change]) -> Iterator[Sequence[Change]]:
    for start in range(0, len(changes), MAX_COMMITS):
        yield changes[start : start + MAX_COMMITS]
