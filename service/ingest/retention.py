"""How long the event stream keeps records, as marks may rely on it. Bookkeeping only: no I/O.

A person may change the retention while workers run, and a worker learns of it some time later:

- Raised: records that would have expired stay readable; those that had expired before stay unreadable
  (https://docs.aws.amazon.com/kinesis/latest/APIReference/API_IncreaseStreamRetentionPeriod.html). Marks that were
  dropped before the change stand for records that had expired `MARGIN_MS` before. Marks that are dropped after it, by
  a worker that does not know yet, must stand for such records too: what was read is relied on for half the margin.
- Lowered: records become unreadable at once
  (https://docs.aws.amazon.com/kinesis/latest/APIReference/API_DecreaseStreamRetentionPeriod.html). It counts once it
  has been in force for a while: batches that were read before are committed by then.
"""

from __future__ import annotations

from service.scoring.marks import MARGIN_MS

TRUSTED_S = MARGIN_MS / 1000 / 2
"""Seconds for which an answer is relied on; then no mark is dropped until there is another."""

LOWERED_AFTER_S = 3600.0
"""Seconds for which a lower retention must have been read before it counts."""


class Retention:
    """What was last read of the retention, and how long marks are needed therefore.

    Times are monotonic seconds of this process.

    Args:
        limit_ms: Marks are kept at most so long, whatever the retention; None: as long as the stream keeps records.
        trusted_s: See `TRUSTED_S`; for simulations.
        lowered_after_s: See `LOWERED_AFTER_S`; likewise.
    """

    def __init__(
        self,
        limit_ms: int | None = None,
        *,
        trusted_s: float = TRUSTED_S,
        lowered_after_s: float = LOWERED_AFTER_S,
    ) -> None:
        self._limit_ms = limit_ms
        self._trusted_s = trusted_s
        self._lowered_after_s = lowered_after_s
        self._value_ms: int | None = None
        self._read_at = float("-inf")
        self._lower_ms = 0
        self._lower_since: float | None = None

    def saw(self, seconds: float, asked_at: float) -> None:
        """Take in how many seconds the stream keeps records, as answered to a call that began at `asked_at`."""
        value_ms = round(seconds * 1000)
        self._read_at = max(self._read_at, asked_at)
        if self._value_ms is None or value_ms >= self._value_ms:
            self._value_ms, self._lower_since = value_ms, None
        elif self._lower_since is None:
            self._lower_ms, self._lower_since = value_ms, asked_at
        else:
            self._lower_ms = max(self._lower_ms, value_ms)
            if asked_at - self._lower_since >= self._lowered_after_s:
                self._value_ms, self._lower_since = self._lower_ms, None

    def keep_ms(self, now: float) -> int | None:
        """Return how long a mark is needed after its record arrived, milliseconds; None: not known now."""
        if self._value_ms is None or now - self._read_at > self._trusted_s:
            return None
        return self._value_ms if self._limit_ms is None else min(self._limit_ms, self._value_ms)

    def shortened(self, now: float) -> bool:
        """Return whether marks are kept for a shorter time than the stream keeps records."""
        kept_ms = self.keep_ms(now)
        return kept_ms is not None and self._value_ms is not None and kept_ms < self._value_ms
