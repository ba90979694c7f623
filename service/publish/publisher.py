"""Changed scores to sinks: a batch of the score table's stream waits until each sink has its users' newest scores."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Collection, Sequence

import msgspec

from service.ingest.letters import publish_letter_id
from service.ingest.stores import DeadLetter, DeadLetters, Ordering, ScoreStore, Sink
from service.observability.metrics import Metrics
from service.publish.min_change import MinChange
from service.publish.outbox import StillHeld, Ticket
from service.publish.republish import Republisher
from service.publish.sender import STAGE, Sender, SenderOptions
from service.runtime.clock import Clock
from service.runtime.errors import LeaseLostError, ReleasedError
from service.runtime.retry import retried
from service.scoring.change import ScoreChange, StreamImage, change_of, shown_in
from service.scoring.event import Rejected
from service.stream.ports import Batch, Record

PIPELINE = "publish"

LEASE_CHECK_S = 0.25
"""How often the leases of waiting batches are looked at. A lease cannot be lost, used by another worker and won back
within that time, so what was read under the old one is never mistaken for the new one's."""


class PublishOptions(msgspec.Struct, frozen=True):
    """Bounds of publishing.

    Attributes:
        sender: Those of each sink.
        project_ids: Projects whose scores are published; empty for all.
        min_change: Which changes are too small to be published; None: none.
    """

    sender: SenderOptions = SenderOptions()
    project_ids: Collection[str] = ()
    min_change: MinChange | None = None


class PreparedScores(msgspec.Struct, frozen=True, eq=False):
    """A batch whose changes are in the outboxes.

    Attributes:
        ticket: Open until they are acknowledged.
        settled: Set when they are, or when the lease is lost.
        letters: Records that cannot be published.
    """

    ticket: Ticket
    settled: asyncio.Event
    letters: Sequence[DeadLetter]


