"""Leases whose positions belong to another score table than the one in use, as after a restore."""

from __future__ import annotations

import asyncio

import msgspec
import pytest
import structlog

from service.admin.position import confirm
from service.runtime.errors import RefusedError
from service.stream.leases import election
from service.stream.leases.target import other
from tests.fakes.aio import in_virtual_time
from tests.fakes.leases import FakeLeases
from tests.fakes.source import FakeStream
from tests.fakes.workers import Cluster, FakeWorker

GAUGE = "scoring_leases_of_another_target"


@pytest.fixture
def lines(monkeypatch: pytest.MonkeyPatch):
    # A logger keeps what it was bound to when first used, in whichever test that was.
    monkeypatch.setattr(election, "log", structlog.get_logger())
    with structlog.testing.capture_logs() as lines:
        yield lines


def warnings(lines: list[dict[str, object]]) -> list[dict[str, object]]:
    return [line for line in lines if line["event"] == "leases.target_changed"]


async def served(cluster: Cluster, name: str, target: str) -> FakeWorker:
    """Run a worker for a while, and stop it."""
    worker = cluster.start(name, target=target)
    await cluster.until(lambda: worker.coordinator.first_sync_done)
    await asyncio.sleep(3)
    await worker.stop()
    return worker


@in_virtual_time
async def test_a_restored_table_is_reported_by_every_leader_until_decided(
    lines: list[dict[str, object]],
):
    async with Cluster(FakeStream(1)) as cluster:
        await served(cluster, "a", "scores 1")
        assert warnings(lines) == []
        for name in ("b", "c"):
            worker = cluster.start(name, target="restored 2")
            await cluster.until(lambda each=worker: each.value(GAUGE, pipeline="ingest") == 1)
            await asyncio.sleep(5)
            assert worker.value(GAUGE, pipeline="ingest") == 1
            await worker.stop()
            assert worker.value(GAUGE, pipeline="ingest") == 0
        assert [(line["before"], line["now"], line["log_level"]) for line in warnings(lines)] == [
            ("scores 1", "restored 2", "error")
        ] * 2
        assert cluster.table.leader is not None
        assert cluster.table.leader.target == "scores 1"


@pytest.mark.parametrize("alive", [False, True])
@in_virtual_time
async def test_it_ends_when_it_is_confirmed_whether_or_not_a_worker_runs(
    lines: list[dict[str, object]], *, alive: bool
):
    async with Cluster(FakeStream(1)) as cluster:
        await served(cluster, "a", "scores 1")
        worker = cluster.start("b", target="restored 2")
        await cluster.until(lambda: worker.value(GAUGE, pipeline="ingest") == 1)
        if not alive:
            await worker.stop()
        assert await confirm(FakeLeases(cluster.table)) == "scores 1"
        if alive:
            await cluster.until(lambda: worker.value(GAUGE, pipeline="ingest") == 0, within=3)
            assert worker.coordinator.leading
            assert worker.coordinator.worker == "b"
        else:
            await served(cluster, "c", "restored 2")
        assert cluster.table.leader is not None
        assert cluster.table.leader.target == "restored 2"
        assert len(warnings(lines)) == 1
        assert await confirm(FakeLeases(cluster.table)) == "restored 2"


@pytest.mark.parametrize("target", ["", "scores", "scores 1"])
@in_virtual_time
async def test_the_same_table_and_an_unknown_one_are_not_reported(lines: list[dict[str, object]], target: str):
    async with Cluster(FakeStream(1)) as cluster:
        await served(cluster, "a", "scores 1")
        worker = await served(cluster, "b", target)
        assert worker.value(GAUGE, pipeline="ingest") == 0
        assert warnings(lines) == []


@in_virtual_time
async def test_a_row_of_an_older_version_takes_the_target_in():
    async with Cluster(FakeStream(1)) as cluster:
        await served(cluster, "a", "")
        assert await confirm(FakeLeases(cluster.table)) == ""
        await served(cluster, "b", "scores 1")
        assert cluster.table.leader is not None
        assert cluster.table.leader.target == "scores 1"


@in_virtual_time
async def test_to_confirm_is_given_up_while_the_row_changes_all_the_time():
    async with Cluster(FakeStream(1)) as cluster:
        await served(cluster, "a", "scores 1")

        class Restless(FakeLeases):
            async def leadership(self) -> object:
                row = self.table.leader
                assert row is not None
                self.table.leader = msgspec.structs.replace(row, counter=row.counter + 1)
                return row

        with pytest.raises(RefusedError, match="changes each time"):
            await confirm(Restless(cluster.table))


@pytest.mark.parametrize(
    ("before", "now", "different"),
    [
        ("scores 1", "scores 1", False),
        ("scores 1", "scores 2", True),
        ("scores 1", "restored 1", True),
        ("scores", "scores 2", False),
        ("scores 1", "scores", False),
        ("scores", "restored 2", True),
        ("", "scores 1", False),
        ("scores 1", "", False),
    ],
)
def test_two_targets(before: str, now: str, *, different: bool):
    assert other(before, now) is different
