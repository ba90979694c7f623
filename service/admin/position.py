"""Changing where reading continues: first a plan, then the moves, and only while no worker reads.

Going back reads events again. Events that a score contains are not counted again, because the score stores how far
each shard was applied. But an event that did not count the first time (no definition, no known user) counts now, if
its user's score contains no later event of the same shard. So some people get points and others do not.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence

import msgspec

from service.admin.kinesis_python import Taken, TakenOver
from service.aws.clients import Clients
from service.aws.streams.kinesis import KinesisSource
from service.config.settings import Settings
from service.queries.streams import INGEST, View, look
from service.runtime.errors import RefusedError
from service.runtime.text import iso
from service.scoring.marks import HOUR_MS
from service.stream.leases.lease import Lease, Member
from service.stream.ports import Membership, Shard
from service.stream.position import LATEST, Position, sequence_of, timestamp_of

CONFIRM_ATTEMPTS = 10
"""A leader writes its row once a second, so one of a few consecutive attempts succeeds."""

watch = asyncio.sleep
"""Number of waits while heartbeats are watched."""


class Move(msgspec.Struct, frozen=True):
    """One shard's part of the plan.

    Attributes:
        shard: Its id.
        now: Its checkpoint; empty if it has no lease yet.
        then: Where reading will continue.
        remark: Why this differs from the request.
        rereads: Whether events are known to be read again.
    """

    shard: str
    now: Position
    then: Position
    remark: str = ""
    rereads: bool = False


def plan(
    shards: Sequence[Shard],
    rows: Mapping[str, Lease],
    to: Position,
    only: str = "",
    *,
    finished: bool = True,
    taken: Mapping[str, Taken] | None = None,
) -> list[Move]:
    """Return what a reset would change.

    Args:
        shards: Shards that the stream lists; others are left alone, because nothing can be read from them.
        rows: Leases by shard id.
        to: Where to continue.
        only: Only this shard; empty: all.
        finished: Whether finished shards start again; not for the tip, which they have passed.
        taken: By shard id, what was taken over from another consumer; no shard goes back before that.
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
            moves.append(Move(shard.shard_id, now, then, remark, lease is not None and _goes_back(lease, then)))
    return moves


def _goes_back(lease: Lease, then: Position) -> bool:
    """Return whether a shard was read and will be read from before its checkpoint, as far as this is known."""
    read = lease.finished or sequence_of(lease.checkpoint) is not None
    since, sequence = timestamp_of(then), sequence_of(then)
    if since is not None:
        return read and since < lease.checkpoint_ms
    reached = sequence_of(lease.checkpoint)
    if sequence is not None and reached is not None:
        return sequence < reached
    return read and then != LATEST


def _not_behind(to: Position, taken: Taken | None) -> tuple[Position, str]:
    """Return another position and the reason, if `to` is before a take-over from another consumer."""
    since = timestamp_of(to)
    if taken is None or to == LATEST or (since is not None and since >= taken.at_ms):
        return to, ""
    return taken.sequence, "before it another consumer counted"


def rereading(moves: Sequence[Move]) -> list[Move]:
    """Return the moves that cause events to be read again."""
    return [move for move in moves if move.rereads]


