"""`scoring rules`: what a score is beyond points per event type, from a file to the definitions table."""

from __future__ import annotations

import time
from collections.abc import Sequence
from decimal import Decimal
from typing import BinaryIO

import click
import msgspec

from service.admin.definitions import in_force_s, known_of, suspicions
from service.admin.rules import changes_of, init_file, line_of, next_row, shadowed, unable
from service.aws.clients import Clients, clients
from service.aws.tables.definitions import DefinitionTable
from service.aws.tables.leases import snapshot_of_all
from service.aws.tables.rules import RulesTable
from service.cli.context import aws_settings, name_of, one_project, run_async, settings_for
from service.cli.failures import FAILURE, Failure, UsageFailure
from service.cli.impact import show_impact
from service.cli.output import json_option, note, number_of, print_json, print_table, write, write_bytes
from service.cli.params import PROJECT
from service.config.load import Purpose
from service.config.settings import Settings
from service.queries.streams import INGEST
from service.runtime.text import iso
from service.scoring.definitions import Definition, Malformed
from service.scoring.rules.cases import Case, Failed, load_cases, run_case, unknown_types
from service.scoring.rules.load import RulesFile, load_rules
from service.scoring.rules.model import RuleSet
from service.scoring.rules.plan import Kind, Plan, Step
from service.scoring.rules.plan import plan as plan_of
from service.scoring.rules.stored import RulesRow, StoredRulesError, decode_rules, unpack_history
from service.scoring.yaml_nodes import MAX_FILE_BYTES, Problem

MAX_SHOWN = 50
"""Most problems, and most failed expectations, that are listed."""

file_argument = click.argument("file", type=click.File("rb"))
project_option = click.option(
    "--project", metavar="ID", type=PROJECT, help="The project; not needed where SCORING_PROJECT_IDS names just one."
)
retroactive_option = click.option(
    "--retroactive", is_flag=True, help="Changed prices and groups also concern what was counted before."
)


class _Stored(msgspec.Struct, frozen=True):
    """What the table holds for a project: the row and the rules in it, and all definitions."""

    row: RulesRow | None
    rules: RuleSet | None
    definitions: Sequence[Definition | Malformed]


@click.group()
def rules() -> None:
    """Check, try and apply rules files: decay, caps, tiers, suppression; workers follow within seconds."""


@rules.command()
@file_argument
@json_option
@click.pass_context
def validate(ctx: click.Context, file: BinaryIO, *, as_json: bool) -> None:
    """Check FILE; `-` is standard input. Needs no AWS. Exits with 1 where anything is wrong."""
    found, problems = load_rules(_text(file), name_of(file))
    if as_json:
        print_json([{"line": each.line, "path": each.path, "problem": each.what} for each in problems])
    else:
        _list_problems(problems)
    if found is None:
        note(f"{name_of(file)}: {number_of(len(problems), 'problem')}")
        ctx.exit(FAILURE)
    note(f"{name_of(file)} is right: {number_of(len(found.rules) + len(found.idles), 'rule')}")


@rules.command()
@file_argument
@click.argument("cases", type=click.File("rb"))
@json_option
@click.pass_context
def test(ctx: click.Context, file: BinaryIO, cases: BinaryIO, *, as_json: bool) -> None:
    """Play the events in CASES against the rules in FILE. Needs no AWS. Exits with 1 where anything differs."""
    made = plan_of(None, _loaded(file), retroactive=False).rules
    found, problems = load_cases(_text(cases), name_of(cases))
    if problems or made is None:
        _list_problems(problems)
        raise UsageFailure(f"{name_of(cases)} is not usable: {number_of(len(problems), 'problem')}")
    for event_type in unknown_types(made, found):
        note(f"no rule names the event type {event_type}")
    failed = [each for case in found for each in run_case(made, case)]
    if as_json:
        print_json([_failed_json(each) for each in failed])
    else:
        for each in failed[:MAX_SHOWN]:
            _show_failed(each, name_of(cases))
    note(_verdict(found, failed))
    if failed:
        ctx.exit(FAILURE)


def _verdict(cases: Sequence[Case], failed: Sequence[Failed]) -> str:
    wrong = len({each.case for each in failed})
    return f"{number_of(len(cases), 'case')}: {len(cases) - wrong} as expected, {wrong} not"


def _show_failed(failed: Failed, called: str) -> None:
    for difference in failed.differences:
        write(f"{called}:{failed.expected.line}: {failed.case}: at {failed.expected.written} {difference}")
    for part in failed.explanation.contributions:
        write(f"    {part.rule_id}: {part.count:f} in {part.group} = {part.points:f}")


def _failed_json(failed: Failed) -> dict[str, object]:
    return {
        "case": failed.case,
        "line": failed.expected.line,
        "at": failed.expected.written,
        "differences": failed.differences,
        "contributions": failed.explanation.contributions,
    }


