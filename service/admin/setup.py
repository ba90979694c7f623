"""`scoring setup`: look at what there is, plan (`setup_plan.py`), do it. Synchronous, with boto3.

Safe to run again at any time: it never overwrites, never deletes, and says what differs.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import msgspec
from botocore.exceptions import ClientError, WaiterError

from service.admin.setup_plan import (
    Action,
    FoundStream,
    FoundTable,
    Names,
    State,
    Step,
    TableSpec,
    plan_definitions,
    plan_stream,
    plan_table,
    tables,
)
from service.aws.clients import AwsClient
from service.aws.errors import code_of, translated
from service.runtime.errors import TransientError

POLL_S = 1.0
MAX_POLLS = 120
"""Two minutes: a table takes seconds, an on-demand stream up to a minute."""

_BACKUPS_LATER = "ContinuousBackupsUnavailableException"


class Setup:
    """The set-up of one installation.

    Args:
        names: What to set up.
        dynamodb: boto3's client.
        kinesis: boto3's client.
        sleep: Seconds to wait; `time.sleep` but in tests.
    """

    def __init__(
        self, names: Names, dynamodb: AwsClient, kinesis: AwsClient, *, sleep: Callable[[float], None] = time.sleep
    ) -> None:
        self._names = names
        self._clients = {"dynamodb": dynamodb, "kinesis": kinesis}
        self._sleep = sleep

    def run(self, projects: Sequence[str] = (), *, dry_run: bool = False) -> list[Action]:
        """Make what is missing; return a line for everything, in the order it was looked at.

        Args:
            projects: Projects that get the default definitions unless they have any.
            dry_run: Only say what would be made.

        Raises:
            AwsSetupError: A call is not allowed.
            TransientError: AWS does not answer, or what was made is not ready in time.
        """
        actions = [self._do(step, dry_run=dry_run) for step in self._stream_steps()]
        specs = tables(self._names)
        found = {spec.name: self._look(spec) for spec in specs}
        steps = [step for spec in specs for step in plan_table(spec, found[spec.name])]
        creations = [step for step in steps if step.operation == "create_table"]
        if not dry_run:
            # All tables are asked for first: they take their seconds side by side.
            for step in creations:
                self._call(step)
            for step in creations:
                self._await_table(step.params["TableName"])
        actions += [self._do(step, dry_run=dry_run, done=step in creations) for step in steps]
        book = self._names.definitions
        for project in projects:
            defined = [] if found[book] is None else self._defined(project)
            actions.append(self._do(plan_definitions(book, project, defined), dry_run=dry_run))
        return actions

    def _do(self, step: Step, *, dry_run: bool, done: bool = False) -> Action:
        action = step.action
        if action.state is not State.WOULD_CREATE or dry_run:
            return action
        if step.operation and not done:
            self._call(step)
            self._settle(step)
        return msgspec.structs.replace(action, state=State.CREATED)

    def _call(self, step: Step) -> None:
        for _ in range(MAX_POLLS):
            with translated(step.action.resource):
                try:
                    getattr(self._clients[step.service], step.operation)(**step.params)
                except ClientError as error:
                    # Backups of a new table are not available at once.
                    if code_of(error) != _BACKUPS_LATER:
                        raise
                else:
                    return
            self._sleep(POLL_S)
        raise TransientError(f"{step.action.resource}: not available after {MAX_POLLS * POLL_S:.0f} s")

    def _settle(self, step: Step) -> None:
        if step.operation == "update_table":
            self._await_table(step.params["TableName"])
        if step.service == "kinesis":
            self._await("stream_exists", "kinesis", StreamName=step.params["StreamName"])

    def _await_table(self, name: str) -> None:
        self._await("table_exists", "dynamodb", TableName=name)

    def _await(self, waiter: str, service: str, **which: str) -> None:
        try:
            self._clients[service].get_waiter(waiter).wait(
                **which, WaiterConfig={"Delay": POLL_S, "MaxAttempts": MAX_POLLS}
            )
        except WaiterError as error:
            raise TransientError(f"{', '.join(which.values())}: not ready: {error}") from error

    def _stream_steps(self) -> list[Step]:
        name_or_arn = self._names.stream
        if not name_or_arn:
            return []
        which = {"StreamARN" if name_or_arn.startswith("arn:") else "StreamName": name_or_arn}
        answer = self._described("kinesis", "describe_stream_summary", f"stream {name_or_arn}", **which)
        if answer is None:
            return plan_stream(name_or_arn, None)
        summary = answer["StreamDescriptionSummary"]
        mode = summary.get("StreamModeDetails", {}).get("StreamMode", "PROVISIONED")
        return plan_stream(name_or_arn, FoundStream(mode, summary["RetentionPeriodHours"]))

    def _look(self, spec: TableSpec) -> FoundTable | None:
        resource = f"table {spec.name}"
        answer = self._described("dynamodb", "describe_table", resource, TableName=spec.name)
        if answer is None:
            return None
        table = answer["Table"]
        if table["TableStatus"] == "CREATING":
            self._await_table(spec.name)
        ttl = self._described("dynamodb", "describe_time_to_live", resource, TableName=spec.name) if spec.ttl else None
        backups = (
            self._described("dynamodb", "describe_continuous_backups", resource, TableName=spec.name)
            if spec.recovery
            else None
        )
        return found_table(table, ttl, backups)

    def _described(self, service: str, operation: str, resource: str, **which: str) -> dict[str, Any] | None:
        with translated(resource):
            try:
                answer: dict[str, Any] = getattr(self._clients[service], operation)(**which)
            except ClientError as error:
                if code_of(error) == "ResourceNotFoundException":
                    return None
                raise
        return answer

    def _defined(self, project: str) -> list[str]:
        with translated(f"table {self._names.definitions}"):
            pages = (
                self._clients["dynamodb"]
                .get_paginator("scan")
                .paginate(
                    TableName=self._names.definitions,
                    ConsistentRead=True,
                    FilterExpression="PinpointProjectId = :project",
                    ExpressionAttributeValues={":project": {"S": project}},
                    ProjectionExpression="EventType",
                )
            )
            return [item["EventType"]["S"] for page in pages for item in page["Items"]]


def found_table(table: dict[str, Any], ttl: dict[str, Any] | None, backups: dict[str, Any] | None) -> FoundTable:
    """Return what DescribeTable, DescribeTimeToLive and DescribeContinuousBackups say of a table."""
    # HASH sorts before RANGE.
    keys = tuple(key["AttributeName"] for key in sorted(table["KeySchema"], key=lambda key: key["KeyType"]))
    types = {each["AttributeName"]: each["AttributeType"] for each in table["AttributeDefinitions"]}
    lifetime = (ttl or {}).get("TimeToLiveDescription", {})
    ttl_on = lifetime.get("TimeToLiveStatus") in {"ENABLED", "ENABLING"}
    recovery = (backups or {}).get("ContinuousBackupsDescription", {}).get("PointInTimeRecoveryDescription", {})
    stream = table.get("StreamSpecification", {})
    return FoundTable(
        keys=keys,
        types=tuple(types[key] for key in keys),
        ttl=lifetime.get("AttributeName", "") if ttl_on else "",
        recovery=recovery.get("PointInTimeRecoveryStatus") == "ENABLED",
        view=stream.get("StreamViewType", "") if stream.get("StreamEnabled") else "",
    )
