import asyncio

import pytest

from service.stream.leases.lease import Member
from tests.fakes.aio import run
from tests.fakes.source import FakeStream
from tests.fakes.workers import World


@pytest.mark.parametrize("past", ["join", "assign"])
def test_a_request_of_the_past_that_lands_late_leaves_no_shard_unread(past: str):
    async def story() -> None:
        async with World(FakeStream(4)) as world:
            for name in ("a", "b"):
                world.start(name)
            await world.until(lambda: sum(len(worker.shards) for worker in world.workers) == 4)
            follower = next(worker for worker in world.workers if not worker.coordinator.leading)
            early = world.table.members[follower.name]
            for _ in range(3):
                world.stream.split(follower.shards[0])
                await asyncio.sleep(10)
            row = world.table.members[follower.name]
            assert row.version > early.version + 2
            assigned = early.assigned if past == "assign" else ()
            world.table.members[follower.name] = Member(worker=follower.name, beats=row.beats, assigned=assigned)
            await asyncio.sleep(10)
            world.stream.split(follower.shards[0])
            await asyncio.sleep(10)
            reading = sorted(shard_id for worker in world.workers for shard_id in worker.shards)
            assert reading == sorted(name for name, shard in world.stream.shards.items() if not shard.closed)

    run(story())
