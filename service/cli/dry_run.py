"""`scoring dry-run`: what records would come to, before any of them is on a stream."""

from __future__ import annotations

from typing import BinaryIO

import click

from service.admin.dry_run import Line, Points, Summary, lines_of
from service.cli.context import name_of, run_async, settings_for
from service.cli.failures import Failure
from service.cli.output import json_option, note, number_of, print_json, print_table
from service.cli.sources import deployed_points, deployed_sources, loaded_file
from service.config.load import Purpose
from service.config.settings import Settings
from service.scoring.definitions import DEFAULT_POINTS
from service.sources.mapping import Source
from service.sources.registry import Registry

MAX_SHOWN = 200


@click.command(name="dry-run")
@click.argument("file", type=click.File("rb"))
@click.option("--sources", "sources_file", type=click.File("rb"), help="A file with sources of your own.")
@click.option("--default-project", metavar="ID", help="As SCORING_DEFAULT_PROJECT, which counts otherwise.")
@click.option("--deployed", is_flag=True, help="Use the sources and definitions in the definitions table: needs AWS.")
@click.option("--limit", type=click.IntRange(1, 100_000), default=MAX_SHOWN, show_default=True, help="Most rows shown.")
@json_option
@click.pass_context
def dry_run(
    ctx: click.Context,
    file: BinaryIO,
    sources_file: BinaryIO | None,
    default_project: str | None,
    *,
    deployed: bool,
    limit: int,
    as_json: bool,
) -> None:
    """Show what the records in FILE would come to: one record per line, gzip too; `-` is standard input.

    Each event has a row: source, type, project, person and how the person was found, time, points, or why it does not
    count. Points are those of the default definitions unless --deployed is given. Nothing is sent, and without
    --deployed no AWS is needed. Exits with 1 where an event would be a dead letter.
    """
    settings = settings_for(Purpose.TABLES if deployed else Purpose.LOCAL)
    own = _own(settings, sources_file, deployed=deployed)
    registry = Registry(own, default_project=default_project or settings.default_project)
    summary, shown = Summary(), list[Line]()
    try:
        for line in lines_of(file, registry, _points(settings, deployed=deployed)):
            summary.add(line)
            if len(shown) < limit:
                shown.append(line)
    except ValueError as error:
        raise Failure(f"{name_of(file)}: {error}", remedy="give lines of JSON, one record per line") from None
    if as_json:
        print_json({"events": [_as_json(line) for line in shown], "summary": _summary_json(summary)})
    else:
        _show(shown, summary)
    if any(kind == "rejected" for _, _, kind in summary.counts):
        ctx.exit(1)


def _own(settings: Settings, file: BinaryIO | None, *, deployed: bool) -> list[Source]:
    """Return the user's sources: those in the file first, instead of deployed ones of the same name."""
    mine = [Source(spec) for spec in loaded_file(file).specs] if file is not None else []
    names = {source.name for source in mine}
    others = run_async(deployed_sources(settings)).sources if deployed else ()
    return [*mine, *(source for source in others if source.name not in names)]


def _points(settings: Settings, *, deployed: bool) -> Points:
    if deployed:
        return run_async(deployed_points(settings))
    return lambda event_type, _project: DEFAULT_POINTS.get(event_type)


def _show(lines: list[Line], summary: Summary) -> None:
    rows = [
        (
            line.record if not line.row.index else f"{line.record}.{line.row.index}",
            line.row.kind.value,
            line.row.source,
            line.row.event_type,
            line.row.project,
            line.row.person,
            line.row.found_by,
            line.row.time,
            "" if line.points is None else f"{line.points:f}",
            line.row.detail or line.note,
        )
        for line in lines
    ]
    columns = ("Record", "What", "Source", "Type", "Project", "Person", "Found by", "Time", "Points", "Why not")
    print_table(columns, rows, "no records", optional=("Time", "Found by", "Project"), right=("Points",))
    total = sum(summary.counts.values())
    note(f"{number_of(summary.records, 'record')}, {number_of(total, 'event')}")
    for (source, event_type, kind), count in summary.counts.most_common(MAX_SHOWN):
        note(f"{count:,} {kind}: {source or 'no source'} {event_type}".rstrip())
    if total > len(lines):
        note(f"{total - len(lines):,} more are not shown: raise --limit")


def _as_json(line: Line) -> dict[str, object]:
    row = line.row
    return {
        "record": line.record,
        "event": row.index,
        "part": row.part,
        "what": row.kind.value,
        "source": row.source,
        "event_type": row.event_type,
        "project": row.project,
        "person": row.person,
        "found_by": row.found_by,
        "also": row.also,
        "time": row.time,
        "points": line.points,
        "why_not": row.detail or line.note,
    }


def _summary_json(summary: Summary) -> dict[str, object]:
    return {
        "records": summary.records,
        "events": sum(summary.counts.values()),
        "by_source": [
            {"source": source, "event_type": event_type, "what": kind, "events": count}
            for (source, event_type, kind), count in summary.counts.most_common()
        ],
    }
