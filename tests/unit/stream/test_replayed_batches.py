import asyncio

from tests.fakes.aio import run
from tests.fakes.source import FakeStream
from tests.fakes.workers import World

FIRST = "shardId-000000000000"


def test_what_came_before_the_first_look_at_the_tip_may_have_been_dealt_with_whatever_the_clock_says():
    async def story() -> list[tuple[str, bool]]:
        async with World(FakeStream(1)) as world:
            world.stream.put_many(FIRST, ["old", "old"])
            worker = world.start("a", skew_ms=-3_600_000)
            await world.until(lambda: len(world.data()) == 2)
            await asyncio.sleep(3)
            world.stream.put(FIRST, "young")
            await world.until(lambda: len(world.data()) == 3)
            await worker.stop()
            world.stream.put(FIRST, "old for b")
            world.start("b", skew_ms=3_600_000)
            await world.until(lambda: len(world.data()) == 4)
            return [(record.data, done.batch.replayed) for done in world.committed for record in done.batch.records]

    assert run(story()) == [("old", True), ("old", True), ("young", False), ("old for b", True)]
