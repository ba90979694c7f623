"""The two streams of an installation with their leases, at one moment."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from service.aws.clients import Clients
from service.aws.streams.dynamodb_streams import DynamoDbStreamSource, ScoreTableStreams, stream_id
from service.aws.streams.kinesis import KinesisSource
from service.aws.tables.leases import LeaseTable
from service.aws.tables.pipeline import PipelineTable
from service.config.settings import Settings
from service.stream.leases.lease import Lease, Snapshot
from service.stream.ports import Shard

INGEST = "ingest"
PUBLISH = "publish"


class View(msgspec.Struct, frozen=True):
    """A pipeline's stream and leases at one moment.

    Attributes:
        pipeline: `ingest` or `publish`.
        source: The stream.
        leases: Its leases.
        shards: The shards that the stream lists.
        snapshot: The rows of the lease table.
    """

    pipeline: str
    source: KinesisSource | DynamoDbStreamSource
    leases: LeaseTable
    shards: Sequence[Shard]
    snapshot: Snapshot

    @property
    def rows(self) -> dict[str, Lease]:
        """Leases by shard id."""
        return {lease.shard_id: lease for lease in self.snapshot.leases}


async def look(clients: Clients, settings: Settings, pipeline: str) -> View:
    """Return a pipeline's current stream and leases.

    Raises:
        AwsSetupError: The stream or table does not exist, or reading it is not permitted.
        TransientError: AWS does not answer.
    """
    source: KinesisSource | DynamoDbStreamSource = (
        await KinesisSource.open(clients.kinesis, settings.stream)
        if pipeline == INGEST
        else await _score_stream(clients, settings)
    )
    leases = LeaseTable(clients.dynamodb, settings.leases_table, pipeline, source.stream)
    return View(pipeline, source, leases, await source.list_shards(), await leases.snapshot())


async def _score_stream(clients: Clients, settings: Settings) -> DynamoDbStreamSource:
    """Return the stream that workers read; this may be the old one after it was switched off and on."""
    table = settings.scores_table
    streams = ScoreTableStreams(clients.dynamodb, clients.streams, table)
    latest = await streams.latest()
    row = await PipelineTable(clients.dynamodb, settings.leases_table, PUBLISH, table).load()
    served = row.stream_arn if row is not None and row.stream_arn else latest
    if served != latest and not await streams.exists(served):
        served = latest
    return DynamoDbStreamSource(clients.streams, stream_id(table, served))


def pipelines_of(settings: Settings) -> list[str]:
    """Return the pipelines whose streams are configured."""
    return [INGEST, PUBLISH] if settings.stream else [PUBLISH]
