"""The metrics catalogue: every metric of this service is created here.

Rules: names start with `scoring_`, base units, `_total` for counters. Labels come from closed sets or are bounded
here; users, endpoints and e-mail addresses are never labels. The wiring creates one `Metrics` per process and passes it
on; tests create their own.
"""

from __future__ import annotations

import platform
import re
from bisect import bisect_right
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, version
from itertools import pairwise
from typing import TypeVar

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    GCCollector,
    Histogram,
    Info,
    PlatformCollector,
    ProcessCollector,
)

from service.runtime.errors import Trouble

T = TypeVar("T")

LATENCY_BUCKETS = (0.05, 0.1, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 5.0, 10.0, 30.0, 60.0, 300.0, 1800.0)
CALL_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
COUNT_BUCKETS = (1, 2, 5, 10, 25, 50, 100, 250, 500, 1000, 2500, 5000, 10000)

MAX_EVENT_TYPES = 100
"""Most event types with a label of their own; further ones are counted as `OTHER_TYPE`."""

OTHER_TYPE = "other"

MAX_PROJECTS = 20
"""Projects whose version of the rules is shown; others have no series."""

_WELL_FORMED = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.:/-]{0,99}")
"""Event types and project ids that may be labels; anyone who can put a record chooses these names."""

RULE_OUTCOMES = ("duplicate", "repeat", "capped", "late", "evicted", "odd_amount", "machine")
PIPELINES = ("ingest", "publish")
READ_FAILURES = ("throttled", "expired", "trimmed", "gone", "trouble", "unanswered")
LEASE_EVENTS = ("taken", "seized", "released", "handed_over", "lost", "finished")

SCORE_BANDS = (0, 10, 50, 100, 250, 500, 1000)
"""Lower bounds of the score bands; below 0 is the band `negative`."""

_BAND_NAMES = ("negative", *(f"{low}-{high}" for low, high in pairwise(SCORE_BANDS)), f"{SCORE_BANDS[-1]}+")


