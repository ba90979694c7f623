import asyncio
from collections.abc import Sequence
from decimal import Decimal

import pytest

from service.ingest.definition_book import CurrentDefinitions
from service.ingest.prepared import PreparedEvents
from service.ingest.stores import AliasKey, Change, Outcome
from service.runtime.errors import ReleasedError, TransientError
from service.scoring.definitions import Definition, Malformed
from service.scoring.event import Reason, Rejected
from service.scoring.fold import UserKey
from service.sources.registry import Registry
from tests.fakes.aio import VirtualClock, in_virtual_time, run
from tests.fakes.ingest import IngestSetup, P, batch, body


def test_each_kind_of_record_goes_where_it_belongs():
    setup = IngestSetup()
    setup.play(
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
    assert setup.score("ann") == 12
    assert sorted(setup.reasons()) == [Reason.NOT_JSON, Reason.UNRESOLVED_USER]
    counts = {name: setup.counted(name) for name in ("scored", "ignored", "anonymous", "skipped", "dead_lettered")}
    assert counts == {"scored": 2, "ignored": 1, "anonymous": 1, "skipped": 1, "dead_lettered": 2}


def test_an_ignored_event_teaches_whose_an_endpoint_is():
    setup = IngestSetup()
    setup.play(batch(body("_journey.send", "e", "ann")), batch(body("open", "e", journey_id="j"), first=2))
    assert setup.score("ann") == 10


def test_only_the_projects_wanted_are_scored():
    setup = IngestSetup(project_ids=["another"])
    setup.play(batch(body("open", "e", "ann")))
    assert setup.counted("foreign") == 1
    assert setup.scores.items == {}


def test_a_letter_has_the_record_its_pointer_and_no_payload_in_its_detail():
    setup = IngestSetup()
    setup.play(batch(b'{"event_type": ["ann@example.com"]}', first=77))
    (letter,) = setup.letters.letters.values()
    assert (letter.stage, letter.stream, letter.shard_id, letter.sequence) == (
        "ingest", "events", "shardId-000000000000", "77",
    )  # fmt: skip
    assert (letter.payload, letter.partition_key) == (b'{"event_type": ["ann@example.com"]}', "key-0")
    assert "ann@example.com" not in letter.detail


def test_events_of_a_user_with_an_unreadable_item_are_set_aside():
    setup = IngestSetup()
    setup.scores.spoil(UserKey("bad", P))
    setup.play(batch(body("open", "b", "bad"), body("open", "g", "good"), body("open", "b", "bad")))
    assert setup.score("good") == 10
    assert [letter.stage for letter in setup.letters.letters.values()] == ["commit", "commit"]
    assert setup.reasons() == [Reason.BAD_SCORE_ITEM] * 2
    assert (setup.counted("scored"), setup.counted("dead_lettered")) == (1, 2)


def test_what_was_set_aside_stays_so_when_read_again():
    """Or a redrive of the letter would count the event a second time."""
    setup = IngestSetup()
    opened = batch(body("open", "e", campaign_id="c"))
    setup.play(opened)
    assert setup.reasons() == [Reason.UNRESOLVED_USER]
    setup.play(batch(body("_campaign.send", "e", "ann"), first=9, shard="shardId-000000000001"))
    setup.play(opened)
    assert setup.score("ann") == 2
    assert setup.counted("replayed") == 1


def test_records_that_only_this_worker_can_have_seen_cost_no_question():
    setup = IngestSetup()
    setup.letters.faults.append(TransientError("asked"))
    setup.play(batch(body("open", "e", "ann"), replayed=False))
    assert setup.score("ann") == 10


@in_virtual_time
async def test_a_commit_after_a_failure_of_the_letters_counts_nothing_twice():
    setup = IngestSetup()
    each = batch(body("open", "e", "ann"), b"no json")

    await setup.book.refresh()
    ingest = setup.restart()
    prepared = await ingest.prepare(each)
    setup.letters.faults.append(TransientError("not now"))
    with pytest.raises(TransientError):
        await ingest.commit(prepared)
    await ingest.commit(prepared)
    assert setup.score("ann") == 10
    assert (setup.counted("scored"), setup.counted("replayed"), setup.counted("dead_lettered")) == (1, 0, 1)


@in_virtual_time
async def test_an_event_is_set_aside_before_a_later_one_moves_the_mark():
    setup = IngestSetup()
    records = batch(body("open", "e", campaign_id="c"), body("open", "other", "ann"))

    await setup.book.refresh()
    ingest = setup.restart()
    prepared = await ingest.prepare(records)
    setup.letters.faults.append(RuntimeError("the worker dies here"))
    with pytest.raises(RuntimeError):
        await ingest.commit(prepared)
    await setup.identities.learn({AliasKey("e", P): "ann"})
    again = setup.restart()
    await again.commit(await again.prepare(records))
    assert (setup.score("ann"), setup.reasons()) == (20, [])


@in_virtual_time
async def test_a_commit_tried_again_after_a_failed_read_scores_its_events():
    setup = IngestSetup()

    await setup.book.refresh()
    ingest = setup.restart()
    prepared = await ingest.prepare(batch(body("open", "e", "ann")))
    setup.scores.faults.append(TransientError("later"))
    with pytest.raises(TransientError):
        await ingest.commit(prepared)
    await ingest.commit(prepared)
    assert setup.score("ann") == 10


def test_a_broken_definition_keeps_its_last_good_value():
    setup = IngestSetup()
    setup.play(batch(body("open", "e", "ann")))
    setup.definitions.rows["open", P] = Malformed("open", P, "ScoreOffset is a string")
    setup.play(batch(body("open", "e", "ann"), first=2))
    assert setup.score("ann") == 20
    setup.definitions.rows["open", P] = Definition("open", P, Decimal("-0.5"))
    setup.play(batch(body("open", "e", "ann"), first=3))
    assert setup.score("ann") == Decimal("19.5")
    del setup.definitions.rows["open", P]
    setup.play(batch(body("open", "e", "ann"), first=4))
    assert setup.counted("ignored") == 1


def test_definitions_are_read_again_and_a_failed_read_keeps_the_last():
    setup = IngestSetup()

    async def main() -> Decimal | None:
        clock = VirtualClock()
        book = CurrentDefinitions(setup.definitions, clock, setup.metrics, refresh_s=5)
        await book.refresh()
        refreshing = asyncio.create_task(book.run())
        setup.definitions.fault = TransientError("throttled")
        await clock.sleep(6)
        assert book.book.points("open", P) == 10
        setup.definitions.rows["open", P] = Definition("open", P, Decimal(11))
        await clock.sleep(5)
        refreshing.cancel()
        return book.book.points("open", P)

    assert run(main()) == 11


@in_virtual_time
async def test_a_released_batch_stops_writing_and_its_rest_counts_once():
    setup = IngestSetup()
    await setup.book.refresh()
    users = [body("open", f"e{number}", f"user {number}") for number in range(60)]
    given = batch(*users, b"no json")
    ingest = setup.restart()
    slow, written = asyncio.Event(), setup.scores.commit

    async def commit(changes: Sequence[Change]) -> Sequence[Outcome]:
        outcomes = await written(changes)
        if setup.scores.commits > 1:
            await slow.wait()
        return outcomes

    setup.scores.commit = commit  # a slow table
    committing = asyncio.create_task(ingest.commit(await ingest.prepare(given)))
    await asyncio.sleep(0.1)
    await ingest.release(given.shard_id)
    with pytest.raises(ReleasedError):
        await committing
    with pytest.raises(ReleasedError):
        await ingest.commit(unwritten := PreparedEvents(given, Registry(), groups={UserKey("late", P): []}))
    assert unwritten.tally is None
    assert setup.reasons() == [Reason.NOT_JSON]
    slow.set()
    for reader in (ingest, setup.restart()):
        await reader.commit(await reader.prepare(given))
    assert {setup.score(f"user {number}") for number in range(60)} == {Decimal(10)}
    assert len(setup.letters.letters) == 1


def test_of_a_user_who_is_refused_only_what_is_in_no_score_is_set_aside(monkeypatch: pytest.MonkeyPatch):
    setup = IngestSetup()
    before = [body("open", "e", "u"), body("open", "e", "u")]
    setup.play(batch(*before))
    score = setup.score("u")

    async def refuse(changes: Sequence[Change]) -> list[Rejected]:
        return [Rejected(Reason.SCORE_REFUSED, "too large") for _ in changes]

    # Its worker died before its checkpoint; who reads the batch again finds one event more, and the item full.
    monkeypatch.setattr(setup.scores, "commit", refuse)
    setup.play(batch(*before, body("open", "e", "u")))
    assert setup.score("u") == score
    assert [letter.sequence for letter in setup.letters.letters.values()] == ["3"]
