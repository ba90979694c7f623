"""What `scoring setup` is to make: from what is wanted and what was found to a list of steps. Pure.

Nothing that exists is changed except by adding what it lacks (a stream, a time to live, recovery). What exists
and differs is reported, with what a person can do about it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Any

import msgspec

from service.aws.schema import DEFINITION_KEYS, EXPIRES, IDENTITY_KEYS, KEY_NAMES, LEASE_KEYS, LETTER_KEYS
from service.aws.tables.definitions import definition_item
from service.scoring.definitions import DEFAULT_POINTS, Definition
from service.sinks.setup import Wanted

VIEW = "NEW_IMAGE"
VIEWS_IN_USE = (VIEW, "NEW_AND_OLD_IMAGES")
"""Views that carry the new image, which is all that publishing reads."""

RETENTION_H = 168
"""Hours that the event stream should keep records. A week: a service that breaks on a Friday evening is still in time
on Monday. AWS's own default is 24."""


class Names(msgspec.Struct, frozen=True):
    """What to set up, by name. `stream` may be an ARN, or empty: no stream."""

    stream: str
    scores: str
    definitions: str
    identities: str
    leases: str
    dead_letters: str


class TableSpec(msgspec.Struct, frozen=True):
    """A table as it should be.

    Attributes:
        name: Its name.
        keys: Its key attributes, all strings: HASH, then RANGE where there is one.
        ttl: Attribute with the time to live; empty: none.
        recovery: Whether it holds what cannot be made again: point-in-time recovery.
        streamed: Whether changes to it are published.
    """

    name: str
    keys: tuple[str, ...]
    ttl: str = ""
    recovery: bool = False
    streamed: bool = False


class FoundTable(msgspec.Struct, frozen=True):
    """A table as it is.

    Attributes:
        keys: Attribute names, HASH first.
        types: Their types: `S`, `N` or `B`.
        ttl: Attribute with the time to live; empty: off.
        recovery: Whether point-in-time recovery is on.
        view: View type of its stream; empty: no stream.
    """

    keys: tuple[str, ...]
    types: tuple[str, ...]
    ttl: str
    recovery: bool
    view: str


class FoundStream(msgspec.Struct, frozen=True):
    """The event stream as it is.

    Attributes:
        mode: `ON_DEMAND` or `PROVISIONED`.
        retention_h: Hours that it keeps records.
    """

    mode: str
    retention_h: int


class State(StrEnum):
    """How a resource stands, before or after."""

    EXISTS = "exists"
    CREATED = "created"
    WOULD_CREATE = "would create"
    DIFFERS = "differs"


class Action(msgspec.Struct, frozen=True):
    """A line of the report.

    Attributes:
        resource: What it is about.
        state: How it stands.
        detail: One phrase.
        remedy: What a person can do where it differs; empty otherwise.
    """

    resource: str
    state: State
    detail: str
    remedy: str = ""


class Step(msgspec.Struct, frozen=True):
    """A line of the plan: `service` and `operation` with `params` make it so; no operation where nothing is to do."""

    action: Action
    service: str = ""
    operation: str = ""
    params: Mapping[str, Any] = {}


def tables(names: Names) -> list[TableSpec]:
    """Return the tables as they should be."""
    return [
        TableSpec(names.scores, KEY_NAMES, recovery=True, streamed=True),
        TableSpec(names.definitions, DEFINITION_KEYS, recovery=True),
        TableSpec(names.identities, IDENTITY_KEYS, ttl=EXPIRES, recovery=True),
        TableSpec(names.leases, LEASE_KEYS),
        TableSpec(names.dead_letters, LETTER_KEYS, ttl=EXPIRES),
    ]


def plan_stream(name_or_arn: str, found: FoundStream | None) -> list[Step]:
    """Plan the Kinesis stream and how long it keeps records; `found` is None where there is no such stream.

    The retention of a stream that exists is not changed: it costs money, and other consumers may rely on it.
    """
    resource = f"stream {name_or_arn}"
    name = name_or_arn.rpartition("/")[2]
    if found is None:
        return [
            Step(
                Action(resource, State.WOULD_CREATE, "ON_DEMAND"),
                "kinesis",
                "create_stream",
                {"StreamName": name, "StreamModeDetails": {"StreamMode": "ON_DEMAND"}},
            ),
            Step(
                Action(f"{resource}: retention", State.WOULD_CREATE, f"{RETENTION_H} h"),
                "kinesis",
                "increase_stream_retention_period",
                {"StreamName": name, "RetentionPeriodHours": RETENTION_H},
            ),
        ]
    kept = Action(f"{resource}: retention", State.EXISTS, f"{found.retention_h} h")
    if found.retention_h < RETENTION_H:
        kept = Action(
            kept.resource,
            State.DIFFERS,
            f"{found.retention_h} h, not {RETENTION_H} h: a longer outage loses events",
            f"aws kinesis increase-stream-retention-period --stream-name {name} --retention-period-hours {RETENTION_H}",
        )
    return [Step(Action(resource, State.EXISTS, found.mode)), Step(kept)]


def plan_table(spec: TableSpec, found: FoundTable | None) -> list[Step]:
    """Plan one table and what belongs to it."""
    steps = [_table(spec, found)]
    if found is not None and steps[0].action.state is State.DIFFERS:
        return steps
    if spec.streamed:
        steps.append(_view(spec, found))
    if spec.ttl:
        steps.append(_ttl(spec, found))
    if spec.recovery:
        steps.append(_recovery(spec, found))
    return steps


