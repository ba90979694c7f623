"""One sink's outbox, and the loop that empties it."""

from __future__ import annotations

import asyncio
import functools
import random
from collections.abc import Callable, Sequence

import msgspec

from service.ingest.letters import publish_letter_id
from service.ingest.stores import (
    DeadLetter,
    DeadLetters,
    NoDestination,
    NoTarget,
    Ordering,
    Published,
    Sink,
    SinkOutcome,
)
from service.observability.metrics import Metrics
from service.publish.outbox import Offered, Outbox, Pending, StillHeld, Ticket
from service.runtime.backoff import Backoff
from service.runtime.clock import MIN_WAIT_S, Clock
from service.runtime.concurrency import set_within
from service.runtime.errors import TransientError
from service.runtime.retry import RETRY_CAP_S, retried
from service.scoring.change import ScoreChange
from service.scoring.event import Rejected
from service.scoring.fold import UserKey

STAGE = "publish"

OUTCOMES = ("published", "no_target", "no_destination", "rejected")
"""What may become of a score handed to a sink, as metric labels."""

RepublishLater = Callable[[Sequence[UserKey], float], None]
"""Called with users of whom a sink may come to hold an older score than it did before, and with the monotonic second
from which on no call can do that any more."""


def _unneeded(_: Sequence[UserKey], __: float) -> None:
    """Do nothing: the sink's receiver ignores what is older than what it has."""


class SenderOptions(msgspec.Struct, frozen=True):
    """Bounds of sending to one sink.

    Attributes:
        linger_s: Longest wait for a batch to fill, for coalescing.
        concurrency: Most calls of one sink in flight.
        eager: With this many calls in flight, only full batches are sent: changes that wait for a rate limit can
            coalesce.
        capacity: Most users in hand per sink; offers beyond it wait.
        remembered: Users per sink whose last published revision is kept.
        call_timeout_s: Longest time that a sink's request may still take effect, after its answer or without one.
    """

    linger_s: float = 0.25
    concurrency: int = 8
    eager: int = 4
    capacity: int = 10_000
    remembered: int = 20_000
    call_timeout_s: float = 15.0


