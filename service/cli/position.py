"""`scoring position`: changes where reading continues.

Prints a plan; changes something only with `--execute`, and only while no worker reads.
"""

from __future__ import annotations

import time

import click

from service.admin.position import Move, Reset, confirm, rereading
from service.aws.clients import clients
from service.aws.streams.kinesis import KinesisSource
from service.aws.tables.leases import LeaseTable
from service.cli.context import aws_settings, run_async, settings_for
from service.cli.failures import UsageFailure
from service.cli.output import json_option, note, number_of, print_json, print_table
from service.cli.params import Id
from service.config.load import TO_COME, Purpose
from service.config.settings import Settings, epoch_ms
from service.queries.streams import INGEST, PUBLISH
from service.runtime.text import iso
from service.stream.position import LATEST, TRIM_HORIZON, Position, at_timestamp, timestamp_of

ACCEPT = "--yes-definitions-changed"
UNEQUAL = (
    "an event that did not count then (no definition, no known user, another project) counts now, but only for users "
    "whose score contains no later event of the same shard"
)
BACK = {
    INGEST: f"going back: what a score contains is not counted again; {UNEQUAL}",
    PUBLISH: "going back: older scores are published first and the newest last; "
    "for changes that the stream no longer has, use `scoring reconcile`",
}
RECOUNTED = f"going back before the take-over from kinesis-python counts again what it had counted; {UNEQUAL}"
FORWARD = "going forward: skipped records are never counted"


@click.group()
def position() -> None:
    """Change where reading continues."""


@position.command()
@click.option("--to-earliest", is_flag=True, help="Read everything that the stream still has.")
@click.option("--to-latest", is_flag=True, help="Skip existing records; read only new ones.")
@click.option("--to-time", metavar="TIME", help="Read what arrived at or after this time, e.g. 2026-01-31T12:00:00Z.")
@click.option("--shard", metavar="ID", type=Id("shard"), help="Only this shard.")
@click.option(
    "--pipeline", type=click.Choice([INGEST, PUBLISH]), default=INGEST, show_default=True, help="Whose position."
)
@click.option(
    "--recount", is_flag=True, help="Go back even before a take-over from kinesis-python; that counts events twice."
)
@click.option(
    ACCEPT,
    is_flag=True,
    help="Read events again even if definitions, projects or users have changed: what did not count then may count "
    "now, for some people and not for others.",
)
@click.option("--execute", is_flag=True, help="Apply the plan; without this it is only shown.")
@json_option
def reset(
    *,
    to_earliest: bool,
    to_latest: bool,
    to_time: str | None,
    shard: str | None,
    pipeline: str,
    recount: bool,
    yes_definitions_changed: bool,
    execute: bool,
    as_json: bool,
) -> None:
    """Continue reading at another position. Stop the workers first."""
    to = _target(earliest=to_earliest, latest=to_latest, moment=to_time, pipeline=pipeline)
    settings = settings_for(Purpose.STREAM if pipeline == INGEST else Purpose.TABLES)
    accepted = to_latest or pipeline == PUBLISH or yes_definitions_changed
    moves = run_async(
        _reset(
            settings,
            pipeline,
            to,
            shard or "",
            finished=not to_latest,
            recount=recount,
            execute=execute,
            accepted=accepted,
        )
    )
    if as_json:
        print_json(moves)
    else:
        rows = [(move.shard, shown(move.now) or "new", shown(move.then), move.remark) for move in moves]
        print_table(("Shard", "Now", "Then", "Remark"), rows, "there is nothing to move")
    if not to_latest:
        note(RECOUNTED if recount else BACK[pipeline])
    if to != TRIM_HORIZON:
        note(FORWARD)
    if moves and execute:
        note(f"moved {number_of(len(moves), 'shard')}")
    elif moves:
        needed = "" if accepted or not rereading(moves) else f" with {ACCEPT}"
        note(f"this is only the plan; --execute{needed} applies it")


@position.command(name="confirm")
def confirm_positions() -> None:
    """Keep the positions, although they belong to another score table.

    For a score table that contains every score of the former one. A table restored from a backup does not: use
    `position reset --to-time`. Workers may run meanwhile.
    """
    before = run_async(_confirm(settings_for(Purpose.STREAM)))
    note(f"the positions belonged to {before}; they now belong to the table in use" if before else "nothing to confirm")


async def _confirm(settings: Settings) -> str:
    async with clients(aws_settings(settings)) as aws:
        source = await KinesisSource.open(aws.kinesis, settings.stream)
        return await confirm(LeaseTable(aws.dynamodb, settings.leases_table, INGEST, source.stream))


async def _reset(
    settings: Settings,
    pipeline: str,
    to: Position,
    shard: str,
    *,
    finished: bool,
    recount: bool,
    execute: bool,
    accepted: bool,
) -> list[Move]:
    async with clients(aws_settings(settings)) as aws:
        reset = Reset(aws, settings, pipeline, note)
        view, moves = await reset.plan(to, shard, finished=finished, recount=recount)
        if execute and moves:
            again = rereading(moves)
            if again and not accepted:
                raise UsageFailure(
                    f"{number_of(len(again), 'shard')} would be read again; nothing was moved",
                    UNEQUAL,
                    f"if definitions, projects and users have not changed, no score changes; add {ACCEPT} to proceed",
                )
            await reset.execute(view, moves, whole=not shard)
        return moves


def _target(*, earliest: bool, latest: bool, moment: str | None, pipeline: str) -> Position:
    if earliest + latest + (moment is not None) != 1:
        raise click.UsageError("give exactly one of --to-earliest, --to-latest, --to-time")
    if earliest:
        return TRIM_HORIZON
    if moment is None:
        # LATEST would name a different record each time a worker used it before its first checkpoint.
        return LATEST if pipeline == PUBLISH else at_timestamp(_now_ms())
    if pipeline == PUBLISH:
        raise click.UsageError("the stream of a table cannot be read from a time: give --to-earliest or --to-latest")
    try:
        since = epoch_ms(moment)
    except ValueError as error:
        raise click.BadParameter(f"{moment!r} {error}", param_hint="--to-time") from None
    if since > _now_ms():
        raise click.BadParameter(f"{moment!r} {': '.join(TO_COME)}", param_hint="--to-time")
    return at_timestamp(since)


def shown(position: Position) -> str:
    """Return a position for display: a time instead of its epoch milliseconds."""
    since = timestamp_of(position)
    return position if since is None else f"from {iso(since) or since}"


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
