"""`scoring sources`: how events that are not Pinpoint's are read; a user's own sources, checked, tried and applied."""

from __future__ import annotations

from typing import BinaryIO

import click

from service.admin.definitions import in_force_s
from service.admin.dry_run import Points, lines_of
from service.aws.clients import clients
from service.aws.tables.definitions import DefinitionTable
from service.aws.tables.sources import SourceTable
from service.cli.context import aws_settings, name_of, run_async, settings_for
from service.cli.failures import FAILURE, Failure, UsageFailure
from service.cli.output import json_option, note, number_of, print_json, print_table, write, write_bytes
from service.config.load import Purpose
from service.config.settings import Settings
from service.scoring.definitions import DefinitionBook
from service.scoring.yaml_nodes import MAX_FILE_BYTES
from service.sources.explain import Kind
from service.sources.load import Loaded, load_sources
from service.sources.mapping import Source
from service.sources.registry import BUILTIN_NAMES, PINPOINT, Registry, builtin_text
from service.sources.stored import OwnSources, SourceRow

MAX_SHOWN = 50

file_argument = click.argument("file", type=click.File("rb"))


@click.group()
def sources() -> None:
    """Check, try and apply sources: how events of your own are read; workers follow within seconds."""


@sources.command(name="list")
@json_option
def list_(*, as_json: bool) -> None:
    """Show the sources in the order in which they are asked: your own first, then the built-in ones."""
    own = run_async(deployed_sources(settings_for(Purpose.TABLES)))
    faults = {each.name: each.why for each in own.faulty}
    names = [row.name for row in own.rows]
    rows = [(name, "own", faults.get(name, "")) for name in names]
    rows += [(name, "built in", "") for name in BUILTIN_NAMES]
    if as_json:
        print_json([{"name": name, "kind": kind, "fault": fault} for name, kind, fault in rows])
    else:
        print_table(("Source", "Kind", "Fault"), rows, "no sources")


@sources.command()
@click.argument("name")
def show(name: str) -> None:
    """Write the file of one source, built-in or your own."""
    if name == PINPOINT:
        raise Failure("pinpoint has a decoder instead of a file", remedy="deploy/docs/sources.md says what it reads")
    text = builtin_text(name)
    if text is None:
        own = run_async(deployed_sources(settings_for(Purpose.TABLES)))
        text = next((row.text for row in own.rows if row.name == name), None)
    if text is None:
        raise Failure(f"there is no source {name}", remedy="`scoring sources list` shows them")
    write_bytes(text.encode())


@sources.command()
@file_argument
@json_option
@click.pass_context
def validate(ctx: click.Context, file: BinaryIO, *, as_json: bool) -> None:
    """Check FILE; `-` is standard input. Needs no AWS. Exits with 1 where anything is wrong."""
    loaded = load_sources(_content(file), name_of(file), BUILTIN_NAMES)
    if as_json:
        print_json([{"line": each.line, "path": each.path, "problem": each.what} for each in loaded.problems])
    else:
        for problem in loaded.problems[:MAX_SHOWN]:
            write(str(problem))
    if loaded.problems:
        note(f"{name_of(file)}: {number_of(len(loaded.problems), 'problem')}")
        ctx.exit(FAILURE)
    note(f"{name_of(file)} is right: {number_of(len(loaded.specs), 'source')}")


