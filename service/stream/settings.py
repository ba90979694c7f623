"""Every limit and interval of reading shards, named."""

from __future__ import annotations

import msgspec

MIB = 1024 * 1024

HOURS_48_MS = 48 * 3600 * 1000
"""How long finished rows of DynamoDB stream shards are kept: twice the 24 hours their records live
(https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/Streams.html)."""


class ShardSettings(msgspec.Struct, frozen=True):
    """Limits; the defaults suit Kinesis. Times are seconds unless the name ends in `_ms`.

    Attributes:
        lease_duration: A worker silent for this long is dead; one that could not tell the others that it lives for
            this long stops.
        max_beat_interval: A heartbeat comes every third of the lease duration, but at least this often.
        call_timeout: A request of a worker that seemed dead may still land for this long after its lease was
            seized (`Batch.unsettled_until`). At least what the adapters' calls take at most.
        batch_max_age: A batch is closed when its first record has waited this long: since it can have come, where the
            shard is read at its tip, else since it was fetched.
        batch_enough: At the tip a batch is closed at this many records, however young it is: more would hardly make
            calls fewer, as they take 25 users each.
        batch_max_records: A batch has no more records than this.
        batch_max_bytes: A batch is closed at this size; one record alone may be larger.
        in_flight: Batches of a shard that are being prepared, wait for, or are in commit.
        poll_min: Shortest time between two reads of a shard at its tip: Kinesis allows 5 a second
            (https://docs.aws.amazon.com/streams/latest/dev/service-sizes-and-limits.html).
        read_gap: Shortest time between two reads of a shard that is behind its tip. 0: none, so that a backlog is read
            as fast as the stream gives it.
        poll_max: Longest time between two reads of a shard.
        fetch_limit: Records asked for at most: 10,000 for Kinesis, 1,000 for DynamoDB streams
            (https://docs.aws.amazon.com/kinesis/latest/APIReference/API_GetRecords.html,
            https://docs.aws.amazon.com/amazondynamodb/latest/APIReference/API_streams_GetRecords.html).
        page_bytes: Size a page is aimed at by asking for fewer records.
        hand_over_patience: What is in hand when a shard is to be handed over is committed, if that is begun within
            this time: about what it takes until the next owner knows of it. The rest is left to that owner.
        checkpoint_interval: How long a checkpoint may wait for more to note: the longest time whose records are read
            again after a crash.
        cycle_min: Shortest time between two plans of the leader.
        cycle_max: Longest, reached at `rows_per_cycle_second * cycle_max` rows.
        rows_per_cycle_second: Lease-table rows the leader reads per second at most, beyond `cycle_min`.
        discovery_interval: Time between two shard lists while nothing happens.
        absent_lists: A finished shard is gone once this many lists in a row did not name it.
        keep_ended_ms: And once it ended this long ago.
        store_concurrency: Lease-table calls of one loop in flight.
        retries_when_leaving: Attempts at each write of a worker that leaves; what fails is cleared up by the others.
        capability: Stated in the worker's row (`Member.capability`).
    """

    lease_duration: float = 10.0
    max_beat_interval: float = 1.0
    call_timeout: float = 10.0
    batch_max_age: float = 1.0
    batch_enough: int = 500
    batch_max_records: int = 5000
    batch_max_bytes: int = 1 * MIB
    in_flight: int = 2
    poll_min: float = 0.2
    read_gap: float = 0.0
    poll_max: float = 1.0
    fetch_limit: int = 10_000
    page_bytes: int = 2 * MIB
    hand_over_patience: float = 0.5
    checkpoint_interval: float = 5.0
    cycle_min: float = 0.5
    cycle_max: float = 5.0
    rows_per_cycle_second: int = 2000
    discovery_interval: float = 20.0
    absent_lists: int = 5
    keep_ended_ms: int = 0
    store_concurrency: int = 32
    retries_when_leaving: int = 3
    capability: int = 0

    @property
    def beat_interval(self) -> float:
        """Seconds between two heartbeats."""
        return min(self.lease_duration / 3, self.max_beat_interval)

    def cycle_interval(self, rows: int) -> float:
        """Return seconds between two plans for a lease table of `rows` rows."""
        return min(self.cycle_max, max(self.cycle_min, rows / self.rows_per_cycle_second))
