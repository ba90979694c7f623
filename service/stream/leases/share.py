"""This worker's share of a rate that all workers of a pipeline keep together. Pure; times are monotonic seconds.

A quota of AWS holds for an account, so a configured rate is the fleet's. The leader lists in its row which workers
share it, and each worker reads that row about once a second. Of `n` workers each takes one part in `n`:

- A worker that joins takes nothing until it has been on the list for `settle` seconds. By then every other worker has
  read the longer list and takes less.
- A worker that has not read the list for `settle` seconds takes nothing: the list may be longer by now.
- A worker that leaves, or is dead, stays on the list until its row is removed. A worker removes its own row once it
  has finished its work; the leader removes the row of a worker whose deadline has passed, which takes nothing then.
- The others take up the share of a worker that is gone once they have seen a shorter list for `settle` seconds. A
  worker that is alone takes everything at once: nobody else is on the list.

A leader of version 0.1 writes no list. Its workers do not share a rate, and neither do those that it leads.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable

from service.stream.leases.lease import Leadership

_TAG_BYTES = 4
"""Of a worker's id on the list. If two tags of a fleet are the same, which happens once in some 200,000 fleets of 200
workers, one of the two workers begins its share before the others make room for it."""


def _never() -> float:
    return float("-inf")


def tag_of(worker: str) -> bytes:
    """Return how the list names a worker: a row of 200 workers stays below 1 KiB, which is one write unit."""
    return hashlib.blake2b(worker.encode(), digest_size=_TAG_BYTES).digest()


def tags_of(workers: Iterable[str]) -> bytes:
    """Return the list of these workers."""
    return b"".join(sorted(tag_of(worker) for worker in workers))


class FleetShare:
    """The share of one worker in one pipeline; call it for the part of a rate, from 0 to 1.

    Args:
        now: Monotonic seconds.
    """

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._deadline = _never
        self._settle = 0.0
        self._tag = b""
        self._begin("")

    def _begin(self, worker: str) -> None:
        self._tag = tag_of(worker)
        self._listed_at: float | None = None
        self._asked_at = float("-inf")
        self._shares = True
        self._count = 0
        self._latest = 0
        self._latest_at = float("-inf")
        self._left: float | None = None

    def begin(self, worker: str, deadline: Callable[[], float], settle: float) -> None:
        """Take nothing until the list names `worker`, which is new.

        Args:
            worker: Its id.
            deadline: Returns the monotonic second until which it may work.
            settle: Seconds; several times the interval at which every worker reads the list.
        """
        self._begin(worker)
        self._deadline, self._settle = deadline, settle

    def end(self) -> None:
        """Keep the share as it is: this worker has finished, and its row is removed next.

        What it still sends are the few scores that calls of its own may have overwritten.
        """
        self._left = 1.0 if not self._shares else 1 / self._count if self._count else 0.0

    def saw(self, row: Leadership | None, asked_at: float) -> None:
        """Take in the leadership row.

        Args:
            row: The row; None if there never was a leader.
            asked_at: When it was asked for, or written.
        """
        if row is None:
            return
        now = self._now()
        fresh, self._asked_at = asked_at - self._asked_at < self._settle, asked_at
        self._shares = row.sharing is not None
        listed = row.sharing or b""
        tags = {listed[at : at + _TAG_BYTES] for at in range(0, len(listed), _TAG_BYTES)}
        if self._tag not in tags:
            self._listed_at = None
            return
        if self._listed_at is None:
            self._listed_at, self._count = now, len(tags)
        if len(tags) != self._latest or not fresh:
            self._latest, self._latest_at = len(tags), now
        if self._latest > self._count or now >= self._latest_at + self._settle:
            self._count = self._latest

    def __call__(self) -> float:
        """Return this worker's part of a rate now, from 0 to 1."""
        if self._left is not None:
            return self._left
        now = self._now()
        if not self._shares:
            return 1.0
        if self._listed_at is None or now >= self._asked_at + self._settle or now >= self._deadline():
            return 0.0
        if self._latest == 1:
            return 1.0
        return 1 / self._count if now >= self._listed_at + self._settle else 0.0
