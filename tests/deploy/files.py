"""The files under test, read once: what Compose, Prometheus and Grafana would read."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
COMPOSE_FILE = ROOT / "docker-compose.yml"
DOCKERFILE = ROOT / "Dockerfile"
PROMETHEUS_FILE = ROOT / "deploy/prometheus/prometheus.yml"
RULE_FILES = sorted((ROOT / "deploy/prometheus/rules").glob("*.yml"))
DEMO_RULE_FILES = sorted((ROOT / "deploy/prometheus/demo").glob("*.yml"))
"""Loaded by docker compose only."""
RULE_TESTS = ROOT / "deploy/prometheus/tests/alerts_test.yml"
DASHBOARD_FILES = sorted((ROOT / "deploy/grafana/dashboards").glob("*.json"))
PROVISIONING = ROOT / "deploy/grafana/provisioning"
GUIDE = ROOT / "deploy/README.md"
DOCS = ROOT / "deploy/docs"
RUNBOOK = DOCS / "runbook.md"

Yaml = dict[str, Any]


def read_yaml(path: Path) -> Yaml:
    document = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert isinstance(document, dict), path
    return document


def interpolated(text: str) -> str:
    """Fill in `${NAME:-default}` as Compose does where NAME is not set."""
    return re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", text)


def compose_services() -> dict[str, Yaml]:
    services = read_yaml(COMPOSE_FILE)["services"]
    assert isinstance(services, dict)
    return services


def rules() -> Iterator[Yaml]:
    for path in RULE_FILES:
        for group in read_yaml(path)["groups"]:
            yield from group["rules"]


def alerts() -> dict[str, Yaml]:
    return {rule["alert"]: rule for rule in rules() if "alert" in rule}


def dashboards() -> dict[str, Yaml]:
    return {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in DASHBOARD_FILES}


def panels(dashboard: Yaml) -> Iterator[Yaml]:
    """Yield the panels that show something: rows are only headings."""
    return (panel for panel in dashboard["panels"] if panel["type"] != "row")


def queries() -> Iterator[tuple[str, str]]:
    """Yield every query of every panel: a name for people, and the expression as written."""
    for name, dashboard in dashboards().items():
        for panel in panels(dashboard):
            for target in panel["targets"]:
                yield f"{name} / {panel['title']} / {target['refId']}", target["expr"]


def filled_in(expression: str, *, job: str = "scoring", interval: str = "1m", time_range: str = "15m") -> str:
    """Return an expression as Grafana sends it."""
    return expression.replace("$__rate_interval", interval).replace("$__range", time_range).replace("$job", job)
