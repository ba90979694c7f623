import json
from pathlib import Path

import msgspec
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
        anonymous=not user and '"User' in nested,
        unnamed=not user and "endpoint" in raw,
        source="pinpoint",
    )


def test_the_samples_name_the_user_in_both_ways():
    events = [event for line in SAMPLES if isinstance(event := decode(line), Event)]
    assert sum(bool(event.user_id) for event in events) >= 10
    assert [event.event_type for event in events if event.transactional] == ["_email.delivered"]


MINIMAL = Event("a", "p", "", "", 0, attributed=False, transactional=False, source="pinpoint")


def body(**fields: object) -> bytes:
    return json.dumps({"event_type": "a", "application": {"app_id": "p"}, **fields}).encode()


def snapshot(**fields: object) -> bytes:
    return body(client_context={"custom": {"endpoint": json.dumps(fields)}})


@pytest.mark.parametrize(
    "data",
    [
        body(),
        body() + b"\n",
        body(client=None),
        body(client={}),
        body(client={"client_id": None}),
        body(client_context=None),
        body(client_context={"custom": None}),
        body(client_context={"custom": {"endpoint": None}}),
        body(client_context={"custom": {"endpoint": "not json"}}),
        body(client_context={"custom": {"endpoint": "[]"}}),
        body(client_context={"custom": {"endpoint": "{}"}}),
        body(endpoint={}),
        body(endpoint={"Address": "a part of an endpoint states nothing"}),
        body(unknown={"x": [1, {"y": None}]}, more=1e3),
        body(attributes={"campaign_id": None, "journey_id": None, "customer_context": None, "x": None}),
        body(attributes={"campaign_id": "", "customer_context": ""}),
        body(arrival_timestamp=None),
        body(arrival_timestamp=-5),
        b'{"event_type":"a","event_type":"a","application":{"app_id":"p"}}',
    ],
)
def test_what_is_absent_null_or_unknown_does_no_harm(data: bytes):
    assert event_of(data) == MINIMAL


STORED = {"ChannelType": "EMAIL", "EndpointStatus": "ACTIVE", "OptOut": "NONE"}


@pytest.mark.parametrize("user", [{}, None, {"UserId": ""}, {"UserId": None}, {"UserAttributes": {"plan": ["gold"]}}])
def test_a_snapshot_without_a_user_states_that_the_endpoint_has_none(user: object):
    for data in (snapshot(**STORED, User=user), body(endpoint={**STORED, "User": user}), body(endpoint={"User": user})):
        event = event_of(data)
        assert (event.user_id, event.anonymous) == ("", True), data


def test_a_snapshot_without_a_user_states_that_only_in_a_send():
    assert event_of(snapshot(**STORED)) == msgspec.structs.replace(MINIMAL, anonymous=True)
    assert event_of(body(endpoint=STORED)) == msgspec.structs.replace(MINIMAL, unnamed=True)


def test_one_place_that_names_the_user_is_enough():
    nobody = json.dumps({**STORED, "User": {}})
    data = body(endpoint={"User": {"UserId": "ann"}}, client_context={"custom": {"endpoint": nobody}})
    assert (event_of(data).user_id, event_of(data).anonymous) == ("ann", False)
    data = body(endpoint={**STORED, "User": {}}, client_context={"custom": {"endpoint": {"User": {"UserId": "ann"}}}})
    assert (event_of(data).user_id, event_of(data).anonymous) == ("ann", False)


