import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.observability.emf import METRICS, Totals, emf_line, metrics_between, read
from service.observability.metrics import Metrics

SECONDS = st.floats(min_value=0, max_value=1e6, allow_nan=False)
COUNT = st.integers(min_value=0, max_value=10**9).map(float)
READINGS = st.builds(
    Totals,
    ingest_lags=st.lists(SECONDS, max_size=4).map(tuple),
    publish_lags=st.lists(SECONDS, max_size=4).map(tuple),
    dead_letters=COUNT,
    records_trimmed=COUNT,
    unowned_shards=st.none() | COUNT,
    idle_pipelines=st.none() | COUNT,
)


def test_the_line_is_what_cloudwatch_logs_extracts_metrics_from():
    line = emf_line(
        "EngagementScoring", {"Service": "campaigns"}, {"IngestLag": 1.5, "DeadLetters": 0}, 1_700_000_000_000
    )
    assert json.loads(json.dumps(line)) == {
        "_aws": {
            "Timestamp": 1_700_000_000_000,
            "CloudWatchMetrics": [
                {
                    "Namespace": "EngagementScoring",
                    "Dimensions": [["Service"]],
                    "Metrics": [{"Name": "IngestLag", "Unit": "Seconds"}, {"Name": "DeadLetters", "Unit": "Count"}],
                }
            ],
        },
        "Service": "campaigns",
        "IngestLag": 1.5,
        "DeadLetters": 0,
    }


@given(st.none() | READINGS, READINGS)
def test_every_metric_named_in_the_directive_is_a_number_at_the_root(before: Totals | None, now: Totals):
    line = emf_line("N", {"Service": "s"}, metrics_between(before, now), 1)
    directive = line["_aws"]["CloudWatchMetrics"][0]
    assert {metric["Name"] for metric in directive["Metrics"]} <= set(METRICS)
    assert all(isinstance(line[metric["Name"]], float) for metric in directive["Metrics"])


def test_the_worst_shard_is_the_lag_and_no_shard_is_no_lag():
    reading = Totals((1.0, 7.0, 3.0), (), 0.0, 0.0, None, None)
    metrics = metrics_between(None, reading)
    assert metrics["IngestLag"] == 7.0
    assert "PublishLag" not in metrics
    assert "UnownedShards" not in metrics


def test_counts_are_those_since_the_last_line():
    first = Totals((), (), 3.0, 1.0, 2.0, 1.0)
    second = Totals((), (), 5.0, 1.0, 0.0, 0.0)
    assert metrics_between(None, first)["DeadLetters"] == 3.0
    assert metrics_between(first, second) == {
        "DeadLetters": 2.0,
        "RecordsTrimmed": 0.0,
        "UnownedShards": 0.0,
        "IdlePipelines": 0.0,
    }


def test_a_pipeline_without_an_unfinished_lease_is_idle_for_its_leader():
    metrics = Metrics()
    assert read(metrics).idle_pipelines is None
    for pipeline, states in (("ingest", {"owned": 2, "finished": 1}), ("publish", {"owned": 0, "finished": 3})):
        metrics.leading.labels(pipeline).set(1)
        assert read(metrics).idle_pipelines == 0.0  # elected, and nothing planned yet
        for state, count in states.items():
            metrics.leases.labels(pipeline, state).set(count)
    assert read(metrics).idle_pipelines == 1.0
    metrics.leases.labels("publish", "waiting").set(1)
    assert read(metrics).idle_pipelines == 0.0


def test_a_metric_outside_the_catalogue_is_refused():
    with pytest.raises(ValueError, match="Latency"):
        emf_line("N", {"Service": "s"}, {"Latency": 1.0}, 1)


def test_a_dimension_cannot_hide_a_metric():
    with pytest.raises(ValueError, match="IngestLag"):
        emf_line("N", {"IngestLag": "s"}, {"IngestLag": 1.0}, 1)
