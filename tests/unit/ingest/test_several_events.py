"""Records that hold several events of several people: each counts, or is set aside, by itself."""

from __future__ import annotations

import asyncio
import gzip
import json
from decimal import Decimal

from service.ingest.ingest import SLICE
from service.ingest.letters import place_of
from service.ingest.stores import DeadLetter
from service.scoring.definitions import Definition
from service.scoring.event import Reason
from service.scoring.fold import UserKey
from service.sources.registry import Registry
from tests.fakes.aio import run
from tests.fakes.ingest import IngestSetup, P, batch, body


def lines(*events: bytes) -> bytes:
    return b"\n".join(events)


def letters(setup: IngestSetup) -> list[DeadLetter]:
    return list(setup.letters.letters.values())


def test_every_event_of_a_record_counts_for_its_own_person():
    record = lines(body("open", "a", "ann"), body("open", "b", "ben"), body("_campaign.send", "a", "ann"))
    for data in (record, gzip.compress(record), b"[" + record.replace(b"\n", b",") + b"]"):
        setup = IngestSetup()
        setup.play(batch(data))
        assert (setup.score("ann"), setup.score("ben"), setup.reasons()) == (12, 10, [])
        assert setup.counted("scored") == 3


def test_a_dead_letter_holds_its_own_event_only_and_its_siblings_count():
    unresolved = body("open", "stranger", campaign_id="c")
    setup = IngestSetup()
    setup.play(batch(lines(body("open", "a", "ann"), b"damaged", unresolved, body("open", "b", "ben")), first=7))
    assert (setup.score("ann"), setup.score("ben")) == (10, 10)
    assert [(letter.reason, letter.payload, letter.sequence) for letter in letters(setup)] == [
        (Reason.NOT_JSON, b"damaged", "7"),
        (Reason.UNRESOLVED_USER, unresolved, "7"),
    ]
    assert [place_of(letter.letter_id) for letter in letters(setup)] == [(2, 0), (3, 0)]
    assert [letter.payload_size for letter in letters(setup)] == [7, len(unresolved)]


def test_the_letter_of_a_record_of_one_event_keeps_its_former_id():
    setup = IngestSetup()
    setup.play(batch(b"damaged", first=7))
    (letter,) = letters(setup)
    assert letter.letter_id == f"tag-0.{'7':0>38}"


def test_redriving_the_letter_of_one_event_counts_only_that_event():
    unresolved = body("open", "stranger", campaign_id="c")
    setup = IngestSetup()
    setup.play(batch(lines(body("open", "a", "ann"), unresolved, body("open", "b", "ben"))))
    (letter,) = letters(setup)
    setup.play(batch(body("_campaign.send", "stranger", "eve"), letter.payload, first=9))
    assert (setup.score("ann"), setup.score("ben"), setup.score("eve")) == (10, 10, 12)


def test_a_record_read_again_skips_only_its_events_that_were_set_aside():
    unresolved = body("open", "stranger", campaign_id="c")
    again = batch(lines(body("open", "a", "ann"), unresolved, body("open", "b", "ben")))
    setup = IngestSetup()
    setup.play(again)
    setup.play(batch(body("_campaign.send", "stranger", "eve"), first=9, shard="shardId-000000000001"))
    setup.play(again)
    assert (setup.score("ann"), setup.score("ben"), setup.score("eve")) == (10, 10, 2)
    assert setup.counted("replayed") == 3
    assert len(letters(setup)) == 1


def test_only_events_of_the_person_with_a_bad_item_are_set_aside():
    setup = IngestSetup()
    setup.scores.spoil(UserKey("bad", P))
    spoilt = body("open", "b", "bad")
    setup.play(batch(lines(body("open", "g", "good"), spoilt, body("open", "g", "good"))))
    assert setup.score("good") == 20
    (letter,) = letters(setup)
    assert (letter.stage, letter.reason, letter.payload) == ("commit", Reason.BAD_SCORE_ITEM, spoilt)


def ses_delivery(*recipients: str, tags: dict[str, list[str]] | None = None) -> bytes:
    return json.dumps(
        {
            "source": "aws.ses",
            "time": "2026-11-20T10:00:00Z",
            "detail": {
                "eventType": "Delivery",
                "mail": {"messageId": "m", "destination": list(recipients), "tags": tags or {}},
                "delivery": {"timestamp": "2026-11-20T10:00:00Z", "recipients": list(recipients)},
            },
        }
    ).encode()


def test_an_event_set_aside_whole_stays_so_when_it_is_divided_later():
    """Its letter holds all of its people: once redriven, those that were read again would count twice."""
    delivery = ses_delivery("a@example.org", "b@example.org", tags={"project_id": [P], "user_id": ["ann"]})
    known = IngestSetup()
    known.definitions.rows["_email.delivered", P] = Definition("_email.delivered", P, Decimal(2))
    known.play(batch(delivery))
    assert known.score("ann") == 4

    setup = IngestSetup()
    setup.definitions.rows["_email.delivered", P] = Definition("_email.delivered", P, Decimal(2))
    setup.play(batch(b"damaged"))
    (letter,) = letters(setup)
    assert letter.letter_id.endswith("1")
    # The same record, as a later version reads it: two people instead of one unknown event.
    setup.play(batch(delivery))
    assert (setup.score("ann"), setup.counted("replayed")) == (None, 2)


def test_letters_of_two_people_of_one_event_hold_one_person_each():
    setup = IngestSetup()
    event = ses_delivery("a@example.org", "b@example.org")
    setup.play(batch(lines(body("open", "a", "ann"), event)))
    assert setup.reasons() == [Reason.NO_PROJECT] * 2
    assert [place_of(letter.letter_id) for letter in letters(setup)] == [(2, 1), (2, 2)]
    people = [json.loads(letter.payload)["detail"]["delivery"]["recipients"] for letter in letters(setup)]
    assert people == [["a@example.org"], ["b@example.org"]]
    record = lines(body("open", "a", "ann"), event)
    for letter in letters(setup):
        assert Registry().payload(record, *place_of(letter.letter_id)) == letter.payload


def test_events_are_counted_by_source_and_outcome():
    setup = IngestSetup()
    subscribed = b'{"notificationType":"AmazonSnsSubscriptionSucceeded"}'
    setup.play(batch(lines(body("open", "a", "ann"), b'{"a":1}', subscribed), body("_test.event_stream")))
    counted = {
        (sample.labels["source"], sample.labels["outcome"]): sample.value
        for metric in setup.metrics.source_events.collect()
        for sample in metric.samples
        if sample.name.endswith("_total")
    }
    assert counted == {
        ("pinpoint", "event"): 1,
        ("pinpoint", "skipped"): 1,
        ("ses", "skipped"): 1,
        ("none", "rejected"): 1,
    }


def test_many_events_in_one_record_leave_others_their_turn():
    setup = IngestSetup()
    record = lines(*[body("open", "a", "ann")] * SLICE)

    async def main() -> int:
        await setup.book.refresh()
        turns = 0

        async def other() -> None:
            nonlocal turns
            while True:
                turns += 1
                await asyncio.sleep(0)

        waiting = asyncio.create_task(other())
        await setup.restart().prepare(batch(*[record] * 10))
        waiting.cancel()
        return turns

    assert run(main()) >= 10