@pytest.mark.parametrize(
    ("kind", "context", "user"),
    [
        ("_SMS.SUCCESS", json.dumps({"userId": "ann", "order": "7"}), "ann"),
        ("_email.open", json.dumps({"UserId": "ann"}), "ann"),
        ("_email.open", {"user_id": "ann"}, "ann"),
        ("_email.open", json.dumps({"userId": 17}), "17"),
        ("_email.open", json.dumps({"userId": ["ann"]}), ""),
        ("_email.open", json.dumps({"order": "7"}), ""),
        ("_email.open", "no json", ""),
        ("_email.open", 7, ""),
    ],
)
def test_a_messages_context_is_the_third_place_that_names_the_user(kind: str, context: object, user: str):
    data = json.loads(body(client={"client_id": "made-up"}, attributes={"customer_context": context}))
    event = event_of(json.dumps({**data, "event_type": kind}).encode())
    assert (event.user_id, event.transactional, event.anonymous) == (user, True, False)


def test_the_snapshots_user_comes_first_then_the_contexts():
    context = {"customer_context": json.dumps({"userId": "from-context"})}
    named = body(endpoint={"User": {"UserId": "from-endpoint"}}, attributes=context)
    assert event_of(named).user_id == "from-endpoint"
    unnamed = event_of(body(endpoint={**STORED, "User": {}}, attributes=context))
    assert (unnamed.user_id, unnamed.anonymous) == ("from-context", False)


def test_endpoint_ids_are_compared_without_regard_to_case():
    """`The case insensitive unique identifier for the endpoint` is what Pinpoint's API says of it."""
    assert event_of(body(client={"client_id": "A1B2-Ç"})).endpoint_id == "a1b2-ç"
    assert event_of(body(app_id="p", application=None, client={"client_id": "A1B2"})).endpoint_id == "a1b2"
    assert event_of(body(endpoint={"User": {"UserId": "Ann"}})).user_id == "Ann"


@pytest.mark.parametrize(
    "fields",
    [
        {"application": None, "app_id": "p"},
        {"application": None, "application_key": "p"},
        {"application": {"application_key": "p"}},
        {"application": {"app_id": ""}, "app_id": "p"},
        {"application": "a name", "app_id": "p"},
        {"application": json.dumps({"app_id": "p"})},
    ],
)
def test_older_records_name_the_project_elsewhere(fields: dict[str, object]):
    assert event_of(body(**fields)) == MINIMAL


def test_a_number_as_project_is_its_digits():
    assert event_of(body(application={"app_id": 5})).project_id == "5"


ISO = "2026-09-20T10:00:00Z"
ISO_MS = 1_789_898_400_000


@pytest.mark.parametrize(
    ("time", "arrival_ms"),
    [
        (str(ISO_MS), ISO_MS),
        (f"{ISO_MS}.5", 0),
        (ISO, ISO_MS),
        ("2026-09-20T12:00:00+02:00", ISO_MS),
        ("2026-09-20 10:00:00", ISO_MS),
        ("9999-12-31T23:59:59-12:00", 0),
        ("yesterday", 0),
        ("9" * 400, 0),
        ("-1", 0),
        (True, 0),
        ([ISO], 0),
        ({}, 0),
    ],
)
def test_a_time_that_is_text_is_read_and_a_missing_one_costs_no_event(time: object, arrival_ms: int):
    event = event_of(body(arrival_timestamp=time, client={"client_id": "e"}))
    assert (event.arrival_ms, event.endpoint_id) == (arrival_ms, "e")


@pytest.mark.parametrize(
    "fields",
    [
        {"attributes": "text"},
        {"attributes": ["list"]},
        {"attributes": json.dumps({"x": 1})},
        {"client_context": "text"},
        {"client_context": 7},
        {"client_context": {"custom": "text"}},
        {"client_context": {"custom": {"endpoint": 7}}},
        {"client_context": {"custom": {"endpoint": json.dumps(json.dumps({}))}}},
        {"arrival_timestamp": {}},
        {"endpoint": "text"},
        {"endpoint": 7},
    ],
)
def test_a_field_of_another_type_that_decides_nothing_costs_no_event(fields: dict[str, object]):
    assert event_of(body(**fields)) == MINIMAL


