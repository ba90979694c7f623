from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Awaitable, Callable

import aiohttp
import pytest

from service.observability.http import BindError, Health, ObservabilityServer
from service.observability.looplag import measure_loop_lag
from service.observability.metrics import Metrics

FINE = Health(ok=True, ages_s={"ingest": 0.5})


async def yes() -> Health:
    return FINE


def answers(
    path: str,
    *,
    health: Callable[[], Health] = lambda: FINE,
    ready: Callable[[], Awaitable[Health]] = yes,
    accept: str = "",
) -> tuple[int, str, bytes]:
    async def ask() -> tuple[int, str, bytes]:
        metrics = Metrics()
        metrics.records.labels("scored").inc(3)
        async with ObservabilityServer("127.0.0.1", 0, metrics.registry, health, ready) as server:
            assert server.port > 0
            assert server.url == f"http://127.0.0.1:{server.port}"
            headers = {"Accept": accept} if accept else {}
            async with aiohttp.ClientSession() as session, session.get(server.url + path, headers=headers) as answer:
                return answer.status, answer.headers["Content-Type"], await answer.read()

    return asyncio.run(ask())


def test_metrics_as_prometheus_text():
    status, content_type, body = answers("/metrics")
    assert status == 200
    assert content_type.startswith("text/plain; version=")
    assert b'scoring_records_total{outcome="scored"} 3.0' in body


def test_metrics_as_openmetrics_where_asked_for():
    status, content_type, body = answers("/metrics", accept="application/openmetrics-text; version=1.0.0")
    assert status == 200
    assert content_type.startswith("application/openmetrics-text")
    assert body.endswith(b"# EOF\n")


@pytest.mark.parametrize(
    ("health", "status"), [(FINE, 200), (Health(ok=False, reason="ingest is silent", ages_s={"ingest": 31.0}), 503)]
)
def test_health_says_how_old_the_heartbeats_are(health: Health, status: int):
    got, content_type, body = answers("/healthz", health=lambda: health)
    assert (got, content_type) == (status, "application/json")
    assert json.loads(body) == {"ok": health.ok, "reason": health.reason, "ages_s": health.ages_s}


def test_ready():
    assert answers("/readyz")[0] == 200


def test_not_ready():
    async def no() -> Health:
        return Health(ok=False, reason="first sync is under way")

    status, _, body = answers("/readyz", ready=no)
    assert status == 503
    assert json.loads(body)["reason"] == "first sync is under way"


def test_a_readiness_check_that_fails_or_hangs_means_not_ready(monkeypatch: pytest.MonkeyPatch):
    async def broken() -> Health:
        raise OSError("pat@example.com")

    async def hangs() -> Health:
        await asyncio.Event().wait()
        return FINE

    monkeypatch.setattr("service.observability.http.READY_TIMEOUT_S", 0.01)
    status, _, body = answers("/readyz", ready=broken)
    assert status == 503
    assert b"OSError" in body
    assert b"pat@" not in body
    assert answers("/readyz", ready=hangs)[0] == 503


def test_another_path_lists_the_paths_there_are():
    status, content_type, body = answers("/")
    assert (status, content_type) == (404, "application/json")
    assert set(json.loads(body)["paths"]) == {"/metrics", "/healthz", "/readyz"}


def test_a_taken_port_names_its_variable():
    async def start(port: int) -> None:
        await ObservabilityServer("127.0.0.1", port, Metrics().registry, lambda: FINE, yes).start()

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(BindError, match="SCORING_HTTP_PORT"):
            asyncio.run(start(taken.getsockname()[1]))


def test_a_foreign_address_names_its_variable():
    async def start() -> None:
        await ObservabilityServer("192.0.2.1", 0, Metrics().registry, lambda: FINE, yes).start()

    with pytest.raises(BindError, match="SCORING_HTTP_HOST"):
        asyncio.run(start())


def test_loop_lag_is_observed():
    metrics = Metrics()

    async def watch() -> None:
        async with asyncio.TaskGroup() as group:
            task = group.create_task(measure_loop_lag(metrics, interval_s=0.001))
            while not metrics.registry.get_sample_value("scoring_event_loop_lag_seconds_count"):  # noqa: ASYNC110
                await asyncio.sleep(0.001)
            task.cancel()

    asyncio.run(watch())