class Metrics:
    """All metrics of one process.

    Args:
        registry: Where the metrics are registered; a new registry unless given.
        max_shards: Most shards with a label of their own; above that, all shards share the label `all`, and `set_lag`
            keeps the largest lag.
        process: Whether to add CPU, memory, file and garbage collector metrics of this process.
    """

    def __init__(
        self, registry: CollectorRegistry | None = None, *, max_shards: int = 200, process: bool = False
    ) -> None:
        self.registry = registry or CollectorRegistry()
        self.max_shards = max_shards
        if process:
            ProcessCollector(registry=self.registry)
            PlatformCollector(registry=self.registry)
            GCCollector(registry=self.registry)
        self._event_types: set[str] = set()
        self._undefined_types: set[tuple[str, str]] = set()
        self._shards: set[tuple[str, str]] = set()
        self._reading()
        self._scoring()
        self._publishing()
        self._leasing()
        self._running()

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(f"scoring_{name}", text, labels, registry=self.registry)

    def _gauge(self, name: str, text: str, *labels: str) -> Gauge:
        return Gauge(f"scoring_{name}", text, labels, registry=self.registry)

    def _histogram(self, name: str, text: str, buckets: tuple[float, ...], *labels: str) -> Histogram:
        return Histogram(f"scoring_{name}", text, labels, registry=self.registry, buckets=buckets)

    def _reading(self) -> None:
        self.records_read = self._counter("records_read", "Records fetched from the stream.", "pipeline", "shard")
        self.bytes_read = self._counter("read_bytes", "Bytes of records fetched.", "pipeline")
        self.lag = self._gauge(
            "lag_seconds",
            "Age of the oldest record that is not durably processed; 0 at the tip; rises while a shard cannot be read.",
            "pipeline",
            "shard",
        )
        self.batch_records = self._histogram("batch_records", "Records per batch.", COUNT_BUCKETS, "pipeline")
        self.stage_seconds = self._histogram(
            "stage_seconds",
            "Time a batch spends in a stage: fetch, decode, identify, commit, dead_letter, learn, checkpoint, publish.",
            CALL_BUCKETS,
            "pipeline",
            "stage",
        )
        self.buffered_bytes = self._gauge("buffered_bytes", "Bytes of records read and not yet processed.", "pipeline")
        self.records_trimmed = self._counter(
            "records_trimmed", "Times that records left the stream's retention unread: data loss.", "pipeline"
        )
        self.read_failures = self._counter(
            "read_failures",
            "Failed reads of a shard by kind: throttled, expired (iterator), trimmed, gone (unknown shard), trouble "
            "(needs a person), unanswered.",
            "pipeline",
            "kind",
        )
        self.unreadable_shards = self._gauge(
            "unreadable_shards", "Shards of this worker that it could not read for a minute or longer.", "pipeline"
        )
        self.streams_replaced = self._counter(
            "streams_replaced", "Times a stream was deleted and created again under its name.", "pipeline"
        )
        for pipeline in PIPELINES:  # initialized with 0: an increase shows the first of each, too
            for metric in (self.records_trimmed, self.streams_replaced):
                metric.labels(pipeline)
            for kind in READ_FAILURES:
                self.read_failures.labels(pipeline, kind)
        self.retention = self._gauge("retention_seconds", "How long the stream keeps records.", "pipeline")

    def _scoring(self) -> None:
        self.records = self._counter(
            "records",
            "Events (most records hold one) by outcome: scored, replayed (in the score already), ignored (no "
            "definition), anonymous, ambiguous (one of several people, unknown which), skipped (nothing to score), "
            "taught (only says who somebody is), unmet (no rule counts it), foreign (another project), dead_lettered.",
            "outcome",
        )
        self.source_events = self._counter(
            "source_events",
            "Events by the source that recognised them (`none`: none did) and what they came to: event, taught, "
            "skipped, ambiguous, anonymous, rejected (dead letter).",
            "source",
            "outcome",
        )
        self.events_without_definition = self._counter(
            "events_without_definition",
            "Events ignored because no definition covers their type, by type.",
            "event_type",
        )
        self.events = self._counter("events", "Events scored, by type.", "event_type")
        self.points_given = self._counter("points_given", "Points added to scores, by event type.", "event_type")
        self.points_taken = self._counter("points_taken", "Points subtracted from scores, by event type.", "event_type")
        self.band_entered = self._counter("band_entered", "Users whose score moved into the band.", "band")
        self.band_left = self._counter("band_left", "Users whose score moved out of the band.", "band")
        # Initialized with 0: Prometheus does not count a counter's first value as an increase, and the first batch is
        # large.
        for score in (-1, *SCORE_BANDS):
            self.band_entered.labels(score_band(score))
            self.band_left.labels(score_band(score))
        self.batch_users = self._histogram("batch_users", "Different users per batch.", COUNT_BUCKETS)
        self.commits = self._counter(
            "commits",
            "Conditional writes by outcome: written, conflict, throttled, refused, failed (no answer).",
            "outcome",
        )
        self.write_units = self._counter("write_units", "Write units charged by the score table.")
        self.commit_concurrency = self._gauge(
            "commit_concurrency", "Commit calls allowed in flight; lowered by throttling."
        )
        self.state_cache = self._counter("state_cache", "Look-ups of users' states in memory: hit, miss.", "result")
        self.event_to_score = self._histogram(
            "event_to_score_seconds",
            "From the record's arrival on the stream to its durable score.",
            LATENCY_BUCKETS,
        )
        self.identities = self._counter(
            "identities",
            "Users found for names by source: event, cache, table, lookup, address (the name itself); or none.",
            "source",
        )
        self.identities_learned = self._counter("identities_learned", "Endpoints whose user was stored.")
        self.identity_lookups = self._counter(
            "identity_lookups",
            "Look-ups by the identity fallback: found, nobody (the endpoint has no user), unknown (no such endpoint), "
            "error (a call failed), overdue (no answer in time).",
            "outcome",
        )
        self.dead_letters = self._counter("dead_letters", "Dead letters written.", "stage", "reason")
        self.definitions = self._gauge("definitions", "Definitions in force.")
        self.definitions_malformed = self._gauge("definitions_malformed", "Definitions that cannot be used.")
        self.rule_outcomes = self._counter(
            "rule_outcomes",
            "What rules came to: duplicate (event id seen before), repeat (once), capped, late (the cap has newer "
            "windows), evicted (a once entry forgotten), odd_amount (counted 0), machine (not a person).",
            "outcome",
        )
        for outcome in RULE_OUTCOMES:
            self.rule_outcomes.labels(outcome)
        self.swept = self._counter(
            "swept",
            "Scores in the daily sweep: seen, written (moved, or another tier), conflict (an event came meanwhile), "
            "unusable (the state cannot be read).",
            "outcome",
        )
        for outcome in ("seen", "written", "conflict", "unusable"):
            self.swept.labels(outcome)
        self.sweep_completed = self._gauge(
            "sweep_completed_timestamp_seconds", "When a daily sweep was last complete, as the leader knows."
        )
        self.rules_version = self._gauge(
            "rules_version",
            f"Version of a project's rules that this worker scores by; no series: plain definitions. The first "
            f"{MAX_PROJECTS} projects have a label of their own.",
            "project",
        )
        self.sources = self._gauge("sources", "Sources of the user's own in force.")
        self.sources_malformed = self._gauge(
            "sources_malformed", "Sources of the user's own that cannot be used as they are stored."
        )
        self.definitions_refreshed = self._gauge(
            "definitions_refreshed_timestamp_seconds", "When the definitions were last read."
        )

    def _publishing(self) -> None:
        self.sink_updates = self._counter(
            "sink_updates",
            "Scores handed to a sink by outcome: published, no_target, no_destination, rejected.",
            "sink",
            "outcome",
        )
        self.sink_coalesced = self._counter(
            "sink_coalesced", "Changes not sent because a newer one of the same user was pending.", "sink"
        )
        self.sink_stale = self._counter(
            "sink_stale", "Changes not sent because a newer one was already published.", "sink"
        )
        self.changes_too_small = self._counter(
            "changes_too_small", "Changes not published because they stay within a step of SCORING_PUBLISH_MIN_CHANGE."
        )
        self.scores_restated = self._counter(
            "scores_restated", "Scores written again with the next Revision, because a sink may hold an older value."
        )
        self.scores_uncertain = self._gauge(
            "scores_uncertain",
            "Scores for which a sink may hold an older value, and that are not yet published again.",
        )
        self.sink_seconds = self._histogram("sink_seconds", "Duration of a sink call.", CALL_BUCKETS, "sink")
        self.sink_errors = self._counter(
            "sink_errors", "Sink calls that failed temporarily: throttled, transient.", "sink", "kind"
        )
        self.sink_wait_seconds = self._counter(
            "sink_wait_seconds", "Time spent waiting for a rate limit.", "sink", "limit"
        )
        self.sink_pending = self._gauge("sink_pending", "Users whose newest score is not published yet.", "sink")
        self.event_to_sink = self._histogram(
            "event_to_sink_seconds",
            "From the newest event's arrival at its sender to the published score; the oldest of each sink call.",
            LATENCY_BUCKETS,
            "sink",
        )

    def _leasing(self) -> None:
        self.leases_owned = self._gauge("leases_owned", "Shards that this worker reads.", "pipeline")
        self.leases = self._gauge(
            "leases",
            "Shards as the leader sees them: owned, unowned, waiting (for parents), finished. Leader only.",
            "pipeline",
            "state",
        )
        self.leases_of_another_target = self._gauge(
            "leases_of_another_target",
            "1 while the positions in the leases belong to another score table than the one in use. Leader only.",
            "pipeline",
        )
        self.members = self._gauge("members", "Workers alive, as the leader sees them. Leader only.", "pipeline")
        self.fleet_share = self._gauge("fleet_share", "Part of the fleet's rates that this worker takes.", "pipeline")
        self.leading = self._gauge("leading", "1 if this worker is the leader.", "pipeline")
        self.lease_events = self._counter(
            "lease_events",
            "Transitions: taken, seized (from a dead worker), released, handed_over, lost, finished.",
            "pipeline",
            "event",
        )
        for pipeline in PIPELINES:
            for event in LEASE_EVENTS:  # initialized with 0, as above: a worker's first take-over counts
                self.lease_events.labels(pipeline, event)
        self.checkpoints = self._counter("checkpoints", "Checkpoints written.", "pipeline")
        self.checkpoint_time = self._gauge(
            "checkpoint_timestamp_seconds", "Time of the shard's last checkpoint.", "pipeline", "shard"
        )

    def _running(self) -> None:
        self.aws_requests = self._counter(
            "aws_requests", "HTTP requests sent to AWS, retries included: ok, absent (404), throttled, error.",
            "service", "operation", "outcome",
        )  # fmt: skip
        self.aws_seconds = self._histogram(
            "aws_request_seconds",
            "Duration of an AWS call, retries included.",
            CALL_BUCKETS,
            "service",
            "operation",
        )
        self.log_lines_dropped = self._counter(
            "log_lines_dropped", "Log lines dropped because their reader has stopped or has gone."
        )
        self.aws_trouble = self._counter(
            "aws_trouble",
            "Failed AWS calls that are unexpected or that a person must act on, by kind: answer, certificate, clock, "
            "credentials, encryption, missing, permission, refused.",
            "kind",
        )
        for kind in Trouble:
            self.aws_trouble.labels(kind.value)
        self.aws_retries = self._counter("aws_retries", "Requests sent again.", "service", "operation")
        self.loop_lag = self._histogram("event_loop_lag_seconds", "How late the event loop ran a timer.", CALL_BUCKETS)
        self.heartbeat = self._gauge(
            "heartbeat_timestamp_seconds", "Time of the worker's last successful heartbeat.", "pipeline"
        )
        build = Info("scoring_build", "Version of the service.", registry=self.registry)
        build.info({"version": service_version(), "python": platform.python_version()})

    def event_type_label(self, event_type: str) -> str:
        """Return the label of an event type that has a definition.

        The label is the type itself if it is well-formed and among the first `MAX_EVENT_TYPES`, else `OTHER_TYPE`.
        """
        return _bounded(event_type, event_type, self._event_types)

    def project_labels(self, project_ids: Iterable[str]) -> list[str]:
        """Return the projects that have a series of their own: at most `MAX_PROJECTS`, with well-formed ids."""
        return [each for each in sorted(project_ids) if _WELL_FORMED.fullmatch(each)][:MAX_PROJECTS]

    def undefined_type_label(self, project_id: str, event_type: str) -> str:
        """Return the label of an event type that has no definition in a project, with the same rules.

        These types have their own budget, because anyone who can put a record on the stream can use it up.
        """
        if not _WELL_FORMED.fullmatch(project_id):
            return OTHER_TYPE
        return _bounded(event_type, (project_id, event_type), self._undefined_types)

    def shard_label(self, pipeline: str, shard_id: str) -> str:
        """Return the label of a shard: its id, or `all` if there are more than `max_shards`."""
        key = (pipeline, shard_id)
        if key in self._shards:
            return shard_id
        if len(self._shards) >= self.max_shards:
            return "all"
        self._shards.add(key)
        return shard_id

    def no_longer_leading(self, pipeline: str) -> None:
        """Remove the metrics that only a leader has: the new leader has current values."""
        self.leading.labels(pipeline).set(0)
        for metric in (self.leases, self.members, self.leases_of_another_target):
            metric.remove_by_labels({"pipeline": pipeline})

    def forget_shard(self, pipeline: str, shard_id: str) -> None:
        """Remove the series of a shard that this worker no longer reads, because they would be stale."""
        if (pipeline, shard_id) not in self._shards:
            return
        self._shards.discard((pipeline, shard_id))
        for metric in (self.lag, self.records_read, self.checkpoint_time):
            metric.remove_by_labels({"pipeline": pipeline, "shard": shard_id})


def _bounded(event_type: str, kind: T, known: set[T]) -> str:
    if kind in known:
        return event_type
    if len(known) >= MAX_EVENT_TYPES or not _WELL_FORMED.fullmatch(event_type):
        return OTHER_TYPE
    known.add(kind)
    return event_type


def score_bands() -> tuple[str, ...]:
    """Return the names of all bands, from the lowest scores to the highest."""
    return _BAND_NAMES


def score_band(score: float) -> str:
    """Return the band of a score: `negative`, `0-10`, ..., `1000+`."""
    return _BAND_NAMES[bisect_right(SCORE_BANDS, score)]


def service_version() -> str:
    """Return the installed version; `0` if the package is not installed."""
    try:
        return version("engagement-scoring")
    except PackageNotFoundError:
        return "0"
