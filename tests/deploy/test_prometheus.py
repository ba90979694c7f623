"""Prometheus' configuration, rules and alerts; promtool comes with Debian's package `prometheus`."""

from __future__ import annotations

import re
import shutil
import subprocess

import pytest

from service.config.settings import FIELDS
from tests.deploy.files import (
    DEMO_RULE_FILES,
    DOCS,
    PROMETHEUS_FILE,
    ROOT,
    RULE_FILES,
    RULE_TESTS,
    RUNBOOK,
    alerts,
    compose_services,
    dashboards,
    read_yaml,
    rules,
)
from tests.deploy.promql import faults, series

ASKED_FOR = {
    "ScoringNoConsumers",
    "ScoringLagAboveObjective",
    "ScoringLagNearRetention",
    "ScoringShardUnowned",
    "ScoringStalled",
    "ScoringCheckpointStale",
    "ScoringSinkErrorBurnFast",
    "ScoringSinkErrorBurnSlow",
    "ScoringThrottled",
    "ScoringDeadLettersGrowing",
    "ScoringUnknownFormatsGrowing",
    "ScoringSourcesMalformed",
    "ScoringUnresolvedUsersGrowing",
    "ScoringLeaseChurn",
    "ScoringEventLoopBlocked",
    "ScoringDefinitionsStale",
    "ScoringSweepOverdue",
}


def promtool(*arguments: object) -> None:
    tool = shutil.which("promtool")
    if tool is None:
        pytest.skip("promtool is not installed: Debian's package `prometheus` has it")
    done = subprocess.run(  # noqa: S603 - our own files
        [tool, *map(str, arguments)], capture_output=True, text=True, check=False, cwd=ROOT
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_promtool_takes_the_configuration():
    promtool("check", "config", PROMETHEUS_FILE)


def test_promtool_takes_the_rules():
    promtool("check", "rules", "--lint=all", "--lint-fatal", *RULE_FILES, *DEMO_RULE_FILES)


def test_alerts_fire_and_do_not_fire_where_they_should():
    promtool("test", "rules", RULE_TESTS)


def test_every_alert_asked_for_is_there():
    assert set(alerts()) >= ASKED_FOR


@pytest.mark.parametrize("name", alerts())
def test_every_alert_has_a_test_that_it_fires_and_one_that_it_does_not(name: str):
    cases = [
        bool(case.get("exp_alerts"))
        for test in read_yaml(RULE_TESTS)["tests"]
        for case in test.get("alert_rule_test", ())
        if case["alertname"] == name
    ]
    assert set(cases) == {True, False}


@pytest.mark.parametrize("name", alerts())
def test_every_alert_points_to_its_section_of_the_runbook(name: str):
    alert = alerts()[name]
    notes = alert["annotations"]
    assert notes["summary"]
    assert notes["description"].endswith(".")
    assert alert["labels"]["severity"] in {"page", "ticket"}
    path, _, anchor = notes["runbook_url"].partition("#")
    assert ROOT / path == RUNBOOK
    assert anchor == name.lower()
    section = re.search(rf"^### {name}\n(.*?)(?=^##|\Z)", RUNBOOK.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    assert section is not None
    for part in ("What it means.", "What to look at.", "What to do."):
        assert f"**{part}**" in section[1]


def test_the_runbook_names_only_variables_that_exist():
    named = set(re.findall(r"SCORING_(\w+)", RUNBOOK.read_text(encoding="utf-8")))
    assert {name.lower() for name in named} <= set(FIELDS)


def test_the_runbook_names_only_panels_that_exist():
    named = set(re.findall(r"(?<!\*)\*([A-Z][^*]+)\*(?!\*)", RUNBOOK.read_text(encoding="utf-8")))
    operations = dashboards()["operations"]
    shown = {" ".join(panel["title"].split()) for panel in operations["panels"]} | {operations["title"]}
    assert {" ".join(name.split()) for name in named} <= shown


@pytest.mark.parametrize("rule", list(rules()), ids=lambda rule: rule.get("alert") or rule["record"])
def test_every_rule_asks_for_series_and_labels_that_exist(rule: dict[str, str]):
    assert faults(rule["expr"], series()) == []


def test_a_new_user_reads_which_alerts_made_up_traffic_raises():
    """They are red in Prometheus and Grafana under `docker compose`: each place where they show explains it."""
    (demo,) = (rule for path in DEMO_RULE_FILES for group in read_yaml(path)["groups"] for rule in group["rules"])
    by_design = set(re.findall(r"Scoring\w+", demo["annotations"]["description"]))
    designed = {"ScoringDeadLettersGrowing", "ScoringUnknownFormatsGrowing", "ScoringUnresolvedUsersGrowing"}
    assert by_design == designed & set(alerts())
    assert "./deploy/prometheus/demo:/etc/prometheus/demo:ro" in compose_services()["prometheus"]["volumes"]
    assert "demo/*.yml" in read_yaml(PROMETHEUS_FILE)["rule_files"]
    (panel,) = (each for each in dashboards()["operations"]["panels"] if each["title"] == "Alerts firing")
    shown = panel["targets"][1]["expr"]
    assert demo["alert"] in shown
    assert set(re.findall(r"Scoring\w+", shown)) == by_design
    for text in (DOCS / "local.md", ROOT / "service/cli/traffic.py"):
        assert by_design <= set(re.findall(r"Scoring\w+", text.read_text(encoding="utf-8")))


def test_the_scrape_finds_the_workers_of_the_compose_file():
    job = read_yaml(PROMETHEUS_FILE)["scrape_configs"][0]
    discovery = job["dns_sd_configs"][0]
    assert job["job_name"] == "scoring"  # the rules' and the dashboards' default
    assert discovery["port"] == FIELDS["http_port"].default
    aliases = {
        name: service.get("networks", {}).get("default", {}).get("aliases", [])
        for name, service in compose_services().items()
        if isinstance(service.get("networks"), dict)
    }
    assert {name for name, known_as in aliases.items() if set(known_as) & set(discovery["names"])} == {
        "worker",
        "chaos-worker",
    }
