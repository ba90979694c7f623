"""What the demo found, for a person (text) or a program (JSON). Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from decimal import Decimal
from typing import Any

import msgspec

from service.local.meter import Counts
from service.local.truth import Replaced, as_text
from service.runtime.text import printable, table, wrapped

REQUEST_BUDGET = 130.0
"""Requests per 1,000 events that the service may make, all in all."""

BUDGET_FROM = 20_000
"""Events from which on that is judged: below, what is asked once a run counts for too much."""

COST_COLUMNS = ("operation", "the replaced system", "this service")
INDENT = "  "
LEADERS = 10
DIFFERENCES_SHOWN = 10


class Report(msgspec.Struct, frozen=True):
    """Everything that the demo found.

    Attributes:
        events: Records put on the stream.
        outcomes: How they must have ended.
        users: Users in the population.
        scores: User id to score, as found in the table.
        endpoints: Endpoints compared.
        dead_letters: Letters found, by reason.
        differences: Everything that is not as it must be, one sentence each.
        bill: What was counted at the wire, of this service's own requests only.
        replaced: What the system this replaces would have made of the same events.
        played_s: Seconds over which events were put.
        drained_s: Seconds from the last event put until the last score was published.
        down_s: Seconds from SIGKILL to the first commit of the worker's next life; None where none was seen.
        stop_s: Seconds from SIGTERM to the worker's end; None where it was not stopped.
        total_s: Seconds in all.
        seed: Of the campaign.
    """

    events: int
    outcomes: Mapping[str, int]
    users: int
    scores: Mapping[str, Decimal]
    endpoints: int
    dead_letters: Mapping[str, int]
    differences: Sequence[str]
    bill: Counts
    replaced: Replaced
    played_s: float
    drained_s: float
    down_s: float | None
    stop_s: float | None
    total_s: float
    seed: int

    @property
    def exact(self) -> bool:
        """Whether everything is as it must be."""
        return not self.differences

    def per_thousand(self, count: float) -> float:
        """Return `count` per 1,000 events."""
        return count * 1_000 / max(1, self.events)

    @property
    def within_budget(self) -> bool | None:
        """Whether the service made no more requests than it may; None where there are too few events to tell."""
        if self.events < BUDGET_FROM:
            return None
        return self.per_thousand(self.bill.requests) <= REQUEST_BUDGET


def leaders(scores: Mapping[str, Decimal]) -> list[tuple[str, Decimal]]:
    """Return the users with the highest scores; equal scores in the order of their ids."""
    return sorted(scores.items(), key=lambda item: (-item[1], item[0]))[:LEADERS]


def verdict(report: Report) -> str:
    """Return the last line."""
    if report.exact:
        return (
            f"EXACT: {report.events:,} events, {report.users:,} users, {report.endpoints:,} endpoints, "
            "every score right"
        )
    count = len(report.differences)
    return f"WRONG: {count:,} difference{'s' if count > 1 else ''} in {report.events:,} events; {report.differences[0]}"


def as_document(report: Report) -> dict[str, Any]:
    """Return the report for `--json`; scores are text, as DynamoDB shows them."""
    return {
        "verdict": verdict(report),
        "exact": report.exact,
        "seed": report.seed,
        "events": report.events,
        "outcomes": dict(report.outcomes),
        "users": report.users,
        "endpoints": report.endpoints,
        "leaderboard": [{"user": user, "score": as_text(score)} for user, score in leaders(report.scores)],
        "dead_letters": dict(report.dead_letters),
        "differences": list(report.differences),
        "requests": report.bill.by_operation,
        "requests_per_1000_events": round(report.per_thousand(report.bill.requests), 1),
        "requests_budget_per_1000_events": REQUEST_BUDGET,
        "within_budget": report.within_budget,
        "write_units_per_1000_events": round(report.per_thousand(report.bill.write_units), 1),
        "replaced": {
            **msgspec.to_builtins(report.replaced),
            "requests_per_1000_events": round(report.per_thousand(report.replaced.requests), 1),
            "write_units_per_1000_events": round(report.per_thousand(report.replaced.update_item), 1),
        },
        "seconds": {
            "played": report.played_s,
            "drained": report.drained_s,
            "kill_to_first_commit": report.down_s,
            "stop": report.stop_s,
            "total": report.total_s,
        },
    }


def report_lines(report: Report, width: int, heading: Callable[[str], str] = str) -> list[str]:
    """Return everything but the verdict, in lines that fit `width` cells but for single long words.

    Args:
        report: What was found.
        width: Cells of a line.
        heading: Decorates a heading; must add no cells.
    """
    lines = [
        *_titled("Leaderboard", ("user", "score"), _leaders(report), width, heading),
        *_titled("Dead letters", ("reason", "letters"), _dead_letters(report), width, heading),
        *_titled("Requests per 1,000 events", COST_COLUMNS, _costs(report), width, heading),
    ]
    for paragraph in _sums(report):
        lines += wrapped(paragraph, width)
    lines += [f"  - {printable(difference)}" for difference in report.differences[:DIFFERENCES_SHOWN]]
    more = len(report.differences) - DIFFERENCES_SHOWN
    return [*lines, f"  ... and {more:,} more"] if more > 0 else lines


def _titled(
    title: str, columns: Sequence[str], rows: Iterable[Sequence[str]], width: int, heading: Callable[[str], str]
) -> list[str]:
    lines, _ = table(columns, rows, width - len(INDENT), right=columns[1:], heading=heading)
    return [heading(title), *(INDENT + line if line else "" for line in lines), ""]


def _leaders(report: Report) -> list[tuple[str, str]]:
    return [(user, as_text(score)) for user, score in leaders(report.scores)]


def _dead_letters(report: Report) -> list[tuple[str, str]]:
    return [(reason, f"{count:,}") for reason, count in sorted(report.dead_letters.items())]


def _costs(report: Report) -> list[tuple[str, str, str]]:
    old = {
        "dynamodb.GetItem": report.replaced.get_item,
        "dynamodb.UpdateItem": report.replaced.update_item,
        "pinpoint.GetEndpoint": report.replaced.get_endpoint,
        "pinpoint.GetUserEndpoints": report.replaced.get_user_endpoints,
        "pinpoint.UpdateEndpoint": report.replaced.update_endpoint,
    }
    rows = [
        (name, _rate(report, old.get(name, 0)), _rate(report, report.bill.by_operation.get(name, 0)))
        for name in sorted(old.keys() | report.bill.by_operation.keys())
    ]
    return [
        *rows,
        ("", "", ""),
        ("all requests", _rate(report, report.replaced.requests), _rate(report, report.bill.requests)),
        ("write units", _rate(report, report.replaced.update_item), _rate(report, report.bill.write_units)),
    ]


def _rate(report: Report, count: float) -> str:
    return f"{report.per_thousand(count):,.1f}" if count else "-"


def _sums(report: Report) -> list[str]:
    old = report.replaced
    each = old.update_endpoint / old.get_user_endpoints if old.get_user_endpoints else 0.0
    mark = {True: "PASS", False: "MISS", None: "    "}[report.within_budget]
    outcomes = ", ".join(f"{count:,} {outcome}" for outcome, count in sorted(report.outcomes.items()))
    down = "not seen" if report.down_s is None else f"{report.down_s:.1f} s"
    old_sum = " + ".join(f"{count:,}" for count in msgspec.structs.astuple(old))
    return [
        (
            f"The replaced system reads the definition of each of {old.get_item:,} events. For the "
            f"{old.get_endpoint:,} that have one it calls GetEndpoint. For the {old.update_item:,} of them that have "
            f"a user it writes once, calls GetUserEndpoints once, and updates all of the user's endpoints "
            f"({each:.2f} on average): {old_sum} = {old.requests:,} requests. Its reading of the streams is not "
            "counted. Ours is, and so is everything else that both lives of the worker asked for, counted at the "
            f"wire: {report.bill.requests:,} requests."
        ),
        "",
        (
            f"{mark}  {report.per_thousand(report.bill.requests):.1f} requests per 1,000 events; the budget is "
            f"{REQUEST_BUDGET:.0f}, from {BUDGET_FROM:,} events on"
        ),
        f"events: {outcomes} (seed {report.seed})",
        (
            f"kill -9 to the first new commit: {down}; played {report.played_s:.1f} s, "
            f"drained {report.drained_s:.1f} s later, {report.total_s:.1f} s in all"
        ),
    ]
