from __future__ import annotations

import msgspec
import pytest

from service.admin.doctor_plan import judge_retention, judge_table
from service.admin.setup_plan import (
    FoundStream,
    FoundTable,
    Names,
    State,
    Step,
    TableSpec,
    plan_stream,
    plan_table,
    tables,
)
from service.sinks.trials import Verdict

SCORES = TableSpec("scores", ("UserId", "PinpointProjectId"), recovery=True, streamed=True)
LETTERS = TableSpec("letters", ("Id",), ttl="ExpiresAt")
AS_WANTED = FoundTable(SCORES.keys, ("S", "S"), "", recovery=True, view="NEW_IMAGE")


def step_of(steps: list[Step], part: str) -> Step:
    return next(step for step in steps if part in step.action.resource)


def test_what_is_as_wanted_needs_no_call():
    steps = plan_table(SCORES, AS_WANTED)
    assert {step.action.state for step in steps} == {State.EXISTS}
    assert not any(step.operation for step in steps)


def test_a_stream_that_shows_old_items_too_is_used_as_it_is():
    step = step_of(plan_table(SCORES, msgspec.structs.replace(AS_WANTED, view="NEW_AND_OLD_IMAGES")), "stream")
    assert (step.action.state, step.operation, step.action.detail) == (State.EXISTS, "", "NEW_AND_OLD_IMAGES")


@pytest.mark.parametrize("view", ["KEYS_ONLY", "OLD_IMAGE"])
def test_another_view_is_reported_and_never_changed(view: str):
    step = step_of(plan_table(SCORES, msgspec.structs.replace(AS_WANTED, view=view)), "stream")
    assert (step.action.state, step.operation) == (State.DIFFERS, "")
    assert view in step.action.detail
    assert "cannot be published" in step.action.detail
    assert "update-table --table-name scores" in step.action.remedy


@pytest.mark.parametrize(
    ("keys", "types"), [(("UserId",), ("S",)), (("UserId", "PinpointProjectId"), ("S", "N")), (("Id", "X"), ("S", "S"))]
)
def test_a_table_with_other_keys_is_reported_and_left_alone(keys: tuple[str, ...], types: tuple[str, ...]):
    steps = plan_table(SCORES, FoundTable(keys, types, "", recovery=False, view=""))
    assert [(step.action.state, step.operation) for step in steps] == [(State.DIFFERS, "")]
    assert "SCORING_*_TABLE" in steps[0].action.remedy


def test_a_time_to_live_on_another_attribute_is_reported():
    step = step_of(plan_table(LETTERS, FoundTable(("Id",), ("S",), "Expiry", recovery=False, view="")), "time to live")
    assert (step.action.state, step.operation) == (State.DIFFERS, "")


def test_a_stream_that_exists_is_left_alone():
    steps = plan_stream("events", FoundStream("PROVISIONED", 168))
    assert [(step.action.state, step.operation) for step in steps] == [(State.EXISTS, "")] * 2


def test_an_existing_streams_short_retention_is_reported_not_changed():
    _, kept = plan_stream("arn:aws:kinesis:eu-west-1:123456789012:stream/events", FoundStream("ON_DEMAND", 24))
    assert (kept.action.state, kept.operation) == (State.DIFFERS, "")
    assert "--stream-name events --retention-period-hours 168" in kept.action.remedy


@pytest.mark.parametrize("stream", ["events", "arn:aws:kinesis:eu-west-1:123456789012:stream/events"])
def test_a_stream_is_made_with_the_retention_that_the_doctor_wants(stream: str):
    made, kept = plan_stream(stream, None)
    assert (made.operation, made.params["StreamName"]) == ("create_stream", "events")
    assert kept.params["StreamName"] == "events"
    assert judge_retention("stream", kept.params["RetentionPeriodHours"], None).verdict is Verdict.OK
    assert judge_retention("stream", kept.params["RetentionPeriodHours"] - 1, None).verdict is Verdict.NOTE


def test_leases_never_expire_and_every_table_has_its_own_name():
    names = Names("s", "scores", "definitions", "identities", "leases", "letters")
    specs = {spec.name: spec for spec in tables(names)}
    assert set(specs) == set(Names.__struct_fields__[1:-1]) | {"letters"}
    assert specs["leases"].ttl == ""


def test_the_doctor_says_where_small_changes_cannot_be_left_out():
    for view, notes in (("NEW_IMAGE", 1), ("NEW_AND_OLD_IMAGES", 0)):
        found = msgspec.structs.replace(AS_WANTED, view=view)
        told = judge_table(SCORES, found, compares_images=True)
        assert sum("SCORING_PUBLISH_MIN_CHANGE" in each.detail for each in told) == notes
        assert not any("MIN_CHANGE" in each.detail for each in judge_table(SCORES, found))
