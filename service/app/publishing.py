"""Constructs the publishing pipeline from the settings."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import Any

import msgspec

from service.app.silence_watch import watch_for_silence
from service.aws.clients import Clients
from service.aws.endpoints import is_aws
from service.aws.streams.dynamodb_streams import RETENTION_S, DynamoDbStreamSource, ScoreTableStreams, stream_id
from service.aws.streams.silence import is_silent
from service.aws.tables.dead_letters import DeadLetterTable
from service.aws.tables.identities import IdentityTable
from service.aws.tables.leases import LeaseTable
from service.aws.tables.pipeline import PipelineTable
from service.aws.tables.scores import ScoreTable
from service.config.settings import Settings
from service.observability.metrics import Metrics
from service.publish.follow import FollowOptions, StreamFollower
from service.publish.publisher import PIPELINE, Publisher, PublishOptions
from service.publish.reconcile import ReconcileOptions, Reconciler
from service.publish.sender import SenderOptions
from service.runtime.clock import Clock
from service.sinks.port import Parts
from service.sinks.registry import SINKS
from service.stream.coordinator import Coordinator, Opened
from service.stream.leases.share import FleetShare
from service.stream.settings import HOURS_48_MS, MIB, ShardSettings
from service.stream.tail.budget import ByteBudget

CALL_TIMEOUT_S = 15.0
"""Longest time of a sink's request; the last request of a dead worker may take effect for that long."""

LOOK_S = 15.0
"""Seconds between two reads of the pipeline's row."""

SETTLE_S = 2 * LOOK_S + CALL_TIMEOUT_S
"""Seconds before a reconciliation begins. By then every worker reads the stream that the row names, and no earlier call
can take effect any more."""

CHANGES_PAGE = MIB
"""Upper limit of a page of changes in bytes
(https://docs.aws.amazon.com/amazondynamodb/latest/APIReference/API_streams_GetRecords.html)."""


class Publishing(msgspec.Struct, frozen=True):
    """The parts of the publishing pipeline.

    Attributes:
        follower: Reads the score table's stream; `open` comes first.
        row: The row that all workers share.
        publisher: Receives the changes.
        background: Loops that run beside the follower: publishing, and reconciliation.
    """

    follower: StreamFollower
    row: PipelineTable
    publisher: Publisher
    background: Mapping[str, Callable[[], Awaitable[None]]]


async def make_publishing(
    settings: Settings,
    aws: Clients,
    worker: str,
    identities: IdentityTable,
    budget: ByteBudget,
    clock: Clock,
    metrics: Metrics,
    rng: random.Random,
) -> Publishing:
    """Return the pipeline from the score table's stream to the configured sinks.

    Args:
        settings: Sinks and tables.
        aws: AWS.
        worker: This worker's id.
        identities: Users of endpoints and endpoints of users; shared with ingest, so that nothing is looked up twice.
        budget: For changes that are read and not yet published.
        clock: Time.
        metrics: The catalogue.
        rng: For jitter.
    """
    share = FleetShare(clock.monotonic)
    scores = ScoreTable(aws.dynamodb, settings.scores_table, metrics)
    parts = Parts(aws.client, identities, clock, metrics, rng, aws.on_close, CALL_TIMEOUT_S, share)
    sinks = [await SINKS[name].make(settings.options_of(name), parts) for name in settings.sinks]
    publisher = Publisher(
        sinks,
        scores,
        DeadLetterTable(aws.dynamodb, settings.dead_letters_table, ttl_days=settings.dead_letter_ttl_days),
        lambda shard_id: follower.holds(shard_id),  # noqa: PLW0108 - made below
        clock,
        metrics,
        rng,
        PublishOptions(
            SenderOptions(linger_s=settings.publish_linger_ms / 1000, call_timeout_s=CALL_TIMEOUT_S),
            project_ids=settings.project_ids,
            min_change=settings.publish_min_change,
        ),
    )
    row = PipelineTable(aws.leases, settings.leases_table, PIPELINE, settings.scores_table)
    reconciler = Reconciler(
        scores,
        row,
        lambda: follower.leading,
        clock,
        metrics,
        rng,
        ReconcileOptions(
            look_s=2 * LOOK_S,
            settle_s=SETTLE_S,
            project_ids=settings.project_ids,
            insists=settings.publish_min_change is not None,
        ),
    )

    def read(arn: str) -> Coordinator[Any, Any]:
        stream = stream_id(settings.scores_table, arn)
        leases = LeaseTable(aws.leases, settings.leases_table, PIPELINE, stream)
        return Coordinator(
            pipeline=PIPELINE,
            worker=worker,
            opened=Opened(DynamoDbStreamSource(aws.streams, stream), leases, leases, publisher),
            settings=shard_settings(settings),
            clock=clock,
            rng=rng,
            metrics=metrics,
            budget=budget,
            share=share,
            on_trimmed=lambda shard_id: reconciler.owe(f"changes of shard {shard_id} were lost"),
        )

    streams = ScoreTableStreams(aws.dynamodb, aws.streams, settings.scores_table)
    follower = StreamFollower(streams, row, read, publisher.forget, clock, rng, FollowOptions(look_s=LOOK_S))
    metrics.retention.labels(PIPELINE).set(RETENTION_S)
    background = {"publisher": publisher.run, "reconciler": reconciler.run}
    if not is_aws(aws.streams.meta.endpoint_url):
        background["silence watch"] = lambda: watch_for_silence(partial(_silent, aws, settings.scores_table), clock)
    return Publishing(follower, row, publisher, background)


async def _silent(aws: Clients, table: str, now_ms: int) -> bool | None:
    source = await DynamoDbStreamSource.open(aws.dynamodb, aws.streams, table)
    return await is_silent(aws.dynamodb, table, source, now_ms)


def shard_settings(settings: Settings) -> ShardSettings:
    """Return the settings for reading the score table's stream."""
    return ShardSettings(
        lease_duration=settings.lease_duration_s,
        call_timeout=CALL_TIMEOUT_S,
        # The senders wait for more changes of the same users; waiting here as well would only add delay.
        batch_max_age=0.1,
        batch_max_records=1000,
        fetch_limit=1000,
        page_bytes=CHANGES_PAGE,
        in_flight=8,
        # Calls are billed, and half a second of delay is acceptable: two reads per second and shard at the tip, fewer
        # than five while a backlog is read.
        poll_min=0.5,
        read_gap=0.21,
        poll_max=max(settings.poll_max_ms / 1000, 0.5),
        checkpoint_interval=settings.checkpoint_interval_ms / 1000,
        keep_ended_ms=HOURS_48_MS,
    )
