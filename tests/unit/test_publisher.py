from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator, Mapping, Sequence
from decimal import Decimal

import pytest

from service.observability.metrics import Metrics
from service.pipelines.outbox import Held
from service.pipelines.ports import Change, DeadLetter, NoTarget, Outcome, SinkOutcome
from service.pipelines.publish import Publisher, PublishOptions
from service.pipelines.sender import SenderOptions
from service.scoring.change import ScoreChange, StreamImage
from service.scoring.event import Reason, Rejected
from service.scoring.fold import ABSENT, Origin, ScoreState, UserKey
from service.shards.clock import SystemClock
from service.shards.errors import LeaseLostError, LetGoError, TransientError
from service.shards.ports import Batch, Record, StreamId
from tests.fakes.aio import run
from tests.fakes.images import stream_image
from tests.fakes.sinks import MemorySink

STREAM = StreamId("scores", "arn", "tag")


def key(user: str) -> UserKey:
    return UserKey(user, "p")


class Scores:
    """`ScoreStore`, of which publishing only reads."""

    def __init__(self, **revisions: int) -> None:
        self.revisions = dict(revisions)
        self.loads = 0

    async def load(self, keys: Sequence[UserKey]) -> Mapping[UserKey, ScoreState | Rejected]:
        self.loads += 1
        await asyncio.sleep(0.01)
        return {k: self._state(self.revisions.get(k.user_id, 0)) for k in keys}

    async def commit(self, changes: Sequence[Change]) -> Sequence[Outcome]:
        raise NotImplementedError

    async def scan(self) -> AsyncIterator[ScoreChange]:
        for user, revision in list(self.revisions.items()):
            yield ScoreChange(key(user), Decimal(revision), revision, 0)

    def _state(self, revision: int) -> ScoreState:
        return ScoreState(Origin.OURS, Decimal(revision), revision, {}, 0) if revision else ABSENT


class Letters:
    def __init__(self) -> None:
        self.letters: dict[str, DeadLetter] = {}

    async def put(self, letters: Sequence[DeadLetter]) -> None:
        for letter in letters:
            self.letters.setdefault(letter.letter_id, letter)


class World:
    def __init__(
        self,
        *sinks: MemorySink,
        scores: Scores | None = None,
        held: Held | None = None,
        options: PublishOptions | None = None,
    ) -> None:
        self.lost: set[str] = set()
        self.letters = Letters()
        self.metrics = Metrics()
        self.sinks = sinks or (MemorySink(),)
        self.scores = scores or Scores()
        self.publisher = Publisher(
            self.sinks,
            self.scores,
            self.letters,
            held or (lambda shard: shard not in self.lost),
            SystemClock(),
            self.metrics,
            random.Random(1),
            options,
        )

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[Publisher]:
        task = asyncio.create_task(self.publisher.run())
        try:
            yield self.publisher
        finally:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task

    def count(self, name: str, **labels: str) -> float:
        return self.metrics.registry.get_sample_value(f"scoring_{name}", labels) or 0.0


def image(user: str, revision: int) -> StreamImage:
    keys = {"UserId": {"S": user}, "PinpointProjectId": {"S": "p"}}
    new = {**keys, "Score": {"N": str(revision)}, "Revision": {"N": str(revision)}, "UpdatedAt": {"N": "1000"}}
    return stream_image(keys, new if revision else None)


def batch(*images: StreamImage, shard: str = "s", taken_over: bool = False) -> Batch[StreamImage]:
    records = [Record(str(index), data, 0, "", 1) for index, data in enumerate(images, 1)]
    return Batch(STREAM, shard, records, float("inf"), taken_over)


async def publish(publisher: Publisher, *images: StreamImage, shard: str = "s", taken_over: bool = False) -> None:
    await publisher.commit(await publisher.prepare(batch(*images, shard=shard, taken_over=taken_over)))


def test_commit_returns_when_every_sink_has_the_newest_score():
    async def main() -> None:
        quick, slow = MemorySink("quick"), MemorySink("slow", delay_s=3)
        world = World(quick, slow)
        async with world.running() as publisher:
            await publish(publisher, image("a", 1), image("b", 1), image("a", 2))
        for sink in (quick, slow):
            assert {k.user_id: c.revision for k, c in sink.values.items()} == {"a": 2, "b": 1}
            assert len(sink.calls) == 1
        assert world.count("sink_coalesced_total", sink="slow") == 1
        assert world.count("sink_updates_total", sink="slow", outcome="published") == 2
        assert world.count("sink_pending", sink="slow") == 0

    run(main())


def test_an_outage_is_outlasted_and_only_the_newest_score_goes_out_after_it():
    async def main() -> None:
        sink = MemorySink()
        published: list[int] = []

        def down(_: ScoreChange) -> NoTarget:
            raise TransientError("down")

        sink.decide, up = down, sink.decide
        world = World(sink)
        async with world.running() as publisher:
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

    run(main())


