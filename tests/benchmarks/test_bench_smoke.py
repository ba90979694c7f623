"""The benchmark's machinery: the stub server, a short run of the whole service against it, and the results' form."""

from __future__ import annotations

import math
import sys
from pathlib import Path
from xml.etree import ElementTree as ET

import msgspec
import pytest

from tests.benchmarks import results, sizing
from tests.benchmarks.contest import play
from tests.benchmarks.contestants import CONTENDERS, extra
from tests.benchmarks.workload import POINTS, Records, Workload, endpoint_id, position_of, sequence

linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the benchmark reads /proc")


@pytest.mark.parametrize("workload", [Workload("a", 40, 40), Workload("b", 40, 4, per_user=5, shards=3)])
def test_every_event_is_on_one_shard_once(workload: Workload):
    found = sorted(
        workload.index(shard, position)
        for shard in range(workload.shards)
        for position in range(workload.on_shard(shard))
    )
    assert found == list(range(workload.events))


def test_records_are_what_their_index_says():
    workload = Workload("a", 8, 8, shards=1)
    records = Records(workload)
    page = msgspec.json.decode(b"[" + records.page(0, 0, 8, [1.5] * 8) + b"]")
    for index, record in enumerate(page):
        event = msgspec.json.decode(records.payload(index))
        assert event["client"]["client_id"] == endpoint_id(workload.user(index)) == record["PartitionKey"]
        assert event["event_type"] == workload.event_type(index)
        assert event["event_type"] in POINTS
        assert position_of(record["SequenceNumber"]) == index
    assert len(sequence(0)) == 56


@linux
def test_the_service_plays_a_blast_to_the_last_score():
    played = play(
        Workload("a", 300, 100, per_user=1),
        [sys.executable, "-m", "service", "run"],
        extra(CONTENDERS[0]),
        timeout_s=60,
    )
    assert played.done
    assert played.report["wrong_scores"] == played.report["wrong_published"] == 0
    assert played.report["write_units"] <= 300


@linux
def test_who_does_nothing_is_not_exact():
    played = play(Workload("a", 4, 4), [sys.executable, "-c", ""], timeout_s=5)
    assert not played.done
    assert played.report["wrong_scores"] == 4


def test_results_without_measurements_are_no_met_aims():
    aims = results.aims(lambda *_: math.nan)
    assert {aim["met"] for aim in aims} == {None}


def test_the_picture_is_well_formed():
    rows = [
        {"workload": workload, "contender": name, "cpu_us": cpu, "exact": True}
        for workload in ("a", "b")
        for name, cpu in (("this service", 50.0), ("<b>", 1500.0))
    ]
    picture = results.picture({"rows": rows, "date": "2026-10-01", "machine": "m & m", "python": "3.11"})
    assert ET.fromstring(picture).tag.endswith("svg")  # noqa: S314 # our own


def test_costs_follow_from_what_is_measured():
    cheap = sizing.costs(sizing.Measured(cpu_us=50, requests=60, write_units=1000), sizing.PRICES)
    dear = sizing.costs(sizing.Measured(cpu_us=100, requests=60, write_units=2000), sizing.PRICES)
    assert dear.events_per_s == pytest.approx(cheap.events_per_s / 2)
    assert dear.per_million["DynamoDB writes"] == pytest.approx(2 * cheap.per_million["DynamoDB writes"])


def test_the_sizing_fits_80_columns_without_breaking_a_word():
    report = msgspec.json.decode((Path(sizing.__file__).parent / "results" / "bench.json").read_bytes())
    lines = sizing.lines(report, 80)
    assert max(map(len, lines)) <= 80
    words = set(" ".join(lines).split())
    assert {"workload", "DynamoDB", "Kinesis", "Fargate", "a"} <= words


@pytest.mark.parametrize("width", [80, 150])
def test_the_results_fit_the_terminal_without_breaking_a_word(width: int):
    report = msgspec.json.decode((Path(sizing.__file__).parent / "results" / "bench.json").read_bytes())
    lines = results.lines(report, width)
    assert max(map(len, lines)) <= width
    assert {"contender", "requests/1,000", "verdict"} <= set(" ".join(lines).replace(":", " ").split())