class Sender:
    """Publishes every change offered to one sink; the newest one wins; retries without end.

    Args:
        sink: The sink.
        letters: Where changes go that the sink refuses for good.
        republish: Called with the users of a call that ended outside the lease it began in, or without an answer.
        held: Whether a shard's lease is still ours.
        clock: Time.
        metrics: The catalogue.
        rng: For jitter.
        options: Bounds.
    """

    def __init__(
        self,
        sink: Sink,
        letters: DeadLetters,
        republish: RepublishLater,
        held: StillHeld,
        clock: Clock,
        metrics: Metrics,
        rng: random.Random,
        options: SenderOptions,
    ) -> None:
        self.outbox = Outbox(options.capacity, options.remembered)
        self._sink = sink
        self._letters = letters
        self._republish = republish if sink.ordering is Ordering.LAST_WRITE else _unneeded
        self._held = held
        self._clock = clock
        self._metrics = metrics
        self._rng = rng
        self._options = options
        self._pending = metrics.sink_pending.labels(sink.name)
        self._latency = metrics.event_to_sink.labels(sink.name)
        for outcome in OUTCOMES:
            metrics.sink_updates.labels(sink.name, outcome)  # from zero on: an alert must see the first one
        self._offered = asyncio.Event()
        self._room = asyncio.Event()
        self._backoff = Backoff(rng, last=RETRY_CAP_S)
        self._calls = 0
        self._failed_at = 0.0
        self._paused_until = 0.0

    async def offer(self, changes: Sequence[ScoreChange], ticket: Ticket) -> None:
        """Take `changes` in hand; waits while the outbox is full."""
        outbox, counts = self.outbox, dict.fromkeys(Offered, 0)
        room = 0
        for change in changes:
            if room <= 0:
                while not outbox.has_room(change.key):
                    self._offered.set()
                    self._room.clear()
                    await self._room.wait()
                room = outbox.capacity - len(outbox)
            counts[outbox.offer(change, ticket)] += 1
            room -= 1
        self._metrics.sink_coalesced.labels(self._sink.name).inc(counts[Offered.COALESCED])
        self._metrics.sink_stale.labels(self._sink.name).inc(counts[Offered.STALE])
        self._offered.set()

    def release(self, ticket: Ticket) -> None:
        """Drop what only `ticket` waits for and is not in flight: there is room for others."""
        self.outbox.release(ticket)
        self._republish_uncertain()
        self._changed()

    async def run(self) -> None:
        """Send until cancelled."""
        slots = asyncio.Semaphore(self._options.concurrency)
        async with asyncio.TaskGroup() as calls:
            while True:
                await slots.acquire()
                batch = await self._collect()
                self._calls += 1
                calls.create_task(self._send(batch)).add_done_callback(lambda _: self._ended(slots))

    def _ended(self, slots: asyncio.Semaphore) -> None:
        self._calls -= 1
        slots.release()
        self._offered.set()

    async def _collect(self) -> list[Pending]:
        """Return the next batch: full, or as large as it got within the linger."""
        while True:
            await self._pause()
            if not self.outbox.ready(self._clock.monotonic()):
                await self._wait(self.outbox.next_due - self._clock.monotonic())
                continue
            until = self._clock.monotonic() + self._options.linger_s
            while (now := self._clock.monotonic()) < until and self.outbox.ready(now) < self._sink.max_batch:
                await self._wait(until - now)
            while self._calls >= self._options.eager and self._ready() < self._sink.max_batch:
                await self._wait(float("inf"))
            if self._paused_until > self._clock.monotonic():
                continue
            batch = self.outbox.take(self._sink.max_batch, self._clock.monotonic(), functools.cache(self._held))
            self._republish_uncertain()
            self._changed()
            if batch:
                return batch

    def _ready(self) -> int:
        return self.outbox.ready(self._clock.monotonic())

    async def _pause(self) -> None:
        while (left := self._paused_until - self._clock.monotonic()) > 0:
            await self._clock.sleep(max(left, MIN_WAIT_S))

    async def _wait(self, seconds: float) -> None:
        """Return when something changed in the outbox, or after `seconds`."""
        self._offered.clear()
        await set_within(self._offered, max(seconds, MIN_WAIT_S))

    async def _send(self, batch: list[Pending]) -> None:
        changes = [pending.change for pending in batch]
        outcomes = await self._call(changes)
        over_at = self._clock.monotonic() + self._options.call_timeout_s
        for pending, outcome in zip(batch, outcomes, strict=True):
            if isinstance(outcome, TransientError) and not outcome.undone:
                pending.uncertain_until = over_at
        overtaken = self._overtaken(batch)
        rejected = [
            _letter(self._sink.name, pending, outcome, self._clock.wall_ms())
            for pending, outcome in zip(batch, outcomes, strict=True)
            if isinstance(outcome, Rejected)
        ]
        if rejected:
            await retried(lambda: self._letters.put(rejected), self._clock, self._rng)
            for letter in rejected:
                self._metrics.dead_letters.labels(STAGE, letter.reason).inc()
        self._observe_latency(
            [pending for pending, outcome in zip(batch, outcomes, strict=True) if isinstance(outcome, Published)]
        )
        settled: dict[str, int] = {}
        for pending, outcome in zip(batch, outcomes, strict=True):
            label = self._settle(pending, outcome)
            settled[label] = settled.get(label, 0) + 1
        for label, count in settled.items():
            if label:
                self._metrics.sink_updates.labels(self._sink.name, label).inc(count)
        self._changed()
        if overtaken:
            # Whatever the answer: some sinks give it before the work is done.
            self._republish(overtaken, over_at)
        self._republish_uncertain()

    def _overtaken(self, batch: list[Pending]) -> list[UserKey]:
        """Return the users whose newer score another worker may have published, as a lease was lost meanwhile."""
        held = functools.cache(self._held)
        return [pending.change.key for pending in batch if pending.overtaken(held)]

    def _republish_uncertain(self) -> None:
        for key, until in self.outbox.uncertain(self._clock.monotonic()).items():
            self._republish([key], until)

    async def _call(self, changes: Sequence[ScoreChange]) -> Sequence[SinkOutcome | TransientError]:
        started = self._clock.monotonic()
        try:
            outcomes = await self._sink.publish(changes)
        except TransientError as error:
            outcomes = [error] * len(changes)
            # Nothing got through: more calls would only add to what hurts. Calls that failed side by side count once.
            if started >= self._failed_at:
                self._failed_at = self._clock.monotonic()
                self._paused_until = self._failed_at + self._backoff.failed()
        else:
            self._backoff.succeeded()
        self._metrics.sink_seconds.labels(self._sink.name).observe(self._clock.monotonic() - started)
        kinds = {_kind(outcome) for outcome in outcomes if isinstance(outcome, TransientError)}
        for kind in kinds:
            self._metrics.sink_errors.labels(self._sink.name, kind).inc()
        return outcomes

    def _settle(self, pending: Pending, outcome: SinkOutcome | TransientError) -> str:
        """Do away with a change, or have it tried again; return its outcome's label, empty for the latter."""
        match outcome:
            case Published():
                label = "published"
            case TransientError():
                self.outbox.fail(pending, self._clock.monotonic() + self._delay(pending))
                return ""
            case NoTarget():
                label = "no_target"
            case NoDestination():
                label = "no_destination"
            case Rejected():
                label = "rejected"
        self.outbox.acknowledge(pending)
        return label

    def _delay(self, failed: Pending) -> float:
        if self._backoff.failures:
            return 0.0  # nothing gets through: the whole sink pauses
        backoff = Backoff(self._rng, last=RETRY_CAP_S)
        backoff.failures = failed.attempts
        return backoff.failed()

    def _observe_latency(self, published: Sequence[Pending]) -> None:
        """Observe one call; the oldest stands for all in it: what is shown is never better than it was."""
        oldest = min(
            (pending.change.updated_ms for pending in published if pending.change.updated_ms),
            default=0,
        )
        if oldest:
            self._latency.observe(max(0.0, (self._clock.wall_ms() - oldest) / 1000))

    def _changed(self) -> None:
        count = len(self.outbox)
        self._pending.set(count)
        self._offered.set()
        if count < self.outbox.capacity:
            self._room.set()


def _kind(error: TransientError) -> str:
    return "throttled" if error.throttled else "transient"


class _Payload(msgspec.Struct, frozen=True):
    user: str
    project: str
    score: str
    revision: int


def _letter(sink: str, pending: Pending, rejected: Rejected, now_ms: int) -> DeadLetter:
    change = pending.change
    key = change.key
    payload = msgspec.json.encode(_Payload(key.user_id, key.project_id, f"{change.score:f}", change.revision))
    source = pending.tickets[0] if pending.tickets else None
    return DeadLetter(
        letter_id=publish_letter_id(sink, key.project_id, key.user_id, str(change.revision)),
        stage=STAGE,
        reason=rejected.reason,
        detail=f"{sink}: {rejected.detail}",
        stream=source.stream if source else "",
        shard_id=source.shard_id if source else "",
        sequence="",
        partition_key="",
        at_ms=now_ms,
        payload=payload,
        payload_size=len(payload),
    )
