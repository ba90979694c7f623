"""How long a reader waits between two reads of its shard. Pure but for the dice, which are handed in.

- Behind the tip, or after a full page: no more than `read_gap`, or what throttling asks for.
- A stream that does not say how far behind a page is (a table's) is at its tip when the page is not full and its
  newest record is young. The age alone does not tell: such a stream gives times in whole seconds, so a record seems to
  be up to a second old at the very tip.
- At the tip a shard is read as often as its own rate fills a batch worth sending (`batch_enough`), but no more often
  than the stream allows, and no less often than a batch may wait: reading more often would not send anything sooner.
- A shard that gives nothing is read less and less often, down to once per `poll_max`.
- The quiet shards of a process are read together, on a common beat: fifty wake-ups for one call each cost several times
  what one wake-up for fifty calls does, as everything has to come back into the processor's caches each time. Monotonic
  clocks start anywhere, so processes do not beat together.
"""

from __future__ import annotations

import math
import random

import msgspec

from service.stream.settings import ShardSettings

QUIET_RECORDS = 10
"""A page with no more than these is of a quiet shard."""

_GROWTH = 1.5
"""An empty read makes the next wait this much longer."""

_JITTER = 0.2
"""Share of a wait that is random, so that busy shards keep apart."""

_EARLY = 0.05
"""Seconds; a read that starts less than this before a beat belongs to it: timers are not exact."""


FULL = 0.75
"""Share of the records asked for from which a page counts as full: the stream may cut it by bytes before."""

FRESH_S = 3.0
"""Seconds; a newest record no older than this may be the newest there is. Times in whole seconds and clocks that differ
by a second are covered; a clock that is further off costs reads, never records."""


class Seen(msgspec.Struct, frozen=True):
    """What one read brought.

    Attributes:
        records: How many records.
        limit: How many were asked for.
        behind_s: How far behind the tip that is, where the stream says so.
        age_s: Age of the newest record by this worker's clock; 0 where there is none.
    """

    records: int
    limit: int
    behind_s: float | None
    age_s: float = 0.0

    @property
    def at_tip(self) -> bool:
        """Whether these are the shard's newest records."""
        if self.behind_s is None:
            return self.records < FULL * self.limit and self.age_s <= FRESH_S
        return not self.behind_s and self.records < self.limit

    @property
    def lag_s(self) -> float:
        """How far behind the tip the read was, seconds; an estimate where the stream does not say it."""
        if self.behind_s is None:
            return 0.0 if self.at_tip else self.age_s
        return self.behind_s


class Pace:
    """The pace of one shard."""

    def __init__(self, settings: ShardSettings, rng: random.Random) -> None:
        self._settings = settings
        self._rng = rng
        self._wait = settings.poll_min
        self._last = float("-inf")
        self._gap = settings.read_gap

    def throttled(self) -> None:
        """Read no more often than the stream allows: others may read the shard too."""
        self._gap = max(self._gap, self._settings.poll_min)

    def next(self, seen: Seen, started: float) -> float:
        """Return the least number of seconds between the start of this read and that of the next.

        Args:
            seen: What it brought.
            started: Monotonic second at which it started.
        """
        if seen.at_tip:
            return self.after(seen.records, started)
        return self._gap if seen.records else self._settings.poll_min

    def after(self, records: int, started: float) -> float:
        """Return the same for a read at the tip.

        Args:
            records: How many this read brought.
            started: Monotonic second at which it started.
        """
        settings = self._settings
        elapsed, self._last = started - self._last, started
        jitter = self._rng.uniform(0, _JITTER)
        if records:
            longest = min(settings.poll_max, max(settings.poll_min, settings.batch_max_age))
            # Rather a little more than enough than a little less, which would wait for another read.
            self._wait = elapsed * settings.batch_enough / records * (1 + jitter)
        else:
            longest = settings.poll_max
            self._wait *= _GROWTH
        self._wait = min(longest, max(settings.poll_min, self._wait))
        if self._wait < longest:
            return self._wait
        if records > QUIET_RECORDS:
            return max(settings.poll_min, longest * (1 - jitter))
        beat = math.floor((started + _EARLY) / longest) + 1
        return max(settings.poll_min, beat * longest - started)