def moved(lease: Lease, to: Position, now_ms: int) -> Lease:
    """Return the lease, not finished, with its shard to be read from `to`.

    The name of a dead owner stays: the next reader seizes the lease from it, and so knows that a last call of
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
    """Return the workers whose heartbeat advanced, or started, between two reads."""
    beats = {member.worker: member.beats for member in before}
    return sorted(member.worker for member in after if beats.get(member.worker) != member.beats)


class Reset:
    """Moves the shards of one pipeline.

    Args:
        aws: AWS.
        settings: Stream and tables.
        pipeline: `ingest` or `publish`.
        say: Called with progress messages.
    """

    def __init__(self, aws: Clients, settings: Settings, pipeline: str, say: Callable[[str], None]) -> None:
        self._aws = aws
        self._settings = settings
        self._pipeline = pipeline
        self._say = say

    async def plan(
        self, to: Position, shard: str = "", *, finished: bool = True, recount: bool = False
    ) -> tuple[View, list[Move]]:
        """Return the current state and the changes; see `plan`.

        Args:
            to: Where to continue.
            shard: Only this one; empty: all.
            finished: Whether finished shards start again.
            recount: Whether to go back even before a take-over from another consumer.

        Raises:
            RefusedError: The stream does not list the shard, or marks are not kept for so long.
            AwsSetupError: A stream or table does not exist, or reading it is not permitted.
            TransientError: AWS does not answer.
        """
        view = await look(self._aws, self._settings, self._pipeline)
        if shard and shard not in {listed.shard_id for listed in view.shards}:
            raise RefusedError(f"the stream lists no shard {shard}", remedy="`scoring lag` shows those there are")
        taken: Mapping[str, Taken] = {}
        if self._pipeline == INGEST and not recount:
            taken = await TakenOver(self._aws.dynamodb, self._settings.leases_table, view.source.stream).all()
        moves = plan(view.shards, view.rows, to, shard, finished=finished, taken=taken)
        if isinstance(view.source, KinesisSource):
            refuse_behind_marks(to, moves, self._settings.marks_kept_hours, view.source.retention_s, _now_ms())
        return view, moves

    async def execute(self, view: View, moves: Sequence[Move], *, whole: bool = False) -> None:
        """Make the moves.

        Args:
            view: As `plan` returned it.
            moves: As `plan` returned them.
            whole: Whether they cover all shards: the positions then belong to the table in use.

        Raises:
            RefusedError: A worker is active.
            AwsSetupError: Writing the lease table is not permitted.
            TransientError: AWS does not answer.
        """
        await refuse_while_read(view, self._settings.lease_duration_s, self._say)
        await _execute(view, moves)
        if whole:
            await confirm(view.leases)


def refuse_behind_marks(to: Position, moves: Sequence[Move], kept_hours: int, retention_s: float, now_ms: int) -> None:
    """Refuse to read events again that scores may have no marks for any more.

    Args:
        to: Where to go on.
        moves: The plan.
        kept_hours: `SCORING_MARKS_KEPT_HOURS`; 0: as long as the stream keeps records.
        retention_s: How many seconds the stream keeps records.
        now_ms: Epoch milliseconds.

    Raises:
        RefusedError: `to` is too early, and events would be read again.
    """
    if not kept_hours or kept_hours * 3600 >= retention_s or to == LATEST or not rereading(moves):
        return
    earliest_ms = now_ms - kept_hours * HOUR_MS
    if (timestamp_of(to) or 0) >= earliest_ms:
        return
    raise RefusedError(
        f"scores keep marks for {kept_hours} h only (SCORING_MARKS_KEPT_HOURS)",
        f"the stream keeps records for {retention_s / 3600:g} h: events of before {iso(earliest_ms)} would count twice",
        "give a later --to-time; where the score table was restored from a backup of that time, "
        "run this with SCORING_MARKS_KEPT_HOURS=0",
    )


async def confirm(membership: Membership) -> str:
    """Assign the positions to the table that workers write next; return the former table, or nothing.

    Workers may run: their leader notices the changed row and stores its own table.

    Raises:
        RefusedError: The row keeps changing.
        TransientError: AWS does not answer.
    """
    for _ in range(CONFIRM_ATTEMPTS):
        row = await membership.leadership()
        if row is None or not row.target:
            return ""
        new = msgspec.structs.replace(row, target="", counter=row.counter + 1)
        if await membership.lead(row, new):
            return row.target
    raise RefusedError(
        "the leadership row changes each time it is read", "workers take turns in leading", "run this again"
    )


async def refuse_while_read(view: View, lease_duration_s: float, say: Callable[[str], None]) -> None:
    """Watch heartbeats for a lease duration, after which a silent worker is dead.

    Raises:
        RefusedError: A worker is alive.
    """
    count = len(view.snapshot.members)
    if not count:
        return
    say(f"watching the heartbeats of {count:,} worker{'s' if count > 1 else ''} for {lease_duration_s:g} s")
    await watch(lease_duration_s)
    active = alive(view.snapshot.members, (await view.leases.snapshot()).members)
    if active:
        raise RefusedError(
            f"still active: {', '.join(active)}",
            "they would write their own positions over this one",
            "stop them, and run this again",
        )


async def _execute(view: View, moves: Sequence[Move]) -> None:
    listed = {shard.shard_id: shard for shard in view.shards}
    rows = view.rows
    now_ms = _now_ms()
    for move in moves:
        lease = rows.get(move.shard)
        if lease is None:
            shard = listed[move.shard]
            new = Lease(move.shard, move.then, parents=shard.parents, starting=shard.starting)
            done = await view.leases.create(new)
        else:
            wanted = moved(lease, move.then, now_ms)
            done = await view.leases.replace(lease, wanted) in (None, wanted)
        if not done:
            raise RefusedError(
                f"the lease of shard {move.shard} has changed meanwhile",
                "a worker is active; the shards before it in the plan are moved",
                "stop the workers, and run this again",
            )


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
