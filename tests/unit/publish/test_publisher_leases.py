"""What a publisher does for shards that are lost, seized, handed over, or left behind."""

from __future__ import annotations

import asyncio

import pytest

from service.ingest.stores import COMMITTED, Conflict, Ordering, Throttled
from service.publish import republish
from service.publish.publisher import PublishOptions
from service.publish.sender import SenderOptions
from service.runtime.errors import LeaseLostError, ReleasedError, TransientError
from service.scoring.event import Reason, Rejected
from tests.fakes.aio import in_virtual_time
from tests.fakes.publishing import PublishSetup, Scores, batch, image, key, publish
from tests.fakes.sinks import MemorySink


@in_virtual_time
async def test_nothing_is_sent_for_a_shard_whose_lease_is_lost():
    setup = PublishSetup()
    async with setup.running() as publisher:
        prepared = await publisher.prepare(batch(image("a", 1)))
        setup.lost.add("s")
        with pytest.raises(LeaseLostError):
            await publisher.commit(prepared)
        await asyncio.sleep(10)
    assert setup.sinks[0].calls == []


@in_virtual_time
async def test_a_batch_nobody_commits_is_dropped_even_when_the_shard_comes_back():
    sink = MemorySink()
    sink.decide, fine = (lambda _: TransientError("down")), sink.decide
    setup = PublishSetup(sink, scores=Scores(a=5))
    async with setup.running() as publisher:
        await publisher.prepare(batch(image("a", 1)))
        await asyncio.sleep(30)
        setup.lost.add("s")
        await asyncio.sleep(1)
        setup.lost.clear()
        sink.decide = fine
        await asyncio.sleep(100)
    assert not sink.values


@in_virtual_time
async def test_a_late_publisher_publishes_again_what_it_may_have_overwritten():
    sink = MemorySink()
    sink.gate.clear()
    scores = Scores(a=1)
    setup = PublishSetup(sink, scores=scores)
    async with setup.running() as publisher:
        prepared = await publisher.prepare(batch(image("a", 1)))
        await asyncio.sleep(1)  # in flight
        setup.lost.add("s")
        scores.revisions["a"] = 2  # the successor publishes
        await asyncio.sleep(5)
        assert scores.restated == []  # not before the old call has landed
        sink.gate.set()
        with pytest.raises(LeaseLostError):
            await publisher.commit(prepared)
        await asyncio.sleep(14)
        assert scores.restated == []  # nor before it must have, as an answer may come before
        await asyncio.sleep(60)
    assert scores.restated == ["a"]
    assert scores.revisions["a"] == 3
    assert setup.count("scores_restated_total") == 1


@in_virtual_time
async def test_a_call_without_an_answer_is_followed_by_another_publication():
    sink = MemorySink()
    sink.gate.clear()
    sink.decide = lambda _: TransientError("response lost")
    setup = PublishSetup(sink, scores=Scores(a=2))
    async with setup.running() as publisher:
        await publisher.prepare(batch(image("a", 1)))
        await asyncio.sleep(1)
        setup.lost.add("s")
        sink.gate.set()
        await asyncio.sleep(14)
        assert setup.scores.restated == []
        await asyncio.sleep(2)
        assert setup.scores.restated == ["a"]


@in_virtual_time
async def test_a_sink_that_compares_revisions_needs_no_score_again():
    sink = MemorySink(ordering=Ordering.VERSIONED)
    scores = Scores(a=1)
    setup = PublishSetup(sink, scores=scores)
    sink.decide, fine = (lambda _: TransientError("cut off")), sink.decide
    async with setup.running() as publisher:
        prepared = await publisher.prepare(batch(image("a", 1)))
        await asyncio.sleep(5)  # calls without a certain answer
        sink.decide = fine
        await publisher.commit(prepared)
        await asyncio.sleep(60)
    assert scores.restated == []
    assert sink.values[key("a")].revision == 1


@pytest.mark.parametrize("undone", [False, True])
@in_virtual_time
async def test_a_call_without_an_answer_leaves_a_score_uncertain(undone: bool):  # noqa: FBT001 - a parameter
    """Its request may land after the next one of the same user."""

    sink = MemorySink()
    sink.decide, fine = (lambda _: TransientError("no connection", undone=undone)), sink.decide
    setup = PublishSetup(sink, scores=Scores(a=2))
    async with setup.running() as publisher:
        prepared = await publisher.prepare(batch(image("a", 1)))
        await publisher.prepare(batch(image("a", 2)))
        await asyncio.sleep(0.4)
        assert len(sink.calls) == 1
        assert publisher.uncertain == 0  # as long as it is in hand, its shard's next owner would read it again
        sink.decide = fine
        await publisher.commit(prepared)
        assert sink.values[key("a")].revision == 2
        assert publisher.uncertain == (not undone)
        await asyncio.sleep(30)
    assert setup.scores.restated == [] if undone else ["a"]


