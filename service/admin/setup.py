"""`scoring setup`: look at what there is, plan (`setup_plan.py`), do it.

Safe to run again at any time: it never overwrites, never deletes, and says what differs.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

import msgspec

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
    plan_wanted,
    tables,
)
from service.aws.ask import ask
from service.aws.calls import pages
from service.aws.clients import AwsClient
from service.aws.schema import DEFINITION_KEYS
from service.aws.streams.kinesis import named
from service.aws.translation import MISSING
from service.runtime.errors import TransientError
from service.sinks.port import MakeClient
from service.sinks.setup import Wanted

POLL_S = 1.0
MAX_POLLS = 120
"""Two minutes: a table takes seconds, an on-demand stream up to a minute."""

_BACKUPS_LATER = frozenset({"ContinuousBackupsUnavailableException"})
"""Backups of a new table are not available at once."""


class Setup:
    """The set-up of one installation.

    Args:
        names: What to set up.
        dynamodb: The client.
        kinesis: The client.
        client: Makes the clients that `wanted` needs.
        wanted: What the sinks in use need.
        sleep: Seconds to wait; `asyncio.sleep` but in tests.
    """

    def __init__(
        self,
        names: Names,
        dynamodb: AwsClient,
        kinesis: AwsClient,
        *,
        client: MakeClient | None = None,
        wanted: Sequence[Wanted] = (),
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._names = names
        self._client = client
        self._wanted = wanted
        self._clients: dict[str, AwsClient] = {"dynamodb": dynamodb, "kinesis": kinesis}
        self._sleep = sleep

    async def run(self, projects: Sequence[str] = (), *, dry_run: bool = False) -> list[Action]:
        """Make what is missing; return a line for everything, in the order it was looked at.

        Args:
            projects: Projects that get the default definitions unless they have any.
            dry_run: Only say what would be made.

        Raises:
            AwsSetupError: A call is not allowed.
            TransientError: AWS does not answer, or what was made is not ready in time.
        """
        actions = [await self._do(step, dry_run=dry_run) for step in await self._stream_steps()]
        specs = tables(self._names)
        found = {spec.name: await self._look(spec) for spec in specs}
        steps = [step for spec in specs for step in plan_table(spec, found[spec.name])]
        creations = [step for step in steps if step.operation == "create_table"]
        if not dry_run:
            # All tables are asked for first: they take their seconds side by side.
            for step in creations:
                await self._call(step)
            for step in creations:
                await self._await_table(step.params["TableName"])
        actions += [await self._do(step, dry_run=dry_run, done=step in creations) for step in steps]
        book = self._names.definitions
        for project in projects:
            defined = [] if found[book] is None else await self._defined(project)
            actions.append(await self._do(plan_definitions(book, project, defined), dry_run=dry_run))
        actions += [await self._do(await self._sink_step(wanted), dry_run=dry_run) for wanted in self._wanted]
        return actions

    async def _sink_step(self, wanted: Wanted) -> Step:
        if wanted.service not in self._clients and self._client is not None:
            self._clients[wanted.service] = await self._client(wanted.service)
        client, before = self._clients[wanted.service], wanted.inside
        call = getattr(client, before.operation)
        if (await ask(before.resource, call, before.params)).unless(MISSING) is None:
            return plan_wanted(wanted, None, inside=False)
        operation, params = wanted.look
        found = (await ask(wanted.resource, getattr(client, operation), params)).unless(MISSING)
        return plan_wanted(wanted, found, inside=True)

    async def _do(self, step: Step, *, dry_run: bool, done: bool = False) -> Action:
        action = step.action
        if action.state is not State.WOULD_CREATE or dry_run:
            return action
        if step.operation and not done:
            await self._call(step)
            if step.operation == "update_table":
                await self._await_table(step.params["TableName"])
            if step.service == "kinesis":
                await self._await_stream(step.params["StreamName"])
        return msgspec.structs.replace(action, state=State.CREATED)

    async def _call(self, step: Step) -> None:
        call = getattr(self._clients[step.service], step.operation)
        for _ in range(MAX_POLLS):
            if (await ask(step.action.resource, call, step.params)).unless(_BACKUPS_LATER) is not None:
                return
            await self._sleep(POLL_S)
        raise TransientError(f"{step.action.resource}: not available after {MAX_POLLS * POLL_S:.0f} s")

    async def _await_table(self, name: str) -> None:
        await self._await(
            f"table {name}",
            self._clients["dynamodb"].describe_table,
            {"TableName": name},
            lambda answer: answer["Table"]["TableStatus"],
        )

    async def _await_stream(self, name: str) -> None:
        await self._await(
            f"stream {name}",
            self._clients["kinesis"].describe_stream_summary,
            {"StreamName": name},
            lambda answer: answer["StreamDescriptionSummary"]["StreamStatus"],
        )

    async def _await(
        self,
        resource: str,
        call: Callable[..., Awaitable[Mapping[str, Any]]],
        params: Mapping[str, str],
        status_of: Callable[[Mapping[str, Any]], str],
    ) -> None:
        """Wait until a table or stream is active; one that was just asked for may not be listed yet."""
        status = ""
        for _ in range(MAX_POLLS):
            answer = (await ask(resource, call, params)).unless(MISSING)
            status = "missing" if answer is None else status_of(answer)
            if status == "ACTIVE":
                return
            await self._sleep(POLL_S)
        raise TransientError(f"{resource}: still {status} after {MAX_POLLS * POLL_S:.0f} s")

    async def _stream_steps(self) -> list[Step]:
        name_or_arn = self._names.stream
        if not name_or_arn:
            return []
        answer = await self._described(
            "kinesis", "describe_stream_summary", f"stream {name_or_arn}", named(name_or_arn)
        )
        if answer is None:
            return plan_stream(name_or_arn, None)
        summary = answer["StreamDescriptionSummary"]
        mode = summary.get("StreamModeDetails", {}).get("StreamMode", "PROVISIONED")
        return plan_stream(name_or_arn, FoundStream(mode, summary["RetentionPeriodHours"]))

    async def _look(self, spec: TableSpec) -> FoundTable | None:
        async def described(operation: str) -> Mapping[str, Any] | None:
            return await self._described("dynamodb", operation, f"table {spec.name}", {"TableName": spec.name})

        answer = await described("describe_table")
        if answer is None:
            return None
        if answer["Table"]["TableStatus"] == "CREATING":
            await self._await_table(spec.name)
        ttl = await described("describe_time_to_live") if spec.ttl else None
        backups = await described("describe_continuous_backups") if spec.recovery else None
        return found_table(answer["Table"], ttl, backups)

    async def _described(
        self, service: str, operation: str, resource: str, which: Mapping[str, str]
    ) -> Mapping[str, Any] | None:
        return (await ask(resource, getattr(self._clients[service], operation), which)).unless(MISSING)

    async def _defined(self, project: str) -> list[str]:
        found = pages(
            self._clients["dynamodb"].scan,
            f"table {self._names.definitions}",
            TableName=self._names.definitions,
            ConsistentRead=True,
            FilterExpression=f"{DEFINITION_KEYS[1]} = :project",
            ExpressionAttributeValues={":project": {"S": project}},
            ProjectionExpression=DEFINITION_KEYS[0],
        )
        return [item[DEFINITION_KEYS[0]]["S"] async for page in found for item in page]


def found_table(
    table: Mapping[str, Any], ttl: Mapping[str, Any] | None, backups: Mapping[str, Any] | None
) -> FoundTable:
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
