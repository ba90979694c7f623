"""Splits, merges and doublings of the stream while workers read it."""

from __future__ import annotations

import time
from collections.abc import Callable
from random import Random
from typing import Any

from service.local.processes import ChildFailedError

TIMEOUT_S = 30.0
POLL_S = 0.05


class Reshards:
    """Reshards one stream, each time to the end.

    Args:
        kinesis: A boto3 client.
        stream: The stream's name.
        rng: Chooses the shards.
        done: Gets a sentence for each.
    """

    def __init__(self, kinesis: Any, stream: str, rng: Random, done: Callable[[str], None]) -> None:  # noqa: ANN401 - boto3 makes its clients at run time
        self._kinesis = kinesis
        self._stream = stream
        self._rng = rng
        self._done = done

    def split(self) -> None:
        """Split an open shard in the middle."""
        shard = self._rng.choice(self._open())
        first, last = (int(shard["HashKeyRange"][f"{end}HashKey"]) for end in ("Starting", "Ending"))
        middle = str((first + last) // 2)
        self._reshard("a split", "split_shard", ShardToSplit=shard["ShardId"], NewStartingHashKey=middle)

    def merge(self) -> None:
        """Merge two neighbours."""
        shards = self._open()
        at = self._rng.randrange(len(shards) - 1)
        one, other = shards[at]["ShardId"], shards[at + 1]["ShardId"]
        self._reshard("a merge", "merge_shards", ShardToMerge=one, AdjacentShardToMerge=other)

    def double(self) -> None:
        """Make twice as many shards."""
        count = 2 * len(self._open())
        self._reshard("UpdateShardCount", "update_shard_count", TargetShardCount=count, ScalingType="UNIFORM_SCALING")

    def _open(self) -> list[dict[str, Any]]:
        listed = self._kinesis.list_shards(StreamName=self._stream)["Shards"]
        still = [shard for shard in listed if "EndingSequenceNumber" not in shard["SequenceNumberRange"]]
        return sorted(still, key=lambda shard: int(shard["HashKeyRange"]["StartingHashKey"]))

    def _active(self) -> bool:
        summary = self._kinesis.describe_stream_summary(StreamName=self._stream)["StreamDescriptionSummary"]
        return bool(summary["StreamStatus"] == "ACTIVE")

    def _reshard(self, what: str, operation: str, **parameters: object) -> None:
        before = len(self._open())
        getattr(self._kinesis, operation)(StreamName=self._stream, **parameters)
        until = time.monotonic() + TIMEOUT_S
        while not self._active():
            if time.monotonic() > until:
                raise ChildFailedError(f"{what} took more than {TIMEOUT_S:g} s")
            time.sleep(POLL_S)
        self._done(f"{what}, {before} to {len(self._open())} open shards")