@sources.command()
@file_argument
@click.argument("records", type=click.File("rb"))
@json_option
@click.pass_context
def test(ctx: click.Context, file: BinaryIO, records: BinaryIO, *, as_json: bool) -> None:
    """Show which of the RECORDS the sources in FILE recognise, and as what. Needs no AWS.

    RECORDS has one record per line. Exits with 1 where a record is not recognised by FILE, or would be a dead letter.
    """
    own = [Source(spec) for spec in loaded_file(file).specs]
    names = {source.name for source in own}
    registry = Registry(own, default_project=settings_for(Purpose.LOCAL).default_project)
    try:
        lines = list(lines_of(records, registry, lambda _type, _project: None))
    except ValueError as error:
        raise Failure(f"{name_of(records)}: {error}", remedy="give lines of JSON, one record per line") from None
    wrong = [line for line in lines if line.row.kind is Kind.REJECTED or line.row.source not in names]
    if as_json:
        print_json([{"record": line.record, "outcome": line.row} for line in lines])
    else:
        rows = [
            (each.record, each.row.kind.value, each.row.source, each.row.event_type, each.row.person, each.row.detail)
            for each in lines
        ]
        print_table(("Record", "What", "Source", "Type", "Person", "Why not"), rows, "no records")
    note(f"{number_of(len(lines), 'event')}: {len(lines) - len(wrong):,} recognised by {name_of(file)}")
    if wrong:
        ctx.exit(FAILURE)


@sources.command()
@file_argument
@json_option
def apply(file: BinaryIO, *, as_json: bool) -> None:
    """Put the sources in FILE into force; others stay as they are. Nothing is written where anything is wrong."""
    settings = settings_for(Purpose.TABLES)
    loaded = loaded_file(file)
    rows = [SourceRow(spec.name, spec.text, position) for position, spec in enumerate(loaded.specs)]
    existing = run_async(_put(settings, rows))
    if as_json:
        print_json([{"name": row.name, "replaced": old} for row, old in zip(rows, existing, strict=True)])
    else:
        for row, old in zip(rows, existing, strict=True):
            write(f"{row.name}: {'replaced' if old else 'new'}")
    note(f"workers follow within {in_force_s(settings.definitions_refresh_s):g} s")
    note("events that came before are dead letters: `scoring dead-letters redrive --reason unknown_format`")


@sources.command()
@click.argument("name")
def remove(name: str) -> None:
    """Take a source of your own out of force. Its events are dead letters from then on, unless another reads them."""
    settings = settings_for(Purpose.TABLES)
    if not run_async(_remove(settings, name)):
        raise Failure(f"there is no source {name} of your own", remedy="`scoring sources list` shows them")
    note(f"{name} is removed; workers follow within {in_force_s(settings.definitions_refresh_s):g} s")


def loaded_file(file: BinaryIO) -> Loaded:
    """Return the sources in a file.

    Raises:
        UsageFailure: Anything in it is wrong; every fault has been written.
    """
    loaded = load_sources(_content(file), name_of(file), BUILTIN_NAMES)
    for problem in loaded.problems[:MAX_SHOWN]:
        note(str(problem))
    if loaded.problems:
        raise UsageFailure(f"{name_of(file)} is not usable: {number_of(len(loaded.problems), 'problem')}")
    return loaded


def _content(file: BinaryIO) -> bytes:
    return file.read(MAX_FILE_BYTES + 1)


class Deployed(OwnSources, frozen=True):
    """The user's sources in the table, and their rows in the order in which they are asked."""

    rows: tuple[SourceRow, ...] = ()


async def deployed_sources(settings: Settings) -> Deployed:
    """Return the sources in the definitions table."""
    async with clients(aws_settings(settings)) as aws:
        rows = await SourceTable(aws.dynamodb, settings.definitions_table).load(consistent=True)
    own = OwnSources().refreshed(rows)
    ordered = tuple(sorted(rows, key=lambda row: (row.position, row.name)))
    return Deployed(own.by_name, own.sources, own.faulty, ordered)


async def deployed_points(settings: Settings) -> Points:
    """Return what events are worth by the definitions table."""
    async with clients(aws_settings(settings)) as aws:
        rows = await DefinitionTable(aws.dynamodb, settings.definitions_table).load(consistent=True)
    return DefinitionBook().refreshed(rows).points


async def _put(settings: Settings, rows: list[SourceRow]) -> list[bool]:
    async with clients(aws_settings(settings)) as aws:
        table = SourceTable(aws.dynamodb, settings.definitions_table)
        return [await table.put(row) for row in rows]


async def _remove(settings: Settings, name: str) -> bool:
    async with clients(aws_settings(settings)) as aws:
        return await SourceTable(aws.dynamodb, settings.definitions_table).remove(name)
