"""How long to wait before trying again. Pure but for the dice, which are handed in.

Full jitter (https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/): a wait is drawn
evenly between 0 and a ceiling that doubles, so that many workers that failed together do not come back together.
"""

from __future__ import annotations

import random

FIRST_CEILING = 0.1
"""Seconds; the first wait is at most this."""

LAST_CEILING = 5.0
"""Seconds; no wait is longer."""

_MAX_DOUBLINGS = 32


class Backoff:
    """Counts failures in a row and says how long to wait after each."""

    def __init__(self, rng: random.Random, *, first: float = FIRST_CEILING, last: float = LAST_CEILING) -> None:
        self._rng = rng
        self._first = first
        self._last = last
        self.failures = 0

    def failed(self) -> float:
        """Count a failure; return seconds to wait, between 0 and the ceiling reached."""
        ceiling = min(self._last, self._first * 2 ** min(self.failures, _MAX_DOUBLINGS))
        self.failures += 1
        return self._rng.uniform(0, ceiling)

    def succeeded(self) -> None:
        """Start over."""
        self.failures = 0
