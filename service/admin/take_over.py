"""Taking over the checkpoints of kinesis-python: a plan first, then the leases, while neither consumer runs."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from enum import StrEnum

import msgspec

from service.admin.kinesis_python import Row, Taken, TakenOver, read_rows
from service.admin.position import refuse_while_read
from service.aws.clients import Clients
from service.config.settings import Settings
from service.queries.streams import INGEST, View, look
from service.runtime.errors import RefusedError
from service.runtime.text import iso
from service.stream.leases.lease import Lease
from service.stream.ports import Shard
from service.stream.position import TRIM_HORIZON, Position, sequence_of


class Act(StrEnum):
    """What is done with a shard."""

    CREATE = "create"
    MOVE = "move"
    KEEP = "keep"


class Import(msgspec.Struct, frozen=True):
    """One shard's part of the plan.

    Attributes:
        shard: Its id.
        act: What is done.
        now: Its checkpoint here; empty where it has no lease yet.
        then: Where reading will go on; empty where that is not decided here.
        remark: Why.
    """

    shard: str
    act: Act
    now: Position
    then: Position
    remark: str = ""


def plan(rows: Sequence[Row], shards: Sequence[Shard], leases: Mapping[str, Lease]) -> list[Import]:
    """Return what taking over does with each shard.

    Args:
        rows: What kinesis-python left.
        shards: What the stream lists.
        leases: Ours, by shard id.
    """
    theirs = {row.shard_id: row for row in rows}
    listed = {shard.shard_id: shard for shard in shards}
    return [
        _one(shard_id, theirs.get(shard_id), listed.get(shard_id), leases.get(shard_id))
        for shard_id in sorted(theirs.keys() | listed.keys())
    ]


def _one(shard_id: str, row: Row | None, shard: Shard | None, lease: Lease | None) -> Import:
    now = lease.checkpoint if lease else ""
    if shard is None:
        return Import(shard_id, Act.KEEP, now, now, "the stream does not list it any more: nothing is left to read")
    if lease is not None and (lease.finished or sequence_of(lease.checkpoint) is not None):
        return Import(shard_id, Act.KEEP, now, now, "this service has read it already")
    act = Act.MOVE if lease else Act.CREATE
    if row is not None and row.sequence:
        return Import(shard_id, act, now, row.sequence)
    if row is None and shard.parents:
        # Out of a reshard that the old consumer had not noticed: all of it is new.
        if now == TRIM_HORIZON:
            return Import(shard_id, Act.KEEP, now, now, "the old consumer never read it")
        return Import(shard_id, act, now, TRIM_HORIZON, "the old consumer never read it")
    return Import(shard_id, Act.KEEP, now, now, "the old consumer left no checkpoint: SCORING_START decides")


def running(rows: Sequence[Row], now_s: float) -> list[str]:
    """Return the hosts whose locks have not expired, with the time until which they hold."""
    held: dict[str, int] = {}
    for row in rows:
        if row.expires_s > now_s:
            held[row.owner] = max(held.get(row.owner, 0), row.expires_s)
    return [f"{owner or 'somebody'} until {iso(until * 1000)}" for owner, until in sorted(held.items())]


async def take_over(
    aws: Clients, settings: Settings, table: str, say: Callable[[str], None], *, execute: bool
) -> list[Import]:
    """Return what is done with each shard, done where `execute` says so.

    Args:
        aws: AWS.
        settings: Name the stream and the lease table.
        table: Where kinesis-python keeps its state.
        say: Called with what a person should know while it goes on.
        execute: Whether to do it.

    Raises:
        RefusedError: The table says nothing of the stream, or one of the consumers runs.
        AwsSetupError: A stream or table does not exist, or may not be used.
        TransientError: AWS does not answer.
    """
    view = await look(aws, settings, INGEST)
    name = view.source.stream.name
    rows = await read_rows(aws.dynamodb, table, name)
    if not rows:
        raise RefusedError(
            f"table {table} has no shard of stream {name}",
            f"the keys of kinesis-python are `{name}_shardId-...`",
            "name the table that was given to its DynamoDB state",
        )
    imports = plan(rows, view.shards, view.rows)
    if execute and any(each.act is not Act.KEEP for each in imports):
        _refuse_while_running(rows)
        await refuse_while_read(view, settings.lease_duration_s, say)
        # Read once more: while heartbeats were watched, the old consumer may have moved on.
        rows = await read_rows(aws.dynamodb, table, name)
        _refuse_while_running(rows)
        imports = plan(rows, view.shards, view.rows)
        await _execute(view, imports, TakenOver(aws.dynamodb, settings.leases_table, view.source.stream))
    return imports


def _refuse_while_running(rows: Sequence[Row]) -> None:
    held = running(rows, time.time())
    if held:
        raise RefusedError(
            f"kinesis-python holds its shards: {', '.join(held)}",
            "it would go on reading, and both would count",
            "stop it, and run this again when its locks have expired",
        )


async def _execute(view: View, imports: Sequence[Import], taken_over: TakenOver) -> None:
    listed = {shard.shard_id: shard for shard in view.shards}
    rows = view.rows
    now_ms = time.time_ns() // 1_000_000
    for each in imports:
        if each.act is Act.KEEP:
            continue
        if sequence_of(each.then) is not None:
            # First: a reset that knows of too much goes too little back, which harms nobody.
            await taken_over.add(each.shard, Taken(each.then, now_ms))
        lease = rows.get(each.shard)
        if lease is None:
            shard = listed[each.shard]
            new = Lease(each.shard, each.then, parents=shard.parents, checkpoint_ms=now_ms, starting=shard.starting)
            done = await view.leases.create(new)
        else:
            wanted = msgspec.structs.replace(lease.released(), checkpoint=each.then, checkpoint_ms=now_ms)
            done = await view.leases.replace(lease, wanted) in (None, wanted)
        if not done:
            raise RefusedError(
                f"the lease of shard {each.shard} has changed meanwhile",
                "a worker is active; the shards before it in the plan are taken over",
                "stop the workers, and run this again",
            )
