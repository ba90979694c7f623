"""CloudWatch metrics without an API call: one log line in the embedded metric format (EMF).

CloudWatch Logs extracts the metrics from a log event that is exactly one JSON object with an `_aws` member
(https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/CloudWatch_Embedded_Metric_Format_Specification.html),
so the task needs no permission beyond writing its log. The alarms and the scaling of
`deploy/cloudformation/service.yml` read these metrics; `METRICS` lists them for both sides.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType

import msgspec
from prometheus_client.registry import Collector
from prometheus_client.samples import Sample

from service.observability.metrics import Metrics

NAMESPACE = "EngagementScoring"
DIMENSION = "Service"
PERIOD_S = 60.0
"""Seconds between two lines: the shortest period of a standard-resolution metric."""

METRICS: Mapping[str, str] = MappingProxyType(
    {
        "IngestLag": "Seconds",
        "PublishLag": "Seconds",
        "DeadLetters": "Count",
        "RecordsTrimmed": "Count",
        "UnownedShards": "Count",
        "IdlePipelines": "Count",
    }
)
"""Units of all metrics, by name."""


class Totals(msgspec.Struct, frozen=True):
    """A worker's metrics at one moment. None leaves a metric out: another worker knows it, or no one does.

    Attributes:
        ingest_lags: Lag of each Kinesis shard of this worker, seconds; empty if it has none.
        publish_lags: The same for the score table's stream.
        dead_letters: Dead letters written since the process started.
        records_trimmed: Times that records left a stream's retention unread since the process started.
        unowned_shards: Shards without a worker, both streams together; only a leader knows.
        idle_pipelines: Pipelines without a shard to read; only a leader knows.
    """

    ingest_lags: tuple[float, ...]
    publish_lags: tuple[float, ...]
    dead_letters: float
    records_trimmed: float
    unowned_shards: float | None
    idle_pipelines: float | None


def metrics_between(before: Totals | None, now: Totals) -> dict[str, float]:
    """Return the metrics of the time between two readings; `before` is None for the first line of a process."""
    metrics = {
        "DeadLetters": now.dead_letters - (before.dead_letters if before else 0.0),
        "RecordsTrimmed": now.records_trimmed - (before.records_trimmed if before else 0.0),
    }
    if now.ingest_lags:
        metrics["IngestLag"] = max(now.ingest_lags)
    if now.publish_lags:
        metrics["PublishLag"] = max(now.publish_lags)
    if now.unowned_shards is not None:
        metrics["UnownedShards"] = now.unowned_shards
    if now.idle_pipelines is not None:
        metrics["IdlePipelines"] = now.idle_pipelines
    return metrics


def emf_line(
    namespace: str, dimensions: Mapping[str, str], metrics: Mapping[str, float], now_ms: int
) -> dict[str, object]:
    """Return one log event that CloudWatch Logs turns into metrics; the caller writes it as one line of JSON.

    Args:
        namespace: CloudWatch namespace.
        dimensions: Dimensions of all metrics; few and bounded, because each combination is a metric of its own.
        metrics: Values by name; the units are those of `METRICS`.
        now_ms: Time of the values, epoch milliseconds.

    Raises:
        ValueError: A metric is not in `METRICS`, or has the name of a dimension.
    """
    _check(dimensions, metrics)
    directive = {
        "Namespace": namespace,
        "Dimensions": [sorted(dimensions)],
        "Metrics": [{"Name": name, "Unit": METRICS[name]} for name in metrics],
    }
    return {"_aws": {"Timestamp": now_ms, "CloudWatchMetrics": [directive]}, **dimensions, **metrics}


def _check(dimensions: Iterable[str], metrics: Iterable[str]) -> None:
    if unknown := sorted(set(metrics) - set(METRICS)):
        raise ValueError(f"not in the EMF catalogue: {', '.join(unknown)}")
    if shared := sorted(set(dimensions) & set(metrics)):
        raise ValueError(f"a dimension and a metric share the name {', '.join(shared)}")


def read(metrics: Metrics) -> Totals:
    """Return the process's current metrics."""
    lags: dict[str, list[float]] = {}
    for sample in _samples(metrics.lag):
        lags.setdefault(sample.labels["pipeline"], []).append(sample.value)
    led = {sample.labels["pipeline"] for sample in _samples(metrics.leading) if sample.value}
    planned = {sample.labels["pipeline"] for sample in _samples(metrics.leases)} & led
    unfinished = {
        sample.labels["pipeline"]
        for sample in _samples(metrics.leases)
        if sample.labels["state"] != "finished" and sample.value
    }
    unowned = sum(sample.value for sample in _samples(metrics.leases) if sample.labels["state"] == "unowned")
    return Totals(
        ingest_lags=tuple(lags.get("ingest", ())),
        publish_lags=tuple(lags.get("publish", ())),
        dead_letters=_total(metrics.dead_letters),
        records_trimmed=_total(metrics.records_trimmed),
        unowned_shards=unowned if led else None,
        idle_pipelines=float(len(planned - unfinished)) if led else None,
    )


def _samples(metric: Collector) -> list[Sample]:
    return [sample for family in metric.collect() for sample in family.samples]


def _total(counter: Collector) -> float:
    return sum(sample.value for sample in _samples(counter) if sample.name.endswith("_total"))