def test_one_change_that_fails_for_now_does_not_hold_up_the_others():
    async def main() -> None:
        tries = iter(range(3))

        def decide(change: ScoreChange) -> SinkOutcome | TransientError:
            if change.key.user_id == "bad" and next(tries, None) is not None:
                return TransientError("not now", throttled=True)
            return NoTarget()

        world = World(MemorySink(decide=decide))
        async with world.running() as publisher:
            bad = await publisher.prepare(batch(image("bad", 1), shard="x"))
            await publish(publisher, image("good", 1))
            await publisher.commit(bad)
        assert world.count("sink_errors_total", sink="memory", kind="throttled") == 3
        assert world.count("sink_updates_total", sink="memory", outcome="no_target") == 2

    run(main())


def test_what_the_sink_refuses_for_good_becomes_one_dead_letter_however_often_it_is_replayed():
    async def main() -> None:
        world = World(MemorySink(decide=lambda _: Rejected(Reason.SINK_REJECTED, "no")))
        async with world.running() as publisher:
            await publish(publisher, image("somebody", 3))
            await publish(publisher, image("somebody", 3))
        [letter] = world.letters.letters.values()
        assert (letter.stage, letter.reason, letter.shard_id) == ("publish", Reason.SINK_REJECTED, "s")
        assert letter.payload == b'{"user":"somebody","project":"p","score":"3","revision":3}'
        assert "somebody" not in letter.detail
        assert world.count("dead_letters_total", stage="publish", reason="sink_rejected") == 2

    run(main())


def test_an_image_that_is_no_score_becomes_a_dead_letter_and_the_rest_goes_out():
    async def main() -> None:
        world = World()
        broken = stream_image({"UserId": {"S": "a"}, "PinpointProjectId": {"S": "p"}}, {"Score": {"S": "12"}})
        async with world.running() as publisher:
            await publish(publisher, broken, image("b", 1))
        assert [letter.reason for letter in world.letters.letters.values()] == [Reason.BAD_SCORE_ITEM]
        assert key("b") in world.sinks[0].values

    run(main())


def test_a_removal_is_not_published_and_the_next_life_is():
    async def main() -> None:
        world = World()
        async with world.running() as publisher:
            await publish(publisher, image("a", 9))
            await publish(publisher, image("a", 0))
            await publish(publisher, image("a", 1))
        assert world.sinks[0].values[key("a")].revision == 1

    run(main())


def test_a_full_outbox_holds_up_the_next_batch():
    async def main() -> None:
        sink = MemorySink()
        sink.gate.clear()
        world = World(sink, options=PublishOptions(SenderOptions(capacity=2)))
        async with world.running() as publisher:
            preparing = asyncio.create_task(publisher.prepare(batch(*(image(user, 1) for user in "abc"))))
            await asyncio.sleep(60)
            assert not preparing.done()
            sink.gate.set()
            await publisher.commit(await preparing)
        assert len(sink.values) == 3

    run(main())


def test_calls_in_flight_are_bounded_and_full_batches_do_not_linger():
    async def main() -> None:
        sink = MemorySink(max_batch=10, delay_s=1)
        world = World(sink, options=PublishOptions(SenderOptions(linger_s=100, concurrency=3)))
        async with world.running() as publisher:
            started = asyncio.get_running_loop().time()
            await publish(publisher, *(image(f"u{n}", 1) for n in range(60)))
            assert asyncio.get_running_loop().time() - started == pytest.approx(2, abs=0.1)
        assert sink.most_flying == 3

    run(main())


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


def test_a_reconciliation_publishes_every_score_at_its_rate_and_never_an_older_one():
    async def main() -> None:
        scores = Scores(**{f"u{n}": 1 for n in range(500)})
        sink = MemorySink()
        world = World(sink, scores=scores, options=PublishOptions(reconcile_per_s=50))
        async with world.running() as publisher:
            started = asyncio.get_running_loop().time()
            reconciling = asyncio.create_task(publisher.reconcile(scores.scan()))
            await asyncio.sleep(0.1)
            scores.revisions["u0"] = 2  # changed, and published by another worker, after it was scanned
            sink.values[key("u0")] = ScoreChange(key("u0"), Decimal(2), 2, 0)
            assert await reconciling == 500
            assert asyncio.get_running_loop().time() - started == pytest.approx(10, abs=1)
        assert {c.key.user_id: c.revision for c in sink.values.values()} == scores.revisions

    run(main())


def test_a_requested_reconciliation_runs_by_itself():
    async def main() -> None:
        world = World(scores=Scores(a=4))
        async with world.running() as publisher:
            publisher.request_reconcile()
            await asyncio.sleep(5)
        assert world.sinks[0].values[key("a")].revision == 4

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
