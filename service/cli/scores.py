"""`scoring scores`: a user's scores, why they are what they are, and changing them by hand."""

from __future__ import annotations

import time
import uuid
from datetime import UTC, datetime
from itertools import compress

import click

from service.admin.adjust import adjustment_event
from service.admin.definitions import points_of
from service.aws.clients import clients
from service.aws.streams.writer import MAX_KEY_CHARACTERS, KinesisWriter, Put
from service.cli.context import aws_settings, one_project, run_async, settings_for
from service.cli.failures import FAILURE, Failure
from service.cli.output import json_option, note, print_json, print_table, write
from service.cli.params import PROJECT, Id
from service.config.load import Purpose
from service.config.settings import Settings
from service.queries.explain import ScoreExplanation, explain_score, rules_in_force
from service.queries.scores import StoredScore, scores_of
from service.runtime.errors import TransientError
from service.runtime.text import iso
from service.scoring.definitions import points_fault
from service.scoring.fold import UserKey
from service.scoring.rules.decay import DAY_MS
from service.scoring.rules.evaluate import MAX_AMOUNT

project_option = click.option(
    "--project", metavar="ID", type=PROJECT, help="The project; not needed where SCORING_PROJECT_IDS names just one."
)


@click.group()
def scores() -> None:
    """Look up scores, explain them, and change them by hand."""


@scores.command()
@click.argument("user", type=Id("user"))
@click.option("--project", metavar="ID", type=PROJECT, help="Only the score in this project.")
@json_option
@click.pass_context
def get(ctx: click.Context, user: str, project: str | None, *, as_json: bool) -> None:
    """Show the scores of USER, one per project.

    If the project has rules, the score is what they show now. Sinks have the score that was stored last.
    Exits with 1 if there is none.
    """
    settings = settings_for(Purpose.TABLES)
    found = run_async(_read(settings, user, project or ""))
    if as_json:
        print_json([_described(score) for score in found])
    elif found:
        rows = [
            (
                score.project_id,
                score.score if score.now is None else score.now,
                score.tier_now,
                "not ours" if score.revision is None else score.revision,
                iso(score.updated_ms),
                score.fault,
            )
            for score in found
        ]
        columns = ("Project", "Score", "Tier", "Revision", "Newest event", "Fault")
        shows = [True, True, any(score.tier_now for score in found), True, True, any(score.fault for score in found)]
        print_table(list(compress(columns, shows)), [list(compress(row, shows)) for row in rows], empty="")
    if not found:
        where = f" for project {project}" if project else ""
        note(f"this user has no score{where} in table {settings.scores_table}")
        ctx.exit(FAILURE)


async def _read(settings: Settings, user_id: str, project_id: str) -> list[StoredScore]:
    async with clients(aws_settings(settings)) as aws:
        rules = await rules_in_force(aws, settings)
        return await scores_of(aws.dynamodb, settings.scores_table, user_id, project_id, rules, _today())


def _described(score: StoredScore) -> dict[str, object]:
    return {
        "user_id": score.user_id,
        "project_id": score.project_id,
        "score": score.score if score.now is None else score.now,
        **(
            {"stored_score": score.score, "tier": score.tier_now, "stored_as_of": iso(score.as_of_ms)}
            if score.now is not None
            else {}
        ),
        "revision": score.revision,
        "updated_at": iso(score.updated_ms),
        "applied": score.applied,
        **({"fault": score.fault} if score.fault else {}),
    }


@scores.command(name="explain")
@click.argument("user", type=Id("user"))
@project_option
@click.option("--at", "moment", metavar="TIME", help="As it is at that time, such as 2026-12-31; later than now too.")
@json_option
@click.pass_context
def explain_(ctx: click.Context, user: str, project: str | None, moment: str | None, *, as_json: bool) -> None:
    """Say why the score of USER is what it is: what each rule gives, bounds, caps, tier, newest events.

    Needs a project with rules. Exits with 1 where there is no score.
    """
    settings = settings_for(Purpose.TABLES)
    project_id = one_project(settings, project)
    day = _today() if moment is None else _day(moment)

    async def read() -> ScoreExplanation | None:
        async with clients(aws_settings(settings)) as aws:
            return await explain_score(aws, settings, UserKey(user, project_id), day)

    found = run_async(read())
    if found is None:
        note(f"this user has no score for project {project_id} in table {settings.scores_table}")
        ctx.exit(FAILURE)
    elif as_json:
        print_json(found)
    else:
        _show(found)


