"""What a run has to tell."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import median

import msgspec

from tests.chaos.faults import KINDS
from tests.chaos.watch import TakeOver

SHOWN = 10


class Report(msgspec.Struct, frozen=True):
    """Everything worth a line.

    Attributes:
        events: Records put.
        users: Users in the population.
        endpoints: Endpoints compared.
        seed: Of the run.
        lease_s: Lease duration.
        requests: Through the proxy, by service.
        faults: By `service|kind`.
        refused: Members of batches refused, by operation.
        reshards: One sentence each.
        take_overs: All of them.
        played_s: Seconds over which events were put.
        drained_s: Seconds from the last event until all was right and quiet.
        load: Average number of processes that wanted a core over the last minute, and the cores.
        differences: All that is not as it must be.
    """

    events: int
    users: int
    endpoints: int
    seed: int
    lease_s: float
    requests: Mapping[str, int]
    faults: Mapping[str, int]
    refused: Mapping[str, int]
    reshards: Sequence[str]
    take_overs: Sequence[TakeOver]
    played_s: float
    drained_s: float
    load: tuple[float, int]
    differences: Sequence[str]


def text(report: Report) -> str:
    """Return the report; its last line is the verdict."""
    lines = [
        _summary(report),
        "",
        *_faults(report),
        "",
        *(f"reshard: {reshard}" for reshard in report.reshards),
        "",
        *_take_overs(report),
        "",
        *(f"  - {difference}" for difference in report.differences[:SHOWN]),
    ]
    if len(report.differences) > SHOWN:
        lines.append(f"  ... and {len(report.differences) - SHOWN:,} more")
    return "\n".join([*lines, verdict(report)])


def _summary(report: Report) -> str:
    return (
        f"seed {report.seed}: {report.events:,} events put in {report.played_s:.0f} s, all scored and published "
        f"{report.drained_s:.0f} s later; load {report.load[0]:.1f} on {report.load[1]} cores"
    )


def verdict(report: Report) -> str:
    """Return the last line."""
    if report.differences:
        return f"WRONG: {len(report.differences):,} differences in {report.events:,} events"
    return (
        f"EXACT: {report.events:,} events, {report.users:,} users, {report.endpoints:,} endpoints, every score right "
        f"through {sum(report.faults.values()):,} faults, {len(report.take_overs)} attacks, "
        f"{len(report.reshards)} reshards"
    )


def _faults(report: Report) -> list[str]:
    services = sorted(report.requests)
    width = max(map(len, KINDS)) + 2
    lines = ["".join([f"{'faults':<{width}}", *(f"{service:>10}" for service in services)])]
    for kind in KINDS:
        counts = (report.faults.get(f"{service}|{kind}", 0) for service in services)
        lines.append("".join([f"  {kind:<{width - 2}}", *(f"{count:>10,}" for count in counts)]))
    of = (report.requests[service] for service in services)
    lines.append("".join([f"{'of requests':<{width}}", *(f"{count:>10,}" for count in of)]))
    refused = ", ".join(f"{count:,} of {operation}" for operation, count in sorted(report.refused.items()))
    lines.append(f"members of batches refused: {refused or 'none'}")
    return lines


def aim_s(kind: str, lease_s: float) -> float | None:
    """Return within how many seconds the leases of a victim must have another owner; None: no aim."""
    return {"SIGTERM": 2.0, "SIGKILL": lease_s + 2.0, "SIGSTOP": lease_s + 2.0}.get(kind)


def _take_overs(report: Report) -> list[str]:
    lines = [f"take-over, seconds from the signal until each lease has another owner (lease {report.lease_s:g} s)"]
    for storm, kind in sorted({(each.storm, each.kind) for each in report.take_overs}):
        some = [each for each in report.take_overs if (each.storm, each.kind) == (storm, kind)]
        seconds = sorted(each.seconds for each in some if each.seconds is not None and each.leases)
        aim = aim_s(kind, report.lease_s)
        figures = "no victim held a lease"
        if seconds:
            figures = f"median {median(seconds):5.2f}, longest {seconds[-1]:5.2f}"
            if aim is not None:
                figures += f", {sum(second <= aim for second in seconds)} of {len(seconds)} within {aim:g} s"
        leases = sum(each.leases for each in some)
        led = sum(each.led for each in some)
        weather = "with faults" if storm else "without"
        lines.append(f"  {weather:<12}{kind:<17}{len(some):>2} times, {leases:>2} leases, {led:>2} leaders: {figures}")
    return lines