@in_virtual_time
async def test_an_outage_causes_one_more_publication_at_most():
    sink = MemorySink()
    sink.decide, fine = (lambda _: TransientError("down")), sink.decide
    setup = PublishSetup(sink, scores=Scores(a=1))
    async with setup.running() as publisher:
        prepared = await publisher.prepare(batch(image("a", 1)))
        await asyncio.sleep(600)
        assert len(sink.calls) > 10
        assert setup.scores.restated == []
        sink.decide = fine
        await publisher.commit(prepared)
        await asyncio.sleep(60)
    assert len(setup.scores.restated) <= 1


@in_virtual_time
async def test_what_is_handed_over_after_a_call_without_an_answer_is_uncertain():
    """It waits for its next attempt, which the shard's next owner makes, knowing nothing of the first."""

    sink = MemorySink()
    sink.decide = lambda _: TransientError("no connection")
    setup = PublishSetup(sink, scores=Scores(a=1))
    async with setup.running() as publisher:
        prepared = await publisher.prepare(batch(image("a", 1)))
        await asyncio.sleep(0.4)
        assert (len(sink.calls), publisher.in_flight) == (1, 0)
        await publisher.release("s")
        with pytest.raises(ReleasedError):
            await publisher.commit(prepared)
        assert publisher.uncertain == 1
        await publisher.drained()
    assert setup.scores.restated == ["a"]


@in_virtual_time
async def test_a_seized_shard_that_brings_no_score_leaves_nothing_uncertain():
    setup = PublishSetup()
    async with setup.running() as publisher:
        await publish(publisher, image("a", 0), unsettled_until=15.0)
        await asyncio.sleep(20)
        async with asyncio.timeout(1):
            await publisher.drained()
        assert publisher.uncertain == 0


@in_virtual_time
async def test_a_table_that_throttles_is_left_alone_for_a_while():
    scores = Scores(**{f"u{n}": 1 for n in range(100)})
    scores.answers.extend([Throttled()] * 100)
    setup = PublishSetup(scores=scores)
    async with setup.running() as publisher:
        await publish(publisher, *(image(f"u{n}", 1) for n in range(100)), unsettled_until=1.0)
        await asyncio.sleep(1.5)
        assert scores.loads <= 2
        await asyncio.sleep(60)
    assert len(scores.restated) == 100


@in_virtual_time
async def test_a_table_that_throttles_some_is_no_reason_to_wait():
    scores = Scores(**{f"u{n}": 1 for n in range(500)})
    scores.answers.extend([Throttled() if n % 10 == 0 else COMMITTED for n in range(5000)])
    setup = PublishSetup(scores=scores)
    async with setup.running() as publisher:
        await publish(publisher, *(image(f"u{n}", 1) for n in range(500)), unsettled_until=1.0)
        await asyncio.sleep(10)
    assert len(scores.restated) == 500


@in_virtual_time
async def test_another_write_serves_too_and_a_throttled_one_is_repeated():
    scores = Scores(a=2, b=1, c=1, d=1)
    scores.answers.extend([Throttled(), Conflict(None), Rejected(Reason.SCORE_REFUSED, "too large"), COMMITTED])
    setup = PublishSetup(scores=scores)
    async with setup.running() as publisher:
        users = [image(user, 1) for user in ("a", "b", "c", "d", "removed")]
        await publish(publisher, *users, unsettled_until=1.0)
        await asyncio.sleep(5)
        assert scores.restated == ["d", "a"]
        assert publisher.uncertain == 0


@in_virtual_time
async def test_a_successor_publishes_again_once_no_late_call_can_land():
    setup = PublishSetup(scores=Scores(a=3, b=1))
    async with setup.running() as publisher:
        await publish(publisher, image("a", 3), unsettled_until=15.0)
        await publish(publisher, image("b", 1))
        await asyncio.sleep(14)
        assert setup.scores.restated == []
        await asyncio.sleep(2)
        await publish(publisher, image("b", 2), unsettled_until=15.0)  # comes after all calls of the dead
        await asyncio.sleep(100)
    assert setup.scores.restated == ["a"]


