"""How long to wait before a retry. Pure but for the random generator, which is an argument.

Full jitter (https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/): a wait is drawn uniformly
between 0 and a ceiling that doubles, so that workers that failed together do not retry together.
"""

from __future__ import annotations

import random

FIRST_CEILING = 0.1
"""Seconds; upper limit of the first wait."""

LAST_CEILING = 5.0
"""Seconds; upper limit of every wait."""

_MAX_DOUBLINGS = 32


class Backoff:
    """Counts consecutive failures and returns how long to wait after each."""

    def __init__(self, rng: random.Random, *, first: float = FIRST_CEILING, last: float = LAST_CEILING) -> None:
        self._rng = rng
        self._first = first
        self._last = last
        self.failures = 0

    def failed(self) -> float:
        """Count a failure; return the seconds to wait, between 0 and the current ceiling."""
        ceiling = min(self._last, self._first * 2 ** min(self.failures, _MAX_DOUBLINGS))
        self.failures += 1
        return self._rng.uniform(0, ceiling)

    def succeeded(self) -> None:
        """Start over."""
        self.failures = 0
