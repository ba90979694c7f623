"""`scoring definitions`: what events are worth, as stored in the definition table."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from typing import BinaryIO

import click

from service.admin.definitions import (
    COLUMNS,
    Known,
    UnreadableFileError,
    checked,
    in_force_s,
    known_of,
    points_of,
    remarks,
    rows_of,
    suspicions,
)
from service.admin.input_files import HEAD_BYTES, unusable
from service.aws.clients import clients
from service.aws.tables.definitions import DefinitionTable
from service.cli.context import STDIN, aws_settings, name_of, one_project, run_async, settings_for
from service.cli.failures import FAILURE, UsageFailure
from service.cli.output import json_option, note, print_json, print_table
from service.cli.params import PROJECT, Id
from service.config.load import Purpose
from service.config.settings import Settings
from service.ingest.stores import Undefined
from service.queries.undefined import undefined
from service.runtime.text import iso
from service.scoring.definitions import Definition, Malformed

MAX_FAULTS_SHOWN = 20
MAX_FILE_BYTES = 16 * 1024 * 1024
"""Largest file that `import` reads."""

project_option = click.option(
    "--project", metavar="ID", type=PROJECT, help="The project; optional if SCORING_PROJECT_IDS names exactly one."
)
anyway_option = click.option("--anyway", is_flag=True, help="Also write what looks like a typing error.")


@click.group()
def definitions() -> None:
    """Show and change what events are worth; workers use changes within seconds."""


@definitions.command(name="list")
@click.option("--project", metavar="ID", type=PROJECT, help="Only definitions of this project.")
@json_option
def list_(project: str | None, *, as_json: bool) -> None:
    """Show the definitions; `definitions import` reads this output.

    Malformed rows are reported on standard error and left out.
    """
    settings = settings_for(Purpose.TABLES)
    rows = [row for row in run_async(_load(settings)) if project in (None, row.project_id)]
    rows.sort(key=lambda row: (row.project_id, row.event_type))
    good = [row for row in rows if isinstance(row, Definition)]
    if as_json:
        print_json(
            [
                {"EventType": row.event_type, "PinpointProjectId": row.project_id, "ScoreOffset": row.points}
                for row in good
            ]
        )
    else:
        print_table(
            COLUMNS,
            [(row.project_id, row.event_type, row.points) for row in good],
            f"no definitions in table {settings.definitions_table}; `scoring setup --project ID` writes the defaults",
            right=("Points",),
        )
    for row in rows:
        if isinstance(row, Malformed):
            note(f"malformed: {row.event_type} in project {row.project_id}: {row.detail}; correct it with `set`")


@definitions.command()
@click.option("--project", metavar="ID", help="Only events of this project.")
@json_option
def missing(project: str | None, *, as_json: bool) -> None:
    """Show events that were ignored because their type has no definition."""
    settings = settings_for(Purpose.TABLES)

    async def read() -> Sequence[Undefined]:
        async with clients(aws_settings(settings)) as aws:
            return await undefined(aws, settings)

    found = run_async(read())
    # `other` collects further types of all projects.
    found = [each for each in found if project is None or each.project_id in ("", project)]
    if as_json:
        print_json(found)
        return
    print_table(
        ("Project", "Event type", "Events", "Last seen"),
        [(each.project_id, each.event_type, each.events, iso(each.last_ms)) for each in found],
        "no events without a definition in the last 14 days",
        right=("Events",),
    )
    if found:
        note("to count such events: scoring definitions set TYPE POINTS --project ID")


@definitions.command(name="set", context_settings={"ignore_unknown_options": True})
@click.argument("event_type", type=Id("event type"))
@click.argument("points")
@project_option
@anyway_option
def set_(event_type: str, points: str, project: str | None, *, anyway: bool) -> None:
    """Set the POINTS of an EVENT_TYPE; they may be negative and may have decimals."""
    settings = settings_for(Purpose.TABLES)
    row = {"EventType": event_type, "PinpointProjectId": one_project(settings, project), "ScoreOffset": points}
    definition = checked(row)
    if isinstance(definition, str):
        raise click.UsageError(definition)
    run_async(_write(settings, [definition], "it", anyway=anyway))


@definitions.command()
@click.argument("event_type", type=Id("event type"))
@project_option
@click.pass_context
def remove(ctx: click.Context, event_type: str, project: str | None) -> None:
    """Remove the definition of EVENT_TYPE, so that its events no longer count; exits with 1 if there is none."""
    settings = settings_for(Purpose.TABLES)
    project_id = one_project(settings, project)
    if not run_async(_remove(settings, event_type, project_id)):
        note(f"there is no definition of {event_type} in project {project_id}; `scoring definitions list` shows all")
        ctx.exit(FAILURE)
    note(f"removed {event_type} from project {project_id}")
    _note_when(settings)


@definitions.command(name="import")
@click.argument("file", type=click.File("rb"))
@project_option
@click.option("--dry-run", is_flag=True, help="Only check the file.")
@anyway_option
def import_(file: BinaryIO, project: str | None, *, dry_run: bool, anyway: bool) -> None:
    """Write the definitions in FILE; `-` is standard input.

    FILE is a JSON array, one JSON object per line, or the output of `definitions list`. An object has EventType,
    ScoreOffset and, unless --project is given, PinpointProjectId. If one of them is invalid, nothing is written.
    Definitions that are not in FILE are not changed.
    """
    settings = settings_for(Purpose.TABLES)
    fallback = project or (settings.project_ids[0] if len(settings.project_ids) == 1 else None)
    wanted: dict[tuple[str, str], Definition] = {}
    faults: list[str] = []
    for number, row in enumerate(_parsed(file), 1):
        definition = checked({"PinpointProjectId": fallback, **row} if fallback and isinstance(row, dict) else row)
        if isinstance(definition, str):
            faults.append(f"definition {number}: {definition}")
            continue
        key = (definition.event_type, definition.project_id)
        if key in wanted and wanted[key] != definition:
            faults.append(f"definition {number}: {definition.event_type} occurs twice, with different points")
        wanted[key] = definition
    if faults:
        raise UsageFailure(f"{name_of(file)} is invalid; nothing was written", _listed(faults))
    run_async(_write(settings, list(wanted.values()), name_of(file), anyway=anyway, dry_run=dry_run))


def _parsed(file: BinaryIO) -> list[object]:
    called = name_of(file)
    data = file.read(MAX_FILE_BYTES + 1)
    if len(data) > MAX_FILE_BYTES:
        raise UsageFailure(f"{called} has more than {MAX_FILE_BYTES:,} bytes")
    found = unusable(data[:HEAD_BYTES], "FILE" if called == STDIN else shlex.quote(called), arrays=True)
    if found is not None:
        raise UsageFailure(f"{called} {found.what}", remedy=f"try: {found.command} | scoring definitions import -")
    try:
        return rows_of(data)
    except UnreadableFileError as error:
        raise UsageFailure(f"{called} is invalid; nothing was written", str(error)) from None


def _listed(faults: Sequence[str]) -> str:
    more = [f"... and {len(faults) - MAX_FAULTS_SHOWN} more"] if len(faults) > MAX_FAULTS_SHOWN else []
    return "\n  ".join([*faults[:MAX_FAULTS_SHOWN], *more])


async def _load(settings: Settings) -> Sequence[Definition | Malformed]:
    async with clients(aws_settings(settings)) as aws:
        return await DefinitionTable(aws.dynamodb, settings.definitions_table).definitions()


async def _remove(settings: Settings, event_type: str, project_id: str) -> bool:
    async with clients(aws_settings(settings)) as aws:
        return await DefinitionTable(aws.dynamodb, settings.definitions_table).remove(event_type, project_id)


async def _write(
    settings: Settings, wanted: Sequence[Definition], what: str, *, anyway: bool, dry_run: bool = False
) -> None:
    """Write definitions and report the changes; safe to repeat, because each write replaces the row of its key."""
    async with clients(aws_settings(settings)) as aws:
        table = DefinitionTable(aws.dynamodb, settings.definitions_table)
        known = known_of(await table.definitions(), settings.project_ids)
        _refuse_suspicious(wanted, known, what, anyway=anyway)
        for remark in remarks({definition.project_id for definition in wanted}, known):
            note(remark)
        written = changed = 0
        try:
            for definition in wanted:
                if dry_run:
                    note(f"would set {_said(definition)}")
                    continue
                before = await table.set(definition)
                written += 1
                said = _change(definition, before)
                changed += not said.startswith("unchanged")
                note(said)
        finally:
            if 0 < written < len(wanted):
                note(f"{written:,} of {len(wanted):,} definitions were written; run the command again for the rest")
            if changed:
                _note_when(settings)


def _refuse_suspicious(wanted: Sequence[Definition], known: Known, what: str, *, anyway: bool) -> None:
    found = list(dict.fromkeys(text for definition in wanted for text in suspicions(definition, known)))
    if found and anyway:
        note(_listed(found))
    elif found:
        raise UsageFailure(
            f"{what} looks like a typing error; nothing was written", _listed(found), "--anyway writes it"
        )


def _note_when(settings: Settings) -> None:
    seconds = in_force_s(settings.definitions_refresh_s)
    note(f"in force within {seconds:g} s; until then, workers score by the old definitions")


def _change(definition: Definition, before: str | None) -> str:
    if before is None:
        return f"added {_said(definition)}"
    known = points_of(before)
    if known is not None and known == definition.points:
        return f"unchanged: {_said(definition)}"
    return f"set {_said(definition)}, before: {before}"


def _said(definition: Definition) -> str:
    return f"{definition.event_type} = {definition.points:f} in project {definition.project_id}"
