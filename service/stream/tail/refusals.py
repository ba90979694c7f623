"""What failed reads of one shard amount to: nothing yet, a shard in trouble, or a shard that is lost. Pure.

A shard that cannot be read concerns that shard only: it is retried and reported, and other shards continue.
It ends, as lost, only where waiting cannot help:

- the stream does not list it any more, `GONE_LISTS` times in a row: its retention is over;
- the stream lists it as closed, but has refused it for `LOST_AFTER_S`. `DescribeStream` may list a shard whose records
  have expired while `GetShardIterator` does not know it (a DynamoDB stream trims records after 24 hours,
  https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/Streams.html). Nothing more comes into a closed
  shard, and its children wait for its end.

An open shard never ends this way: it takes records.
"""

from __future__ import annotations

from collections.abc import Sequence

from service.stream.ports import Shard

GONE_LISTS = 3
"""Lists in a row that must not name a shard before it is believed to be gone."""

LOST_AFTER_S = 60.0
"""Seconds for which a closed shard must have been refused, without one page in between, before it is lost."""

LOST_REFUSALS = 5
"""Refusals in that time, at least: a worker that stood still has not tried."""

UNREADABLE_AFTER_S = 60.0
"""Seconds of failed reads after which a shard counts as unreadable."""

REPEAT_S = 60.0
"""Seconds between two log lines about one unreadable shard."""


class Refusals:
    """Failed reads of one shard since the last page. Times are monotonic seconds.

    Attributes:
        failures: Failed reads.
        refused: Those among them with which the stream said that it does not have the shard, or its records.
    """

    def __init__(self) -> None:
        self.failures = 0
        self.refused = 0
        self._since = 0.0
        self._refused_since = 0.0
        self._unlisted = 0
        self._said_at = float("-inf")

    def failed(self, now: float) -> None:
        """Count a failed read."""
        if not self.failures:
            self._since = now
        self.failures += 1

    def refuse(self, now: float) -> None:
        """Count that the stream does not have the shard, or its records."""
        if not self.refused:
            self._refused_since = now
        self.refused += 1

    def lost(self, shard_id: str, listed: Sequence[Shard], now: float) -> str:
        """Return why the shard is lost; empty while it may still be read.

        Args:
            shard_id: The shard, refused just now.
            listed: A list asked for after that. An empty one says nothing: every stream has shards.
            now: The time.
        """
        if not listed:
            return ""
        shard = next((each for each in listed if each.shard_id == shard_id), None)
        self._unlisted = self._unlisted + 1 if shard is None else 0
        if self._unlisted >= GONE_LISTS:
            return "the stream no longer knows the shard"
        long = self.refused >= LOST_REFUSALS and now - self._refused_since >= LOST_AFTER_S
        if shard is not None and shard.closed and long:
            return "the stream lists the shard, which is closed, but does not give its records"
        return ""

    def unreadable(self, now: float) -> bool:
        """Return whether the shard has not been readable for `UNREADABLE_AFTER_S`."""
        return self.failures > 0 and now - self._since >= UNREADABLE_AFTER_S

    def for_s(self, now: float) -> float:
        """Return for how many seconds reads have failed."""
        return now - self._since if self.failures else 0.0

    def to_be_said(self, now: float) -> bool:
        """Return whether a log line about the unreadable shard is due, and take it as written."""
        if not self.unreadable(now) or now - self._said_at < REPEAT_S:
            return False
        self._said_at = now
        return True
