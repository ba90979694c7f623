"""How a sum loses weight with the days: forward decay with fixed landmarks, and expiry. Integers only, no floats.

Forward decay (Cormode, Shkapenyuk, Srivastava, Xu, "Forward Decay: A Practical Time Decay Model for Streaming
Systems", ICDE 2009) gives an event the weight of its own day, `W(day)`, once and for good; a view on day N divides
the sum by `W(N)`. So an idle person's item needs no rewriting, and the order of events cannot matter.

`W` doubles every half-life H: `W(n) = T[n mod H] << (n div H)`, with `T[r] = round(2**(r / H) * 10**9)`. Day numbers
count from 1970-01-01 UTC; to keep sums short, the shift is counted from the start of an *epoch* of 32 half-lives. A
sum is kept for each of the newest two epochs; older events weigh less than 2**-32 of one of today and are dropped.
Which events remain depends only on the newest day among them, so the state stays independent of their order.

Expiry keeps the sums of single days and forgets those that are `days` old. A person with more than `MAX_BUCKETS`
active days has days merged that fall into the same stretch of `ceil(days / MAX_BUCKETS)` days; the merged sum expires
with the newest of its days.
"""

from __future__ import annotations

from collections.abc import Mapping
from decimal import ROUND_HALF_EVEN, Context, Decimal
from functools import lru_cache

DAY_MS = 86_400_000
MAX_HALF_LIFE = 3650
"""Longest half-life and expiry, days."""

EPOCH_HALF_LIVES = 32
KEPT_EPOCHS = 2
MAX_BUCKETS = 12

_UNIT = Decimal(10) ** 9
_PRECISE = Context(prec=40, rounding=ROUND_HALF_EVEN)

Sums = Mapping[int, int]
"""Decaying: epoch to weighted sum. Expiring: day to plain sum."""


def day_of(ms: int) -> int:
    """Return the UTC day of a time in epoch milliseconds, counted from 1970-01-01."""
    return ms // DAY_MS


@lru_cache(maxsize=64)
def _table(half_life: int) -> tuple[int, ...]:
    """Return `T`: 10**9 times the weights of the days of one half-life."""
    two = Decimal(2)
    return tuple(
        int(
            (_PRECISE.power(two, _PRECISE.divide(Decimal(r), Decimal(half_life))) * _UNIT).to_integral_value(
                ROUND_HALF_EVEN
            )
        )
        for r in range(half_life)
    )


def epoch_of(day: int, half_life: int) -> int:
    """Return the epoch that a day belongs to."""
    return day // half_life // EPOCH_HALF_LIVES


@lru_cache(maxsize=1024)
def day_weight(day: int, half_life: int) -> int:
    """Return what the numerators of a day (`decayed`) are divided by."""
    return weight(day, half_life, epoch_of(day, half_life) - 1)


def weight(day: int, half_life: int, epoch: int) -> int:
    """Return `W(day)` as seen from the start of `epoch`, which must not be later than the day's own."""
    return _table(half_life)[day % half_life] << (day // half_life - epoch * EPOCH_HALF_LIVES)


def add_decaying(sums: Sums, day: int, half_life: int, value: int) -> Sums:
    """Return `sums` with `value` added on `day`."""
    epoch = epoch_of(day, half_life)
    newest = max(sums, default=epoch)
    if epoch <= newest - KEPT_EPOCHS:
        return sums
    after = {kept: total for kept, total in sums.items() if kept > epoch - KEPT_EPOCHS}
    after[epoch] = after.get(epoch, 0) + weight(day, half_life, epoch) * value
    return after


def decayed(sums: Sums, day: int, half_life: int) -> int:
    """Return what `sums` come to on `day`, times the `day_weight`: the same for all sums of one half-life.

    Args:
        sums: Weighted sums by epoch.
        day: Not before any day that was added.
        half_life: Days.
    """
    epoch = day // half_life // EPOCH_HALF_LIVES
    return (sums.get(epoch, 0) << EPOCH_HALF_LIVES) + sums.get(epoch - 1, 0)


def add_expiring(sums: Sums, day: int, days: int, value: int) -> Sums:
    """Return `sums` with `value` added on `day`; what the newest day lets expire is dropped."""
    newest = max(max(sums, default=day), day)
    if day <= newest - days:
        return sums
    after = {kept: total for kept, total in sums.items() if kept > newest - days}
    after[day] = after.get(day, 0) + value
    return after if len(after) <= MAX_BUCKETS else _merged(after, -(-days // MAX_BUCKETS))


def _merged(sums: Sums, width: int) -> Sums:
    stretches: dict[int, tuple[int, int]] = {}
    for day, total in sums.items():
        newest, so_far = stretches.get(day // width, (day, 0))
        stretches[day // width] = max(newest, day), so_far + total
    return dict(stretches.values())


def unexpired(sums: Sums, day: int, days: int) -> int:
    """Return what `sums` come to on `day`."""
    return sum(total for kept, total in sums.items() if kept > day - days)
