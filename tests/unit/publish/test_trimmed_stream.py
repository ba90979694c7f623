"""A score stream that lost changes: the real coordinator, tail and publisher, in virtual time."""

from __future__ import annotations

import asyncio
import contextlib
import random
from decimal import Decimal

from service.observability.metrics import Metrics
from service.publish.publisher import Publisher, PublishOptions
from service.scoring.change import StreamImage
from service.scoring.fold import Origin, ScoreState, UserKey
from service.stream.coordinator import Coordinator
from service.stream.leases.lease import Lease
from service.stream.settings import ShardSettings
from service.stream.tail.budget import ByteBudget
from tests.fakes.aio import Gate, VirtualClock, run
from tests.fakes.dead_letters import MemoryDeadLetters
from tests.fakes.images import stream_image
from tests.fakes.leases import FakeLeases, LeaseTable
from tests.fakes.scores import MemoryScores
from tests.fakes.sinks import MemorySink
from tests.fakes.source import FakeSource, FakeStream

USERS = 450
SHARD = "shardId-000000000000"


def key(number: int) -> UserKey:
    return UserKey(f"u{number}", "p")


def image(number: int) -> StreamImage:
    keys = {"UserId": {"S": f"u{number}"}, "PinpointProjectId": {"S": "p"}}
    return stream_image(keys, {**keys, "Score": {"N": str(number)}, "Revision": {"N": "1"}, "UpdatedAt": {"N": "1"}})


def test_what_the_stream_lost_is_published_from_the_table_at_a_limited_rate():
    async def main() -> None:
        stream, table, sink, gate = FakeStream(dynamodb=True), LeaseTable(), MemorySink(), Gate()
        first = stream.put(SHARD, image(0))
        stream.put_many(SHARD, [image(number) for number in range(1, USERS)])
        stream.trim(SHARD, USERS - 10)
        table.put(Lease(SHARD, first))
        clock, rng, metrics, leases = VirtualClock(gate), random.Random(1), Metrics(), FakeLeases(table, gate)
        scores = MemoryScores(
            {key(number): ScoreState(Origin.OURS, Decimal(number), 1, {}, 1) for number in range(USERS)}
        )
        publisher = Publisher(
            [sink], scores, MemoryDeadLetters(), lambda shard: coordinator.holds(shard),  # noqa: PLW0108 - not there yet here
            clock, metrics, rng,
            PublishOptions(reconcile_per_s=100),
        )  # fmt: skip
        coordinator = Coordinator(
            pipeline="publish", worker="w", source=FakeSource(stream, gate), store=leases, membership=leases,
            consumer=publisher, settings=ShardSettings(checkpoint_interval=1), clock=clock, rng=rng, metrics=metrics,
            budget=ByteBudget(), on_trimmed=lambda _: publisher.request_reconcile(),
        )  # fmt: skip
        tasks = [asyncio.create_task(publisher.run()), asyncio.create_task(coordinator.run())]
        loop = asyncio.get_running_loop()
        while len(sink.values) < USERS:
            assert loop.time() < 60
            await asyncio.sleep(0.1)
        assert loop.time() > (USERS - 100) / 100
        assert {told: change.score for told, change in sink.values.items()} == {
            key(number): Decimal(number) for number in range(USERS)
        }
        trimmed = metrics.registry.get_sample_value("scoring_records_trimmed_total", {"pipeline": "publish"})
        assert trimmed == 1
        assert table.leases[SHARD].checkpoint == stream.shards[SHARD].records[-1].sequence
        for task in tasks:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task

    run(main())