def test_quoted_attributes_still_tell_a_campaign():
    assert event_of(body(attributes=json.dumps({"campaign_id": "c"}))).attributed
    assert event_of(body(attributes={"campaign_id": "c"})).attributed


@pytest.mark.parametrize(
    "user",
    [
        {"User": {"UserId": "17"}},
        {"User": {"UserId": 17}},
        {"User": {"userId": "17"}},
        {"user": {"userId": "17"}},
        {"user": {"UserId": 17}},
        {"User": {"userid": "17"}},
        {"user": {"user_id": 17}},
        {"User": json.dumps({"UserId": "17"})},
    ],
)
def test_the_users_id_is_found_inside_the_snapshot_and_outside(user: dict[str, object]):
    assert event_of(body(endpoint=user)).user_id == "17"
    assert event_of(snapshot(**user)).user_id == "17"
    assert event_of(body(client_context={"custom": {"endpoint": user}})).user_id == "17"
    assert event_of(body(endpoint=json.dumps(user))).user_id == "17"


@pytest.mark.parametrize("user", [{"User": {"UserId": {}}}, {"User": {"UserId": 1.5}}, {"User": "ann"}, {"User": [1]}])
def test_an_unreadable_user_is_reported_not_replaced_by_the_endpoints(user: dict[str, object]):
    client = {"client": {"client_id": "e"}}
    for data in (
        body(endpoint=user, **client),
        body(client_context={"custom": {"endpoint": json.dumps(user)}}, **client),
    ):
        assert reason_of(data) is Reason.WRONG_TYPE


@pytest.mark.parametrize("client", ["someone", [], 7, {"client_id": []}, {"client_id": True}])
def test_an_empty_client_costs_the_event_only_without_another_user(client: object):
    assert reason_of(body(client=client)) is Reason.WRONG_TYPE
    assert event_of(body(client=client, endpoint={"User": {"UserId": "ann"}})).user_id == "ann"
    assert event_of(body(client=client, endpoint={**STORED, "User": {}})).anonymous


def test_a_number_as_endpoint_is_its_digits():
    assert event_of(body(client={"client_id": 123456789012345678901234567890})).endpoint_id == "1234567890" * 3


def test_the_user_is_found_in_either_place_the_endpoints_first():
    context = {"custom": {"endpoint": json.dumps({"User": {"UserId": "from-context"}})}}
    assert event_of(body(client_context=context)).user_id == "from-context"
    both = body(endpoint={"User": {"UserId": "from-endpoint"}}, client_context=context)
    assert event_of(both).user_id == "from-endpoint"
    assert event_of(body(client_context={"custom": {"endpoint": {"User": {"UserId": "u"}}}})).user_id == "u"


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"\xff\xff", Reason.NOT_UTF8),
        (b'{"event_type":"a","x":"\xff"}', Reason.NOT_UTF8),
        (b"", Reason.NOT_JSON),
        (b"\x00", Reason.NOT_JSON),
        (b"nonsense", Reason.NOT_JSON),
        (b'{"event_type":"a"', Reason.NOT_JSON),
        (b'{"event_type":1', Reason.NOT_JSON),
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
        (b'{"event_type":"a","application":{"app_id":[]}}', Reason.WRONG_TYPE),
        (b'{"event_type":"a","application":"shop"}', Reason.WRONG_TYPE),
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


HEAD = b'{"event_type":"a","application":{"app_id":"p"},"x":'


def test_nesting_up_to_the_limit_and_brackets_in_strings_are_fine():
    level = MAX_DEPTH - 1
    assert event_of(HEAD + b"[" * level + b"]" * level + b"}") == MINIMAL
    assert event_of(HEAD + b'"' + rb"\"[{" * 500 + b'"}') == MINIMAL
    assert event_of(HEAD + b"[" + b"[]," * 500 + b"[]]}") == MINIMAL


def test_padding_of_megabytes_is_no_work():
    brackets = HEAD + b"[" + b"[]," * 1_000_000 + b"[]]}"
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
