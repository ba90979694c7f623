"""What a publisher does for shards that are lost, seized, handed over, or left behind."""

from __future__ import annotations

import asyncio
from decimal import Decimal

import msgspec
import pytest

from service.pipelines.ports import SinkOutcome
from service.pipelines.publish import PublishOptions
from service.pipelines.sender import SenderOptions
from service.scoring.change import ScoreChange
from service.scoring.fold import ScoreState
from service.shards.errors import LeaseLostError, LetGoError, TransientError
from tests.fakes.aio import run
from tests.fakes.publishing import Scores, World, batch, image, key, publish
from tests.fakes.sinks import MemorySink


def test_nothing_is_sent_for_a_shard_whose_lease_is_lost():
    async def main() -> None:
        world = World()
        async with world.running() as publisher:
            prepared = await publisher.prepare(batch(image("a", 1)))
            world.lost.add("s")
            with pytest.raises(LeaseLostError):
                await publisher.commit(prepared)
            await asyncio.sleep(10)
        assert world.sinks[0].calls == []

    run(main())


def test_a_batch_nobody_commits_is_dropped_even_when_the_shard_comes_back():
    async def main() -> None:
        sink = MemorySink()
        sink.decide, fine = (lambda _: TransientError("down")), sink.decide
        world = World(sink, scores=Scores(a=5))
        async with world.running() as publisher:
            await publisher.prepare(batch(image("a", 1)))
            await asyncio.sleep(30)
            world.lost.add("s")
            await asyncio.sleep(1)
            world.lost.clear()
            sink.decide = fine
            await asyncio.sleep(100)
        assert all(change.revision == 5 for change in sink.values.values())

    run(main())


def test_a_late_publisher_mends_the_old_score_it_wrote():
    async def main() -> None:
        sink = MemorySink()
        sink.gate.clear()
        scores = Scores(a=1)
        world = World(sink, scores=scores)
        async with world.running() as publisher:
            prepared = await publisher.prepare(batch(image("a", 1)))
            await asyncio.sleep(1)  # in flight
            world.lost.add("s")
            scores.revisions["a"] = 2
            sink.values[key("a")] = ScoreChange(key("a"), Decimal(2), 2, 0)  # the successor publishes
            sink.gate.set()  # and the old call lands after it
            with pytest.raises(LeaseLostError):
                await publisher.commit(prepared)
            await asyncio.sleep(5)
        assert sink.values[key("a")].revision == 2
        assert world.count("sink_verified_total", sink="memory") == 1

    run(main())


def test_a_late_publisher_goes_on_until_it_reads_what_it_wrote():
    async def main() -> None:
        scores = Scores(a=1)
        sink = MemorySink(delay_s=1)

        def decide(change: ScoreChange) -> SinkOutcome | TransientError:
            scores.revisions["a"] = min(4, scores.revisions["a"] + 1)  # it changes during every call
            return fine(change)

        fine, sink.decide = sink.decide, decide
        world = World(sink, scores=scores)
        async with world.running() as publisher:
            await publisher.prepare(batch(image("a", 1)))
            await asyncio.sleep(0.5)
            world.lost.add("s")
            await asyncio.sleep(60)
            calls = len(sink.calls)
            await asyncio.sleep(60)
            assert len(sink.calls) == calls
        assert sink.values[key("a")].revision == 4

    run(main())


def test_a_call_that_failed_outside_its_lease_may_have_written_and_is_mended_too():
    async def main() -> None:
        sink = MemorySink()
        sink.gate.clear()
        sink.decide, fine = (lambda _: TransientError("response lost")), sink.decide
        world = World(sink, scores=Scores(a=2))
        async with world.running() as publisher:
            await publisher.prepare(batch(image("a", 1)))
            await asyncio.sleep(1)
            world.lost.add("s")
            sink.gate.set()
            await asyncio.sleep(0.06)
            sink.decide = fine
            await asyncio.sleep(60)
        assert sink.values[key("a")].revision == 2

    run(main())


def test_a_successor_publishes_what_it_took_over_once_more_when_the_dead_owner_is_silent():
    async def main() -> None:
        sink = MemorySink()
        world = World(sink, scores=Scores(a=3, b=1))
        async with world.running() as publisher:
            await publish(publisher, image("a", 3), taken_over=True)
            await publish(publisher, image("b", 1))
            await asyncio.sleep(5)
            sink.values[key("a")] = ScoreChange(key("a"), Decimal(2), 2, 0)  # the dead owner's last call lands
            await asyncio.sleep(9)
            assert sink.values[key("a")].revision == 2
            await asyncio.sleep(2)
            assert sink.values[key("a")].revision == 3
            await asyncio.sleep(100)
        assert [[c.key.user_id for c in call] for call in sink.calls] == [["a"], ["b"], ["a"]]

    run(main())


