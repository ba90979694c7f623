"""The dashboards against the real thing: what the compose file runs, on loopback, scraped by a real Prometheus."""

from __future__ import annotations

import json
import math
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import yaml

from service.local.emulator import Emulator
from service.local.pinpoint_fake import PinpointProcess
from service.local.processes import ChildProcess
from service.local.worker_process import WorkerProcess
from tests.deploy.files import (
    DEMO_RULE_FILES,
    PROMETHEUS_FILE,
    RULE_FILES,
    alerts,
    dashboards,
    filled_in,
    queries,
    read_yaml,
)

PROJECT = "live"
RATE = 60
"""Records per second."""
DATA_TIMEOUT_S = 120.0
"""Every panel must have data by then; measured: 15 seconds on two cores."""
ASK_EVERY_S = 1.0
WITHOUT_DATA = {"operations / Definitions / E": "the project of the test has no rules"}


class Prometheus:
    """A Prometheus server of our own, with the project's rules, that scrapes one worker every second."""

    def __init__(self, folder: Path, target: str) -> None:
        configuration = read_yaml(PROMETHEUS_FILE)
        configuration["global"] = {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"}
        configuration["rule_files"] = [str(path) for path in (*RULE_FILES, *DEMO_RULE_FILES)]
        (job,) = configuration["scrape_configs"]
        del job["dns_sd_configs"]
        job["static_configs"] = [{"targets": [target]}]
        (folder / "prometheus.yml").write_text(yaml.safe_dump(configuration), encoding="utf-8")
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.url = f"http://127.0.0.1:{probe.getsockname()[1]}"
        self.process = ChildProcess(
            "Prometheus",
            [
                str(shutil.which("prometheus")),
                f"--config.file={folder / 'prometheus.yml'}",
                f"--storage.tsdb.path={folder / 'data'}",
                f"--web.listen-address={self.url.removeprefix('http://')}",
                "--log.level=warn",
            ],
        )

    def ready(self) -> bool | None:
        """Return True once it serves; None until then."""
        try:
            with urllib.request.urlopen(f"{self.url}/-/ready", timeout=2) as answer:  # noqa: S310 - loopback
                return answer.status == 200 or None
        except OSError:
            return None

    def ask(self, path: str, **parameters: str) -> Any:  # noqa: ANN401 - JSON
        query = urllib.parse.urlencode(parameters)
        try:
            with urllib.request.urlopen(f"{self.url}/api/v1/{path}?{query}", timeout=10) as answer:  # noqa: S310 - loopback
                return json.load(answer)["data"]
        except urllib.error.HTTPError as refusal:
            pytest.fail(f"{parameters}: {refusal.read().decode()}")

    def has_data(self, expression: str) -> bool:
        """Whether a query answers with at least one number."""
        return any(
            not math.isnan(float(series["value"][1])) for series in self.ask("query", query=expression)["result"]
        )


@pytest.fixture(scope="module")
def prometheus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    if shutil.which("prometheus") is None:
        pytest.skip("Prometheus is not installed: Debian's package `prometheus` has it")
    folder = tmp_path_factory.mktemp("live")
    with ExitStack() as stack:
        aws = stack.enter_context(Emulator(log_path=folder / "aws.log"))
        pinpoint = stack.enter_context(PinpointProcess(apps=[PROJECT], log_path=folder / "pinpoint.log"))
        environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "SCORING_"))},
            **aws.environment(),
            **pinpoint.environment(),
            "SCORING_STREAM": "live-events",
            "SCORING_SINKS": "pinpoint",
            "SCORING_LOG_FORMAT": "json",
        }
        scoring = [sys.executable, "-m", "service"]
        subprocess.run(  # noqa: S603 - our own command
            [*scoring, "setup", "--project", PROJECT], env=environment, check=True, capture_output=True, timeout=60
        )
        worker = WorkerProcess(environment, folder / "worker.log")
        stack.callback(worker.stop)
        worker.start()
        worker.wait_ready()
        traffic = ChildProcess(
            "the traffic",
            [*scoring, "local", "traffic", "--project", PROJECT, "--rate", str(RATE), "--users", "200"],
            environment=environment,
        )
        stack.callback(traffic.stop)
        traffic.start()
        server = Prometheus(folder, worker.url.removeprefix("http://"))
        stack.callback(server.process.stop)
        server.process.start()
        server.process.wait_until(server.ready, timeout_s=30, what="it was ready")
        yield server


def test_every_query_of_every_panel_has_data_under_traffic(prometheus: Prometheus):
    missing = {name: filled_in(query, interval="15s", time_range="2m") for name, query in queries()}
    assert missing.keys() >= WITHOUT_DATA.keys()
    missing = {name: query for name, query in missing.items() if name not in WITHOUT_DATA}
    deadline = time.monotonic() + DATA_TIMEOUT_S
    while missing and time.monotonic() < deadline:
        missing = {name: query for name, query in missing.items() if not prometheus.has_data(query)}
        time.sleep(ASK_EVERY_S)  # a real server that scrapes in real time
    assert not missing, "\n".join(f"{name}: {query}" for name, query in missing.items())


def test_the_job_variable_finds_the_job(prometheus: Prometheus):
    for dashboard in dashboards().values():
        (job,) = (variable for variable in dashboard["templating"]["list"] if variable["name"] == "job")
        assert job["definition"] == "label_values(scoring_build_info, job)"
    assert prometheus.ask("label/job/values", **{"match[]": "scoring_build_info"}) == ["scoring"]


def test_the_rules_are_loaded_and_evaluate_without_error(prometheus: Prometheus):
    rules = [rule for group in prometheus.ask("rules")["groups"] for rule in group["rules"]]
    assert {rule["name"] for rule in rules} >= set(alerts())
    assert {rule["name"]: rule.get("lastError", "") for rule in rules if rule["health"] != "ok"} == {}


def test_a_healthy_worker_under_traffic_wakes_nobody(prometheus: Prometheus):
    firing = [
        alert["labels"]["alertname"]
        for alert in prometheus.ask("alerts")["alerts"]
        if alert["state"] == "firing" and alert["labels"]["severity"] == "page"
    ]
    assert firing == []
