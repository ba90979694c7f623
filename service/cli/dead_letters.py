"""`scoring dead-letters`: shows events that were set aside, and retries them."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Sequence

import click

from service.admin.redrive import DONE, MAX_LETTERS, Account, Outcome, Redriver, Result, due
from service.aws.clients import clients
from service.aws.tables.dead_letters import NEW, REDRIVEN, REDRIVING, DeadLetterTable, StoredLetter
from service.aws.tables.scores import ScoreTable
from service.aws.tables.sources import SourceTable
from service.cli.context import aws_settings, run_async, settings_for
from service.cli.failures import FAILURE, Failure
from service.cli.interrupt import Interrupt
from service.cli.output import json_option, note, print_json, print_table, write, write_bytes, write_fields
from service.cli.params import Id
from service.cli.root import INTERRUPTED
from service.config.load import Purpose
from service.config.settings import Settings
from service.ingest.letters import split_letter_id
from service.observability.metrics import Metrics
from service.queries.letters import by_fault, described, find, payload, pointer
from service.runtime.text import iso
from service.scoring.event import Reason
from service.sources.registry import Registry
from service.sources.stored import OwnSources

STAGES = ("ingest", "commit", "publish")
MAX_LISTED = 100
MAX_NAMED = 20
"""Most unfinished letters that are listed one by one."""

_reason_option = click.option(
    "--reason", type=click.Choice([reason.value for reason in Reason]), help="Only letters with this reason."
)
_stage_option = click.option("--stage", type=click.Choice(STAGES), help="Only letters of this stage.")


@click.group(name="dead-letters")
def dead_letters() -> None:
    """Show events that were set aside, and retry them."""


@dead_letters.command(name="list")
@_reason_option
@_stage_option
@click.option("--state", type=click.Choice([NEW, REDRIVING, REDRIVEN]), help="Only letters in this state.")
@click.option("--limit", type=click.IntRange(1, MAX_LETTERS), default=MAX_LISTED, show_default=True, help="Most shown.")
@json_option
def list_(reason: str | None, stage: str | None, state: str | None, limit: int, *, as_json: bool) -> None:
    """Show dead letters, newest first, and how many of each reason are open."""
    settings = settings_for(Purpose.TABLES)
    found, complete = run_async(_find(settings, reason, stage))
    letters = [stored for stored in found if state in (None, stored.state)]
    letters.sort(key=lambda stored: stored.letter.at_ms, reverse=True)
    if as_json:
        print_json([described(stored) for stored in letters[:limit]])
    else:
        rows = [
            (each.letter.letter_id, iso(each.letter.at_ms), each.letter.stage, each.letter.reason.value, each.state)
            for each in letters[:limit]
        ]
        columns = ("Id", "Set aside", "Stage", "Reason", "State")
        print_table(columns, rows, "no dead letters", optional=("Set aside", "Stage"))
    for line in _counted(letters):
        note(line)
    if len(letters) > limit:
        note(f"{len(letters) - limit:,} more are not shown: raise --limit")
    if not complete:
        note(f"there are more than {MAX_LETTERS:,}: narrow it with --reason or --stage")


def _counted(letters: Sequence[StoredLetter]) -> list[str]:
    """Return how many letters of each reason are open, unfinished and redriven."""
    of = {state: [each for each in letters if each.state == state] for state in (NEW, REDRIVING, REDRIVEN)}
    lines = [f"open: {count:,} {stage} {reason}" for stage, reason, count in by_fault(of[NEW])]
    if of[REDRIVING]:
        lines.append(f"redrive unfinished: {len(of[REDRIVING]):,}")
    if of[REDRIVEN]:
        lines.append(f"redriven, kept until they expire: {len(of[REDRIVEN]):,}")
    return lines


@dead_letters.command()
@click.argument("letter_id", metavar="ID", type=Id("id"))
@click.option("--payload", "payload_only", is_flag=True, help="Write only the record, byte for byte.")
@json_option
def show(letter_id: str, *, payload_only: bool, as_json: bool) -> None:
    """Show one dead letter with its record, which may contain personal data."""
    settings = settings_for(Purpose.TABLES)
    try:
        split_letter_id(letter_id)
    except ValueError as error:
        raise click.UsageError(str(error)) from None
    stored = run_async(_get(settings, letter_id))
    if stored is None:
        raise Failure(
            f"there is no dead letter {letter_id} in table {settings.dead_letters_table}",
            remedy="`scoring dead-letters list` lists them; letters expire",
        )
    if payload_only:
        if not stored.payload_kept:
            raise Failure(
                "the record was too large to store",
                f"it is in {pointer(stored)} for as long as the stream keeps it",
            )
        write_bytes(stored.letter.payload)
        return
    shown = described(stored) | payload(stored)
    if as_json:
        print_json(shown)
        return
    for name, value in shown.items():
        write(f"{name + ':':<14} {value}")


@dead_letters.command()
@_reason_option
@_stage_option
@click.option("--id", "ids", metavar="ID", type=Id("id"), multiple=True, help="Only this letter; may be repeated.")
@click.option(
    "--stuck",
    is_flag=True,
    help="Also letters with an unfinished redrive. Their record may be on the stream already and would count twice.",
)
@click.option("--dry-run", is_flag=True, help="Only show what would be done.")
@click.option("--yes", is_flag=True, help="Do not ask for confirmation.")
@json_option
@click.pass_context
def redrive(
    ctx: click.Context,
    reason: str | None,
    stage: str | None,
    ids: Sequence[str],
    *,
    stuck: bool,
    dry_run: bool,
    yes: bool,
    as_json: bool,
) -> None:
    """Retry dead letters, and report the outcome of each.

    Records are put back on the stream unchanged. Scores that a sink refused are published again. If the stream's answer
    is lost, the letter stays unfinished: check whether the record is on the stream before you use --stuck. Ctrl-C
    starts no more letters and finishes those in flight; a second Ctrl-C leaves them unfinished.
    """
    settings = settings_for(Purpose.TABLES)
    found, complete = run_async(_find(settings, reason, stage))
    chosen = _chosen(found, frozenset(ids), stuck=stuck)
    if not complete:
        note(f"there are more than {MAX_LETTERS:,}: run the command again for the rest")
    for each_stage, each_reason, count in by_fault(chosen):
        where = "publish again" if each_stage == "publish" else "put back on the stream"
        note(f"{'would' if dry_run else 'to'} {where}: {count:,} {each_stage} {each_reason}")
    if not chosen:
        note("nothing to redrive")
    if dry_run or not chosen:
        if as_json:
            print_json([described(stored) for stored in chosen])
        return
    _confirm(len(chosen), yes=yes)
    account = Account()
    with Interrupt("what is in flight") as interrupt:
        try:
            run_async(_redrive(settings, chosen, account, interrupt, quiet=as_json))
        except KeyboardInterrupt:
            account.cut_off()
        finally:
            _summarize(account, len(chosen), as_json=as_json)
    if interrupt.asked:
        ctx.exit(INTERRUPTED)
    if {result.outcome for result in account.results} - DONE:
        ctx.exit(FAILURE)


def _summarize(account: Account, chosen: int, *, as_json: bool) -> None:
    account.cut_off()
    if as_json:
        print_json(account.results)
    counted = Counter(result.outcome.value for result in account.results)
    if chosen > len(account.results):
        counted["not begun"] = chosen - len(account.results)
    note(", ".join(f"{count:,} {outcome}" for outcome, count in counted.most_common()))
    half_way = [result.letter_id for result in account.results if result.outcome is Outcome.UNCERTAIN]
    if half_way:
        note(f"unfinished: {', '.join(half_way[:MAX_NAMED])}{' and others' if len(half_way) > MAX_NAMED else ''}")
        note("their records may or may not be on the stream: check before you use --stuck")


def _chosen(found: Sequence[StoredLetter], ids: frozenset[str], *, stuck: bool) -> list[StoredLetter]:
    missing = sorted(ids - {stored.letter.letter_id for stored in found})
    if missing:
        raise Failure(
            f"there are no dead letters {', '.join(missing)}", remedy="`scoring dead-letters list` lists them"
        )
    wanted = [stored for stored in found if not ids or stored.letter.letter_id in ids]
    half_way = sum(stored.state == REDRIVING for stored in wanted)
    if half_way and not stuck:
        note(f"the redrive of {half_way:,} is unfinished and may have died: --stuck includes them")
    return due(wanted, stuck=stuck)


def _confirm(count: int, *, yes: bool) -> None:
    if yes:
        return
    if sys.stdin is None or not sys.stdin.isatty():
        raise click.UsageError("not a terminal: add --yes, or use --dry-run to see what would be done")
    if not click.confirm(f"redrive {count:,} letters?", err=True):
        raise Failure("nothing was redriven")


async def _find(settings: Settings, reason: str | None, stage: str | None) -> tuple[list[StoredLetter], bool]:
    async with clients(aws_settings(settings)) as aws:
        table = DeadLetterTable(aws.dynamodb, settings.dead_letters_table)
        return await find(table, Reason(reason) if reason else None, stage or "", MAX_LETTERS)


async def _get(settings: Settings, letter_id: str) -> StoredLetter | None:
    async with clients(aws_settings(settings)) as aws:
        return await DeadLetterTable(aws.dynamodb, settings.dead_letters_table).get(letter_id)


async def _redrive(
    settings: Settings, letters: Sequence[StoredLetter], account: Account, interrupt: Interrupt, *, quiet: bool
) -> None:
    def report(result: Result) -> None:
        if not quiet:
            write_fields(result.letter_id, result.outcome.value, *([result.detail] if result.detail else []))

    def stream_of(name: str) -> str:
        return settings.stream if name == settings.stream_name else name

    async with clients(aws_settings(settings)) as aws, clients(aws_settings(settings, attempts=1)) as once:
        own = OwnSources().refreshed(await SourceTable(aws.dynamodb, settings.definitions_table).load())
        redriver = Redriver(
            DeadLetterTable(aws.dynamodb, settings.dead_letters_table),
            ScoreTable(aws.dynamodb, settings.scores_table, Metrics()),
            aws.kinesis,
            once.kinesis,
            Registry(own.sources, default_project=settings.default_project),
            stream_of,
        )
        await redriver.redrive(letters, account, report, lambda: interrupt.asked)
