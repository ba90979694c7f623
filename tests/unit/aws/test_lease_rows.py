"""The lease table in memory charges for rows of the size that the real table has."""

from __future__ import annotations

from typing import Any

import pytest

from service.aws.tables.leases import LeaseTable
from service.stream.leases.lease import Lease
from service.stream.ports import StreamId
from tests.fakes.leases import ROW_BYTES

SEQUENCE = "49590338271490256608559692538361571095921575989136588898"
ROW = Lease(
    shard_id="shardId-000000004711",
    checkpoint=SEQUENCE,
    owner="ip-10-0-1-23.ec2.internal-ab12cd34",
    counter=1234,
    checkpoint_ms=1_790_000_000_123,
    starting=SEQUENCE,
)


def bytes_of(value: dict[str, Any]) -> int:
    """Return what DynamoDB charges for a value.

    https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/CapacityUnitCalculations.html: a number takes about
    one byte for two digits, and one more.
    """
    ((kind, content),) = value.items()
    if kind == "N":
        digits: str = content.strip("-0") or "0"
        return (len(digits) + 1) // 2 + 1
    assert kind == "S", kind
    return len(content.encode())


def test_a_row_of_the_real_table_is_as_large_as_the_simulated_one():
    table = LeaseTable(None, "leases", "ingest", StreamId("engagement-events", "arn", "AbCdEfGh"))
    size = sum(len(name.encode()) + bytes_of(value) for name, value in table._lease_item(ROW).items())
    assert pytest.approx(size, rel=0.05) == ROW_BYTES
