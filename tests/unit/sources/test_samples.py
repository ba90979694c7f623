"""What every line of `tests/samples/` comes to, written by hand."""

from pathlib import Path

import pytest

from service.scoring.event import Alias, AliasKind, Event, Reason, Skipped
from service.sources import pinpoint
from service.sources.outcomes import (
    Ambiguous,
    Outcome,
    RejectedEvent,
    SkippedEvent,
    Teaches,
)
from service.sources.registry import Registry

SAMPLES = Path(__file__).parents[2] / "samples"
REGISTRY = Registry(default_project="shop")

ADA = (Alias(AliasKind.EMAIL, "ada@example.org"),)
NUMBER = (Alias(AliasKind.PHONE, "+14255550142"),)
S = "\x1f"
AT_10 = 1_795_168_800_000
"""2026-11-20T10:00:00Z."""
AT_09 = AT_10 - 3_600_000


def lines(name: str) -> list[bytes]:
    return [line for line in (SAMPLES / f"{name}.jsonl").read_bytes().split(b"\n") if line]


def ses(
    event_type: str, time_ms: int, message: str, event_id: str, *, user: str = "u-1", aliases: tuple[Alias, ...] = ADA
) -> Event:
    return Event(
        event_type=event_type,
        project_id="shop",
        endpoint_id="",
        user_id=user,
        arrival_ms=time_ms,
        attributed=True,
        transactional=False,
        source="ses",
        aliases=aliases,
        event_id=f"{message}{S}{event_id}",
        message=message,
        campaign="autumn" if user else "",
    )


def sms(event_type: str, sent_as: str, message: str, *, user: str = "u-1", transactional: bool = False) -> Event:
    return Event(
        event_type=event_type,
        project_id="shop",
        endpoint_id="",
        user_id=user,
        arrival_ms=AT_10 + 512,
        attributed=not transactional,
        transactional=transactional,
        source="sms",
        aliases=NUMBER,
        event_id=f"{message}{S}{sent_as}{S}1795168800512",
        message=message,
        campaign="autumn" if user else "",
    )


def connect(event_type: str, number: int) -> Event:
    return Event(
        event_type=event_type,
        project_id="shop",
        endpoint_id="",
        user_id="",
        arrival_ms=AT_10,
        attributed=True,
        transactional=False,
        source="connect-campaigns",
        aliases=(*ADA, Alias(AliasKind.PROFILE, f"p-{number}")),
        event_id=f"ce-{number}",
        message="o-1",
        campaign="c-1",
    )


def plain(
    source: str,
    event_type: str,
    time_ms: int,
    event_id: str,
    *,
    user: str = "",
    aliases: tuple[Alias, ...] = (),
    message: str = "",
    index: int = 0,
) -> Event:
    return Event(
        event_type=event_type,
        project_id="shop",
        endpoint_id="",
        user_id=user,
        arrival_ms=time_ms,
        attributed=True,
        transactional=False,
        source=source,
        aliases=aliases,
        event_id=event_id,
        message=message,
        index=index,
    )