def test_what_was_taken_over_is_read_back_as_others_may_add_to_it_meanwhile():
    """An increment by somebody else leaves `Revision` as it is, so nothing but the score itself tells."""

    async def main() -> None:
        sink = MemorySink()
        added = Decimal("0.5")
        scores = Scores(a=3)
        world = World(sink, scores=scores)
        async with world.running() as publisher:
            await publish(publisher, image("a", 3), taken_over=True)
            state = scores._state

            def with_increment(revision: int) -> ScoreState:
                found = state(revision)
                # The first look, long under way, came before the increment.
                return found if scores.loads < 2 else msgspec.structs.replace(found, score=Decimal(3) + added)

            scores._state = with_increment  # type: ignore[method-assign]
            await asyncio.sleep(30)
        assert sink.values[key("a")].score == Decimal(3) + added

    run(main())


@pytest.mark.parametrize("leaving", [False, True])
def test_what_was_taken_over_is_mended_even_when_the_shard_has_ended_or_was_handed_on_meanwhile(leaving: bool):  # noqa: FBT001 - a parameter
    async def main() -> None:
        sink = MemorySink()
        world = World(sink, scores=Scores(a=3))
        async with world.running() as publisher:
            await publish(publisher, image("a", 3), taken_over=True)
            world.lost.add("s")
            await asyncio.sleep(5)
            sink.values[key("a")] = ScoreChange(key("a"), Decimal(2), 2, 0)  # the dead owner's last call lands
            await (publisher.drained() if leaving else asyncio.sleep(11))
        assert sink.values[key("a")].revision == 3

    run(main())


def test_a_leaving_worker_waits_for_the_calls_it_has_in_flight():
    async def main() -> None:
        sink = MemorySink(delay_s=5)
        world = World(sink)
        async with world.running() as publisher:
            batch_ = await publisher.prepare(batch(image("a", 1)))
            await asyncio.sleep(1)
            world.lost.add("s")
            with pytest.raises(LeaseLostError):
                await publisher.commit(batch_)
            assert sink.flying == 1
            world.scores.revisions["a"] = 2
            await publisher.drained()
        assert sink.values[key("a")].revision == 2

    run(main())


def test_a_shard_handed_over_waits_for_its_calls_in_flight_and_leaves_what_is_not_sent():
    async def main() -> None:
        sink = MemorySink(delay_s=2, max_batch=1)
        world = World(sink, options=PublishOptions(sender=SenderOptions(concurrency=1)))
        async with world.running() as publisher:
            first = await publisher.prepare(batch(image("a", 1)))
            half = await publisher.prepare(batch(image("a", 1), image("b", 1)))
            await publisher.prepare(batch(image("b", 2), image("c", 1)))
            other = await publisher.prepare(batch(image("b", 3), image("d", 1), shard="other"))
            await asyncio.sleep(1)  # the first is in flight
            started = asyncio.get_running_loop().time()
            await publisher.let_go("s")
            assert asyncio.get_running_loop().time() - started == pytest.approx(1, abs=0.5)
            await publisher.commit(first)
            with pytest.raises(LetGoError):
                await publisher.commit(half)
            await publisher.commit(other)
        assert {k.user_id: change.revision for k, change in sink.values.items()} == {"a": 1, "b": 3, "d": 1}

    run(main())


def test_a_call_that_fails_while_its_shard_is_handed_over_is_not_repeated_but_looked_into():
    async def main() -> None:
        sink = MemorySink(delay_s=2)
        fine, sink.decide = sink.decide, (lambda _: TransientError("the answer was lost"))
        world = World(sink, scores=Scores(a=1))
        async with world.running() as publisher:
            prepared = await publisher.prepare(batch(image("a", 1)))
            await asyncio.sleep(1)
            await publisher.let_go("s")
            with pytest.raises(LetGoError):
                await publisher.commit(prepared)
            sink.decide = fine
            world.lost.add("s")
            world.scores.revisions["a"] = 2  # what the next owner publishes may have come before the lost call
            await publisher.drained()
        assert sink.values[key("a")].revision == 2

    run(main())


def test_what_is_left_of_a_shard_handed_over_makes_room_for_others():
    async def main() -> None:
        world = World(MemorySink(delay_s=1), options=PublishOptions(sender=SenderOptions(capacity=2, concurrency=1)))
        world.sinks[0].max_batch = 1
        async with world.running() as publisher:
            await publisher.prepare(batch(image("a", 1), image("b", 1)))
            waiting = asyncio.create_task(publisher.prepare(batch(image("c", 1), image("d", 1), shard="other")))
            await asyncio.sleep(0.5)
            await publisher.let_go("s")
            await publisher.commit(await waiting)
        assert {k.user_id for k in world.sinks[0].values} == {"a", "c", "d"}

    run(main())