class Publisher:
    """A `Consumer` of the score table's stream. `run` must be running for anything to be sent.

    Args:
        sinks: Every score goes to each.
        scores: The score table: written again where a sink may hold an older score.
        letters: For what a sink refuses for good.
        still_held: Whether the lease of a shard id is ours and its deadline has not passed.
        clock: Time.
        metrics: The catalogue.
        rng: For jitter.
        options: Bounds.
    """

    def __init__(
        self,
        sinks: Sequence[Sink],
        scores: ScoreStore,
        letters: DeadLetters,
        still_held: StillHeld,
        clock: Clock,
        metrics: Metrics,
        rng: random.Random,
        options: PublishOptions | None = None,
    ) -> None:
        options = options or PublishOptions()
        self._letters = letters
        self._held = still_held
        self._clock = clock
        self._metrics = metrics
        self._rng = rng
        self._tickets: dict[Ticket, asyncio.Event] = {}  # in the order they came; set when settled
        self._project_ids = frozenset(options.project_ids)
        self._last_write = any(sink.ordering is Ordering.LAST_WRITE for sink in sinks)
        self._min_change = options.min_change
        # Another worker's write, which may be too small to be published, is not as good then.
        self._republisher = Republisher(scores, clock, metrics, rng, insists=options.min_change is not None)
        self._senders = [
            Sender(sink, letters, self._republisher.later, still_held, clock, metrics, rng, options.sender)
            for sink in sinks
        ]

    async def run(self) -> None:
        """Send until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            for sender in self._senders:
                tasks.create_task(sender.run())
            tasks.create_task(self._republisher.run())
            tasks.create_task(self._watch_leases())

    async def prepare(self, batch: Batch[StreamImage]) -> PreparedScores:
        """Offer the batch's changes to every sink; waits while an outbox is full."""
        settled = asyncio.Event()
        ticket = Ticket(batch.stream.name, batch.shard_id, settled.set)
        changes, letters = self._read(batch)
        if self._last_write and batch.unsettled_until > self._clock.monotonic():
            await self._republisher.watch([change.key for change in changes], batch.unsettled_until)
        self._tickets[ticket] = settled
        try:
            for sender in self._senders:
                await sender.offer(changes, ticket)
        except asyncio.CancelledError:
            if ticket.released:
                ticket.offered()  # what is in flight is waited for
            else:
                self._tickets.pop(ticket, None)
                ticket.cancel()
            raise
        ticket.offered()
        return PreparedScores(ticket, settled, letters)

    async def commit(self, prepared: PreparedScores) -> None:
        """Return once every sink has the batch's scores, or newer ones of the same users.

        Raises:
            LeaseLostError: The lease was lost first; what had not been sent is dropped.
            ReleasedError: `release` came first; likewise.
        """
        started = self._clock.monotonic()
        ticket = prepared.ticket
        try:
            await prepared.settled.wait()
        except asyncio.CancelledError:
            ticket.cancel()
            raise
        finally:
            self._tickets.pop(ticket, None)
        if ticket.lost:
            raise LeaseLostError(f"lost {ticket.shard_id} before its changes were published")
        if ticket.incomplete:
            raise ReleasedError
        if prepared.letters:
            await retried(lambda: self._letters.put(prepared.letters), self._clock, self._rng)
            for letter in prepared.letters:
                self._metrics.dead_letters.labels(STAGE, letter.reason).inc()
        self._metrics.stage_seconds.labels(PIPELINE, "publish").observe(self._clock.monotonic() - started)

    async def release(self, shard_id: str) -> None:
        """Send nothing more for a shard that is being handed over; return once its calls in flight are over."""
        waiting = {ticket: settled for ticket, settled in self._tickets.items() if ticket.shard_id == shard_id}
        for sender in self._senders:
            for ticket in waiting:
                sender.release(ticket)
        for settled in waiting.values():
            await settled.wait()

    def forget(self) -> None:
        """Forget which revisions were published: another stream is read from now on."""
        for sender in self._senders:
            sender.outbox.forget()

    @property
    def uncertain(self) -> int:
        """Users of whom a sink may hold an older score, for all this worker knows, and who are not republished yet."""
        return self._republisher.waiting

    @property
    def in_flight(self) -> int:
        """Changes on their way to a sink."""
        return sum(sender.outbox.in_flight for sender in self._senders)

    async def drained(self) -> None:
        """Return when no score is uncertain and no call in flight, ours or a dead worker's, while `run` is running.

        Await it, for a while, before the process ends: a call cut off in flight may still take effect, after the
        next owner of the shard has published a newer score, and no other worker would know.
        """
        self._republisher.leave()
        while True:
            await self._republisher.settled()
            # Both at once: a call that ends may leave scores uncertain.
            if self._republisher.idle and not self.in_flight:
                return
            await self._clock.sleep(LEASE_CHECK_S)

    async def _watch_leases(self) -> None:
        while True:
            await self._clock.sleep(LEASE_CHECK_S)
            for ticket in [ticket for ticket in self._tickets if ticket.done or not self._held(ticket.shard_id)]:
                self._tickets.pop(ticket, None)
                ticket.cancel()

    def _read(self, batch: Batch[StreamImage]) -> tuple[list[ScoreChange], list[DeadLetter]]:
        changes: list[ScoreChange] = []
        letters: list[DeadLetter] = []
        for record in batch.records:
            match change_of(record.data.keys, record.data.new):
                case None:
                    pass
                case Rejected() as why:
                    letters.append(_letter(batch, record, why, self._clock.wall_ms()))
                case ScoreChange() as change:
                    if self._wanted(change, record.data):
                        changes.append(change)
        return changes, letters

    def _wanted(self, change: ScoreChange, image: StreamImage) -> bool:
        if self._project_ids and change.key.project_id not in self._project_ids:
            return False
        if self._min_change is None or change.score is None:
            return True
        before, after = shown_in(image.old), shown_in(image.new)
        if self._min_change.publishes(before.score, change.score) or before.tier != after.tier:
            return True
        self._metrics.changes_too_small.inc()
        return False


def _letter(batch: Batch[StreamImage], record: Record[StreamImage], why: Rejected, now_ms: int) -> DeadLetter:
    payload = msgspec.json.encode(record.data)
    return DeadLetter(
        letter_id=publish_letter_id(batch.stream.tag, batch.shard_id, record.sequence),
        stage=STAGE,
        reason=why.reason,
        detail=why.detail,
        stream=batch.stream.name,
        shard_id=batch.shard_id,
        sequence=record.sequence,
        partition_key="",
        at_ms=now_ms,
        payload=payload,
        payload_size=len(payload),
    )