@rules.command()
@project_option
def init(project: str | None) -> None:
    """Write a commented rules file to standard output, made of the project's definitions."""
    settings = settings_for(Purpose.TABLES)
    project_id = one_project(settings, project)
    stored = run_async(_stored(settings, project_id))
    own = [each for each in stored.definitions if isinstance(each, Definition) and each.project_id == project_id]
    if stored.row is not None:
        note(f"project {project_id} has rules already: `scoring rules export` writes them")
    if not own:
        raise Failure(
            f"project {project_id} has no definitions",
            remedy=f"write the defaults: scoring setup --project {project_id}",
        )
    write_bytes(init_file(project_id, own).encode())


@rules.command()
@file_argument
@retroactive_option
@click.option("--impact", is_flag=True, help="Scan the scores, and show who changes tier and how far scores move.")
@json_option
def plan(file: BinaryIO, *, retroactive: bool, impact: bool, as_json: bool) -> None:
    """Show what applying FILE would change; writes nothing."""
    loaded = _loaded(file)
    settings = settings_for(Purpose.TABLES)
    stored = run_async(_stored(settings, loaded.project_id))
    made = plan_of(stored.rules, loaded, retroactive=retroactive)
    changes = changes_of(made, stored.rules, loaded)
    if not (impact and as_json):
        _show_changes(changes, as_json=as_json)
    if impact and made.rules is not None:
        show_impact(settings, stored.rules, made.rules, as_json=as_json)
    _note_shadowed(made.rules, stored)
    if made.refused:
        raise Failure("these rules cannot be applied", made.refused)


@rules.command()
@file_argument
@click.pass_context
@json_option
def drift(ctx: click.Context, file: BinaryIO, *, as_json: bool) -> None:
    """Show how FILE differs from the rules in force; exits with 1 where it does."""
    loaded = _loaded(file)
    settings = settings_for(Purpose.TABLES)
    stored = run_async(_stored(settings, loaded.project_id))
    changes = changes_of(plan_of(stored.rules, loaded, retroactive=False), stored.rules, loaded)
    _show_changes(changes, as_json=as_json)
    if changes:
        ctx.exit(FAILURE)


@rules.command()
@file_argument
@retroactive_option
@click.option("--anyway", is_flag=True, help="Apply also what looks like a typing error.")
def apply(file: BinaryIO, *, retroactive: bool, anyway: bool) -> None:
    """Put the rules in FILE in force for its project.

    Refused while workers run that cannot score by rules. Without --retroactive, what was counted keeps its price.
    """
    text = _text(file)
    loaded = _loaded(file, text)
    run_async(_apply(settings_for(Purpose.TABLES), loaded, text, retroactive=retroactive, anyway=anyway))


@rules.command()
@project_option
@json_option
def history(project: str | None, *, as_json: bool) -> None:
    """Show the versions of a project's rules and what each changed, the newest first."""
    settings = settings_for(Purpose.TABLES)
    stored = run_async(_stored(settings, one_project(settings, project)))
    versions = unpack_history(stored.row.history)[::-1] if stored.row is not None else ()
    if as_json:
        print_json([{**msgspec.structs.asdict(each), "at": iso(each.at_ms)} for each in versions])
        return
    print_table(
        ("Version", "Applied", "Changes"),
        [
            (
                each.version,
                iso(each.at_ms),
                ("retroactively: " if each.retroactive else "") + ("; ".join(each.steps) or "nothing"),
            )
            for each in versions
        ],
        "this project has no rules",
    )


@rules.command()
@project_option
@click.option("--version", "number", type=click.IntRange(1), help="An earlier version; without it, the one in force.")
def export(project: str | None, number: int | None) -> None:
    """Write the rules file in force to standard output, as it was applied."""
    settings = settings_for(Purpose.TABLES)
    project_id = one_project(settings, project)
    stored = run_async(_stored(settings, project_id))
    if stored.row is None:
        raise Failure(f"project {project_id} has no rules", remedy="scoring rules init writes a file to begin with")
    wanted = number or stored.row.version
    kept = {each.version: each for each in unpack_history(stored.row.history)}
    if wanted not in kept:
        known = f"kept are versions {min(kept)} to {max(kept)}" if kept else "the row keeps no version"
        raise Failure(f"version {wanted} is not kept", known)
    write_bytes(kept[wanted].file.encode())


def _text(file: BinaryIO) -> bytes:
    return file.read(MAX_FILE_BYTES + 1)


def _loaded(file: BinaryIO, text: bytes | None = None) -> RulesFile:
    found, problems = load_rules(_text(file) if text is None else text, name_of(file))
    if found is None:
        _list_problems(problems)
        raise UsageFailure(f"{name_of(file)} is not usable: {number_of(len(problems), 'problem')}")
    return found


def _list_problems(problems: Sequence[Problem]) -> None:
    for problem in problems[:MAX_SHOWN]:
        write(f"{problem}")
    if len(problems) > MAX_SHOWN:
        write(f"... and {len(problems) - MAX_SHOWN} more")