@in_virtual_time
async def test_more_than_can_be_watched_waits(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(republish, "MAX_WATCHED", 1)

    setup = PublishSetup(scores=Scores(a=1, b=1, c=1))
    async with setup.running() as publisher:
        await publish(publisher, image("a", 1), image("b", 1), unsettled_until=15.0)
        waiting = asyncio.create_task(publish(publisher, image("c", 1), unsettled_until=15.5))
        await asyncio.sleep(14)
        assert not waiting.done()
        await waiting
        await asyncio.sleep(5)
    assert sorted(setup.scores.restated) == ["a", "b", "c"]


@pytest.mark.parametrize("leaving", [False, True])
@in_virtual_time
async def test_what_was_taken_over_is_published_again_though_the_shard_is_gone(leaving: bool):  # noqa: FBT001 - a parameter
    sink = MemorySink()
    setup = PublishSetup(sink, scores=Scores(a=3))
    async with setup.running() as publisher:
        await publish(publisher, image("a", 3), unsettled_until=15.0)
        setup.lost.add("s")
        sink.decide = lambda _: TransientError("down")  # no sink is needed for it
        await (publisher.drained() if leaving else asyncio.sleep(16))
        assert asyncio.get_running_loop().time() > 15
    assert setup.scores.restated == ["a"]


@in_virtual_time
async def test_a_leaving_worker_waits_for_the_calls_it_has_in_flight():
    sink = MemorySink(delay_s=5)
    setup = PublishSetup(sink, scores=Scores(a=2))
    async with setup.running() as publisher:
        batch_ = await publisher.prepare(batch(image("a", 1)))
        await asyncio.sleep(1)
        setup.lost.add("s")
        with pytest.raises(LeaseLostError):
            await publisher.commit(batch_)
        assert sink.flying == 1
        await publisher.drained()
    assert setup.scores.restated == ["a"]


@in_virtual_time
async def test_a_hand_over_waits_for_calls_in_flight_and_leaves_the_unsent():
    sink = MemorySink(delay_s=2, max_batch=1)
    setup = PublishSetup(sink, options=PublishOptions(sender=SenderOptions(concurrency=1)))
    async with setup.running() as publisher:
        first = await publisher.prepare(batch(image("a", 1)))
        half = await publisher.prepare(batch(image("a", 1), image("b", 1)))
        await publisher.prepare(batch(image("b", 2), image("c", 1)))
        other = await publisher.prepare(batch(image("b", 3), image("d", 1), shard="other"))
        await asyncio.sleep(1)  # the first is in flight
        started = asyncio.get_running_loop().time()
        await publisher.release("s")
        assert asyncio.get_running_loop().time() - started == pytest.approx(1, abs=0.5)
        await publisher.commit(first)
        with pytest.raises(ReleasedError):
            await publisher.commit(half)
        await publisher.commit(other)
    assert {k.user_id: change.revision for k, change in sink.values.items()} == {"a": 1, "b": 3, "d": 1}


@in_virtual_time
async def test_a_call_that_fails_in_a_hand_over_is_published_again():
    sink = MemorySink(delay_s=2)
    sink.decide = lambda _: TransientError("the answer was lost")
    setup = PublishSetup(sink, scores=Scores(a=1))
    async with setup.running() as publisher:
        prepared = await publisher.prepare(batch(image("a", 1)))
        await asyncio.sleep(1)
        await publisher.release("s")
        with pytest.raises(ReleasedError):
            await publisher.commit(prepared)
        setup.lost.add("s")
        await publisher.drained()
    assert len(sink.calls) == 1
    assert setup.scores.restated == ["a"]


@in_virtual_time
async def test_what_is_left_of_a_shard_handed_over_makes_room_for_others():
    setup = PublishSetup(MemorySink(delay_s=1), options=PublishOptions(sender=SenderOptions(capacity=2, concurrency=1)))
    setup.sinks[0].max_batch = 1
    async with setup.running() as publisher:
        await publisher.prepare(batch(image("a", 1), image("b", 1)))
        waiting = asyncio.create_task(publisher.prepare(batch(image("c", 1), image("d", 1), shard="other")))
        await asyncio.sleep(0.5)
        await publisher.release("s")
        await publisher.commit(await waiting)
    assert {k.user_id for k in setup.sinks[0].values} == {"a", "c", "d"}