def _show(found: ScoreExplanation) -> None:
    print_table(
        ("Rule", "Group", "Counts", "Points", "Active"),
        [
            (each.rule_id, each.group, each.count, each.points, "yes" if each.active else "no")
            for each in found.contributions
        ],
        "no event of this person met a rule",
        right=("Counts", "Points"),
    )
    for group in found.groups:
        if group.suppressed_ms:
            write(f"group {group.name}: 0, suppressed since {iso(group.suppressed_ms)}; else {group.unclamped:f}")
        elif group.score != group.unclamped:
            write(f"group {group.name}: {group.score:f}, bounded; else {group.unclamped:f}")
        else:
            write(f"group {group.name}: {group.score:f}")
    bounded = f", bounded; else {found.unclamped:f}" if found.score != found.unclamped else ""
    write(f"score on {iso(found.day_ms)[:10]}: {found.score:f}{bounded}")
    write(_tier_line(found))
    for cap in found.caps:
        write(
            f"cap of {cap.rule_id}: {cap.used:f} of {cap.limit:f} this {cap.window}{', reached' if cap.reached else ''}"
        )
    for event in found.last:
        write(f"event {iso(event.at_ms)}: {event.rule_id}")
    if found.evictions:
        write(f"once: {found.remembered} remembered, {found.evictions} forgotten to save room")
    if found.published != found.score:
        write(f"sinks have {found.published:f}, as of {iso(found.published_day_ms)[:10]}")


def _yes(active: bool) -> str:  # noqa: FBT001 - a fact, not a switch
    return "yes" if active else "no"


def _tier_line(found: ScoreExplanation) -> str:
    since = f" since {iso(found.tier_since_ms)[:10]}" if found.tier_since_ms else ""
    falls = f", without events {found.falls_to or 'none'} from {iso(found.falls_ms)[:10]} on" if found.falls_ms else ""
    return f"tier: {found.tier or 'none'}{since}{falls}"


@scores.command(context_settings={"ignore_unknown_options": True})
@click.argument("user", type=Id("user"))
@click.argument("points")
@click.option("--reason", required=True, help="Why; it stays in the event.")
@project_option
@click.option("--id", "adjustment_id", metavar="ID", help="Of this adjustment: what is sent again counts once.")
def adjust(user: str, points: str, reason: str, project: str | None, adjustment_id: str | None) -> None:
    """Add POINTS, which may be negative, to the score of USER, by an event on the stream.

    They do not fade. Where the project has rules, the same --id counts once, however often it is sent.
    """
    number = points_of(points)
    if number is None or points_fault(number) is not None or number.copy_abs() > MAX_AMOUNT:
        raise click.UsageError(f"{points!r}: a number of at most 9 decimals, up to {MAX_AMOUNT:,f}, is expected")
    settings = settings_for(Purpose.STREAM)
    project_id = one_project(settings, project)
    chosen = adjustment_id or uuid.uuid4().hex
    data = adjustment_event(user, project_id, number, reason, chosen, time.time_ns() // 1_000_000)

    async def send() -> None:
        async with clients(aws_settings(settings, attempts=1)) as aws:
            await KinesisWriter(aws.kinesis, settings.stream).put([Put(user[:MAX_KEY_CHARACTERS], data)])

    try:
        run_async(send())
    except TransientError as error:
        if error.undone:
            raise
        raise Failure(
            "it is not known whether the adjustment is on the stream", f"{error}", f"send it again with --id {chosen}"
        ) from error
    note(f"sent {number:f} points for {user} in project {project_id}: adjustment {chosen}")


def _today() -> int:
    return time.time_ns() // 1_000_000 // DAY_MS


def _day(written: str) -> int:
    try:
        moment = datetime.fromisoformat(written)
    except ValueError:
        raise click.UsageError(f"--at {written!r}: write a day or a time, such as 2026-12-31T12:00:00Z") from None
    moment = moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)
    return round(moment.timestamp() * 1000) // DAY_MS
