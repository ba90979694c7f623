"""`scoring doctor`: makes the calls of `doctor_plan.py` with a worker's own clients; changes nothing."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from email.utils import parsedate_to_datetime
from typing import Any

from service.admin.doctor_plan import (
    MAX_PROJECTS,
    SCORE_STREAM_HOURS,
    Wanted,
    judge,
    judge_clock,
    judge_definitions,
    judge_fleet,
    judge_rates,
    judge_retention,
    judge_shards,
    judge_table,
    judge_target,
    sink_trials,
    trials,
)
from service.admin.setup import found_table
from service.admin.setup_plan import FoundTable, TableSpec, tables
from service.aws.ask import Answer, ask
from service.aws.calls import pages
from service.aws.clients import Clients
from service.aws.endpoints import is_aws
from service.aws.fast.codec import OPERATIONS
from service.aws.schema import DEFINITION_KEYS
from service.aws.streams import silence
from service.aws.streams.dynamodb_streams import DynamoDbStreamSource, stream_id
from service.aws.streams.kinesis import named, tag_of
from service.aws.tables.leases import LeaseTable, fleets, snapshot_of_all
from service.aws.translation import DENIED, MISSING
from service.queries.streams import INGEST
from service.runtime.errors import TransientError, Trouble, TroubleError
from service.sinks.registry import SINKS
from service.sinks.trials import Finding, Trial, Verdict
from service.stream.ports import StreamId

MAX_LAGS = 20
"""Most shards whose lag is read; each costs one of the shard's five reads per second."""

FAST = {(operation.service, operation.method) for operation in OPERATIONS}
"""Calls that have a fast implementation (`service/aws/fast/`): client and method."""

EVERY_CALL = frozenset({Trouble.CLOCK, Trouble.CREDENTIALS})
"""Kinds of trouble that would affect every further call."""

CALLS = "calls to AWS"
UNREACHABLE = "check the network, AWS_REGION and, if it is set, AWS_ENDPOINT_URL"


