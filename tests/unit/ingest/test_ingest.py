import asyncio
from collections.abc import Sequence
from decimal import Decimal

import pytest

from service.ingest.definition_book import CurrentDefinitions
from service.ingest.ingest import PreparedEvents
from service.ingest.stores import Change, EndpointKey, Outcome
from service.runtime.errors import LetGoError, TransientError
from service.scoring.definitions import Definition, Malformed
from service.scoring.event import Reason, Rejected
from service.scoring.fold import UserKey
from service.sources.registry import Registry
from tests.fakes.aio import VirtualClock, run
from tests.fakes.ingest import P, World, batch, body


def test_each_kind_of_record_goes_where_it_belongs():
    world = World()
    world.play(
        batch(
            body("_campaign.send", "e", "ann"),
            body("open", "e", campaign_id="c"),
            body("unknown", "e"),
            body("open", "stranger"),
            body("open", "stranger", campaign_id="c"),
            body("_test.event_stream"),
            b"no json",
        )
    )
    assert world.score("ann") == 12
    assert sorted(world.reasons()) == [Reason.NOT_JSON, Reason.UNRESOLVED_USER]
    counts = {name: world.counted(name) for name in ("scored", "ignored", "anonymous", "skipped", "dead_lettered")}
    assert counts == {"scored": 2, "ignored": 1, "anonymous": 1, "skipped": 1, "dead_lettered": 2}


def test_an_ignored_event_teaches_whose_an_endpoint_is():
    world = World()
    world.play(batch(body("_journey.send", "e", "ann")), batch(body("open", "e", journey_id="j"), first=2))
    assert world.score("ann") == 10


def test_only_the_projects_wanted_are_scored():
    world = World(project_ids=["another"])
    world.play(batch(body("open", "e", "ann")))
    assert world.counted("foreign") == 1
    assert world.scores.items == {}


def test_a_letter_has_the_record_its_pointer_and_no_payload_in_its_detail():
    world = World()
    world.play(batch(b'{"event_type": ["ann@example.com"]}', first=77))
    (letter,) = world.letters.letters.values()
    assert (letter.stage, letter.stream, letter.shard_id, letter.sequence) == (
        "ingest", "events", "shardId-000000000000", "77",
    )  # fmt: skip
    assert (letter.payload, letter.partition_key) == (b'{"event_type": ["ann@example.com"]}', "key-0")
    assert "ann@example.com" not in letter.detail


def test_events_of_a_user_whose_item_is_no_score_are_set_aside_and_nobody_else_waits():
    world = World()
    world.scores.spoil(UserKey("bad", P))
    world.play(batch(body("open", "b", "bad"), body("open", "g", "good"), body("open", "b", "bad")))
    assert world.score("good") == 10
    assert [letter.stage for letter in world.letters.letters.values()] == ["commit", "commit"]
    assert world.reasons() == [Reason.BAD_SCORE_ITEM] * 2
    assert (world.counted("scored"), world.counted("dead_lettered")) == (1, 2)


def test_what_was_set_aside_stays_so_when_it_is_read_again_though_its_user_is_known_by_then():
    """Or a redrive of the letter would count the event a second time."""
    world = World()
    opened = batch(body("open", "e", campaign_id="c"))
    world.play(opened)
    assert world.reasons() == [Reason.UNRESOLVED_USER]
    world.play(batch(body("_campaign.send", "e", "ann"), first=9, shard="shardId-000000000001"))
    world.play(opened)
    assert world.score("ann") == 2
    assert world.counted("replayed") == 1


def test_records_that_only_this_worker_can_have_seen_cost_no_question():
    world = World()
    world.letters.faults.append(TransientError("asked"))
    world.play(batch(body("open", "e", "ann"), replayed=False))
    assert world.score("ann") == 10


def test_a_commit_tried_again_after_a_failure_of_the_dead_letters_counts_nothing_twice():
    world = World()
    each = batch(body("open", "e", "ann"), b"no json")

    async def main() -> None:
        await world.book.refresh()
        ingest = world.restart()
        prepared = await ingest.prepare(each)
        world.letters.faults.append(TransientError("not now"))
        with pytest.raises(TransientError):
            await ingest.commit(prepared)
        await ingest.commit(prepared)

    run(main())
    assert world.score("ann") == 10
    assert (world.counted("scored"), world.counted("replayed"), world.counted("dead_lettered")) == (1, 0, 1)


