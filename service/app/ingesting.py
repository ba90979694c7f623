"""Constructs the consumer of the event stream from the settings."""

from __future__ import annotations

import random
from collections.abc import Callable

from service.aws.clients import Clients
from service.aws.tables.dead_letters import DeadLetterTable
from service.aws.tables.definitions import DefinitionTable
from service.aws.tables.former import FormerTable
from service.aws.tables.identities import IdentityTable
from service.aws.tables.scores import ScoreTable
from service.config.settings import Settings
from service.ingest.commit import Committer
from service.ingest.definition_book import CurrentDefinitions
from service.ingest.identify import IdentityResolver, IdentitySettings
from service.ingest.ingest import Ingest
from service.ingest.retention import Retention
from service.ingest.source_book import CurrentSources, SourceBook
from service.ingest.undefined import UndefinedTypes
from service.observability.metrics import Metrics
from service.runtime.adaptive_limit import AdaptiveLimit
from service.runtime.clock import Clock
from service.sinks.port import Parts
from service.sinks.registry import LOOKUP

CALL_TIMEOUT_S = 15.0
"""Longest time of a look-up."""

MakeIngest = Callable[[], Ingest]
"""Constructs the consumer of one stream; called again if the stream is replaced."""


async def ingest_maker(
    settings: Settings,
    aws: Clients,
    identities: IdentityTable,
    definitions: CurrentDefinitions,
    sources: CurrentSources,
    undefined: UndefinedTypes,
    clock: Clock,
    metrics: Metrics,
    rng: random.Random,
    retention: Retention,
    share: Callable[[], float],
) -> MakeIngest:
    """Return the constructor of a stream's consumer; parts that all streams share are constructed once, here.

    `share` returns this worker's part of the rates that all workers keep together, from 0 to 1.
    """
    parts = Parts(aws.client, identities, clock, metrics, rng, aws.on_close, CALL_TIMEOUT_S, share)
    resolver = IdentityResolver(
        identities,
        FormerTable(aws.dynamodb, settings.identities_table),
        await LOOKUP.make(settings.identity_lookup_per_s, parts) if settings.identity_lookup else None,
        IdentitySettings(
            cache_entries=settings.identity_cache_entries,
            unknown_ttl_s=settings.identity_negative_ttl_s,
            lookup_wait_s=settings.identity_lookup_wait_s,
        ),
        clock,
        metrics,
    )
    committer = Committer(
        ScoreTable(aws.dynamodb, settings.scores_table, metrics),
        clock,
        metrics,
        AdaptiveLimit(maximum=settings.commit_concurrency_max, initial=min(4, settings.commit_concurrency_max)),
        cache_entries=settings.score_cache_entries,
        rng=rng,
    )
    letters = DeadLetterTable(aws.dynamodb, settings.dead_letters_table, ttl_days=settings.dead_letter_ttl_days)

    def make() -> Ingest:
        return Ingest(
            sources,
            definitions,
            resolver,
            committer,
            letters,
            clock,
            metrics,
            project_ids=settings.project_ids,
            retention=retention,
            ask_transactional=settings.identity_lookup_transactional,
            unknown_is_address=settings.unknown_person == "address",
            undefined=undefined,
        )

    return make


def own_sources(
    settings: Settings, rows: DefinitionTable, clock: Clock, metrics: Metrics
) -> tuple[CurrentSources, SourceBook]:
    """Return the sources in force, and what keeps the user's own among them fresh."""
    current = CurrentSources(default_project=settings.default_project)
    # Within two readings, counting that of the table.
    return current, SourceBook(rows, current, clock, metrics, refresh_s=settings.definitions_refresh_s)
