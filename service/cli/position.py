"""`scoring position`: moving where reading goes on.

A plan first; it acts only with `--execute`, and only while nobody reads.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence

import click
import msgspec

from service.admin.kinesis_python import Taken, TakenOver
from service.aws.clients import clients
from service.cli.context import aws_settings, run_async, settings_for
from service.cli.failures import Failure
from service.cli.output import iso, json_option, note, number_of, print_json, print_table
from service.cli.params import Id
from service.cli.streams import INGEST, PUBLISH, View, look
from service.config.settings import TO_COME, Purpose, Settings, epoch_ms
from service.stream.leases.lease import Lease, Member
from service.stream.ports import Shard
from service.stream.position import LATEST, TRIM_HORIZON, Position, at_timestamp, timestamp_of

HARMLESS = {
    INGEST: "going back is harmless: what is in a score already is not counted again",
    PUBLISH: "going back is harmless: scores are absolute, and the newest comes last; "
    "what the stream no longer holds takes `scoring reconcile`",
}
RECOUNTED = "going back behind what was taken over from kinesis-python counts again what it had counted"
FORWARD = "going forward leaves out what is skipped, for good"


watch = asyncio.sleep
"""Waits while heartbeats are watched."""


class Move(msgspec.Struct, frozen=True):
    """One shard's part of the plan.

    Attributes:
        shard: Its id.
        now: Its checkpoint; empty where it has no lease yet.
        then: Where it will go on.
        remark: Why not where it was asked to.
    """

    shard: str
    now: Position
    then: Position
    remark: str = ""


def plan(
    shards: Sequence[Shard],
    rows: Mapping[str, Lease],
    to: Position,
    only: str = "",
    *,
    finished: bool = True,
    taken: Mapping[str, Taken] | None = None,
) -> list[Move]:
    """Return what a reset changes.

    Args:
        shards: What the stream lists; what it lists no more is left alone, nothing can be read from it.
        rows: Leases by shard id.
        to: Where to go on.
        only: A shard id: no other moves. Empty: all.
        finished: Whether finished shards start again; not where the tip is wanted, which they have passed.
        taken: By shard id, what was taken over from another consumer: no shard goes back behind that.
    """
    moves = []
    taken = taken or {}
    for shard in sorted(shards, key=lambda shard: shard.shard_id):
        lease = rows.get(shard.shard_id)
        if (only and shard.shard_id != only) or (lease and lease.finished and not finished):
            continue
        now = lease.checkpoint if lease else ""
        then, remark = _not_behind(to, taken.get(shard.shard_id))
        if now != then:
            moves.append(Move(shard.shard_id, now, then, remark))
    return moves


def _not_behind(to: Position, taken: Taken | None) -> tuple[Position, str]:
    """Return where to go instead of `to`, and why, where that would be behind what was taken over."""
    since = timestamp_of(to)
    if taken is None or to == LATEST or (since is not None and since >= taken.at_ms):
        return to, ""
    return taken.sequence, "before it another consumer counted"


def moved(lease: Lease, to: Position, now_ms: int) -> Lease:
    """Return the lease with its shard to be read from `to`, and not finished.

    The name of a dead owner stays: whoever reads next seizes the lease from it, and so knows that a last call of
    that worker may still land.
    """
    return msgspec.structs.replace(
        lease,
        checkpoint=to,
        counter=lease.counter + 1,
        owner_switches=0,
        children=(),
        ended_ms=0,
        checkpoint_ms=now_ms,
    )


def alive(before: Sequence[Member], after: Sequence[Member]) -> list[str]:
    """Return the workers whose heartbeat went on, or began, between two looks."""
    beats = {member.worker: member.beats for member in before}
    return sorted(member.worker for member in after if beats.get(member.worker) != member.beats)


def shown(position: Position) -> str:
    """Return a position for a person: a time instead of its epoch milliseconds."""
    since = timestamp_of(position)
    return position if since is None else f"from {iso(since) or since}"


@click.group()
def position() -> None:
    """Move where reading goes on."""


@position.command()
@click.option("--to-earliest", is_flag=True, help="Read everything that the stream still holds.")
@click.option("--to-latest", is_flag=True, help="Skip what is there, read what comes.")
@click.option("--to-time", metavar="TIME", help="Read what arrived at this time or later, e.g. 2026-01-31T12:00:00Z.")
@click.option("--shard", metavar="ID", type=Id("shard"), help="Only this shard.")
@click.option(
    "--pipeline", type=click.Choice([INGEST, PUBLISH]), default=INGEST, show_default=True, help="Whose position."
)
@click.option(
    "--recount", is_flag=True, help="Go back even behind what was taken over from kinesis-python: that counts again."
)
@click.option("--execute", is_flag=True, help="Do it; without this only the plan is shown.")
@json_option
def reset(
    *,
    to_earliest: bool,
    to_latest: bool,
    to_time: str | None,
    shard: str | None,
    pipeline: str,
    recount: bool,
    execute: bool,
    as_json: bool,
) -> None:
    """Make every shard go on somewhere else. Stop the workers first."""
    to = _target(earliest=to_earliest, latest=to_latest, moment=to_time, pipeline=pipeline)
    settings = settings_for(Purpose.STREAM if pipeline == INGEST else Purpose.TABLES)
    moves = run_async(
        _reset(settings, pipeline, to, shard or "", finished=not to_latest, recount=recount, execute=execute)
    )
    if as_json:
        print_json(moves)
    else:
        rows = [(move.shard, shown(move.now) or "new", shown(move.then), move.remark) for move in moves]
        print_table(("Shard", "Now", "Then", "Remark"), rows, "nothing to move")
    if not to_latest:
        note(RECOUNTED if recount else HARMLESS[pipeline])
    if to != TRIM_HORIZON:
        note(FORWARD)
    if moves:
        note(f"moved {number_of(len(moves), 'shard')}" if execute else "this is the plan: --execute does it")


def _target(*, earliest: bool, latest: bool, moment: str | None, pipeline: str) -> Position:
    if earliest + latest + (moment is not None) != 1:
        raise click.UsageError("where to? Give one, and only one, of --to-earliest, --to-latest, --to-time")
    if earliest:
        return TRIM_HORIZON
    if moment is None:
        # LATEST would mean another record each time a worker asked for it before its first checkpoint.
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


async def _reset(
    settings: Settings, pipeline: str, to: Position, shard: str, *, finished: bool, recount: bool, execute: bool
) -> list[Move]:
    async with clients(aws_settings(settings)) as aws:
        view = await look(aws, settings, pipeline)
        if shard and shard not in {listed.shard_id for listed in view.shards}:
            raise Failure(f"the stream lists no shard {shard}", remedy="`scoring lag` shows those there are")
        taken: Mapping[str, Taken] = {}
        if pipeline == INGEST and not recount:
            taken = await TakenOver(aws.dynamodb, settings.leases_table, view.source.stream).all()
        moves = plan(view.shards, view.rows, to, shard, finished=finished, taken=taken)
        if execute and moves:
            await refuse_while_read(view, settings.lease_duration_s)
            await _execute(view, moves)
        return moves


async def refuse_while_read(view: View, lease_duration_s: float) -> None:
    """Watch heartbeats for a lease duration, when a silent worker is dead; raise `Failure` where one is alive."""
    if not view.snapshot.members:
        return
    note(f"watching {number_of(len(view.snapshot.members), 'worker')} for {lease_duration_s:g} s: alive?")
    await watch(lease_duration_s)
    active = alive(view.snapshot.members, (await view.leases.snapshot()).members)
    if active:
        raise Failure(
            f"still active: {', '.join(active)}",
            "they would write their own positions over this one",
            "stop them, and run this again",
        )


async def _execute(view: View, moves: Sequence[Move]) -> None:
    parents = {shard.shard_id: shard.parents for shard in view.shards}
    rows = view.rows
    now_ms = _now_ms()
    for move in moves:
        lease = rows.get(move.shard)
        if lease is None:
            done = await view.leases.create(Lease(move.shard, move.then, parents=parents[move.shard]))
        else:
            wanted = moved(lease, move.then, now_ms)
            done = await view.leases.replace(lease, wanted) in (None, wanted)
        if not done:
            raise Failure(
                f"the lease of shard {move.shard} has changed meanwhile",
                "a worker is active; the shards before it in the plan are moved",
                "stop the workers, and run this again",
            )


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
