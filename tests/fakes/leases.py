"""The lease table in memory: `LeaseStore` and `Membership` for many workers, each through its own gate."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TypeVar

import msgspec

from service.stream.leases.lease import Leadership, Lease, Member, Snapshot
from tests.fakes.aio import Gate

T = TypeVar("T")

KIB = 1024
ROW_BYTES = 360
"""A lease row with the attribute names of the table (`tests/unit/aws/test_lease_rows.py`)."""

ENTRY_BYTES = 24
"""An assigned shard in a member's row."""


def _member_bytes(member: Member | None) -> int:
    return 150 + ENTRY_BYTES * len(member.assigned) if member else 1


class LeaseTable:
    """The rows, and what reading and writing them would cost.

    Attributes:
        write_units: 1 per KiB and write (https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/read-write-operations.html).
        read_units: 1 per 4 KiB read consistently.
        history: Every lease row written, with the second, in order.
    """

    def __init__(self) -> None:
        self.leases: dict[str, Lease] = {}
        self.members: dict[str, Member] = {}
        self.leader: Leadership | None = None
        self.writes = 0
        self.write_units = 0
        self.reads = 0
        self.read_units = 0.0
        self.rows_read = 0
        self.history: list[tuple[float, Lease]] = []

    def wrote(self, size: int = ROW_BYTES) -> None:
        self.writes += 1
        self.write_units += -(-size // KIB)

    def read(self, size: int = ROW_BYTES, rows: int = 1) -> None:
        self.reads += 1
        self.rows_read += rows
        self.read_units += -(-size // (4 * KIB))

    def put(self, lease: Lease) -> None:
        self.leases[lease.shard_id] = lease
        self.history.append((asyncio.get_running_loop().time(), lease))

    def owned_by(self, worker: str) -> list[str]:
        return sorted(lease.shard_id for lease in self.leases.values() if lease.owner.split(".")[0] == worker)


class FakeLeases:
    """One worker's access to the table."""

    def __init__(self, table: LeaseTable, gate: Gate | None = None) -> None:
        self.table = table
        self._gate = gate or Gate()

    async def _call(self, operation: Callable[[], T]) -> T:
        return await self._gate.call(operation)

    async def snapshot(self) -> Snapshot:
        table = self.table

        def read() -> Snapshot:
            size = ROW_BYTES * len(table.leases) + sum(_member_bytes(member) for member in table.members.values())
            table.read(size, rows=len(table.leases) + len(table.members) + 1)
            return Snapshot(tuple(table.leases.values()), tuple(table.members.values()), table.leader)

        return await self._call(read)

    async def create(self, lease: Lease) -> bool:
        def write() -> bool:
            self.table.wrote()
            if lease.shard_id in self.table.leases:
                return False
            self.table.put(lease)
            return True

        return await self._call(write)

    async def replace(self, expected: Lease, new: Lease) -> Lease | None:
        def write() -> Lease | None:
            self.table.wrote()
            row = self.table.leases.get(expected.shard_id)
            if row is None:
                return msgspec.structs.replace(expected, owner="", counter=-1)
            if (row.owner, row.counter) != (expected.owner, expected.counter):
                return row
            self.table.put(new)
            return None

        return await self._call(write)

    async def get(self, shard_id: str) -> Lease | None:
        def read() -> Lease | None:
            self.table.read()
            return self.table.leases.get(shard_id)

        return await self._call(read)

    async def delete(self, expected: Lease) -> bool:
        def write() -> bool:
            self.table.wrote()
            row = self.table.leases.get(expected.shard_id)
            if row is not None and (row.owner, row.counter) != (expected.owner, expected.counter):
                return False
            self.table.leases.pop(expected.shard_id, None)
            return True

        return await self._call(write)

    async def join(self, member: Member) -> None:
        def write() -> None:
            self.table.wrote(_member_bytes(member))
            self.table.members[member.worker] = member

        await self._call(write)

    async def beat(self, worker: str, wall_ms: int, *, leaving: bool = False) -> Member | None:
        def write() -> Member | None:
            row = self.table.members.get(worker)
            self.table.wrote(_member_bytes(row))
            if row is None:
                return None
            row = msgspec.structs.replace(row, beats=row.beats + 1, beat_ms=wall_ms, leaving=row.leaving or leaving)
            self.table.members[worker] = row
            return row

        return await self._call(write)

    async def assign(self, worker: str, member: Member) -> bool:
        def write() -> bool:
            row = self.table.members.get(worker)
            self.table.wrote(max(_member_bytes(row), _member_bytes(member)))
            if row is None:
                return False
            self.table.members[worker] = msgspec.structs.replace(row, assigned=member.assigned, version=member.version)
            return True

        return await self._call(write)

    async def remove(self, worker: str) -> None:
        def write() -> None:
            self.table.wrote()
            self.table.members.pop(worker, None)

        await self._call(write)

    async def lead(self, expected: Leadership | None, new: Leadership) -> bool:
        def write() -> bool:
            self.table.wrote()
            row = self.table.leader
            if row == new:
                return True
            if (row is None) != (expected is None):
                return False
            if row and expected and (row.leader, row.counter) != (expected.leader, expected.counter):
                return False
            self.table.leader = new
            return True

        return await self._call(write)

    async def leadership(self) -> Leadership | None:
        def read() -> Leadership | None:
            self.table.read()
            return self.table.leader

        return await self._call(read)
