"""`scoring definitions`: what events are worth, as the definitions table has it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from decimal import Decimal, InvalidOperation
from typing import Any, BinaryIO

import click
import msgspec

from service.cli.context import Aws, one_project, settings_for
from service.cli.failures import FAILURE, UsageFailure
from service.cli.output import json_option, note, print_json, print_table
from service.config.settings import Purpose, Settings
from service.scoring.definitions import Definition, points_fault
from service.scoring.event import MAX_PROJECT_BYTES, Rejected, id_fault

MAX_FAULTS_SHOWN = 20
MAX_FILE_BYTES = 16 * 1024 * 1024
"""Largest file that `import` reads."""

project_option = click.option(
    "--project", metavar="ID", help="The project; not needed where SCORING_PROJECT_IDS names just one."
)


@click.group()
def definitions() -> None:
    """Show and change what events are worth; workers follow within seconds."""


@definitions.command(name="list")
@click.option("--project", metavar="ID", help="Only this project's.")
@json_option
def list_(project: str | None, *, as_json: bool) -> None:
    """Show the definitions; the JSON can be imported again."""
    settings = settings_for(Purpose.TABLES)
    rows = [row for row in _rows(settings, Aws(settings)) if project in (None, row["PinpointProjectId"])]
    rows.sort(key=lambda row: (row["PinpointProjectId"], row["EventType"]))
    if as_json:
        print_json(rows)
        return
    print_table(
        ("Project", "Event type", "Points"),
        [(row["PinpointProjectId"], row["EventType"], row["ScoreOffset"]) for row in rows],
        f"no definitions in table {settings.definitions_table}; `scoring setup --project ID` writes the defaults",
        right=("Points",),
    )


@definitions.command(name="set", context_settings={"ignore_unknown_options": True})
@click.argument("event_type")
@click.argument("points")
@project_option
def set_(event_type: str, points: str, project: str | None) -> None:
    """Give events of EVENT_TYPE that many POINTS, which may be negative and may have decimals."""
    settings = settings_for(Purpose.TABLES)
    row = {"EventType": event_type, "PinpointProjectId": one_project(settings, project), "ScoreOffset": points}
    checked = _checked(row)
    if isinstance(checked, str):
        raise click.UsageError(checked)
    note(_put(settings, Aws(settings), checked))


@definitions.command()
@click.argument("event_type")
@project_option
@click.pass_context
def remove(ctx: click.Context, event_type: str, project: str | None) -> None:
    """Give events of EVENT_TYPE no points any more; exits with 1 where there was no definition."""
    settings = settings_for(Purpose.TABLES)
    project_id = one_project(settings, project)
    answer = Aws(settings).dynamodb.delete_item(
        TableName=settings.definitions_table,
        Key={"EventType": {"S": event_type}, "PinpointProjectId": {"S": project_id}},
        ReturnValues="ALL_OLD",
    )
    if "Attributes" not in answer:
        note(f"there was no definition of {event_type} in project {project_id}")
        ctx.exit(FAILURE)
    note(f"removed {event_type} from project {project_id}")


@definitions.command(name="import")
@click.argument("file", type=click.File("rb"))
@project_option
@click.option("--dry-run", is_flag=True, help="Only check the file.")
def import_(file: BinaryIO, project: str | None, *, dry_run: bool) -> None:
    """Write the definitions in FILE: a JSON array, or one JSON object per line; `-` is standard input.

    An object has EventType, ScoreOffset and, unless --project is given, PinpointProjectId. Nothing is
    written unless every one is right. Definitions that FILE does not name stay as they are.
    """
    settings = settings_for(Purpose.TABLES)
    fallback = project or (settings.project_ids[0] if len(settings.project_ids) == 1 else None)
    wanted: dict[tuple[str, str], Definition] = {}
    faults: list[str] = []
    for number, row in enumerate(_parsed(file), 1):
        known = {"PinpointProjectId": fallback, **row} if fallback and isinstance(row, dict) else row
        checked = _checked(known)
        if isinstance(checked, str):
            faults.append(f"definition {number}: {checked}")
            continue
        key = (checked.event_type, checked.project_id)
        if key in wanted and wanted[key] != checked:
            faults.append(f"definition {number}: {checked.event_type} is there twice, with different points")
        wanted[key] = checked
    if faults:
        more = [f"... and {len(faults) - MAX_FAULTS_SHOWN} more"] if len(faults) > MAX_FAULTS_SHOWN else []
        raise UsageFailure(
            f"{_name(file)} is not usable, nothing was written", "\n  ".join(faults[:MAX_FAULTS_SHOWN] + more)
        )
    aws = Aws(settings)
    for definition in wanted.values():
        note(f"would set {_said(definition)}" if dry_run else _put(settings, aws, definition))


def _parsed(file: BinaryIO) -> list[Any]:
    data = file.read(MAX_FILE_BYTES + 1)
    if len(data) > MAX_FILE_BYTES:
        raise UsageFailure(f"{_name(file)} has more than {MAX_FILE_BYTES:,} bytes")
    try:
        if data.lstrip()[:1] == b"[":
            return _ARRAY.decode(data)
        return [_OBJECT.decode(line) for line in data.splitlines() if line.strip()]
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise UsageFailure(f"{_name(file)} is no JSON", str(error)) from None


_OBJECT: msgspec.json.Decoder[Any] = msgspec.json.Decoder(Any, float_hook=Decimal)
_ARRAY: msgspec.json.Decoder[list[Any]] = msgspec.json.Decoder(list[Any], float_hook=Decimal)


def _checked(row: object) -> Definition | str:
    """Return the definition that `row` is, or what is wrong with it."""
    if not isinstance(row, Mapping):
        return "is no object"
    event_type, project_id, points = (row.get(name) for name in ("EventType", "PinpointProjectId", "ScoreOffset"))
    if not isinstance(event_type, str) or not event_type:
        return "EventType is missing or no text"
    if not isinstance(project_id, str) or not project_id:
        return "PinpointProjectId is missing or no text: name it, or give --project"
    for fault in (id_fault("EventType", event_type), id_fault("PinpointProjectId", project_id, MAX_PROJECT_BYTES)):
        if isinstance(fault, Rejected):
            return fault.detail
    if isinstance(points, bool) or not isinstance(points, str | int | Decimal):
        return f"ScoreOffset of {event_type} is missing or no number"
    try:
        number = Decimal(points)
    except InvalidOperation:
        return f"ScoreOffset of {event_type} is no number: {points}"
    return points_fault(number) or Definition(event_type, project_id, number)


def _put(settings: Settings, aws: Aws, definition: Definition) -> str:
    """Write a definition; return what that changed."""
    answer = aws.dynamodb.put_item(
        TableName=settings.definitions_table,
        Item={
            "EventType": {"S": definition.event_type},
            "PinpointProjectId": {"S": definition.project_id},
            "ScoreOffset": {"N": f"{definition.points:f}"},
        },
        ReturnValues="ALL_OLD",
    )
    before = answer.get("Attributes", {}).get("ScoreOffset", {}).get("N")
    if before is None:
        return f"added {_said(definition)}"
    if Decimal(before) == definition.points:
        return f"unchanged: {_said(definition)}"
    return f"set {_said(definition)}, before: {before}"


def _said(definition: Definition) -> str:
    return f"{definition.event_type} = {definition.points:f} in project {definition.project_id}"


def _rows(settings: Settings, aws: Aws) -> Iterator[dict[str, Any]]:
    """Yield the table's rows under the table's own names; a malformed offset stays as the text it is."""
    pages: Sequence[Any] = aws.dynamodb.get_paginator("scan").paginate(TableName=settings.definitions_table)
    for page in pages:
        for item in page["Items"]:
            offset = item.get("ScoreOffset", {})
            yield {
                "EventType": item["EventType"]["S"],
                "PinpointProjectId": item["PinpointProjectId"]["S"],
                "ScoreOffset": Decimal(offset["N"]) if "N" in offset else str(next(iter(offset.values()), "missing")),
            }


def _name(file: BinaryIO) -> str:
    return str(getattr(file, "name", "standard input"))
