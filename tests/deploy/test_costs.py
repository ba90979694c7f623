"""The monthly totals of deploy/README.md are what the program computes, from as many metrics as the templates have."""

from __future__ import annotations

from pathlib import Path

import msgspec

from service.observability import emf
from tests.benchmarks import monthly
from tests.deploy.files import GUIDE
from tests.deploy.templates import Stack, service


def test_the_table_of_the_guide_is_the_programs():
    report = msgspec.json.decode((Path(monthly.__file__).parent / "results" / "bench.json").read_bytes())
    guide = GUIDE.read_text(encoding="utf-8")
    shown = guide.partition("<!-- monthly:begin -->\n")[2].partition("\n<!-- monthly:end -->")[0]
    assert shown.splitlines() == monthly.table(report)


def test_what_is_billed_by_the_piece_is_counted_in_the_templates():
    alarms = service().of_type("AWS::CloudWatch::Alarm").values()
    looked_at = [
        sum("MetricStat" in each for each in alarm["Metrics"]) if "Metrics" in alarm else 1 for alarm in alarms
    ]
    assert sum(looked_at) == monthly.ALARM_METRICS
    assert len(emf.METRICS) + 20 == monthly.CUSTOM_METRICS
    endpoints = Stack("network").of_type("AWS::EC2::VPCEndpoint").values()
    assert sum(each["VpcEndpointType"] == "Interface" for each in endpoints) == monthly.INTERFACE_ENDPOINTS


def test_more_events_cost_more_and_nothing_is_free_of_charge():
    measured = monthly.Measured(cpu_us=90, requests=77, write_units=1000)
    totals = [monthly.month(size, measured) for size in monthly.SIZES]
    assert all(amount > 0 for each in totals for amount in each.values())
    sums = [sum(each.values()) for each in totals]
    assert sums == sorted(sums)
    assert monthly.tasks(monthly.Size(10_000_000_000, 1), measured) > monthly.MIN_TASKS
