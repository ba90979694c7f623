"""The benchmark's results: aims, table, JSON, picture."""

from __future__ import annotations

import math
import os
import platform
from collections.abc import Callable
from html import escape
from pathlib import Path
from typing import Any

import msgspec

from service.runtime.text import table, wrapped
from tests.benchmarks.contestants import FLOOR, LAMBDA, LIBRARIES, SERVICE

Median = Callable[[str, str, str], float]
"""Workload, contender, column."""


def machine() -> str:
    """Return what this ran on, for people."""
    cpus = Path("/proc/cpuinfo").read_text().splitlines()
    model = next(
        (line.partition(":")[2].strip() for line in cpus if line.startswith("model name")),
        platform.machine(),
    )
    return f"{os.cpu_count()} cores, {model}, Linux {platform.release().split('-')[0]}, load {os.getloadavg()[2]:.1f}"


def aims(median: Median) -> list[dict[str, Any]]:
    """Return each aim, what was measured, and whether it was met; None: not measured."""
    blast, engaged = median("a", SERVICE, "cpu_us"), median("b", SERVICE, "cpu_us")
    libraries = [median("a", name, "cpu_us") for name in LIBRARIES]
    best = min((value for value in libraries if not math.isnan(value)), default=math.nan)
    again, first = median("a twice", SERVICE, "requests"), median("a", SERVICE, "requests")
    measured = [
        ("(a) CPU per event, times the floor's", blast / median("a", FLOOR, "cpu_us"), 2.0, "at most"),
        ("(b) CPU per event, times the floor's", engaged / median("b", FLOOR, "cpu_us"), 1.5, "at most"),
        ("(a) CPU of the Lambda way, times ours", median("a", LAMBDA, "cpu_us") / blast, 50.0, "at least"),
        ("(a) CPU of the best library, times ours", best / blast, 20.0, "at least"),
        # Twice the events, of which the second half finds everything in memory.
        ("(a) requests per 1,000 events, warm process", 2 * again - first, 70.0, "at most"),
        ("(a) requests per 1,000 events, warm tables only", first, 70.0, "at most"),
        ("(b) requests per 1,000 events", median("b", SERVICE, "requests"), 25.0, "at most"),
        ("(a) write units per user and batch", median("a", SERVICE, "write_units") / 1000, 1.0, "at most"),
        ("(c) peak RSS, MiB", median("c", SERVICE, "peak_mib"), 150.0, "at most"),
        ("(d) idle CPU, % of a core", median("d", SERVICE, "idle_percent"), 2.0, "at most"),
        ("(a) start to first commit, s", median("a", SERVICE, "start_s"), 1.5, "at most"),
        ("put to score p99, s", median("steady", SERVICE, "score_p99_s"), 1.5, "at most"),
        ("put to sink p99, s", median("steady", SERVICE, "sink_p99_s"), 3.0, "at most"),
    ]
    return [
        {
            "aim": name,
            "measured": None if math.isnan(value) else round(value, 3),
            "wanted": f"{sense} {wanted:g}",
            "met": None if math.isnan(value) else bool(value <= wanted if sense == "at most" else value >= wanted),
        }
        for name, value, wanted, sense in measured
    ]


