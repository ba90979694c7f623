"""What is still to be published to one sink: the newest change of every user, and the batches that wait for it. Pure.

The rules:

1. Of two changes of one user only the newer (`supersedes`) is kept. Batches that waited for the older one wait for the
   newer one.
2. One change per user is in flight at most: two could overtake each other on their way. A newer one waits behind.
3. A change older than what this sink was sent before is acknowledged at once (stale).
4. A removal is not published. What was pending is acknowledged, and the last published revision is forgotten, because
   a score that is made again counts its revisions from 1.
5. A change is dropped when all batches that wait for it have lost their leases, or are being handed over. Once in
   flight it is not tried again.
6. A change that leaves after an attempt without a certain outcome is uncertain: that attempt's request may land after
   what is published next. While the change is here it is not: its shard's next owner would read and publish it again.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from enum import Enum
from sys import getsizeof

import msgspec

from service.runtime.cache import RecentCache
from service.scoring.change import ScoreChange, supersedes
from service.scoring.fold import UserKey

StillHeld = Callable[[str], bool]
"""Whether the lease of a shard is still ours; asked with `Ticket.shard_id`."""


class Ticket:
    """One batch that waits for its changes; open until each is acknowledged by every outbox it was offered to.

    Args:
        stream: Name of the stream the batch came from.
        shard_id: Its shard.
        settled: Called once, when nothing is open any more or the lease is lost.

    Attributes:
        lost: Whether the lease is lost.
        released: Whether the shard is being handed over: what is not in flight is dropped.
        incomplete: Whether something was dropped for that.
    """

    __slots__ = ("_open", "_settled", "incomplete", "lost", "released", "shard_id", "stream")

    def __init__(self, stream: str, shard_id: str, settled: Callable[[], None]) -> None:
        self.stream = stream
        self.shard_id = shard_id
        self.lost = False
        self.released = False
        self.incomplete = False
        self._settled = settled
        self._open = 1  # the offering itself, until `offered`

    @property
    def done(self) -> bool:
        """Whether every change is acknowledged."""
        return self._open == 0

    def offered(self) -> None:
        """Say that every change of the batch has been offered."""
        self.close()

    def open(self) -> None:
        """Count one more change to wait for."""
        self._open += 1

    def close(self) -> None:
        """Count one change as acknowledged."""
        self._open -= 1
        if not self._open and not self.lost:
            self._settled()

    def cancel(self) -> None:
        """Give the batch up: its lease is lost."""
        if not self.lost and self._open:
            self.lost = True
            self._settled()


class Pending(msgspec.Struct, eq=False):
    """A change that is to be published, and the tickets that wait for it.

    Attributes:
        change: The newest one of its user.
        tickets: One for each offer it stands for.
        attempts: Failed attempts so far.
        not_before: Monotonic seconds before which it is not tried again.
        removed: Whether the score was removed while this was in flight: its outcome means nothing any more.
        uncertain_until: Monotonic second until which a request of a failed attempt may still be carried out.
    """

    change: ScoreChange
    tickets: list[Ticket]
    attempts: int = 0
    not_before: float = 0.0
    removed: bool = False
    uncertain_until: float = float("-inf")

    def close(self) -> None:
        """Acknowledge it to every ticket."""
        for ticket in self.tickets:
            ticket.close()
        self.tickets = []

    def abandoned(self, held: StillHeld) -> bool:
        """Return whether nobody waits for this any more; cancels the tickets whose lease is lost."""
        abandoned = True
        for ticket in self.tickets:
            if not held(ticket.shard_id):
                ticket.cancel()
            abandoned = abandoned and ticket.lost
        return abandoned

    def shed(self) -> None:
        """Drop the tickets of shards that are being handed over."""
        for ticket in self.tickets:
            if ticket.released:
                ticket.incomplete = True
                ticket.close()
        self.tickets = [ticket for ticket in self.tickets if not ticket.released]

    def overtaken(self, held: StillHeld) -> bool:
        """Return whether a batch that waits for this lost its lease: another worker may have published a newer one."""
        return any(ticket.lost or not held(ticket.shard_id) for ticket in self.tickets)


class Offered(Enum):
    """What became of an offer."""

    KEPT = "kept"
    COALESCED = "coalesced"
    STALE = "stale"
    REMOVED = "removed"


class Outbox:
    """The changes to be published to one sink.

    Args:
        capacity: Most users in hand, in flight ones included; `has_room` says when it is reached.
        remembered: Users whose last published revision is kept, in `cache.ENTRY_BYTES` each on average.
    """

    def __init__(self, capacity: int, remembered: int) -> None:
        self.capacity = capacity
        self._ready: OrderedDict[UserKey, Pending] = (
            OrderedDict()
        )  # a dict's first key is slow to find once many are gone
        self._behind: dict[UserKey, Pending] = {}  # a change of the same user is in flight
        self._delayed: dict[UserKey, Pending] = {}
        self._flying: dict[UserKey, Pending] = {}
        self._published: RecentCache[UserKey, int] = RecentCache(remembered, lambda key, _: getsizeof(key.user_id))
        self._next_due = float("inf")
        self._uncertain: dict[UserKey, float] = {}

    def __len__(self) -> int:
        return len(self._ready) + len(self._behind) + len(self._delayed) + len(self._flying)

    @property
    def in_flight(self) -> int:
        """How many changes have been taken and not settled."""
        return len(self._flying)

    @property
    def next_due(self) -> float:
        """Monotonic seconds at which a delayed change may be tried again; infinite when none is delayed."""
        return self._next_due

    def ready(self, now: float) -> int:
        """Return how many changes may be taken at `now`, monotonic seconds."""
        self._promote(now)
        return len(self._ready)

    def has_room(self, key: UserKey) -> bool:
        """Return whether a change of `key` may be offered without exceeding the capacity."""
        return len(self) < self.capacity or self._pending(key) is not None

    def offer(self, change: ScoreChange, ticket: Ticket) -> Offered:
        """Take `change` in hand; `ticket` waits for it, unless there is nothing to wait for."""
        key = change.key
        if change.is_removal:
            return self._removed(key)
        pending, flying = self._pending(key), self._flying.get(key)
        if pending is not None:
            ticket.open()
            pending.tickets.append(ticket)
            if supersedes(change, pending.change):
                pending.change = change
            return Offered.COALESCED
        if flying is not None and not flying.removed:
            ticket.open()
            if change == flying.change or not supersedes(change, flying.change):
                flying.tickets.append(ticket)
                return Offered.COALESCED
            self._behind[key] = Pending(change, [ticket])
            return Offered.KEPT
        published = self._published.get(key)
        if published is not None and change.revision < published:
            return Offered.STALE
        ticket.open()
        waiting = self._ready if flying is None else self._behind
        waiting[key] = Pending(change, [ticket])
        return Offered.KEPT

    def take(self, limit: int, now: float, held: StillHeld) -> list[Pending]:
        """Put up to `limit` changes in flight, the ones offered first first, and drop those nobody waits for."""
        self._promote(now)
        taken: list[Pending] = []
        while self._ready and len(taken) < limit:
            key, pending = self._ready.popitem(last=False)
            if pending.abandoned(held):
                self._leave(pending)
                continue
            self._flying[key] = pending
            taken.append(pending)
        return taken

    def release(self, ticket: Ticket) -> None:
        """Drop what is not in flight and waited for by `ticket` alone: its shard is being handed over."""
        ticket.released = True
        for waiting in (self._ready, self._behind, self._delayed):
            for key, pending in [(key, pending) for key, pending in waiting.items() if ticket in pending.tickets]:
                pending.shed()
                if not pending.tickets:
                    del waiting[key]
                    self._leave(pending)

    def acknowledge(self, sent: Pending) -> None:
        """The sink has it, or never will: done with."""
        key = sent.change.key
        del self._flying[key]
        if not sent.removed:
            self._published.put(key, sent.change.revision)
        sent.close()
        self._leave(sent)
        self._release(key)

    def fail(self, failed: Pending, not_before: float) -> None:
        """It did not go out: to be tried again from `not_before` (monotonic seconds) on, or a newer one instead."""
        key = failed.change.key
        del self._flying[key]
        behind = self._behind.pop(key, None)
        if failed.removed:
            failed.close()
            self._leave(failed)
            if behind is not None:
                self._ready[key] = behind
            return
        failed.shed()
        if behind is not None:
            failed.tickets += behind.tickets
            failed.change = behind.change
        if not failed.tickets:
            self._leave(failed)
            return
        failed.attempts += 1
        failed.not_before = not_before
        self._delayed[key] = failed
        self._next_due = min(self._next_due, not_before)

    def forget(self) -> None:
        """Forget what was published: another stream is read from now on, perhaps of a table that was made again."""
        self._published.clear()
        for flying in self._flying.values():
            flying.removed = True  # its outcome says nothing about what is read from now on

    def uncertain(self, now: float) -> dict[UserKey, float]:
        """Return, once, whose change left with a request that may be carried out after `now`, and until when it may."""
        uncertain, self._uncertain = self._uncertain, {}
        return {key: until for key, until in uncertain.items() if until > now}

    def _leave(self, pending: Pending) -> None:
        if pending.uncertain_until > float("-inf"):
            self._uncertain[pending.change.key] = pending.uncertain_until

    def _removed(self, key: UserKey) -> Offered:
        self._published.drop(key)
        for waiting in (self._ready, self._behind, self._delayed):
            pending = waiting.pop(key, None)
            if pending is not None:
                pending.close()
                self._leave(pending)
        flying = self._flying.get(key)
        if flying is not None:
            flying.removed = True
        return Offered.REMOVED

    def _pending(self, key: UserKey) -> Pending | None:
        return self._ready.get(key) or self._behind.get(key) or self._delayed.get(key)

    def _release(self, key: UserKey) -> None:
        behind = self._behind.pop(key, None)
        if behind is not None:
            self._ready[key] = behind

    def _promote(self, now: float) -> None:
        if now < self._next_due:
            return
        due = [key for key, pending in self._delayed.items() if pending.not_before <= now]
        for key in due:
            self._ready[key] = self._delayed.pop(key)
        self._next_due = min((p.not_before for p in self._delayed.values()), default=float("inf"))
