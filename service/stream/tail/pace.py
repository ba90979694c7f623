"""How long a reader waits between two reads of its shard. Pure but for the dice, which are handed in.

- Behind the tip, or after a full page: no wait. The reader says so, as it alone knows of throttling.
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

from service.stream.settings import ShardSettings

QUIET_RECORDS = 10
"""A page with no more than these is of a quiet shard."""

_GROWTH = 1.5
"""An empty read makes the next wait this much longer."""

_JITTER = 0.2
"""Share of a wait that is random, so that busy shards keep apart."""

_EARLY = 0.05
"""Seconds; a read that starts less than this before a beat belongs to it: timers are not exact."""


class Pace:
    """The pace of one shard at its tip."""

    def __init__(self, settings: ShardSettings, rng: random.Random) -> None:
        self._settings = settings
        self._rng = rng
        self._wait = settings.poll_min
        self._last = float("-inf")

    def after(self, records: int, started: float) -> float:
        """Return the least number of seconds between the start of this read and that of the next.

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