class Doctor:
    """Examines one installation with the same clients as a worker.

    Args:
        wanted: The configuration.
        aws: Clients with a worker's settings, so that their faults show here.
        wall_s: Epoch seconds.
    """

    def __init__(self, wanted: Wanted, aws: Clients, *, wall_s: Callable[[], float] = time.time) -> None:
        self._wanted = wanted
        self._clients = {
            "kinesis": aws.kinesis,
            "dynamodb": aws.dynamodb,
            "dynamodbstreams": aws.streams,
        }
        self._client = aws.client
        self._projects: Sequence[str] = wanted.projects
        self._wall_s = wall_s
        self._skew_s: float | None = None

    async def examine(self) -> AsyncIterator[Finding]:
        """Yield each finding as soon as it is known.

        Calls without an answer end the examination with a finding that has the cause: no credentials, a wrong clock, an
        unreachable endpoint. The wording is a worker's, because the clients are.
        """
        try:
            async for finding in self._everything():
                yield finding
        except TroubleError as error:
            yield Finding(Verdict.BROKEN, CALLS, str(error), error.remedy)
        except TransientError as error:
            yield Finding(Verdict.BROKEN, CALLS, str(error), UNREACHABLE)
        if self._skew_s is not None:
            yield judge_clock(self._skew_s)
        for finding in judge_rates(self._wanted):
            yield finding

    async def _everything(self) -> AsyncIterator[Finding]:
        for spec in tables(self._wanted.names):
            for finding in await self._table(spec):
                yield finding
        async for finding in self._permissions():
            yield finding
        async for finding in self._every_sink():
            yield finding
        for finding in await self._fleet():
            yield finding
        if self._wanted.ingests:
            async for finding in self._event_stream():
                yield finding
        if self._wanted.publishes:
            async for finding in self._score_stream():
                yield finding

    async def _permissions(self) -> AsyncIterator[Finding]:
        definitions = self._wanted.names.definitions
        for trial in trials(self._wanted):
            finding, answer = await self._try(trial)
            yield finding
            if trial.operation == "scan" and trial.params["TableName"] == definitions and answer:
                defined = await self._defined()
                for finding in judge_definitions(definitions, defined, self._projects):
                    yield finding
                self._projects = self._projects or sorted(defined)[:MAX_PROJECTS]

    async def _call(self, service: str, operation: str, params: Mapping[str, Any], what: str = "") -> Answer:
        """Make a call.

        Raises:
            TransientError: No answer, or one that every call would get because the credentials or the clock are wrong.
        """
        answer = await ask(what or f"{service} {operation}", getattr(self._clients[service], operation), params)
        date = answer.headers.get("date")
        if date and self._skew_s is None:
            self._skew_s = self._wall_s() - parsedate_to_datetime(date).timestamp()
        if answer.trouble is not None and answer.trouble[0] in EVERY_CALL:
            answer.unless()
        return answer

    async def _look(self, service: str, operation: str, params: Mapping[str, Any]) -> Mapping[str, Any] | None:
        """Return the result of a call; None if it is refused."""
        return (await self._call(service, operation, params)).found

    async def _try(self, trial: Trial) -> tuple[Finding, Mapping[str, Any] | None]:
        """Try a permission. A fast call is made twice, because only the second call of an operation is fast."""
        answer = await self._call(trial.service, trial.operation, trial.params, trial.resource)
        if (trial.service, trial.operation) in FAST:
            answer = await self._call(trial.service, trial.operation, trial.params, trial.resource)
        code, message, remedy = answer.code, answer.message, (answer.trouble or (None, ""))[1]
        if answer.found is not None and trial.operation == "batch_execute_statement":
            (response,) = answer.found["Responses"]
            if "Error" in response:
                fault = response["Error"]
                code, message = fault.get("Code", "unknown"), fault.get("Message", "")
        return judge(trial, code, message, remedy), answer.found if not code else None

    async def _defined(self) -> Mapping[str, int]:
        """Return how many definitions each project has."""
        table = self._wanted.names.definitions
        found: Counter[str] = Counter()
        async for page in pages(self._clients["dynamodb"].scan, f"table {table}", TableName=table):
            found.update(item[DEFINITION_KEYS[1]]["S"] for item in page)
        return found

    async def _every_sink(self) -> AsyncIterator[Finding]:
        for group in sink_trials(self._wanted, self._projects):
            async for finding in self._grouped(group):
                yield finding
        for name, options in self._wanted.published:
            for finding in SINKS[name].examine(options, self._projects):
                yield finding
        for name in self._wanted.per_project if not self._projects else ():
            detail = "not looked at: neither SCORING_PROJECT_IDS nor a definition names a project"
            yield Finding(Verdict.SKIPPED, name, detail)

    async def _grouped(self, group: Sequence[Trial]) -> AsyncIterator[Finding]:
        for trial in group:
            if trial.service not in self._clients:
                self._clients[trial.service] = await self._client(trial.service)
            finding, answer = await self._try(trial)
            yield finding
            if finding.verdict is Verdict.BROKEN and finding.remedy == trial.remedy:
                return  # if the resource does not exist, the other calls would look fine
            for each in trial.read(answer) if answer is not None else ():
                yield each

    async def _table(self, spec: TableSpec) -> list[Finding]:
        subject = f"table {spec.name}"
        answer = await self._call("dynamodb", "describe_table", {"TableName": spec.name}, subject)
        if answer.code in DENIED and spec.streamed and self._wanted.publishes:
            # The only table that a worker itself describes, to find its stream.
            return [judge(Trial("dynamodb:DescribeTable", subject, "", "", {}), answer.code, answer.message)]
        if answer.found is None and answer.code not in MISSING:
            return [_not_seen(subject, "dynamodb:DescribeTable", answer)]
        found: FoundTable | None = None
        findings: list[Finding] = []
        if answer.found is not None:
            ttl: Mapping[str, Any] | None = None
            if spec.ttl:
                described = await self._call("dynamodb", "describe_time_to_live", {"TableName": spec.name}, subject)
                ttl = described.found
                if ttl is None:
                    lifetime = f"time to live of {spec.name}"
                    findings = [_not_seen(lifetime, "dynamodb:DescribeTimeToLive", described)]
                    spec = TableSpec(spec.name, spec.keys, "", spec.recovery, spec.streamed)
            found = found_table(answer.found["Table"], ttl, None)
        return findings + judge_table(spec, found, compares_images=self._wanted.compares_images)

    async def _event_stream(self) -> AsyncIterator[Finding]:
        name = self._wanted.names.stream
        which = named(name)
        subject = f"stream {name}"

        def trial(operation: str, method: str, params: Mapping[str, Any]) -> Trial:
            return Trial(f"kinesis:{operation}", subject, "kinesis", method, params)

        finding, summary = await self._try(trial("DescribeStreamSummary", "describe_stream_summary", which))
        yield finding
        finding, listed = await self._try(trial("ListShards", "list_shards", which))
        yield finding
        if summary is None or listed is None:
            return
        for finding in await self._read(trial, which | {"ShardId": listed["Shards"][-1]["ShardId"]}):
            yield finding
        described = summary["StreamDescriptionSummary"]
        for finding in await self._target(described):
            yield finding
        yield judge_retention(subject, described["RetentionPeriodHours"], await self._lag_s(which))
        yield await self._shard_quota()

    async def _read(
        self, trial: Callable[[str, str, Mapping[str, Any]], Trial], shard: Mapping[str, str]
    ) -> list[Finding]:
        """Try to read the newest records of a shard."""
        start = {**shard, "ShardIteratorType": "LATEST"}
        finding, made = await self._try(trial("GetShardIterator", "get_shard_iterator", start))
        if made is None:
            return [finding]
        iterator = {"ShardIterator": made["ShardIterator"], "Limit": 1}
        return [finding, (await self._try(trial("GetRecords", "get_records", iterator)))[0]]

    async def _target(self, described: Mapping[str, Any]) -> list[Finding]:
        """Compare the score table in use with the one that the positions in the stream belong to."""
        names = self._wanted.names
        stream = StreamId(described["StreamName"], described["StreamARN"], tag_of(described))
        try:
            row = await LeaseTable(self._clients["dynamodb"], names.leases, INGEST, stream).leadership()
        except TransientError:
            return []  # reported with the permissions
        answer = await self._look("dynamodb", "describe_table", {"TableName": names.scores})
        made = answer["Table"].get("TableId", "") if answer else ""
        return judge_target(names.leases, row.target if row else "", f"{names.scores} {made}".rstrip())

    async def _lag_s(self, which: Mapping[str, str]) -> float | None:
        """Return the largest lag of the first `MAX_LAGS` leases; None if no lease can be read."""
        try:
            leases = (await snapshot_of_all(self._clients["dynamodb"], self._wanted.names.leases, INGEST)).leases
        except TransientError:
            return None  # reported with the permissions
        worst: float | None = None
        for lease in leases[:MAX_LAGS]:
            if not lease.checkpoint.isdecimal():
                continue
            start = {"ShardIteratorType": "AFTER_SEQUENCE_NUMBER", "StartingSequenceNumber": lease.checkpoint}
            shard = {"ShardId": lease.shard_id}
            made = await self._look("kinesis", "get_shard_iterator", dict(which) | start | shard)
            if made is None:
                continue
            page = await self._look("kinesis", "get_records", {"ShardIterator": made["ShardIterator"], "Limit": 1})
            if page is not None:
                worst = max(worst or 0.0, page.get("MillisBehindLatest", 0) / 1000)
        return worst

    async def _fleet(self) -> list[Finding]:
        """Compare the workers there are with the rates that they keep together; nothing where the rows are not there.

        That the lease table cannot be read is reported with its permissions.
        """
        try:
            found = await fleets(self._clients["dynamodb"], self._wanted.names.leases)
        except TransientError:
            return []
        return [judge_fleet(pipeline, fleet) for pipeline, fleet in sorted(found.items())]

    async def _shard_quota(self) -> Finding:
        limits = await self._call("kinesis", "describe_limits", {})
        if limits.found is None:
            return _not_seen("Kinesis quota", "kinesis:DescribeLimits", limits)
        return judge_shards(limits.found["OpenShardCount"], limits.found["ShardLimit"])

    async def _score_stream(self) -> AsyncIterator[Finding]:
        table = self._wanted.names.scores
        answer = await self._look("dynamodb", "describe_table", {"TableName": table})
        arn = answer["Table"].get("LatestStreamArn") if answer else None
        if not arn:
            return  # reported with the table

        def trial(operation: str, method: str, params: Mapping[str, Any]) -> Trial:
            return Trial(f"dynamodb:{operation}", f"stream of table {table}", "dynamodbstreams", method, params)

        finding, described = await self._try(trial("DescribeStream", "describe_stream", {"StreamArn": arn}))
        yield finding
        shards = described["StreamDescription"].get("Shards", []) if described else []
        if not shards:
            return
        for finding in await self._read(trial, {"StreamArn": arn, "ShardId": shards[-1]["ShardId"]}):
            yield finding
        if not is_aws(self._clients["dynamodbstreams"].meta.endpoint_url):
            yield await self._silence(table, arn)
        detail = f"keeps {SCORE_STREAM_HOURS:g} h, which cannot be changed"
        yield Finding(Verdict.OK, f"stream of table {table}", detail)

    async def _silence(self, table: str, arn: str) -> Finding:
        """Return whether an emulator's stream shows what is written; AWS's does."""
        subject = f"changes in the stream of table {table}"
        source = DynamoDbStreamSource(self._clients["dynamodbstreams"], stream_id(table, arn))
        try:
            silent = await silence.is_silent(self._clients["dynamodb"], table, source, round(self._wall_s() * 1000))
        except TransientError as error:
            return Finding(Verdict.SKIPPED, subject, f"not looked at: {error}")
        if silent is None:
            return Finding(Verdict.SKIPPED, subject, "an emulator: known half a minute after the first score")
        if silent:
            return Finding(Verdict.BROKEN, subject, silence.WHY, silence.REMEDY)
        return Finding(Verdict.OK, subject, "there are some")


def _not_seen(subject: str, action: str, answer: Answer) -> Finding:
    """Return the finding for a check that only the doctor makes; workers do not need it."""
    if answer.code in DENIED:
        return Finding(
            Verdict.SKIPPED, subject, f"not looked at: {action} is not allowed (the service does not need it)"
        )
    return Finding(Verdict.SKIPPED, subject, f"not looked at: {answer.message}")
