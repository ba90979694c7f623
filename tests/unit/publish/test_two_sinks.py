"""What an outage of one of two sinks costs the other: the real coordinator, tail and publisher, in virtual time."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator
from decimal import Decimal

from service.app.publishing import CHANGES_PAGE, shard_settings
from service.config.load import load
from service.observability.metrics import Metrics
from service.publish.publisher import Publisher
from service.runtime.errors import TransientError
from service.scoring.fold import UserKey
from service.stream.coordinator import Coordinator, Opened
from service.stream.leases.lease import Lease
from service.stream.tail.budget import ByteBudget
from tests.fakes.aio import Gate, VirtualClock, in_virtual_time
from tests.fakes.dead_letters import MemoryDeadLetters
from tests.fakes.images import stream_image
from tests.fakes.leases import FakeLeases, LeaseTable
from tests.fakes.scores import MemoryScores
from tests.fakes.sinks import MemorySink
from tests.fakes.source import FakeSource, FakeStream

USERS = 20_000
SHARD = "shardId-000000000000"
SETTINGS = shard_settings(load({"SCORING_STREAM": "s", "AWS_REGION": "us-east-1"}))
HELD_BACK_AFTER = SETTINGS.in_flight * SETTINGS.batch_max_records
"""Changes of a shard in hand at most."""

OUTAGE_S = 300


def key(number: int) -> UserKey:
    return UserKey(f"u{number}", "p")


class TwoSinks:
    """A score stream with one change per user, and two sinks; the second is down."""

    def __init__(self) -> None:
        self.stream = FakeStream(dynamodb=True)
        for number in range(USERS):
            keys = {"UserId": {"S": f"u{number}"}, "PinpointProjectId": {"S": "p"}}
            new = {**keys, "Score": {"N": str(number)}, "Revision": {"N": "1"}, "UpdatedAt": {"N": "1"}}
            self.stream.put(SHARD, stream_image(keys, new))
        self.up, self.down = MemorySink("up"), MemorySink("down")
        self.fine = self.down.decide
        self.down.decide = lambda _: TransientError("down")

    def repair(self) -> None:
        self.down.decide = self.fine

    @contextlib.asynccontextmanager
    async def service(self, *sinks: MemorySink) -> AsyncIterator[None]:
        """A worker with a lease table of its own."""
        table, gate = LeaseTable(), Gate()
        table.put(Lease(SHARD, "TRIM_HORIZON"))
        clock, rng, leases, metrics = VirtualClock(gate), random.Random(1), FakeLeases(table, gate), Metrics()
        publisher = Publisher(
            sinks, MemoryScores(), MemoryDeadLetters(), lambda shard: coordinator.holds(shard), clock, metrics, rng,  # noqa: PLW0108 - made below
        )  # fmt: skip
        coordinator = Coordinator(
            pipeline="publish", worker="w", opened=Opened(FakeSource(self.stream, gate), leases, leases, publisher),
            settings=SETTINGS, clock=clock, rng=rng, metrics=metrics, budget=ByteBudget(16 << 20, page=CHANGES_PAGE),
        )  # fmt: skip
        tasks = [asyncio.create_task(each.run()) for each in (publisher, coordinator)]
        try:
            yield
        finally:
            gate.pause()
            for task in tasks:
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await task


EVERYBODY = {key(number): Decimal(number) for number in range(USERS)}


def scores(sink: MemorySink) -> dict[UserKey, Decimal | None]:
    return {held: change.score for held, change in sink.values.items()}


@in_virtual_time
async def test_an_outage_of_one_sink_holds_back_the_other_in_its_service():
    setup = TwoSinks()
    async with setup.service(setup.up, setup.down):
        await asyncio.sleep(60)
        before = len(setup.up.values)
        assert 0 < before <= HELD_BACK_AFTER
        await asyncio.sleep(OUTAGE_S)
        assert len(setup.up.values) == before
        setup.repair()
        await asyncio.sleep(120)
        assert scores(setup.up) == scores(setup.down) == EVERYBODY


@in_virtual_time
async def test_sinks_of_two_services_hold_back_only_themselves():
    setup = TwoSinks()
    async with setup.service(setup.up), setup.service(setup.down):
        await asyncio.sleep(120)
        assert scores(setup.up) == EVERYBODY
        assert not setup.down.values
        setup.repair()
        await asyncio.sleep(120)
        assert scores(setup.down) == EVERYBODY