EXPECTED: dict[str, list[list[Outcome]]] = {
    "ses": [
        # Send: the time of the envelope, not `mail.timestamp`.
        [ses("_email.send", AT_10 + 1000, "0102018f-aaaa", f"Send{S}ada@example.org")],
        [
            ses(
                "_email.delivered",
                AT_09 + 2100,
                "0102018f-aaaa",
                f"Delivery{S}2026-11-20T09:00:02.100Z{S}ada@example.org",
            )
        ],
        [ses("_email.open", AT_10 + 512, "0102018f-aaaa", f"Open{S}2026-11-20T10:00:00.512Z")],
        [ses("_email.open", AT_09 + 3000, "0102018f-aaaa", f"Open{S}2026-11-20T09:00:03.000Z")],
        [
            ses(
                "_email.click",
                AT_10 + 30_000,
                "0102018f-aaaa",
                f"Click{S}2026-11-20T10:00:30.000Z{S}https://shop.example/a",
            )
        ],
        # Two destinations, one of which bounced: one event, of the tag's user; whose address bob's is, is not said.
        [
            ses(
                "_email.hardbounce",
                AT_09 + 5000,
                "0102018f-bbbb",
                f"Bounce{S}2026-11-20T09:00:05.000Z{S}bob@example.org",
                aliases=(),
            )
        ],
        # No tag: the address is the person, in lower case.
        [
            ses(
                "_email.softbounce",
                AT_09 + 5000,
                "0102018f-cccc",
                f"Bounce{S}2026-11-20T09:00:05.000Z{S}Ada@Example.org",
                user="",
            )
        ],
        [
            ses(
                "_email.complaint",
                AT_10 + 3_600_000,
                "0102018f-aaaa",
                f"Complaint{S}2026-11-20T11:00:00.000Z{S}ada@example.org",
            )
        ],
        [ses("_email.unsubscribe", AT_10 + 3_900_000, "0102018f-aaaa", f"Subscription{S}2026-11-20T11:05:00.000Z")],
        [Ambiguous("ses", "_email.open", "shop")],
        [
            ses(
                "_email.rendering_failure",
                AT_10 + 1000,
                "0102018f-aaaa",
                f"Rendering Failure{S}ada@example.org",
            )
        ],
        # In SNS's wrapper.
        [ses("_email.open", AT_10 + 512, "0102018f-eeee", f"Open{S}2026-11-20T10:00:00.512Z")],
        # Bare, as identity feedback: `notificationType`, no tags.
        [
            ses(
                "_email.delivered",
                AT_09 + 2100,
                "0102018f-ffff",
                f"Delivery{S}2026-11-20T09:00:02.100Z{S}ada@example.org",
                user="",
            )
        ],
    ],
    "sms": [
        [sms("_SMS.BUFFERED", "TEXT_QUEUED", "m-1")],
        [sms("_SMS.SUCCESS", "TEXT_DELIVERED", "m-1")],
        [sms("_SMS.BLOCKED", "TEXT_BLOCKED", "m-1")],
        [sms("_SMS.CARRIER_UNREACHABLE", "TEXT_CARRIER_UNREACHABLE", "m-1")],
        [sms("_SMS.SUCCESS", "TEXT_DELIVERED", "m-2", user="", transactional=True)],
        [sms("_RCS.READ", "RCS_READ", "m-3")],
    ],
    "connect-campaigns": [
        [connect("_email.send", 0)],
        [connect("_email.delivered", 1)],
        [connect("_email.open", 2)],
        [connect("_email.click", 3)],
        [SkippedEvent("", "a changed profile", "connect-campaigns")],
        [SkippedEvent("", "an object of another type", "connect-campaigns")],
    ],
    "cloudevents": [
        [
            plain(
                "cloudevents",
                "com.twilio.messaging.message.delivered",
                AT_10,
                f"/2010-04-01/Accounts/AC0/Messages/SM0.json{S}EZ0",
                aliases=NUMBER,
                message="SM0",
            )
        ],
        [
            plain("cloudevents", "shop.cart.abandoned", AT_10, f"/shop{S}a1", user="u-1", index=1),
            plain("cloudevents", "shop.order.placed", AT_10 + 5000, f"/shop{S}a2", user="u-2", index=2),
        ],
    ],
    "segment": [
        [Teaches("segment", "shop", "u-1", "", (*ADA, Alias(AliasKind.ANONYMOUS, "a-1")))],
        [
            plain(
                "segment",
                "Product Viewed",
                AT_10 + 512,
                "seg-1",
                user="u-1",
                aliases=(*ADA, Alias(AliasKind.ANONYMOUS, "a-1")),
            )
        ],
        [plain("segment", "Order Completed", AT_10 + 60_000, "seg-2", aliases=(Alias(AliasKind.ANONYMOUS, "a-1"),))],
        [plain("segment", "page", AT_10 + 120_000, "seg-3", aliases=(Alias(AliasKind.ANONYMOUS, "a-9"),))],
    ],
}


def cases() -> list[tuple[str, int]]:
    return [(name, number) for name, expected in EXPECTED.items() for number in range(len(expected))]


@pytest.mark.parametrize(("name", "number"), cases())
def test_a_sample_comes_to_what_was_written_by_hand(name: str, number: int):
    assert len(lines(name)) == len(EXPECTED[name])
    assert REGISTRY.read(lines(name)[number]) == EXPECTED[name][number]


@pytest.mark.parametrize("line", lines("custom"))
def test_what_no_source_recognises_is_a_dead_letter_with_all_of_it(line: bytes):
    (rejected,) = REGISTRY.read(line)
    assert isinstance(rejected, RejectedEvent)
    assert (rejected.reason, rejected.payload, rejected.source) == (Reason.UNKNOWN_FORMAT, line, "")


@pytest.mark.parametrize("line", lines("pinpoint-events"))
def test_pinpoint_s_events_are_read_by_its_typed_decoder(line: bytes):
    (outcome,) = REGISTRY.read(line)
    decoded = pinpoint.decode(line)
    if isinstance(decoded, Skipped):
        assert outcome == SkippedEvent(decoded.event_type, "Pinpoint's test event", "pinpoint")
        return
    assert isinstance(decoded, Event)
    assert outcome == decoded


def test_all_samples_in_one_record_are_the_same_events_with_their_index():
    everything = [line for name in ("pinpoint-events", "ses", "sms") for line in lines(name)]
    alone = [outcome for line in everything for outcome in REGISTRY.read(line)]
    together = REGISTRY.read(b"\n".join(everything))
    assert [outcome.index for outcome in together] == list(range(1, len(everything) + 1))
    assert len(together) == len(alone)
    for one, other in zip(alone, together, strict=True):
        assert type(one) is type(other)
        if isinstance(one, Event) and isinstance(other, Event):
            assert (one.event_type, one.user_id, one.event_id) == (other.event_type, other.user_id, other.event_id)
