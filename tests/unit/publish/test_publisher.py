from __future__ import annotations

import asyncio

import pytest

from service.ingest.stores import NoTarget, SinkOutcome
from service.publish.publisher import PublishOptions
from service.publish.sender import SenderOptions
from service.runtime.errors import TransientError
from service.scoring.change import ScoreChange
from service.scoring.event import Reason, Rejected
from tests.fakes.aio import in_virtual_time
from tests.fakes.images import stream_image
from tests.fakes.publishing import PublishSetup, batch, image, key, publish
from tests.fakes.sinks import MemorySink


@in_virtual_time
async def test_commit_returns_when_every_sink_has_the_newest_score():
    quick, slow = MemorySink("quick"), MemorySink("slow", delay_s=3)
    setup = PublishSetup(quick, slow)
    async with setup.running() as publisher:
        await publish(publisher, image("a", 1), image("b", 1), image("a", 2))
    for sink in (quick, slow):
        assert {k.user_id: c.revision for k, c in sink.values.items()} == {"a": 2, "b": 1}
        assert len(sink.calls) == 1
    assert setup.count("sink_coalesced_total", sink="slow") == 1
    assert setup.count("sink_updates_total", sink="slow", outcome="published") == 2
    assert setup.count("sink_pending", sink="slow") == 0


@in_virtual_time
async def test_after_an_outage_only_the_newest_score_goes_out():
    sink = MemorySink()
    published: list[int] = []

    def down(_: ScoreChange) -> NoTarget:
        raise TransientError("down")

    sink.decide, up = down, sink.decide
    setup = PublishSetup(sink)
    async with setup.running() as publisher:
        first = asyncio.create_task(publish(publisher, image("a", 1)))
        await asyncio.sleep(120)
        attempts = len(sink.calls)
        assert 5 < attempts < 60
        second = asyncio.create_task(publish(publisher, image("a", 2)))
        await asyncio.sleep(1)
        sink.decide = lambda change: (published.append(change.revision), up(change))[1]
        await first
        await second
    assert published == [2]


@in_virtual_time
async def test_one_change_that_fails_for_now_does_not_hold_up_the_others():
    tries = iter(range(3))

    def decide(change: ScoreChange) -> SinkOutcome | TransientError:
        if change.key.user_id == "bad" and next(tries, None) is not None:
            return TransientError("not now", throttled=True)
        return NoTarget()

    setup = PublishSetup(MemorySink(decide=decide))
    async with setup.running() as publisher:
        bad = await publisher.prepare(batch(image("bad", 1), shard="x"))
        await publish(publisher, image("good", 1))
        await publisher.commit(bad)
    assert setup.count("sink_errors_total", sink="memory", kind="throttled") == 3
    assert setup.count("sink_updates_total", sink="memory", outcome="no_target") == 2


@in_virtual_time
async def test_a_refused_score_becomes_one_dead_letter_however_often_replayed():
    setup = PublishSetup(MemorySink(decide=lambda _: Rejected(Reason.SINK_REJECTED, "no")))
    async with setup.running() as publisher:
        await publish(publisher, image("somebody", 3))
        await publish(publisher, image("somebody", 3))
    [letter] = setup.letters.letters.values()
    assert (letter.stage, letter.reason, letter.shard_id) == ("publish", Reason.SINK_REJECTED, "s")
    assert letter.payload == b'{"user":"somebody","project":"p","score":"3","revision":3}'
    assert "somebody" not in letter.detail
    assert setup.count("dead_letters_total", stage="publish", reason="sink_rejected") == 2


@in_virtual_time
async def test_an_unreadable_image_becomes_a_dead_letter_the_rest_goes_out():
    setup = PublishSetup()
    broken = stream_image({"UserId": {"S": "a"}, "PinpointProjectId": {"S": "p"}}, {"Score": {"S": "12"}})
    async with setup.running() as publisher:
        await publish(publisher, broken, image("b", 1))
    assert [letter.reason for letter in setup.letters.letters.values()] == [Reason.BAD_SCORE_ITEM]
    assert key("b") in setup.sinks[0].values


@in_virtual_time
async def test_a_removal_is_not_published_and_the_next_life_is():
    setup = PublishSetup()
    async with setup.running() as publisher:
        await publish(publisher, image("a", 9))
        await publish(publisher, image("a", 0))
        await publish(publisher, image("a", 1))
    assert setup.sinks[0].values[key("a")].revision == 1


@in_virtual_time
async def test_a_full_outbox_holds_up_the_next_batch():
    sink = MemorySink()
    sink.gate.clear()
    setup = PublishSetup(sink, options=PublishOptions(SenderOptions(capacity=2)))
    async with setup.running() as publisher:
        preparing = asyncio.create_task(publisher.prepare(batch(*(image(user, 1) for user in "abc"))))
        await asyncio.sleep(60)
        assert not preparing.done()
        sink.gate.set()
        await publisher.commit(await preparing)
    assert len(sink.values) == 3


@in_virtual_time
async def test_calls_in_flight_are_bounded_and_full_batches_do_not_linger():
    sink = MemorySink(max_batch=10, delay_s=1)
    setup = PublishSetup(sink, options=PublishOptions(SenderOptions(linger_s=100, concurrency=3)))
    async with setup.running() as publisher:
        started = asyncio.get_running_loop().time()
        await publish(publisher, *(image(f"u{n}", 1) for n in range(60)))
        assert asyncio.get_running_loop().time() - started == pytest.approx(2, abs=0.1)
    assert sink.most_flying == 3


@pytest.mark.parametrize(("wanted", "published"), [((), {"a"}), (("p", "r"), {"a"}), (("q",), set())])
@in_virtual_time
async def test_scores_of_projects_that_are_not_ours_are_left_alone(wanted: tuple[str, ...], published: set[str]):
    setup = PublishSetup(options=PublishOptions(project_ids=wanted))
    async with setup.running() as publisher:
        await publish(publisher, image("a", 3))
    assert {each.user_id for each in setup.sinks[0].values} == published


@in_virtual_time
async def test_with_enough_calls_in_flight_only_full_batches_go_out():
    sink = MemorySink(max_batch=3)
    sink.gate.clear()
    setup = PublishSetup(sink, options=PublishOptions(SenderOptions(linger_s=0.1, concurrency=6, eager=2)))
    async with setup.running() as publisher:
        for user in ("a", "b", "c", "d"):
            await publisher.prepare(batch(image(user, 1)))
            await asyncio.sleep(1)
        assert [len(call) for call in sink.calls] == [1, 1]  # c and d wait for a call to end
        await publisher.prepare(batch(image("e", 1)))
        await asyncio.sleep(1)
        assert [len(call) for call in sink.calls] == [1, 1, 3]
        await publisher.prepare(batch(image("f", 1)))
        await asyncio.sleep(1)
        assert len(sink.calls) == 3
        sink.gate.set()
        await asyncio.sleep(1)
    assert [len(call) for call in sink.calls] == [1, 1, 3, 1]
    assert len(sink.values) == 6
