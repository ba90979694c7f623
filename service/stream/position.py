"""Where in a shard to read on: the value of a lease's `checkpoint`. Pure.

The sentinels are the Kinesis Client Library's (`SentinelCheckpoint`), so that its tools can read them;
`AT_TIMESTAMP` carries its time after a `#`, which the library keeps elsewhere.
"""

from __future__ import annotations

TRIM_HORIZON = "TRIM_HORIZON"
LATEST = "LATEST"
SHARD_END = "SHARD_END"
_AT_TIMESTAMP = "AT_TIMESTAMP#"

Position = str
"""One of: `TRIM_HORIZON`, `LATEST`, `AT_TIMESTAMP#<epoch ms>`, a decimal sequence number (the last one that
is done with), or `SHARD_END`."""


def at_timestamp(epoch_ms: int) -> Position:
    """Return the position of the first record that arrived at or after `epoch_ms`."""
    return f"{_AT_TIMESTAMP}{epoch_ms}"


def timestamp_of(position: Position) -> int | None:
    """Return the epoch milliseconds of an `AT_TIMESTAMP` position, None for any other."""
    return int(position.removeprefix(_AT_TIMESTAMP)) if position.startswith(_AT_TIMESTAMP) else None


def sequence_of(position: Position) -> int | None:
    """Return the sequence number of a position inside a shard, None for a sentinel.

    Sequence numbers are compared as integers: those of DynamoDB streams vary in width.
    """
    return int(position) if position.isdecimal() else None
