"""How long to wait before trying again. Pure."""

from __future__ import annotations

import random

_MAX_DOUBLINGS = 32  # beyond that every cap is reached, and a float would overflow some day


def full_jitter(attempt: int, base_s: float, cap_s: float, rng: random.Random) -> float:
    """Return seconds to wait after failure number `attempt` (from 1): anything up to `base_s` doubled each time.

    Full jitter spreads the retries of many callers best
    (https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/).
    """
    ceiling = min(cap_s, base_s * 2 ** min(attempt - 1, _MAX_DOUBLINGS))
    return rng.uniform(0, ceiling)
