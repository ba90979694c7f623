"""What everything about leases works with."""

from __future__ import annotations

from typing import Any

import msgspec

from service.observability.metrics import Metrics
from service.runtime.clock import Clock
from service.stream.identity import Identity
from service.stream.leases.share import FleetShare
from service.stream.ports import LeaseStore, Membership, ShardSource
from service.stream.settings import ShardSettings


class LeaseContext(msgspec.Struct, frozen=True):
    """One stream and its lease table, as one worker reaches them.

    Attributes:
        pipeline: `ingest` or `publish`: a metric label.
        source: The stream.
        store: Its lease rows.
        membership: The rows of workers and leader.
        settings: Limits.
        clock: Its monotonic time must be the event loop's.
        metrics: The catalogue.
        identity: Whether the stream is still the one that the leases are about.
        share: This worker's part of the rates that all keep together.
        target: What the consumer writes to (see `target.py`); empty where that does not matter.
    """

    pipeline: str
    source: ShardSource[Any]
    store: LeaseStore
    membership: Membership
    settings: ShardSettings
    clock: Clock
    metrics: Metrics
    identity: Identity
    share: FleetShare
    target: str = ""
