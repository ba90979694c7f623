"""The publisher with its sinks, as the environment asks for them: made for a worker and for `scoring reconcile`."""

from __future__ import annotations

import random

import msgspec

from service.aws.clients import Clients
from service.aws.tables.dead_letters import DeadLetterTable
from service.aws.tables.identities import IdentityTable
from service.aws.tables.scores import ScoreTable
from service.config.settings import Settings
from service.ingest.stores import Sink
from service.observability.metrics import Metrics
from service.publish.outbox import Held
from service.publish.publisher import Publisher, PublishOptions
from service.publish.sender import SenderOptions
from service.runtime.clock import Clock
from service.sinks.log import LogSink
from service.sinks.pinpoint.directory import DirectoryOptions
from service.sinks.pinpoint.sink import PinpointOptions, PinpointSink

CALL_TIMEOUT_S = 15.0
"""Longest time of a sink's request: a dead worker's last one may take effect for that long."""


def make_publisher(
    settings: Settings,
    aws: Clients,
    identities: IdentityTable,
    still_held: Held,
    clock: Clock,
    metrics: Metrics,
    rng: random.Random,
    *,
    reconcile_per_s: float | None = None,
) -> Publisher:
    """Return a publisher to the configured sinks.

    Args:
        settings: Names sinks and tables.
        aws: AWS.
        identities: Where scores go; what ingest looks up there need not be looked up again.
        still_held: Whether the lease of a shard id is ours.
        clock: Time.
        metrics: The catalogue.
        rng: For jitter.
        reconcile_per_s: Users a reconciliation publishes per second; None leaves it at the default.
    """
    options = PublishOptions(
        SenderOptions(linger_s=settings.publish_linger_ms / 1000, call_timeout_s=CALL_TIMEOUT_S),
        project_ids=settings.project_ids,
    )
    if reconcile_per_s is not None:
        options = msgspec.structs.replace(options, reconcile_per_s=reconcile_per_s)
    return Publisher(
        [_sink(name, settings, aws, identities, clock, metrics) for name in settings.sinks],
        ScoreTable(aws.dynamodb, settings.scores_table, metrics),
        DeadLetterTable(aws.dynamodb, settings.dead_letters_table, ttl_days=settings.dead_letter_ttl_days),
        still_held,
        clock,
        metrics,
        rng,
        options,
    )


def _sink(
    name: str, settings: Settings, aws: Clients, identities: IdentityTable, clock: Clock, metrics: Metrics
) -> Sink:
    if name == LogSink.name:
        return LogSink()
    return PinpointSink(
        aws.sink,
        identities,
        clock,
        metrics,
        PinpointOptions(
            attribute=settings.score_attribute,
            metric=settings.score_metric,
            updates_per_s=settings.pinpoint_update_batch_per_s,
            lookups_per_s=settings.pinpoint_get_user_per_s,
            directory=DirectoryOptions(max_age_s=settings.directory_max_age_h * 3600, request_timeout_s=CALL_TIMEOUT_S),
        ),
        identities,
    )