def test_an_event_is_set_aside_before_a_later_one_of_its_user_marks_it_as_dealt_with():
    world = World()
    records = batch(body("open", "e", campaign_id="c"), body("open", "other", "ann"))

    async def main() -> None:
        await world.book.refresh()
        ingest = world.restart()
        prepared = await ingest.prepare(records)
        world.letters.faults.append(RuntimeError("the worker dies here"))
        with pytest.raises(RuntimeError):
            await ingest.commit(prepared)
        await world.identities.learn({EndpointKey("e", P): "ann"})
        again = world.restart()
        await again.commit(await again.prepare(records))

    run(main())
    assert (world.score("ann"), world.reasons()) == (20, [])


def test_a_commit_tried_again_after_the_table_could_not_be_read_scores_its_events():
    world = World()

    async def main() -> None:
        await world.book.refresh()
        ingest = world.restart()
        prepared = await ingest.prepare(batch(body("open", "e", "ann")))
        world.scores.faults.append(TransientError("later"))
        with pytest.raises(TransientError):
            await ingest.commit(prepared)
        await ingest.commit(prepared)

    run(main())
    assert world.score("ann") == 10


def test_definitions_change_without_a_restart_and_a_broken_one_keeps_its_last_good_value():
    world = World()
    world.play(batch(body("open", "e", "ann")))
    world.definitions.rows["open", P] = Malformed("open", P, "ScoreOffset is a string")
    world.play(batch(body("open", "e", "ann"), first=2))
    assert world.score("ann") == 20
    world.definitions.rows["open", P] = Definition("open", P, Decimal("-0.5"))
    world.play(batch(body("open", "e", "ann"), first=3))
    assert world.score("ann") == Decimal("19.5")
    del world.definitions.rows["open", P]
    world.play(batch(body("open", "e", "ann"), first=4))
    assert world.counted("ignored") == 1


def test_definitions_are_read_again_by_themselves_and_a_failed_read_keeps_the_last():
    world = World()

    async def main() -> Decimal | None:
        clock = VirtualClock()
        book = CurrentDefinitions(world.definitions, clock, world.metrics, refresh_s=5)
        await book.refresh()
        refreshing = asyncio.create_task(book.run())
        world.definitions.fault = TransientError("throttled")
        await clock.sleep(6)
        assert book.book.points("open", P) == 10
        world.definitions.rows["open", P] = Definition("open", P, Decimal(11))
        await clock.sleep(5)
        refreshing.cancel()
        return book.book.points("open", P)

    assert run(main()) == 11


def test_a_batch_let_go_of_sets_aside_what_it_must_and_stops_writing_and_the_next_reader_counts_the_rest_once():
    async def main() -> None:
        world = World()
        await world.book.refresh()
        users = [body("open", f"e{number}", f"user {number}") for number in range(60)]
        given = batch(*users, b"no json")
        ingest = world.restart()
        slow, written = asyncio.Event(), world.scores.commit

        async def commit(changes: Sequence[Change]) -> Sequence[Outcome]:
            outcomes = await written(changes)
            if world.scores.commits > 1:
                await slow.wait()
            return outcomes

        world.scores.commit = commit  # a slow table
        committing = asyncio.create_task(ingest.commit(await ingest.prepare(given)))
        await asyncio.sleep(0.1)
        await ingest.let_go(given.shard_id)
        with pytest.raises(LetGoError):
            await committing
        with pytest.raises(LetGoError):
            await ingest.commit(unwritten := PreparedEvents(given, Registry(), groups={UserKey("late", P): []}))
        assert unwritten.tally is None
        assert world.reasons() == [Reason.NOT_JSON]
        slow.set()
        for reader in (ingest, world.restart()):
            await reader.commit(await reader.prepare(given))
        assert {world.score(f"user {number}") for number in range(60)} == {Decimal(10)}
        assert len(world.letters.letters) == 1

    run(main())


def test_of_a_user_who_is_refused_only_what_is_in_no_score_is_set_aside(monkeypatch: pytest.MonkeyPatch):
    world = World()
    before = [body("open", "e", "u"), body("open", "e", "u")]
    world.play(batch(*before))
    score = world.score("u")

    async def refuse(changes: Sequence[Change]) -> list[Rejected]:
        return [Rejected(Reason.SCORE_REFUSED, "too large") for _ in changes]

    # Its worker died before its checkpoint; who reads the batch again finds one event more, and the item full.
    monkeypatch.setattr(world.scores, "commit", refuse)
    world.play(batch(*before, body("open", "e", "u")))
    assert world.score("u") == score
    assert [letter.sequence for letter in world.letters.letters.values()] == ["3"]
