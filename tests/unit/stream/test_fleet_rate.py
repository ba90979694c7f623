"""Several workers, one quota: together they keep to the configured rate, also while members join, leave and die."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable

import pytest
from prometheus_client import CollectorRegistry

from service.observability.metrics import Metrics
from service.sinks.ratelimit import RateLimit
from service.stream.leases.lease import Leadership
from service.stream.leases.share import FleetShare, tags_of
from tests.fakes.aio import in_virtual_time
from tests.fakes.clock import ManualClock
from tests.fakes.source import FakeStream
from tests.fakes.workers import Cluster, FakeWorker

SETTLED_S = 10.0
"""Seconds after which a worker that joined, or whose neighbour left, takes its new share."""


class Quota:
    """What all workers call: keeps when each call came, and from whom."""

    def __init__(self, per_second: float) -> None:
        self.per_second = per_second
        self.calls: list[tuple[float, str]] = []

    def between(self, start: float, end: float) -> int:
        return sum(start <= at < end for at, _ in self.calls)

    def exceeded(self) -> list[tuple[float, float, int]]:
        """Return the spans in which more calls came than the rate allows, and one call of each worker."""
        found = []
        for start, (first, _) in enumerate(self.calls):
            names: set[str] = set()
            for count, (last, name) in enumerate(self.calls[start:], 1):
                names.add(name)
                if count > self.per_second * (last - first) + len(names) + 1e-6:
                    found.append((first, last, count))
        return found


class Fleet:
    """Workers that call as often as they may."""

    def __init__(self, cluster: Cluster, quota: Quota) -> None:
        self.cluster = cluster
        self.quota = quota
        self.shares: dict[str, FleetShare] = {}
        self._callers: dict[str, asyncio.Task[None]] = {}
        self._workers: dict[str, FakeWorker] = {}

    def join(self, name: str) -> FakeWorker:
        now = asyncio.get_running_loop().time
        share = self.shares[name] = FleetShare(now)
        limit = RateLimit("fake", "call", self.quota.per_second, Metrics(CollectorRegistry()), share)

        async def call() -> None:
            while True:
                await limit.wait()
                self.quota.calls.append((now(), name))

        self._callers[name] = self.cluster.group.create_task(call())
        self._workers[name] = self.cluster.start(name, share=share)
        return self._workers[name]

    async def leave(self, name: str) -> None:
        await self._workers[name].stop()
        self._callers.pop(name).cancel()

    def kill(self, name: str) -> None:
        self._workers[name].kill()
        self._callers.pop(name).cancel()

    def end(self) -> None:
        for caller in self._callers.values():
            caller.cancel()


async def until(at: float) -> None:
    await asyncio.sleep(at - asyncio.get_running_loop().time())


Story = Callable[[Fleet], Awaitable[None]]


async def joining(fleet: Fleet) -> None:
    for at, name in ((0, "a"), (7, "b"), (12, "c")):
        await until(at)
        fleet.join(name)
    await until(40)


async def starting_together(fleet: Fleet) -> None:
    for name in ("a", "b", "c"):
        fleet.join(name)
    await until(40)


async def leaving(fleet: Fleet) -> None:
    for name in ("a", "b", "c"):
        fleet.join(name)
    await until(20)
    await fleet.leave("a")  # the leader, mostly
    await until(40)
    await fleet.leave("c")
    await until(60)


async def replaced_one_by_one(fleet: Fleet) -> None:
    for name in ("a", "b"):
        fleet.join(name)
    for turn, name in enumerate(("a", "b")):
        await until(15 + 20 * turn)
        fleet.join(f"{name}2")
        await until(22 + 20 * turn)
        await fleet.leave(name)
    await until(60)


async def dying(fleet: Fleet) -> None:
    for name in ("a", "b", "c"):
        fleet.join(name)
    await until(20)
    fleet.kill("b")
    await until(22)
    fleet.join("d")
    await until(60)


async def cut_off(fleet: Fleet) -> None:
    """One worker reaches the lease table no longer, and could still call."""
    for name in ("a", "b", "c"):
        fleet.join(name)
    await until(20)
    fleet.cluster.workers[1].gate.fail = 1.0
    await until(50)
    fleet.cluster.workers[1].gate.fail = 0.0
    await until(80)


STORIES: tuple[Story, ...] = (joining, starting_together, leaving, replaced_one_by_one, dying, cut_off)


@pytest.mark.parametrize("per_second", [2.0, 10.0])
@pytest.mark.parametrize("story", STORIES)
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_the_fleet_keeps_to_the_configured_rate(story: Story, per_second: float, seed: int):
    @in_virtual_time
    async def staged() -> None:
        quota = Quota(per_second)
        async with Cluster(FakeStream(3), seed=seed) as cluster:
            fleet = Fleet(cluster, quota)
            await story(fleet)
            end = asyncio.get_running_loop().time()
            fleet.end()
        assert quota.exceeded() == []
        # Once nothing has changed for a while the whole rate is used.
        assert quota.between(end - 5, end) >= 5 * per_second - 2

    staged()


@in_virtual_time
async def test_three_workers_share_evenly():
    quota = Quota(10.0)
    async with Cluster(FakeStream(3)) as cluster:
        fleet = Fleet(cluster, quota)
        await starting_together(fleet)
        fleet.end()
    late = [name for at, name in quota.calls if at >= SETTLED_S]
    for name in ("a", "b", "c"):
        assert late.count(name) == pytest.approx(len(late) / 3, abs=2)


@in_virtual_time
async def test_a_worker_that_is_alone_waits_for_nobody():
    quota = Quota(2.0)
    async with Cluster(FakeStream(1)) as cluster:
        fleet = Fleet(cluster, quota)
        fleet.join("a")
        await until(6)
        fleet.end()
    assert quota.calls[0][0] < 2.0


@in_virtual_time
async def test_a_leaving_workers_share_is_not_taken_up_before_it_is_gone():
    quota = Quota(10.0)
    async with Cluster(FakeStream(2)) as cluster:
        fleet = Fleet(cluster, quota)
        leaving = fleet.join("a")
        fleet.join("b")
        await until(20)
        leaving.consumer.seconds = 8.0  # what it has in hand takes that long
        cluster.stream.put_many("shardId-000000000000", range(10))
        cluster.stream.put_many("shardId-000000000001", range(10))
        await until(21)
        stopping = asyncio.create_task(fleet.leave("a"))
        await until(24)
        assert not stopping.done()
        assert fleet.shares["b"]() == 0.5
        await stopping
        await until(40)
        assert fleet.shares["b"]() == 1.0
        fleet.end()
    assert quota.exceeded() == []


class TestShare:
    @pytest.fixture
    def clock(self) -> ManualClock:
        return ManualClock()

    @pytest.fixture
    def share(self, clock: ManualClock) -> FleetShare:
        made = FleetShare(clock.monotonic)
        made.begin("me", lambda: 1000.0, 3.0)
        return made

    def see(self, share: FleetShare, clock: ManualClock, *workers: str) -> None:
        share.saw(Leadership("x", 1, "TRIM_HORIZON", sharing=tags_of(workers)), clock.now)

    def test_nobody_takes_anything_before_it_is_listed(self, share: FleetShare, clock: ManualClock):
        assert share() == 0
        share.saw(None, clock.now)
        self.see(share, clock, "you")
        assert share() == 0

    def test_one_that_joins_waits_until_the_others_have_read_the_list(self, share: FleetShare, clock: ManualClock):
        for clock.now in (0, 1, 2):
            self.see(share, clock, "me", "you")
            assert share() == 0
        clock.now = 3
        self.see(share, clock, "me", "you")
        assert share() == 0.5

    def test_a_longer_list_counts_at_once_and_a_shorter_one_later(self, share: FleetShare, clock: ManualClock):
        for clock.now in range(5):
            self.see(share, clock, "me", "you")
        self.see(share, clock, "me", "you", "she", "he")
        assert share() == 0.25
        for clock.now in (5, 6, 7):
            self.see(share, clock, "me", "you")
            assert share() == 0.25
        clock.now = 8
        self.see(share, clock, "me", "you")
        assert share() == 0.5

    def test_one_that_cannot_read_the_list_takes_nothing(self, share: FleetShare, clock: ManualClock):
        for clock.now in range(5):
            self.see(share, clock, "me", "you")
        clock.now = 6.9
        assert share() == 0.5
        clock.now = 7.0
        assert share() == 0

    def test_one_whose_deadline_has_passed_takes_nothing(self, clock: ManualClock):
        share = FleetShare(clock.monotonic)
        share.begin("me", lambda: 5.0, 3.0)
        for clock.now in range(6):
            self.see(share, clock, "me", "you")
        assert share() == 0

    def test_a_leader_of_version_0_1_writes_no_list_and_nobody_waits_for_one(
        self, share: FleetShare, clock: ManualClock
    ):
        share.saw(Leadership("x", 1, "TRIM_HORIZON"), clock.now)
        assert share() == 1

    def test_the_list_of_two_hundred_workers_fits_a_write_unit(self):
        assert len(tags_of(f"{random.Random(n).getrandbits(64):x}" for n in range(200))) == 800


class TestLimit:
    @in_virtual_time
    async def test_a_share_that_comes_later_wakes_those_that_wait(self):
        now = asyncio.get_running_loop().time
        limit = RateLimit("fake", "call", 2.0, Metrics(CollectorRegistry()), lambda: 1.0 if now() >= 5 else 0.0)
        await limit.wait()
        assert now() == pytest.approx(5.0, abs=0.25)

    @in_virtual_time
    async def test_first_come_first_served(self):
        now = asyncio.get_running_loop().time
        limit = RateLimit("fake", "call", 2.0, Metrics(CollectorRegistry()), lambda: 0.5)
        order: list[int] = []

        async def call(number: int) -> None:
            await limit.wait()
            order.append(number)

        async with asyncio.TaskGroup() as group:
            for number in range(5):
                group.create_task(call(number))
        assert order == list(range(5))
        assert now() == pytest.approx(4.0)

    @in_virtual_time
    async def test_one_that_gives_up_costs_the_others_nothing(self):
        now = asyncio.get_running_loop().time
        limit = RateLimit("fake", "call", 1.0, Metrics(CollectorRegistry()))
        await limit.wait()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.5):
                await limit.wait()
        await limit.wait()
        assert now() == pytest.approx(1.0)