def _table(spec: TableSpec, found: FoundTable | None) -> Step:
    resource = f"table {spec.name}"
    keys = ", ".join(spec.keys)
    if found is None:
        return Step(
            Action(resource, State.WOULD_CREATE, f"on demand, keys {keys}"), "dynamodb", "create_table", _creation(spec)
        )
    if found.keys != spec.keys or set(found.types) != {"S"}:
        there = ", ".join(f"{key} {kind}" for key, kind in zip(found.keys, found.types, strict=True))
        return Step(
            Action(
                resource,
                State.DIFFERS,
                f"has the keys {there}; wanted are the strings {keys}",
                "keys cannot be changed: choose another name for this table in its SCORING_*_TABLE variable",
            )
        )
    return Step(Action(resource, State.EXISTS, f"keys {keys}"))


def _creation(spec: TableSpec) -> dict[str, Any]:
    creation: dict[str, Any] = {
        "TableName": spec.name,
        "AttributeDefinitions": [{"AttributeName": key, "AttributeType": "S"} for key in spec.keys],
        "KeySchema": [
            {"AttributeName": key, "KeyType": kind} for key, kind in zip(spec.keys, ("HASH", "RANGE"), strict=False)
        ],
        "BillingMode": "PAY_PER_REQUEST",
    }
    if spec.streamed:
        creation["StreamSpecification"] = {"StreamEnabled": True, "StreamViewType": VIEW}
    return creation


def _view(spec: TableSpec, found: FoundTable | None) -> Step:
    resource = f"table {spec.name}: stream"
    if found is None:
        # Made with the table: a line in the report, but no call of its own.
        return Step(Action(resource, State.WOULD_CREATE, VIEW))
    if not found.view:
        return Step(
            Action(resource, State.WOULD_CREATE, VIEW),
            "dynamodb",
            "update_table",
            {"TableName": spec.name, "StreamSpecification": {"StreamEnabled": True, "StreamViewType": VIEW}},
        )
    if found.view in VIEWS_IN_USE:
        return Step(Action(resource, State.EXISTS, found.view))
    return Step(
        Action(
            resource,
            State.DIFFERS,
            f"shows {found.view}, not {VIEW}: scores cannot be published from it",
            "a view cannot be changed: when nobody else reads the stream, turn it off "
            f"(aws dynamodb update-table --table-name {spec.name} --stream-specification StreamEnabled=false) "
            "and run `scoring setup` again",
        )
    )


def _ttl(spec: TableSpec, found: FoundTable | None) -> Step:
    resource = f"table {spec.name}: time to live"
    if found is None or not found.ttl:
        return Step(
            Action(resource, State.WOULD_CREATE, spec.ttl),
            "dynamodb",
            "update_time_to_live",
            {"TableName": spec.name, "TimeToLiveSpecification": {"Enabled": True, "AttributeName": spec.ttl}},
        )
    if found.ttl != spec.ttl:
        return Step(
            Action(
                resource,
                State.DIFFERS,
                f"is on {found.ttl}, not on {spec.ttl}: rows are never removed",
                f"turn it off for {found.ttl}, wait an hour, and run `scoring setup` again",
            )
        )
    return Step(Action(resource, State.EXISTS, spec.ttl))


def _recovery(spec: TableSpec, found: FoundTable | None) -> Step:
    resource = f"table {spec.name}: point-in-time recovery"
    if found is not None and found.recovery:
        return Step(Action(resource, State.EXISTS, "on"))
    return Step(
        Action(resource, State.WOULD_CREATE, "on"),
        "dynamodb",
        "update_continuous_backups",
        {"TableName": spec.name, "PointInTimeRecoverySpecification": {"PointInTimeRecoveryEnabled": True}},
    )


def plan_wanted(wanted: Wanted, found: Mapping[str, Any] | None, *, inside: bool) -> Step:
    """Plan a resource of a sink. One that is there is never changed: the difference is reported.

    Args:
        wanted: What the sink needs.
        found: The resource as it is; None where it is missing.
        inside: Whether what must be there before is there.
    """
    if not inside:
        detail = f"{wanted.inside.resource} does not exist"
        return Step(Action(wanted.resource, State.DIFFERS, detail, wanted.inside.remedy))
    if found is None:
        operation, params = wanted.make
        return Step(Action(wanted.resource, State.WOULD_CREATE, wanted.detail), wanted.service, operation, params)
    difference = wanted.differs(found)
    if difference:
        return Step(Action(wanted.resource, State.DIFFERS, difference, wanted.remedy))
    return Step(Action(wanted.resource, State.EXISTS, wanted.detail))


def plan_definitions(table: str, project_id: str, defined: Sequence[str]) -> Step:
    """Plan the default definitions of a project: all of them, or none where it has any (`defined` event types).

    Filling up would bring back what somebody removed on purpose. They go in as one transaction, so that a run
    cut short leaves none.
    """
    resource = f"definitions of project {project_id}"
    if defined:
        return Step(Action(resource, State.EXISTS, f"{len(defined)} definitions"))
    puts = [
        {
            "Put": {
                "TableName": table,
                "Item": definition_item(Definition(event_type, project_id, points)),
                "ConditionExpression": "attribute_not_exists(EventType)",
            }
        }
        for event_type, points in DEFAULT_POINTS.items()
    ]
    return Step(
        Action(resource, State.WOULD_CREATE, f"{len(puts)} default definitions"),
        "dynamodb",
        "transact_write_items",
        {"TransactItems": puts},
    )
