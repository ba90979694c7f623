"""What the Pinpoint fake knows and how requests change it: no server, no clock."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.local.pinpoint_fake.refusals import PinpointError
from service.local.pinpoint_fake.shapes import (
    MAX_ATTRIBUTE_NAMES,
    MAX_ENDPOINTS_PER_USER,
    Demographic,
    EndpointRequest,
    User,
)
from service.local.pinpoint_fake.state import PinpointState

APP = "a" * 32
NOW = datetime(2026, 5, 4, 12, 0, 0, 123456, tzinfo=UTC)


def state() -> PinpointState:
    made = PinpointState()
    made.create_app("test", NOW, app_id=APP)
    return made


def put(pinpoint: PinpointState, endpoint_id: str, now: datetime = NOW, **fields: object) -> None:
    pinpoint.update_endpoint(APP, endpoint_id, EndpointRequest(**fields), now)


def refusal(action: Callable[..., object], *arguments: object) -> PinpointError:
    with pytest.raises(PinpointError) as caught:
        action(*arguments)
    return caught.value


def test_update_creates_what_does_not_exist():
    pinpoint = state()
    put(pinpoint, "e1", channel_type="EMAIL", address="a@example.com")
    endpoint = pinpoint.get_endpoint(APP, "e1")
    assert (endpoint.endpoint_status, endpoint.opt_out, endpoint.address) == ("ACTIVE", "NONE", "a@example.com")
    assert endpoint.creation_date == endpoint.effective_date == "2026-05-04T12:00:00.123Z"
    assert endpoint.user is None


def test_update_without_a_status_makes_active():
    pinpoint = state()
    put(pinpoint, "e1", endpoint_status="INACTIVE")
    assert pinpoint.get_endpoint(APP, "e1").endpoint_status == "INACTIVE"
    put(pinpoint, "e1", metrics={"m": 1.0})
    assert pinpoint.get_endpoint(APP, "e1").endpoint_status == "ACTIVE"


def test_update_keeps_what_it_does_not_name_and_replaces_named_values():
    pinpoint = state()
    put(
        pinpoint,
        "e1",
        channel_type="SMS",
        address="+1",
        opt_out="ALL",
        attributes={"a": ["1", "2"], "b": ["x"]},
        metrics={"m": 1.0},
        demographic=Demographic(make="m", locale="en"),
    )
    put(pinpoint, "e1", attributes={"a": ["3"]}, metrics={"n": 2.0}, demographic=Demographic(locale="de"))
    endpoint = pinpoint.get_endpoint(APP, "e1")
    assert endpoint.attributes == {"a": ["3"], "b": ["x"]}
    assert endpoint.metrics == {"m": 1.0, "n": 2.0}
    assert (endpoint.channel_type, endpoint.address, endpoint.opt_out) == ("SMS", "+1", "ALL")
    assert endpoint.demographic == Demographic(make="m", locale="de")


def test_user_attributes_are_shared_by_all_endpoints_of_the_user():
    pinpoint = state()
    put(pinpoint, "e1", user=User(user_id="u", user_attributes={"Score": ["1"]}))
    put(pinpoint, "e2", user=User(user_id="u"))
    put(pinpoint, "e3", user=User(user_id="v", user_attributes={"Score": ["9"]}))
    put(pinpoint, "e2", user=User(user_attributes={"Score": ["2"], "Tier": ["gold"]}))
    shown = {e.id: e.user.user_attributes for e in pinpoint.all_endpoints(APP) if e.user}
    assert shown == {
        "e1": {"Score": ["2"], "Tier": ["gold"]},
        "e2": {"Score": ["2"], "Tier": ["gold"]},
        "e3": {"Score": ["9"]},
    }


def test_an_endpoint_that_moves_shows_the_other_users_attributes():
    pinpoint = state()
    put(pinpoint, "e1", user=User(user_id="u", user_attributes={"Score": ["1"]}))
    put(pinpoint, "e2", user=User(user_id="v", user_attributes={"Score": ["2"]}))
    put(pinpoint, "e1", user=User(user_id="v"))
    assert [e.id for e in pinpoint.get_user_endpoints(APP, "v").item] == ["e2", "e1"]
    assert pinpoint.get_endpoint(APP, "e1").user == User(user_id="v", user_attributes={"Score": ["2"]})
    assert refusal(pinpoint.get_user_endpoints, APP, "u").status == 404


def test_endpoint_ids_are_case_insensitive_and_keep_their_first_spelling():
    pinpoint = state()
    put(pinpoint, "Mail-1", address="a")
    put(pinpoint, "mail-1", address="b")
    assert [(e.id, e.address) for e in pinpoint.all_endpoints()] == [("Mail-1", "b")]


def test_an_address_belongs_to_one_active_endpoint():
    pinpoint = state()
    put(pinpoint, "e1", address="same")
    put(pinpoint, "e2", address="same")
    assert pinpoint.get_endpoint(APP, "e1").endpoint_status == "INACTIVE"
    put(pinpoint, "e2", address="other")
    put(pinpoint, "e1", address="same")
    assert {e.endpoint_status for e in pinpoint.all_endpoints()} == {"ACTIVE"}


@pytest.mark.parametrize("channel", ["SMS", "PUSH", "VOICE", "EMAIL", "CUSTOM", "IN_APP"])
def test_a_sixteenth_endpoint_is_refused(channel: str):
    pinpoint = state()
    for n in range(MAX_ENDPOINTS_PER_USER):
        put(pinpoint, f"e{n}", channel_type="GCM", user=User(user_id="u"))
    request = EndpointRequest(channel_type=channel, user=User(user_id="u"))
    assert refusal(pinpoint.update_endpoint, APP, "e99", request, NOW).status == 400
    assert len(pinpoint.get_user_endpoints(APP, "u").item) == MAX_ENDPOINTS_PER_USER
    assert refusal(pinpoint.get_endpoint, APP, "e99").status == 404
    put(pinpoint, "e3", user=User(user_id="u"))


def test_a_sixteenth_push_endpoint_takes_the_place_of_the_oldest():
    pinpoint = state()
    put(pinpoint, "mail", channel_type="EMAIL", user=User(user_id="u"))
    for n in range(MAX_ENDPOINTS_PER_USER - 1):
        put(pinpoint, f"e{n}", NOW + timedelta(minutes=-n), channel_type="APNS", user=User(user_id="u"))
    put(pinpoint, "new", NOW, channel_type="GCM", user=User(user_id="u"))
    oldest = pinpoint.get_endpoint(APP, f"e{MAX_ENDPOINTS_PER_USER - 2}")
    assert (oldest.endpoint_status, oldest.user) == ("INACTIVE", None)
    ids = {e.id for e in pinpoint.get_user_endpoints(APP, "u").item}
    assert len(ids) == MAX_ENDPOINTS_PER_USER
    assert {"mail", "new"} <= ids


def test_a_batch_says_nothing_of_an_item_that_was_dropped():
    pinpoint = state()
    items = [EndpointRequest(id=f"e{n}", channel_type="EMAIL", user=User(user_id="u")) for n in range(16)]
    assert pinpoint.update_endpoints_batch(APP, items, NOW)
    assert len(pinpoint.get_user_endpoints(APP, "u").item) == MAX_ENDPOINTS_PER_USER
    assert pinpoint.dropped == 1


@pytest.mark.parametrize("count", [0, 101])
def test_a_batch_has_one_to_a_hundred_items(count: int):
    pinpoint = state()
    items = [EndpointRequest(id=f"e{n}") for n in range(count)]
    assert refusal(pinpoint.update_endpoints_batch, APP, items, NOW).status == 400
    assert list(pinpoint.all_endpoints()) == []


def test_a_batch_with_one_bad_item_changes_nothing():
    pinpoint = state()
    items = [EndpointRequest(id="good"), EndpointRequest(id="bad{id}")]
    assert refusal(pinpoint.update_endpoints_batch, APP, items, NOW).status == 400
    assert list(pinpoint.all_endpoints()) == []


def test_an_application_has_at_most_250_user_attribute_names():
    pinpoint = state()
    for n in range(MAX_ATTRIBUTE_NAMES):
        put(pinpoint, f"e{n}", user=User(user_id=f"u{n}", user_attributes={f"name{n}": ["v"]}))
    request = EndpointRequest(user=User(user_id="u", user_attributes={"one more": ["v"]}))
    assert refusal(pinpoint.update_endpoint, APP, "e", request, NOW).status == 400
    put(pinpoint, "e", user=User(user_id="u", user_attributes={"name7": ["again"]}))


@pytest.mark.parametrize(
    "body",
    [
        {"User": {"UserId": "u", "UserAttributes": {"Score": "7"}}},
        {"User": {"UserId": "u", "UserAttributes": {"Score": [7]}}},
        {"User": {"UserId": "u", "UserAttributes": {"x" * 51: ["7"]}}},
        {"User": {"UserId": "u", "UserAttributes": {"Score": ["7" * 101]}}},
        {"Attributes": {"a": ["1"] * 51}},
        {"Metrics": {"m": "1"}},
        {"ChannelType": "PIGEON"},
        {"EndpointStatus": "active"},
        {"OptOut": "SOME"},
        [],
    ],
)
def test_shapes_that_are_refused(body: object):
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert(body, EndpointRequest)


def test_deleting_the_last_endpoint_forgets_the_user():
    pinpoint = state()
    put(pinpoint, "e1", user=User(user_id="u", user_attributes={"Score": ["1"]}))
    assert pinpoint.delete_endpoint(APP, "E1").user == User(user_id="u", user_attributes={"Score": ["1"]})
    put(pinpoint, "e1", user=User(user_id="u"))
    assert pinpoint.get_endpoint(APP, "e1").user == User(user_id="u")


IDS = st.sampled_from(["e1", "E1", "e2", "e3", "e4"])
USERS = st.sampled_from([None, "u", "v"])
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("put"), IDS, USERS, st.sampled_from([None, "same", "else"])),
        st.tuples(st.just("delete"), IDS, st.none(), st.none()),
        st.tuples(st.just("delete user"), st.none(), st.sampled_from(["u", "v"]), st.none()),
    ),
    max_size=30,
)


@given(STEPS)
def test_users_and_endpoints_always_agree(steps: list[tuple]):
    pinpoint = state()
    for step, endpoint_id, user_id, address in steps:
        try:
            if step == "put":
                user = User(user_id=user_id, user_attributes={"last": [endpoint_id]}) if user_id else None
                put(pinpoint, endpoint_id, address=address, user=user)
            elif step == "delete":
                pinpoint.delete_endpoint(APP, endpoint_id)
            else:
                pinpoint.delete_user_endpoints(APP, user_id)
        except PinpointError as error:
            assert error.status == 404  # noqa: PT017 - not every step is refused
    endpoints = list(pinpoint.all_endpoints())
    for user_id in ("u", "v"):
        expected = {e.id for e in endpoints if e.user and e.user.user_id == user_id}
        if expected:
            shown = pinpoint.get_user_endpoints(APP, user_id).item
            assert {e.id for e in shown} == expected
            assert len({tuple((e.user.user_attributes or {}).get("last", ())) for e in shown if e.user}) == 1
        else:
            assert refusal(pinpoint.get_user_endpoints, APP, user_id).status == 404
