"""Scores published anew: where another worker may have overwritten them, and where the stream lost changes.

A sink has no compare-and-set, so a worker that was paused may write an old score after its successor wrote a
newer one (deploy/decisions/0003). What is stored is the truth: read it, publish it, and, where no lease keeps
others from publishing meanwhile, read it again until it is what was published.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import islice

import msgspec

from service.observability.metrics import Metrics
from service.pipelines.outbox import Held, Ticket
from service.pipelines.ports import ScoreStore
from service.pipelines.retry import retried
from service.pipelines.sender import MIN_WAIT_S, Sender
from service.scoring.change import ScoreChange
from service.scoring.event import Rejected
from service.scoring.fold import ScoreState, UserKey
from service.shards.ports import Clock

CHUNK = 100
"""Users read and published again at a time: what one BatchGetItem returns, and what one sink call takes."""

MAX_USERS = 100_000
"""Users in doubt, and users watched after a take-over, of which a worker keeps track. With more, it publishes every
score there is instead."""


class _Watch(msgspec.Struct):
    """A shard seized from a worker whose last calls may still be on their way, and whom they may concern.

    Attributes:
        until: Monotonic second from which on no such call can take effect.
        keys: Whose changes it brought until then.
        ours: Whether we have held its lease ever since: it orders what is published under it with all that comes later.
    """

    until: float
    keys: dict[UserKey, None]
    ours: bool = True


class Verifier:
    """Publishes stored scores through the senders' outboxes.

    Args:
        scores: The score table.
        clock: Time.
        metrics: The catalogue.
        rng: For jitter.
        call_timeout_s: Longest time a sink call of a dead worker may still take effect.
        reconcile_per_s: Users a reconciliation publishes per second.
    """

    def __init__(
        self,
        scores: ScoreStore,
        clock: Clock,
        metrics: Metrics,
        rng: random.Random,
        *,
        call_timeout_s: float,
        reconcile_per_s: float,
    ) -> None:
        self._senders: Mapping[str, Sender] = {}
        self._scores = scores
        self._clock = clock
        self._metrics = metrics
        self._rng = rng
        self._call_timeout_s = call_timeout_s
        self._reconcile_per_s = reconcile_per_s
        self._doubts: dict[UserKey, None] = {}
        self._watches: dict[str, _Watch] = {}
        self._wake = asyncio.Event()
        self._settled = asyncio.Event()
        self._settled.set()
        self._at_work = 0
        self._reconcile_wanted = asyncio.Event()

    def connect(self, senders: Mapping[str, Sender]) -> None:
        """Set whom to publish through, by sink name."""
        self._senders = senders

    def doubt(self, keys: Sequence[UserKey]) -> None:
        """Publish the stored scores of `keys` until one is known to be the last word."""
        self._doubts.update(dict.fromkeys(keys))
        if len(self._doubts) > MAX_USERS:
            self._doubts.clear()
            self.request_reconcile()
        self._settled.clear()
        self._wake.set()

    def watch(self, shard_id: str, keys: Iterable[UserKey]) -> None:
        """Remember whose changes a seized shard brought; they are published again when its last owner's calls are over.

        Only the first `call_timeout_s` count (`Batch.taken_over` is set no longer than that): whatever comes later,
        comes after those calls.
        """
        watch = self._watches.get(shard_id)
        if watch is None or not watch.ours:
            earlier = watch.keys if watch is not None else {}
            watch = self._watches[shard_id] = _Watch(self._clock.monotonic() + self._call_timeout_s, earlier)
            self._wake.set()
        if len(watch.keys) <= MAX_USERS:
            watch.keys.update(dict.fromkeys(keys))

    def note_lost(self, held: Held) -> None:
        """Take note of watched shards that are no longer ours: finished, handed over or lost.

        Their users stay watched. Whoever reads on, the next owner or that of the children, took nothing over by force
        and knows nothing of the dead.
        """
        for shard_id, watch in self._watches.items():
            watch.ours = watch.ours and held(shard_id)

    @property
    def watching(self) -> bool:
        """Whether a call of a dead worker may still take effect, which this worker would have to mend."""
        return bool(self._watches)

    def request_reconcile(self) -> None:
        """Publish every stored score, soon; once, however often it is asked for before that begins."""
        self._reconcile_wanted.set()

    async def settled(self) -> None:
        """Return when nobody is in doubt, and nothing is being published that no lease keeps in order."""
        await self._settled.wait()

    async def run(self) -> None:
        """Verify and reconcile until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._run_verification())
            tasks.create_task(self._run_reconciliation())

    async def reconcile(self, scan: AsyncIterator[ScoreChange]) -> int:
        """Publish every score of `scan` at a limited rate; return how many, once all sinks have the last word.

        Raises:
            TransientError: From `scan`; what was published so far stays so.
        """
        count = 0
        chunk: list[ScoreChange] = []
        async for change in scan:
            if change.is_removal:
                continue
            chunk.append(change)
            if len(chunk) == CHUNK:
                count += await self._reconcile_chunk(chunk)
                chunk = []
        count += await self._reconcile_chunk(chunk)
        await self.settled()
        return count

    async def _reconcile_chunk(self, changes: list[ScoreChange]) -> int:
        started = self._clock.monotonic()
        await self._publish_until_read(changes)
        spent = self._clock.monotonic() - started
        await self._clock.sleep(max(0.0, len(changes) / self._reconcile_per_s - spent))
        return len(changes)

    async def _run_reconciliation(self) -> None:
        while True:
            await self._reconcile_wanted.wait()
            self._reconcile_wanted.clear()
            await retried(lambda: self.reconcile(self._scores.scan()), self._clock, self._rng)

    async def _run_verification(self) -> None:
        while True:
            self._wake.clear()
            await self._publish_watched()
            keys = list(islice(self._doubts, CHUNK))
            if keys:
                for key in keys:
                    del self._doubts[key]
                await self._publish_until_read(list((await self._load(keys)).values()))
                continue
            self._settle()
            await self._wait()

    async def _wait(self) -> None:
        due = min((watch.until for watch in self._watches.values()), default=None)
        seconds = None if due is None else max(due - self._clock.monotonic(), MIN_WAIT_S)
        try:
            async with asyncio.timeout(seconds):
                await self._wake.wait()
        except TimeoutError:
            return

    async def _publish_watched(self) -> None:
        """Publish what seized shards brought: once, where their leases order it with all that comes later."""
        now = self._clock.monotonic()
        for shard_id, watch in list(self._watches.items()):
            if watch.until > now:
                continue
            self._watches.pop(shard_id, None)
            keys = list(watch.keys)
            if len(keys) > MAX_USERS:
                self.request_reconcile()
                continue
            with self._working():
                for start in range(0, len(keys), CHUNK):
                    current = await self._load(keys[start : start + CHUNK]) if watch.ours else {}
                    if not watch.ours or not await self._publish(list(current.values()), shard_id):
                        self.doubt(keys[start:])
                        break
                    await self._read_back(list(current.values()))

    async def _publish_until_read(self, changes: Sequence[ScoreChange]) -> None:
        """Publish `changes`; whoever is stored differently by then is in doubt again."""
        if not changes:
            return
        with self._working():
            await self._publish(changes, "")
            await self._read_back(changes)

    async def _read_back(self, changes: Sequence[ScoreChange]) -> None:
        """Doubt whoever is stored differently by now.

        Also where a lease orders what is published: an increment by somebody else leaves `Revision` as it is, so what
        was read before it, and published after it, would bring the old score back.
        """
        current = await self._load([change.key for change in changes])
        differing = [
            change.key
            for change in changes
            if (now := current.get(change.key)) is not None
            and (now.revision, now.score) != (change.revision, change.score)
        ]
        if differing:
            self.doubt(differing)

    @contextmanager
    def _working(self) -> Iterator[None]:
        self._at_work += 1
        self._settled.clear()
        try:
            yield
        finally:
            self._at_work -= 1
            self._settle()

    def _settle(self) -> None:
        if not self._at_work and not self._doubts:
            self._settled.set()

    async def _publish(self, changes: Sequence[ScoreChange], shard_id: str) -> bool:
        """Return once every sink has `changes`, or newer ones; False as soon as the lease of `shard_id` is lost."""
        settled = asyncio.Event()
        ticket = Ticket("", shard_id, settled.set)
        for name, sender in self._senders.items():
            await sender.offer(changes, ticket)
            self._metrics.sink_verified.labels(name).inc(len(changes))
        ticket.offered()
        await settled.wait()
        return not ticket.lost

    async def _load(self, keys: Sequence[UserKey]) -> dict[UserKey, ScoreChange]:
        """Return the scores stored for `keys`; those without one are left out."""
        states = await retried(lambda: self._scores.load(keys), self._clock, self._rng)
        return {key: change for key, state in states.items() if (change := _change_to(key, state)) is not None}


def _change_to(key: UserKey, state: ScoreState | Rejected) -> ScoreChange | None:
    if isinstance(state, Rejected) or state.score is None:
        return None
    return ScoreChange(key, state.score, state.revision, state.updated_ms)
