"""The dashboards: complete, readable without their maker, and asking only for what there is."""

from __future__ import annotations

import re
from itertools import combinations, pairwise
from pathlib import Path

import promql_parser
import pytest

from service.observability.metrics import Metrics
from tests.deploy.files import (
    DASHBOARD_FILES,
    PROMETHEUS_FILE,
    PROVISIONING,
    ROOT,
    Yaml,
    compose_services,
    dashboards,
    filled_in,
    panels,
    queries,
    read_yaml,
    rules,
)
from tests.deploy.promql import faults, series, walk

SCHEMA_VERSION = 41
"""The classic dashboard model's last version, which the pinned Grafana 12 reads as it is."""

TYPES = {"row", "timeseries", "stat", "bargauge", "table"}
"""All part of Grafana itself: nothing is installed."""

UNITS = {"s", "percentunit", "none", "short", "cps", "reqps", "wps", "Bps", "bytes"}
"""Ids of Grafana's value formats; an unknown one is shown as text behind the number."""

ROWS = [
    "Are scores right now?",
    "In",
    "Scores",
    "Identity",
    "Out",
    "Dead letters",
    "Leases",
    "AWS",
    "Runtime",
]

ALL_PANELS = [
    pytest.param(panel, id=f"{name} / {panel['title']}")
    for name, dashboard in dashboards().items()
    for panel in panels(dashboard)
]


def test_there_is_one_for_on_call_and_one_for_marketers():
    assert set(dashboards()) == {"operations", "audience"}
    assert [panel["title"] for panel in dashboards()["operations"]["panels"] if panel["type"] == "row"] == ROWS


@pytest.mark.parametrize("path", DASHBOARD_FILES, ids=lambda path: path.stem)
def test_a_dashboard_can_be_provisioned(path: Path):
    dashboard = dashboards()[path.stem]
    assert dashboard["schemaVersion"] == SCHEMA_VERSION
    assert "id" not in dashboard  # the database gives it; a fixed one collides
    assert re.fullmatch(r"[a-z-]{1,40}", dashboard["uid"])
    identifiers = [panel["id"] for panel in dashboard["panels"]]
    assert len(set(identifiers)) == len(identifiers)
    assert {panel["type"] for panel in dashboard["panels"]} <= TYPES
    variables = {variable["name"]: variable for variable in dashboard["templating"]["list"]}
    assert list(variables) == ["datasource", "job"]
    assert variables["datasource"]["type"] == "datasource"
    assert variables["job"]["definition"] == "label_values(scoring_build_info, job)"
    others = {other["uid"] for other in dashboards().values()}
    assert {link["url"].removeprefix("/d/") for link in dashboard["links"]} <= others


@pytest.mark.parametrize("name", dashboards())
def test_no_panel_covers_another(name: str):
    def cells(panel: Yaml) -> set[tuple[int, int]]:
        at = panel["gridPos"]
        return {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}

    shown = dashboards()[name]["panels"]
    assert all(panel["gridPos"]["x"] + panel["gridPos"]["w"] <= 24 for panel in shown)
    assert not [(a["title"], b["title"]) for a, b in combinations(shown, 2) if cells(a) & cells(b)]
    assert all(a["gridPos"]["y"] <= b["gridPos"]["y"] for a, b in pairwise(shown))


@pytest.mark.parametrize("panel", ALL_PANELS)
def test_a_panel_explains_itself(panel: Yaml):
    assert panel["title"]
    assert panel["description"].endswith(".")
    assert panel["fieldConfig"]["defaults"]["unit"] in UNITS


