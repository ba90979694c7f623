import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.scoring.event import MAX_ID_BYTES, Event, Reason, Rejected, Skipped, id_fault
from service.sources.decoding import MAX_DEPTH, MAX_RECORD_BYTES
from service.sources.pinpoint import decode

SAMPLES = [
    line for line in (Path(__file__).parents[2] / "samples" / "pinpoint-events.jsonl").read_bytes().split(b"\n") if line
]
PROJECT = "5f0c2d9e8b7a4c61a3d2e1f0b9c8a7d6"


def event_of(data: bytes) -> Event:
    event = decode(data)
    assert isinstance(event, Event), event
    return event


def reason_of(data: bytes) -> Reason:
    rejected = decode(data)
    assert isinstance(rejected, Rejected), rejected
    return rejected.reason


@pytest.mark.parametrize("line", SAMPLES, ids=lambda line: json.loads(line)["event_type"])
def test_every_documented_shape_is_decoded(line: bytes):
    raw = json.loads(line)
    decoded = decode(line)
    if raw["event_type"] == "_test.event_stream":
        assert decoded == Skipped("_test.event_stream")
        return
    nested = (raw.get("client_context") or {}).get("custom", {}).get("endpoint", "{}")
    user = raw.get("endpoint", {}).get("User", {}).get("UserId") or json.loads(nested).get("User", {}).get("UserId")
    attributes = raw["attributes"]
    attributed = (
        raw["event_type"].startswith(("_campaign.", "_journey."))
        or "campaign_id" in attributes
        or "journey_id" in attributes
    )
    assert decoded == Event(
        event_type=raw["event_type"],
        project_id=PROJECT,
        endpoint_id=raw["client"]["client_id"],
        user_id=user or "",
        arrival_ms=raw["arrival_timestamp"],
        attributed=attributed,
        transactional=not attributed and raw["event_type"].startswith(("_email.", "_SMS.")),
    )


def test_the_samples_hold_both_ways_of_naming_the_user_and_a_transactional_mail():
    events = [event for line in SAMPLES if isinstance(event := decode(line), Event)]
    assert sum(bool(event.user_id) for event in events) >= 10
    assert [event.event_type for event in events if event.transactional] == ["_email.delivered"]


MINIMAL = Event("a", "", "", "", 0, attributed=False, transactional=False)


@pytest.mark.parametrize(
    "data",
    [
        b'{"event_type":"a"}',
        b'{"event_type":"a"}\n',
        b'{"event_type":"a","client":null}',
        b'{"event_type":"a","client":{}}',
        b'{"event_type":"a","client":{"client_id":null}}',
        b'{"event_type":"a","client_context":null}',
        b'{"event_type":"a","client_context":{"custom":null}}',
        b'{"event_type":"a","client_context":{"custom":{"endpoint":null}}}',
        b'{"event_type":"a","client_context":{"custom":{"endpoint":"not json"}}}',
        b'{"event_type":"a","client_context":{"custom":{"endpoint":"[]"}}}',
        b'{"event_type":"a","client_context":{"custom":{"endpoint":"{\\"User\\":{}}"}}}',
        b'{"event_type":"a","client_context":{"custom":{"endpoint":"{}"}}}',
        b'{"event_type":"a","endpoint":{"User":{}}}',
        b'{"event_type":"a","endpoint":{"User":null}}',
        b'{"event_type":"a","endpoint":{}}',
        b'{"event_type":"a","unknown":{"x":[1,{"y":null}]},"more":1e3}',
        b'{"event_type":"a","attributes":{"campaign_id":null,"journey_id":null,"x":null}}',
        b'{"event_type":"a","attributes":{"campaign_id":""}}',
        b'{"event_type":"a","arrival_timestamp":null}',
        b'{"event_type":"a","arrival_timestamp":-5}',
        b'{"event_type":"a","event_type":"a"}',
    ],
)
def test_what_is_absent_null_or_unknown_does_no_harm(data: bytes):
    assert event_of(data) == MINIMAL