def _show_changes(changes: Sequence[Step], *, as_json: bool) -> None:
    if as_json:
        print_json([{"name": s.rule_id, "change": s.kind.value, "slot": s.slot, "why": s.why} for s in changes])
        return
    print_table(
        ("Rule", "Change", "Slot", "What differs"),
        [(s.rule_id, s.kind.value, "" if s.slot < 0 else s.slot, ", ".join(s.why)) for s in changes],
        "nothing differs from the rules in force",
    )


def _note_shadowed(made: RuleSet | None, stored: _Stored) -> None:
    own = [each for each in stored.definitions if isinstance(each, Definition)]
    if made is not None and (types := shadowed(made, own)):
        note(
            f"{number_of(len(types), 'definition')} no longer count, because rules name the event types: "
            f"{', '.join(types[:5])}{', ...' if len(types) > 5 else ''}"  # noqa: PLR2004 - enough to recognise them
        )


async def _stored(settings: Settings, project_id: str) -> _Stored:
    async with clients(aws_settings(settings)) as aws:
        return await _read(aws, settings, project_id)


async def _read(aws: Clients, settings: Settings, project_id: str) -> _Stored:
    definitions = await DefinitionTable(aws.dynamodb, settings.definitions_table).definitions()
    found = await RulesTable(aws.dynamodb, settings.definitions_table).load()
    row = next((each for each in found if each.project_id == project_id), None)
    if isinstance(row, Malformed):
        raise Failure(f"the rules of project {project_id} in the table cannot be used", row.detail)
    if row is None:
        return _Stored(None, None, definitions)
    try:
        return _Stored(row, decode_rules(project_id, row.text), definitions)
    except StoredRulesError as error:
        raise Failure(
            f"the rules of project {project_id} in the table cannot be used",
            str(error),
            "use the version of this program that applied them",
        ) from None


async def _apply(settings: Settings, loaded: RulesFile, text: bytes, *, retroactive: bool, anyway: bool) -> None:
    async with clients(aws_settings(settings)) as aws:
        stored = await _read(aws, settings, loaded.project_id)
        made = plan_of(stored.rules, loaded, retroactive=retroactive)
        if made.rules is None:
            raise Failure("these rules cannot be applied, nothing was written", made.refused)
        changes = changes_of(made, stored.rules, loaded)
        if not changes:
            note("nothing differs from the rules in force; nothing was written")
            return
        _refuse_suspicious(loaded, stored, settings, anyway=anyway)
        now_ms = time.time_ns() // 1_000_000
        if old := unable(await snapshot_of_all(aws.dynamodb, settings.leases_table, INGEST), now_ms):
            raise Failure(
                f"{number_of(len(old), 'worker')} would score without these rules, nothing was written",
                f"running, but of a version without rules: {', '.join(old[:5])}",
                "update or stop them first; one that was killed counts as gone 10 minutes after its last heartbeat",
            )
        await _write(aws, settings, stored, made, changes, text, now_ms, retroactive=retroactive)
        _note_shadowed(made.rules, stored)


async def _write(
    aws: Clients,
    settings: Settings,
    stored: _Stored,
    made: Plan,
    changes: Sequence[Step],
    text: bytes,
    now_ms: int,
    *,
    retroactive: bool,
) -> None:
    if made.rules is None:
        return
    file = text.decode("utf-8-sig")
    row = next_row(stored.row, made.rules, changes, file, now_ms, retroactive=retroactive)
    if not await RulesTable(aws.dynamodb, settings.definitions_table).replace(row):
        raise Failure(
            "somebody else applied rules to this project at the same time, nothing was written",
            remedy="look at `scoring rules history`, then plan and apply again",
        )
    for step in changes:
        note(line_of(step))
    seconds = in_force_s(settings.definitions_refresh_s)
    note(f"version {row.version} of the rules of project {row.project_id} is in force within {seconds:g} s")
    if any(step.kind in (Kind.REPRICED, Kind.WITHDRAWN, Kind.SETTING) for step in changes):
        note("what is published of people without events follows with the daily sweep, or at once with `scoring sweep`")


def _refuse_suspicious(loaded: RulesFile, stored: _Stored, settings: Settings, *, anyway: bool) -> None:
    known = known_of(stored.definitions, settings.project_ids)
    types = dict.fromkeys(each for rule in loaded.rules for each in rule.on)
    if stored.rules is not None:
        types = dict.fromkeys(each for each in types if each not in stored.rules.by_type)
    found = list(
        dict.fromkeys(
            text for each in types for text in suspicions(Definition(each, loaded.project_id, Decimal(0)), known)
        )
    )
    if found and anyway:
        note("\n".join(found))
    elif found:
        raise UsageFailure(
            "this looks like a typing error, nothing was written", "\n  ".join(found), "--anyway applies it"
        )
