import json
from collections import Counter

from hypothesis import given, settings

from service.sources.explain import Kind, Row, explain, summary
from service.sources.registry import Registry
from tests.fakes.hostile import hostile_records
from tests.fakes.hostile_sources import samples

REGISTRY = Registry(default_project="shop")


def test_a_row_says_what_was_found_and_how_and_when():
    assert explain(REGISTRY, samples("ses")[2]) == [
        Row(
            0,
            0,
            Kind.EVENT,
            "ses",
            "_email.open",
            "shop",
            "u-1",
            "user id",
            ("e-mail address ada@example.org",),
            "2026-11-20T10:00:00.512Z",
        )
    ]
    (row,) = explain(REGISTRY, samples("ses")[6])
    assert (row.person, row.found_by, row.also) == ("ada@example.org", "e-mail address", ())
    (row,) = explain(REGISTRY, samples("pinpoint-events")[1])
    assert (row.source, row.person, row.found_by, row.also) == (
        "pinpoint",
        "user-pat",
        "user id",
        ("endpoint email-pat",),
    )
    (row,) = explain(REGISTRY, b'{"event_type":"x","client":{"client_id":"e"}}')
    assert (row.person, row.found_by, row.time) == ("e", "endpoint", "")
    (row,) = explain(REGISTRY, b'{"event_type":"x","client":{}}')
    assert (row.kind, row.person, row.found_by, row.detail) == (
        Kind.EVENT,
        "",
        "",
        "the event names nobody, so no score changes",
    )


def test_a_row_says_why_an_event_is_not_scored():
    (ambiguous,) = explain(REGISTRY, samples("ses")[9])
    assert (ambiguous.kind, ambiguous.person) == (Kind.AMBIGUOUS, "")
    assert "several people" in ambiguous.detail
    (skipped,) = explain(REGISTRY, samples("connect-campaigns")[4])
    assert (skipped.kind, skipped.detail) == (Kind.SKIPPED, "a changed profile")
    (teaches,) = explain(REGISTRY, samples("segment")[0])
    assert (teaches.kind, teaches.person, teaches.also) == (
        Kind.TEACHES,
        "u-1",
        ("e-mail address ada@example.org", "anonymous id a-1"),
    )
    nobody = {"source": "aws.sms-voice", "detail": {"eventType": "TEXT_QUEUED", "messageType": "TRANSACTIONAL"}}
    (anonymous,) = explain(REGISTRY, json.dumps(nobody).encode())
    assert (anonymous.kind, anonymous.event_type) == (Kind.ANONYMOUS, "_SMS.BUFFERED")


def test_an_unknown_event_shows_the_keys_that_could_identify_it():
    (row,) = explain(REGISTRY, samples("custom")[1])
    assert row.kind is Kind.REJECTED
    assert row.detail.startswith("unknown_format: no source recognises the event")
    assert row.detail.endswith("(it has event_type, user_id, project_id)")
    (many,) = explain(REGISTRY, json.dumps({f"{'k' * 50}{n}": n for n in range(20)}).encode())
    assert many.detail.endswith(" and others)")
    assert len(many.detail) < 700
    (odd,) = explain(REGISTRY, b'{"')
    assert odd.detail.startswith("not_json: ")


def test_each_event_of_a_record_has_its_row_and_the_summary_counts_them():
    rows = explain(REGISTRY, b"\n".join([*samples("cloudevents"), b"damaged", *samples("segment")]))
    assert [row.index for row in rows] == list(range(1, 9))
    assert summary(rows) == Counter(
        {
            ("cloudevents", "com.twilio.messaging.message.delivered", Kind.EVENT): 1,
            ("cloudevents", "shop.cart.abandoned", Kind.EVENT): 1,
            ("cloudevents", "shop.order.placed", Kind.EVENT): 1,
            ("", "", Kind.REJECTED): 1,
            ("segment", "", Kind.TEACHES): 1,
            ("segment", "Product Viewed", Kind.EVENT): 1,
            ("segment", "Order Completed", Kind.EVENT): 1,
            ("segment", "page", Kind.EVENT): 1,
        }
    )


@settings(max_examples=200, deadline=None)
@given(hostile_records())
def test_any_record_has_rows(data: bytes):
    rows = explain(REGISTRY, data)
    assert rows
    assert all(row.kind is Kind.EVENT or row.detail for row in rows)
