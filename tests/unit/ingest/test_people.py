"""To whom an event belongs, and what becomes of one that belongs to nobody."""

from __future__ import annotations

import asyncio
import json

from service.ingest.identify import IdentitySettings
from service.ingest.stores import AliasKey
from service.scoring.event import Reason
from tests.fakes.aio import run
from tests.fakes.identities import MemoryLookup
from tests.fakes.ingest import IngestSetup, P, batch, body


def test_a_valid_event_in_the_wrong_shape_is_set_aside_with_what_it_lacks():
    """It was counted as ignored, without a letter or a line: 3 of the first 7 records that a new user tried."""
    setup = IngestSetup()
    setup.play(
        batch(
            b'{"event_type":"open","user_id":"ben@example.com","project_id":"project"}',
            json.dumps({"event_type": "open", "application": {"app_id": P}, "user_id": "ben@example.com"}).encode(),
            json.dumps({"event_type": "unknown", "user_id": "ben@example.com"}).encode(),
        )
    )
    assert setup.reasons() == [Reason.UNKNOWN_FORMAT, Reason.NO_PERSON, Reason.UNKNOWN_FORMAT]
    assert setup.counted("dead_lettered") == 3
    details = [letter.detail for letter in setup.letters.letters.values()]
    assert ["scoring sources apply" in details[0], "UserId" in details[1]] == [True, True]
    assert not any("ben@example.com" in detail for detail in details)


def test_a_message_without_a_user_is_set_aside_if_a_campaign_sent_it():
    setup = IngestSetup()
    setup.play(batch(body("_email.open"), body("_email.open", campaign_id="c")))
    assert setup.counted("anonymous") == 1
    assert setup.reasons() == [Reason.NO_PERSON]


def nobodys(kind: str, endpoint: str, **attributes: str) -> bytes:
    record = json.loads(body(kind, endpoint, **attributes))
    return json.dumps(record | {"client_context": {"custom": {"endpoint": json.dumps({"User": {}})}}}).encode()


def test_a_send_to_an_endpoint_without_a_user_is_anonymous_at_once():
    """300 such sends took 32 s and 300 calls, and left 300 letters."""
    lookup = MemoryLookup({})
    setup = IngestSetup(lookup=lookup)
    sends = [nobodys("_campaign.send", f"e{number}", campaign_id="c") for number in range(300)]
    opens = [body("_email.open", f"e{number}", campaign_id="c") for number in range(300)]
    setup.play(batch(*sends, *opens), batch(*opens, first=1000))
    assert (lookup.asked, setup.reasons(), setup.counted("anonymous")) == ([], [], 900)


def test_who_signed_out_is_not_credited_with_what_follows():
    setup = IngestSetup()
    setup.play(
        batch(body("_campaign.send", "e", "ann"), nobodys("_campaign.send", "e"), body("open", "e")),
        batch(body("open", "e"), first=10),
    )
    assert (setup.score("ann"), setup.counted("anonymous")) == (2, 3)


def web_session(endpoint: str) -> bytes:
    stored = {"ChannelType": "CUSTOM", "EndpointStatus": "ACTIVE"}
    return json.dumps(json.loads(body("open", endpoint)) | {"endpoint": stored}).encode()


def test_an_sdks_event_without_a_user_costs_no_call():
    """200 anonymous web sessions took 22 s."""
    lookup = MemoryLookup({})
    setup = IngestSetup(lookup=lookup)
    setup.play(batch(body("_campaign.send", "known", "ann"), *[web_session(f"web-{n}") for n in range(200)]))
    setup.play(batch(web_session("known"), first=1000))
    assert (lookup.asked, setup.reasons()) == ([], [])
    assert (setup.score("ann"), setup.counted("anonymous")) == (12, 200)


def test_a_campaign_event_leaves_a_letter_only_without_its_endpoint():
    lookup = MemoryLookup({AliasKey("nobodys", P): ""})
    setup = IngestSetup(lookup=lookup)
    setup.play(batch(body("open", "nobodys", campaign_id="c"), body("open", "deleted", campaign_id="c")))
    assert (setup.reasons(), setup.counted("anonymous")) == ([Reason.UNRESOLVED_USER], 1)


def test_look_ups_not_answered_in_time_hold_up_no_other_event():
    """One unanswered look-up held every record of the shard for as long as Pinpoint was away."""
    lookup = MemoryLookup({}, fails={AliasKey("e", P), AliasKey("f", P)})
    setup = IngestSetup(lookup=lookup)

    async def main() -> float:
        await setup.book.refresh()
        ingest = setup.restart()
        each = batch(body("open", "e", campaign_id="c"), body("open", "g", "ann"), body("open", "f"))
        await ingest.commit(await ingest.prepare(each))
        return asyncio.get_running_loop().time()

    assert run(main()) == IdentitySettings().lookup_wait_s
    assert setup.score("ann") == 10
    assert setup.reasons() == [Reason.LOOKUP_OVERDUE] * 2


def test_what_a_campaign_caused_is_looked_up_first():
    lookup = MemoryLookup({})
    setup = IngestSetup(lookup=lookup)
    setup.play(batch(body("open", "app"), body("open", "mail", campaign_id="c"), body("_email.open", "made-up")))
    assert lookup.asked == [AliasKey("mail", P), AliasKey("app", P)]


def test_messages_sent_by_api_are_looked_up_where_that_is_asked_for():
    """AWS says that `client_id` is the endpoint's id; where messages go to addresses, it is made up for each."""
    for ask_transactional, score in ((False, None), (True, 5)):
        lookup = MemoryLookup({AliasKey("e", P): "ann"})
        setup = IngestSetup(lookup=lookup, ask_transactional=ask_transactional)
        setup.play(batch(body("_email.open", "e"), body("_email.open", "made-up")))
        assert (setup.score("ann"), setup.reasons()) == (score, [])


def test_the_user_in_a_messages_context_gets_its_points():
    setup = IngestSetup()
    context = json.dumps({"userId": "ann"})
    setup.play(batch(body("_email.open", "made-up", customer_context=context), body("_email.open", "made-up")))
    assert (setup.score("ann"), setup.counted("anonymous")) == (5, 1)
    assert setup.identities.users == {}


def test_an_endpoint_is_the_same_in_capitals():
    setup = IngestSetup()
    setup.play(batch(body("_campaign.send", "Phone-A", "ann"), body("open", "phone-a"), body("open", "PHONE-A")))
    setup.play(batch(body("open", "pHONE-a"), first=10))
    assert setup.score("ann") == 32


def test_events_whose_type_has_no_definition_are_counted_by_type():
    setup = IngestSetup()
    setup.play(
        batch(*[body("cart.abandoned", "e", "ann")] * 3, body("line\nbreak", "e", "ann"), body("open", "e", "ann"))
    )
    value = setup.metrics.registry.get_sample_value
    assert value("scoring_events_without_definition_total", {"event_type": "cart.abandoned"}) == 3
    assert value("scoring_events_without_definition_total", {"event_type": "other"}) == 1
    assert setup.counted("ignored") == 4


def test_an_event_belongs_to_nobody_before_the_one_that_names_its_user():
    """The rule for what a device does before its first sign-in: nothing is credited backwards."""
    setup = IngestSetup()
    setup.play(batch(body("open", "e"), body("open", "e", campaign_id="c"), body("_campaign.send", "e", "ann")))
    assert setup.score("ann") == 2
    assert (setup.counted("anonymous"), setup.reasons()) == (1, [Reason.UNRESOLVED_USER])