@pytest.mark.parametrize("panel", ALL_PANELS)
def test_a_panel_follows_the_variables(panel: Yaml):
    assert panel["datasource"]["uid"] == "${datasource}"
    for target in panel["targets"]:
        assert target["datasource"]["uid"] == "${datasource}"
        assert 'job="$job"' in target["expr"] or "(ALERTS{" in target["expr"]
        windows = set(re.findall(r"\[([^\]:]+)\]", re.sub(r'"[^"]*"', '""', target["expr"])))
        # Bands add up over the service's life, not over the time shown.
        assert windows <= ({"1d"} if panel["title"] == "Users by score band" else {"$__rate_interval", "$__range"})


@pytest.mark.parametrize(("name", "expression"), [pytest.param(*query, id=query[0]) for query in queries()])
def test_a_query_asks_for_series_and_labels_that_exist(name: str, expression: str):
    assert faults(filled_in(expression), series()) == [], name


@pytest.mark.parametrize("panel", ALL_PANELS)
def test_a_legend_names_labels_that_the_query_keeps(panel: Yaml):
    for target in panel["targets"]:
        for label in re.findall(r"{{\s*(\w+)\s*}}", target["legendFormat"]):
            grouped = re.findall(r"by \(([^)]*)\)", target["expr"])
            kept = {part.strip() for group in grouped for part in group.split(",")}
            plain = not grouped and label in {"instance", "service", "operation"}
            assert label in kept or plain, target["expr"]


@pytest.mark.parametrize("name", [name for name, metric in vars(Metrics()).items() if hasattr(metric, "describe")])
def test_a_metric_of_the_catalogue_is_set_by_somebody(name: str):
    catalogue = ROOT / "service/observability/metrics.py"
    code = [path.read_text(encoding="utf-8") for path in (ROOT / "service").rglob("*.py") if path != catalogue]
    # Or by a method of the catalogue, as `rules_version` by `set_rules_versions`.
    code.append(
        "".join(re.findall(r"\n    def set_\w+\(.*?(?=\n    def |\Z)", catalogue.read_text("utf-8"), re.DOTALL))
    )
    assert any(re.search(rf"\.{name}\b", text) for text in code)


UNSHOWN = {
    "scoring_checkpoints": "their age, which is shown, says more than their number",
    "scoring_sweep_completed_timestamp_seconds": "an alert is on it; only projects with rules have it",
}
"""Metrics of ours that no dashboard shows, and why."""


def test_every_metric_of_ours_is_on_a_dashboard_or_has_a_reason_not_to_be():
    ours = {family.name for family in Metrics().registry.collect() if family.name.startswith("scoring_")}
    asked = {
        series.name
        for _, expression in queries()
        for series in walk(promql_parser.parse(filled_in(expression)))
        if isinstance(series, promql_parser.VectorSelector)
    }
    recorded = {rule["record"]: rule["expr"] for rule in rules() if "record" in rule}
    asked |= {
        series.name
        for name in asked & recorded.keys()
        for series in walk(promql_parser.parse(recorded[name]))
        if isinstance(series, promql_parser.VectorSelector)
    }
    shown = {re.sub(r"_(total|bucket|sum|count|info)$", "", name) for name in asked} | asked
    assert ours - shown == UNSHOWN.keys()


def test_provisioning_points_at_what_the_compose_file_mounts_and_runs():
    grafana = compose_services()["grafana"]
    mounts = dict(volume.split(":")[:2] for volume in grafana["volumes"])
    assert mounts["./deploy/grafana/provisioning"] == "/etc/grafana/provisioning"
    provider = read_yaml(PROVISIONING / "dashboards/scoring.yml")["providers"][0]
    assert provider["options"]["path"] == mounts["./deploy/grafana/dashboards"]
    home = grafana["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]
    assert home == f"{mounts['./deploy/grafana/dashboards']}/operations.json"
    source = read_yaml(PROVISIONING / "datasources/prometheus.yml")["datasources"][0]
    assert source["url"] == "http://prometheus:9090"
    assert "prometheus" in compose_services()
    assert source["jsonData"]["timeInterval"] == read_yaml(PROMETHEUS_FILE)["global"]["scrape_interval"]
