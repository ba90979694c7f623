"""How far each shard is behind, from the stream and the lease table; works without a running worker."""

from __future__ import annotations

import asyncio
import time

import msgspec

from service.aws.clients import Clients
from service.config.settings import Settings
from service.queries.streams import INGEST, View, look, pipelines_of
from service.runtime.errors import IteratorExpiredError, RecordsTrimmedError, ShardGoneError, TransientError
from service.runtime.text import iso
from service.stream.leases.lease import Lease
from service.stream.position import sequence_of

CONCURRENT = 8
"""Shards examined at once; each costs two calls, which share Kinesis's 5 reads per second with its worker."""
_PAGES = 10
"""Most reads of one shard to find its oldest unread record; pages before it may be empty."""
_COUNTED = 100
"""Most records counted per shard; more would take the shard's 2 MB per second from its worker."""


class Line(msgspec.Struct, frozen=True):
    """One shard.

    Attributes:
        pipeline: `ingest` or `publish`.
        stream: Name of the stream, or of the table.
        shard: Its id.
        state: `owned`, `unowned`, `waiting` (for its parents), `finished`, or `new` (not yet in the lease table).
        owner: The worker that holds it; empty: none.
        checkpoint: Everything up to here is processed.
        checkpoint_at: When it was last moved, ISO; empty: never.
        behind_s: Age of the oldest unprocessed record; 0 at the tip; None if it is unknown.
        records: Number of unprocessed records; None if it is unknown, as with more than `_COUNTED`.
        remark: Why a value is unknown.
    """

    pipeline: str
    stream: str
    shard: str
    state: str
    owner: str
    checkpoint: str
    checkpoint_at: str
    behind_s: float | None
    records: int | None = None
    remark: str = ""


class Behind(msgspec.Struct, frozen=True):
    """How far a shard is behind: see `Line`."""

    seconds: float | None = None
    records: int | None = None
    remark: str = ""


async def lines(aws: Clients, settings: Settings) -> list[Line]:
    """Return a line for each shard of each pipeline.

    Raises:
        AwsSetupError: A stream or table does not exist, or reading it is not permitted.
        TransientError: AWS does not answer.
    """
    found: list[Line] = []
    for pipeline in pipelines_of(settings):
        found += await lines_of(await look(aws, settings, pipeline))
    return found


async def lines_of(view: View) -> list[Line]:
    """Return a line for each shard of a pipeline."""
    gate = asyncio.Semaphore(CONCURRENT)
    rows = view.rows

    async def one(shard_id: str) -> Line:
        async with gate:
            lease = rows.get(shard_id)
            state = state_of(lease, rows)
            behind = Behind() if lease is None or lease.finished else await behind_of(view, lease)
            return Line(
                pipeline=view.pipeline,
                stream=view.source.stream.name,
                shard=shard_id,
                state=state,
                owner=lease.owner if lease else "",
                checkpoint=lease.checkpoint if lease else "",
                checkpoint_at=iso(lease.checkpoint_ms) if lease else "",
                behind_s=behind.seconds,
                records=behind.records,
                remark=behind.remark,
            )

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(one(shard_id)) for shard_id in sorted({s.shard_id for s in view.shards} | set(rows))]
    return [task.result() for task in tasks]


def state_of(lease: Lease | None, rows: dict[str, Lease]) -> str:
    """Return the state of a shard."""
    if lease is None:
        return "new"
    if lease.finished:
        return "finished"
    if lease.owner:
        return "owned"
    return "waiting" if any(parent in rows and not rows[parent].finished for parent in lease.parents) else "unowned"


async def behind_of(view: View, lease: Lease) -> Behind:
    """Return the age of the oldest record after the checkpoint, and the number of records.

    A DynamoDB stream does not report its tip, and pages before a record may be empty. If `_PAGES` reads find nothing,
    the position counts as the tip.
    """
    says_tip = view.pipeline == INGEST
    try:
        iterator: str | None = await view.source.iterator(lease.shard_id, lease.checkpoint)
        for _ in range(_PAGES):
            if iterator is None:
                return Behind(0.0, 0)
            page = await view.source.fetch(iterator, _COUNTED)
            if page.records:
                seconds = round(max(0.0, time.time() - page.records[0].arrival_ms / 1000), 1)
                complete = page.next_iterator is None or (says_tip and page.behind_ms == 0)
                return Behind(seconds, len(page.records) if complete else None)
            if says_tip and page.behind_ms == 0:
                return Behind(0.0, 0)
            iterator = page.next_iterator
    except RecordsTrimmedError as error:
        if sequence_of(lease.checkpoint) is None:
            # Nothing was read from this shard yet, so no loss is known: see `Reader`.
            return Behind(remark=f"no answer: {error}")
        return Behind(remark="records lost: the position has left the stream")
    except ShardGoneError:
        return Behind(remark="the stream no longer has this shard")
    except (TransientError, IteratorExpiredError) as error:
        return Behind(remark=f"no answer: {error}")
    return Behind(remark="no record found yet") if says_tip else Behind(0.0, 0)
