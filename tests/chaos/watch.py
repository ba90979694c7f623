"""Who holds which shard, read straight from the lease table, and how long a shard is without an owner that lives."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any, NamedTuple, Self

import msgspec

from service.stream.position import SHARD_END

POLL_S = 0.05
STOP_TIMEOUT_S = 10.0


class Row(NamedTuple):
    """What counts of a lease."""

    owner: str
    finished: bool


class TakeOver(msgspec.Struct):
    """The leases of victims, from the signal until each has another owner.

    Attributes:
        kind: What was done to them.
        led: Whether one of them led a pipeline.
        storm: Whether the proxy had faults.
        began: Monotonic second of the signal.
        pending: Leases that have no new owner yet, and the old one.
        leases: How many there were.
        seconds: Until the last had a new owner; None: not yet.
    """

    kind: str
    led: bool
    storm: bool
    began: float
    pending: dict[str, str]
    leases: int
    seconds: float | None = None

    def see(self, rows: Mapping[str, Row], now: float) -> None:
        """Take in a reading of all leases that was answered at `now`."""
        for key, old in list(self.pending.items()):
            row = rows.get(key)
            if row is None or row.finished or row.owner not in {"", old}:
                del self.pending[key]
        if not self.pending and self.seconds is None:
            self.seconds = now - self.began


class Leases(NamedTuple):
    """One reading of the lease table: leases by key, who leads, and who is a member, once for each pipeline."""

    rows: dict[str, Row]
    leaders: frozenset[str]
    members: list[str]


def read(dynamodb: Any, table: str) -> Leases:  # noqa: ANN401 - a boto3 client
    """Read the lease table (one page: a run has few shards)."""
    rows: dict[str, Row] = {}
    leaders = set()
    members: list[str] = []
    for item in dynamodb.scan(TableName=table, ConsistentRead=True)["Items"]:
        key, owner = item["leaseKey"]["S"], item.get("leaseOwner", {}).get("S", "")
        if key.endswith(":leader:"):
            leaders.add(owner)
        elif ":member:" in key:
            members.append(key.partition(":member:")[2])
        elif "checkpoint" in item:
            rows[key] = Row(owner, item["checkpoint"]["S"] == SHARD_END)
    return Leases(rows, frozenset(leaders), members)


class LeaseWatch:
    """Reads the table every `POLL_S` in a thread of its own; a context manager.

    Args:
        dynamodb: A boto3 client that goes straight to the emulator.
        table: The lease table.
    """

    def __init__(self, dynamodb: Any, table: str) -> None:  # noqa: ANN401 - a boto3 client
        self._dynamodb = dynamodb
        self._table = table
        self._lock = threading.Lock()
        self._open: list[TakeOver] = []
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="lease watch", daemon=True)
        self.error: Exception | None = None

    def leases(self) -> Leases:
        """Read now."""
        return read(self._dynamodb, self._table)

    def strike(self, kind: str, owned: Callable[[str], bool], signal: Callable[[], None], *, storm: bool) -> TakeOver:
        """Note what the victims hold, send the signal, and watch it being taken over.

        Args:
            kind: What is done.
            owned: Says whether an owner is a victim.
            signal: Sends it.
            storm: Whether the proxy has faults.
        """
        before = self.leases()
        pending = {key: row.owner for key, row in before.rows.items() if not row.finished and owned(row.owner)}
        led = any(owned(leader) for leader in before.leaders)
        began = time.monotonic()
        signal()
        take_over = TakeOver(kind, led, storm, began, pending, len(pending))
        with self._lock:
            self._open.append(take_over)
        return take_over

    def _run(self) -> None:
        while not self._stopping.wait(POLL_S):
            if not self._open:
                continue
            try:
                asked_at = time.monotonic()
                rows = self.leases().rows
            except Exception as error:  # noqa: BLE001 - the owner asks for it
                self.error = error
                return
            with self._lock:
                for each in self._open:
                    # A reading from before the signal says nothing.
                    if asked_at >= each.began:
                        each.see(rows, time.monotonic())
                self._open = [each for each in self._open if each.seconds is None]

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stopping.set()
        self._thread.join(STOP_TIMEOUT_S)