def write(report: dict[str, Any], path: Path) -> None:
    """Write the results as JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(msgspec.json.format(msgspec.json.encode(report), indent=1) + b"\n")


_COLUMNS = (
    ("CPU us/event", "cpu_us", ".1f"),
    ("events/s/core", "per_core", ",.0f"),
    ("requests/1,000", "requests", ",.1f"),
    ("WCU/1,000", "write_units", ",.0f"),
    ("peak MiB", "peak_mib", ".0f"),
    ("start s", "start_s", ".2f"),
    ("score p50/p99 s", ("score_p50_s", "score_p99_s"), ".2f"),
    ("sink p50/p99 s", ("sink_p50_s", "sink_p99_s"), ".2f"),
)


def lines(report: dict[str, Any], width: int) -> list[str]:
    """Return the tables as lines that fit `width` cells."""
    columns = ("workload", "contender", *(title for title, *_ in _COLUMNS), "exact")
    rows = [
        (
            row["workload"],
            row["contender"],
            *(_cell(row, column, form) for _, column, form in _COLUMNS),
            "yes" if row["exact"] else "NO",
        )
        for row in report["rows"]
    ]
    optional = ("events/s/core", "start s", "sink p50/p99 s", "score p50/p99 s")
    measured, left_out = table(columns, rows, width, right=columns[2:-1], optional=optional)
    if left_out:
        measured += wrapped(f"left out to fit {width} columns: {', '.join(left_out)}", width)
    verdicts = {True: "met", False: "MISSED", None: "not measured"}
    aimed, _ = table(
        ("aim", "wanted", "measured", "verdict"),
        [
            (
                aim["aim"],
                aim["wanted"],
                "" if aim["measured"] is None else f"{aim['measured']:,.2f}",
                verdicts[aim["met"]],
            )
            for aim in report["aims"]
        ],
        width,
        right=("measured",),
    )
    absent = [line for name, why in report["absent"].items() for line in wrapped(f"{name}: {why}", width)]
    title = wrapped(f"{report['date']}, {report['machine']}, CPython {report['python']}", width)
    return [*title, "", *measured, "", *aimed, "", *absent]


def _cell(row: dict[str, Any], column: str | tuple[str, ...], form: str) -> str:
    values = [row.get(name) for name in ((column,) if isinstance(column, str) else column)]
    return " / ".join("" if value is None else format(value, form) for value in values).strip(" /")


_WIDTH, _BAR, _LEFT, _COLOURS = 860, 30, 210, {SERVICE: "#2f6f4f", FLOOR: "#9aa5a0"}


def picture(report: dict[str, Any]) -> str:
    """Return an SVG: CPU per event in workloads (a) and (b), on a logarithmic scale."""
    parts, y = [], 54
    everything = [row for row in report["rows"] if row["workload"] in {"a", "b"} and row["cpu_us"]]
    low, high = 5.0, 10 ** math.ceil(math.log10(max((row["cpu_us"] for row in everything), default=10)))
    scale = (_WIDTH - _LEFT - 130) / math.log(high / low)
    titles = {"a": "Campaign blast: every event another user", "b": "Engaged base: 5 events per user and batch"}
    for workload, title in titles.items():
        parts.append(f'<text x="16" y="{y}" class="h">{escape(title)}</text>')
        y += 14
        for row in sorted((row for row in everything if row["workload"] == workload), key=lambda row: row["cpu_us"]):
            name, value = row["contender"], row["cpu_us"]
            width = max(2.0, scale * math.log(value / low))
            parts.append(f'<text x="{_LEFT - 10}" y="{y + 19}" text-anchor="end">{escape(name)}</text>')
            colour = _COLOURS.get(name, "#c0653f")
            parts.append(f'<rect x="{_LEFT}" y="{y + 4}" width="{width:.0f}" height="{_BAR - 10}" fill="{colour}"/>')
            note = "" if row["exact"] else " (scores wrong)"
            parts.append(f'<text x="{_LEFT + width + 8:.0f}" y="{y + 19}">{value:,.0f} µs{note}</text>')
            y += _BAR
        y += 34
    style = "text{font:14px sans-serif;fill:#222}.h{font-weight:600}.s{font-size:12px;fill:#666}"
    head = "CPU per event, microseconds, logarithmic scale: less is better"
    foot = f"{report['date']} · {report['machine']} · CPython {report['python']} · make bench"
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {y + 6}" role="img" '
        f'aria-label="{escape(head)}"><style>{style}</style><rect width="100%" height="100%" fill="#fff"/>'
        f'<text x="16" y="24" class="h">{escape(head)}</text>{"".join(parts)}'
        f'<text x="16" y="{y - 8}" class="s">{escape(foot)}</text></svg>\n'
    )