def test_the_user_is_found_in_either_place_and_the_endpoint_itself_comes_first():
    snapshot = json.dumps({"User": {"UserId": "from-context"}})
    context = {"client_context": {"custom": {"endpoint": snapshot}}}
    assert event_of(json.dumps({"event_type": "a", **context}).encode()).user_id == "from-context"
    both = {"event_type": "a", "endpoint": {"User": {"UserId": "from-endpoint"}}, **context}
    assert event_of(json.dumps(both).encode()).user_id == "from-endpoint"
    unquoted = {"event_type": "a", "client_context": {"custom": {"endpoint": {"User": {"UserId": "u"}}}}}
    assert event_of(json.dumps(unquoted).encode()).user_id == "u"


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"\xff\xfe", Reason.NOT_UTF8),
        (b'{"event_type":"a","x":"\xff"}', Reason.NOT_UTF8),
        (b"", Reason.NOT_JSON),
        (b"\x00", Reason.NOT_JSON),
        (b"nonsense", Reason.NOT_JSON),
        (b'{"event_type":"a"', Reason.NOT_JSON),
        (b'{"event_type":1', Reason.NOT_JSON),
        (b'{"event_type":"a"}{"event_type":"b"}', Reason.NOT_JSON),
        (b'{"event_type":"a","arrival_timestamp":NaN}', Reason.NOT_JSON),
        (b"[]", Reason.NOT_AN_OBJECT),
        (b'"text"', Reason.NOT_AN_OBJECT),
        (b"null", Reason.NOT_AN_OBJECT),
        (b"17", Reason.NOT_AN_OBJECT),
        (b"{}", Reason.NO_EVENT_TYPE),
        (b'{"event_type":""}', Reason.NO_EVENT_TYPE),
        (b'{"event_type":null}', Reason.NO_EVENT_TYPE),
        (b'{"event_type":7}', Reason.WRONG_TYPE),
        (b'{"event_type":"a","client":[]}', Reason.WRONG_TYPE),
        (b'{"event_type":"a","application":{"app_id":5}}', Reason.WRONG_TYPE),
        (b'{"event_type":"a","arrival_timestamp":"soon"}', Reason.WRONG_TYPE),
        (b'{"event_type":"a","x":' + b"[" * MAX_DEPTH + b"]" * MAX_DEPTH + b"}", Reason.TOO_DEEP),
        (b'{"event_type":"a","x":' + b"[" * 100_000 + b"]" * 100_000 + b"}", Reason.TOO_DEEP),
        (b"[" * 100_000 + b"]" * 100_000, Reason.TOO_DEEP),
        (b'{"event_type":"a","x":"' + b" " * MAX_RECORD_BYTES + b'"}', Reason.TOO_LARGE),
        (b'{"event_type":"a","client":{"client_id":"' + b"x" * (MAX_ID_BYTES + 1) + b'"}}', Reason.BAD_ID),
        ('{"event_type":"a","client":{"client_id":"' + "ü" * MAX_ID_BYTES + '"}}', Reason.BAD_ID),
    ],
)
def test_what_is_no_event_says_why(data: bytes | str, reason: Reason):
    assert reason_of(data.encode() if isinstance(data, str) else data) is reason


def test_nesting_up_to_the_limit_and_brackets_in_strings_are_fine():
    level = MAX_DEPTH - 1
    assert event_of(b'{"event_type":"a","x":' + b"[" * level + b"]" * level + b"}") == MINIMAL
    assert event_of(b'{"event_type":"a","x":"' + rb"\"[{" * 500 + b'"}') == MINIMAL
    assert event_of(b'{"event_type":"a","x":[' + b"[]," * 500 + b"[]]}") == MINIMAL


def test_padding_of_megabytes_is_no_work():
    brackets = b'{"event_type":"a","x":[' + b"[]," * 1_000_000 + b"[]]}"
    assert event_of(brackets) == MINIMAL  # a scan in Python, or a quadratic one, would hang here for minutes


def test_details_never_quote_the_record():
    secret = b"someone@example.com"
    for data in (b'{"event_type":7,"x":"' + secret + b'"}', b'{"event_type":"a",' + secret, b'["' + secret + b'"]'):
        rejected = decode(data)
        assert isinstance(rejected, Rejected)
        assert secret.decode() not in rejected.detail


@given(st.binary(max_size=300))
def test_any_bytes_decode_to_an_answer(data: bytes):
    assert isinstance(decode(data), Event | Skipped | Rejected)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
KEYS = ["event_type", "application", "client", "client_context", "attributes", "endpoint", "arrival_timestamp"]


@given(st.dictionaries(st.sampled_from(KEYS) | st.text(max_size=5), json_values, max_size=8))
def test_any_object_decodes_to_an_answer_with_keys_that_fit_a_table(record: dict[str, object]):
    decoded = decode(json.dumps(record).encode())
    assert isinstance(decoded, Event | Skipped | Rejected)
    if isinstance(decoded, Event):
        for part in (decoded.event_type, decoded.project_id, decoded.endpoint_id, decoded.user_id):
            assert len(part.encode()) <= MAX_ID_BYTES


def test_an_id_with_a_lone_surrogate_fits_no_key():
    fault = id_fault("UserId", "a\ud800")
    assert fault is not None
    assert fault.reason is Reason.BAD_ID
