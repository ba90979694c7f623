"""`scoring doctor`: makes the calls of `doctor_plan.py`. Synchronous, with boto3; changes nothing."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from email.utils import parsedate_to_datetime
from typing import Any

from botocore.exceptions import ClientError

from service.admin.doctor_plan import (
    DENIED,
    MAX_PROJECTS,
    MISSING,
    SCORE_STREAM_HOURS,
    Finding,
    Trial,
    Verdict,
    Wanted,
    judge,
    judge_clock,
    judge_definitions,
    judge_rates,
    judge_retention,
    judge_shards,
    judge_table,
    judge_target,
    pinpoint_trials,
    trials,
)
from service.admin.setup import found_table
from service.admin.setup_plan import FoundTable, TableSpec, tables
from service.aws.clients import AwsClient
from service.aws.endpoints import is_aws
from service.aws.errors import code_of
from service.aws.streams import silence
from service.aws.streams.kinesis import tag_of
from service.aws.tables.leases import LEADER
from service.queries.streams import INGEST

MAX_LAGS = 20
"""Shards whose lag is read; each costs one of the shard's five reads per second."""


class Doctor:
    """Examines one installation.

    Args:
        wanted: What the configuration says.
        clients: boto3's, by service: kinesis, dynamodb, dynamodbstreams, and pinpoint where it is used.
        wall_s: Epoch seconds.
    """

    def __init__(
        self, wanted: Wanted, clients: Mapping[str, AwsClient], *, wall_s: Callable[[], float] = time.time
    ) -> None:
        self._wanted = wanted
        self._clients = clients
        self._wall_s = wall_s
        self._skew_s: float | None = None

    def examine(self) -> Iterator[Finding]:
        """Yield a finding for everything looked at, while it goes.

        Raises:
            botocore.exceptions.BotoCoreError: AWS cannot be asked at all: no credentials, no network.
        """
        for spec in tables(self._wanted.names):
            yield from self._table(spec)
        projects: Sequence[str] = self._wanted.projects
        for trial in trials(self._wanted):
            finding, answer = self._try(trial)
            yield finding
            if trial.operation == "scan" and trial.params["TableName"] == self._wanted.names.definitions and answer:
                defined = self._defined(answer)
                yield from judge_definitions(self._wanted.names.definitions, defined, projects)
                projects = projects or sorted(defined)[:MAX_PROJECTS]
        for project in projects:
            yield from self._pinpoint(project)
        if self._wanted.asks_pinpoint and not projects:
            yield Finding(
                Verdict.SKIPPED,
                "Pinpoint",
                "not looked at: neither SCORING_PROJECT_IDS nor a definition names a project",
            )
        if self._wanted.ingests:
            yield from self._event_stream()
        if self._wanted.publishes:
            yield from self._score_stream()
        if self._skew_s is not None:
            yield judge_clock(self._skew_s)
        yield from judge_rates(self._wanted)

    def _call(self, service: str, operation: str, params: Mapping[str, Any]) -> tuple[dict[str, Any] | None, str, str]:
        """Return the answer, error code and message; exactly one of answer and code is there."""
        try:
            answer: dict[str, Any] = getattr(self._clients[service], operation)(**params)
        except ClientError as error:
            self._note_time(error.response)
            return None, code_of(error), str(error)
        self._note_time(answer)
        failed = answer.get("Responses", [{}]) if operation == "batch_execute_statement" else [{}]
        if failed and "Error" in failed[0]:
            fault = failed[0]["Error"]
            return None, fault.get("Code", "unknown"), fault.get("Message", "")
        return answer, "", ""

    def _note_time(self, answer: Mapping[str, Any]) -> None:
        date = answer.get("ResponseMetadata", {}).get("HTTPHeaders", {}).get("date")
        if date and self._skew_s is None:
            self._skew_s = self._wall_s() - parsedate_to_datetime(date).timestamp()

    def _try(self, trial: Trial) -> tuple[Finding, dict[str, Any] | None]:
        answer, code, message = self._call(trial.service, trial.operation, trial.params)
        return judge(trial, code, message), answer

    def _defined(self, page: Mapping[str, Any]) -> Mapping[str, int]:
        """Return how many definitions each project has; `page` is the first page of the table."""
        found: Counter[str] = Counter()
        answer: Mapping[str, Any] | None = page
        while answer is not None:
            found.update(item["PinpointProjectId"]["S"] for item in answer["Items"])
            start = answer.get("LastEvaluatedKey")
            if not start:
                break
            params = {"TableName": self._wanted.names.definitions, "ExclusiveStartKey": start}
            answer, _, _ = self._call("dynamodb", "scan", params)
        return found

    def _pinpoint(self, project: str) -> Iterator[Finding]:
        for trial in pinpoint_trials(self._wanted, project):
            finding, _ = self._try(trial)
            yield finding
            if finding.verdict is Verdict.BROKEN and finding.remedy == trial.remedy:
                return  # where there is no such project, the other calls only look as if all were well

    def _table(self, spec: TableSpec) -> Iterator[Finding]:
        answer, code, message = self._call("dynamodb", "describe_table", {"TableName": spec.name})
        if code in DENIED and spec.streamed and self._wanted.publishes:
            # The one table that a worker itself describes: to find its stream.
            yield judge(Trial("dynamodb:DescribeTable", f"table {spec.name}", "", "", {}), code, message)
            return
        if answer is None and code not in MISSING:
            yield _not_seen(f"table {spec.name}", "dynamodb:DescribeTable", code, message)
            return
        found: FoundTable | None = None
        if answer is not None:
            ttl, denied, _ = (
                self._call("dynamodb", "describe_time_to_live", {"TableName": spec.name}) if spec.ttl else ({}, "", "")
            )
            found = found_table(answer["Table"], ttl, None)
            if denied:
                yield _not_seen(f"time to live of {spec.name}", "dynamodb:DescribeTimeToLive", denied, "")
                spec = TableSpec(spec.name, spec.keys, "", spec.recovery, spec.streamed)
        yield from judge_table(spec, found)

    def _event_stream(self) -> Iterator[Finding]:
        name = self._wanted.names.stream
        which = {"StreamARN" if name.startswith("arn:") else "StreamName": name}
        subject = f"stream {name}"

        def trial(operation: str, method: str, params: Mapping[str, Any]) -> Trial:
            return Trial(f"kinesis:{operation}", subject, "kinesis", method, params)

        finding, summary = self._try(trial("DescribeStreamSummary", "describe_stream_summary", which))
        yield finding
        finding, listed = self._try(trial("ListShards", "list_shards", which))
        yield finding
        if summary is None or listed is None:
            return
        shard = which | {"ShardId": listed["Shards"][-1]["ShardId"], "ShardIteratorType": "LATEST"}
        finding, made = self._try(trial("GetShardIterator", "get_shard_iterator", shard))
        yield finding
        if made is not None:
            iterator = {"ShardIterator": made["ShardIterator"], "Limit": 1}
            finding, _ = self._try(trial("GetRecords", "get_records", iterator))
            yield finding
        described = summary["StreamDescriptionSummary"]
        yield from self._target(described)
        yield judge_retention(subject, described["RetentionPeriodHours"], self._lag_s(which))
        yield self._shard_quota()

    def _target(self, described: Mapping[str, Any]) -> Iterator[Finding]:
        """Compare the score table in use with the one that the positions in the stream belong to."""
        names = self._wanted.names
        key = {"leaseKey": {"S": f"{INGEST}:{tag_of(described)}:{LEADER}"}}
        row, _, _ = self._call("dynamodb", "get_item", {"TableName": names.leases, "Key": key})
        answer, _, _ = self._call("dynamodb", "describe_table", {"TableName": names.scores})
        before = (row or {}).get("Item", {}).get("target", {}).get("S", "")
        made = answer["Table"].get("TableId", "") if answer else ""
        yield from judge_target(names.leases, before, f"{names.scores} {made}".rstrip())

    def _lag_s(self, which: Mapping[str, str]) -> float | None:
        """Return how far the worst of the first `MAX_LAGS` leases is behind; None where there is none to see."""
        rows, _, _ = self._call("dynamodb", "scan", {"TableName": self._wanted.names.leases})
        worst: float | None = None
        for row in (rows or {}).get("Items", [])[:MAX_LAGS]:
            kind, _, rest = row["leaseKey"]["S"].partition(":")
            checkpoint = row.get("checkpoint", {}).get("S", "")
            if kind != "ingest" or not checkpoint.isdecimal():
                continue
            start = {"ShardIteratorType": "AFTER_SEQUENCE_NUMBER", "StartingSequenceNumber": checkpoint}
            made, _, _ = self._call(
                "kinesis", "get_shard_iterator", dict(which) | start | {"ShardId": rest.rpartition(":")[2]}
            )
            if made is None:
                continue
            page, _, _ = self._call("kinesis", "get_records", {"ShardIterator": made["ShardIterator"], "Limit": 1})
            if page is not None:
                worst = max(worst or 0.0, page.get("MillisBehindLatest", 0) / 1000)
        return worst

    def _shard_quota(self) -> Finding:
        limits, code, message = self._call("kinesis", "describe_limits", {})
        if limits is None:
            return _not_seen("Kinesis quota", "kinesis:DescribeLimits", code, message)
        return judge_shards(limits["OpenShardCount"], limits["ShardLimit"])

    def _score_stream(self) -> Iterator[Finding]:
        table = self._wanted.names.scores
        answer, _, _ = self._call("dynamodb", "describe_table", {"TableName": table})
        arn = answer["Table"].get("LatestStreamArn") if answer else None
        if not arn:
            return  # said with the table

        def trial(operation: str, method: str, params: Mapping[str, Any]) -> Trial:
            return Trial(f"dynamodb:{operation}", f"stream of table {table}", "dynamodbstreams", method, params)

        finding, described = self._try(trial("DescribeStream", "describe_stream", {"StreamArn": arn}))
        yield finding
        shards = described["StreamDescription"].get("Shards", []) if described else []
        if not shards:
            return
        shard = {"StreamArn": arn, "ShardId": shards[-1]["ShardId"], "ShardIteratorType": "LATEST"}
        finding, made = self._try(trial("GetShardIterator", "get_shard_iterator", shard))
        yield finding
        if made is not None:
            page = {"ShardIterator": made["ShardIterator"], "Limit": 1}
            finding, _ = self._try(trial("GetRecords", "get_records", page))
            yield finding
        if not is_aws(self._clients["dynamodbstreams"].meta.endpoint_url):
            yield self._silence(table, arn, [each["ShardId"] for each in shards])
        detail = f"keeps {SCORE_STREAM_HOURS:g} h, which cannot be changed"
        yield Finding(Verdict.OK, f"stream of table {table}", detail)

    def _silence(self, table: str, arn: str, shards: Sequence[str]) -> Finding:
        """Return whether an emulator's stream shows what is written; AWS's does."""
        subject = f"changes in the stream of table {table}"
        sample, _, _ = self._call("dynamodb", "scan", silence.sample_of(table))
        if not silence.changed_lately((sample or {}).get("Items", []), round(self._wall_s() * 1000)):
            return Finding(Verdict.SKIPPED, subject, "an emulator: can be told half a minute after the first score")
        if any(self._shows_something(arn, shard) for shard in shards[: silence.MAX_SHARDS]):
            return Finding(Verdict.OK, subject, "there are some")
        return Finding(Verdict.BROKEN, subject, silence.WHY, silence.REMEDY)

    def _shows_something(self, arn: str, shard: str) -> bool:
        first = {"StreamArn": arn, "ShardId": shard, "ShardIteratorType": "TRIM_HORIZON"}
        answer, _, _ = self._call("dynamodbstreams", "get_shard_iterator", first)
        iterator = answer and answer["ShardIterator"]
        for _ in range(silence.MAX_PAGES):
            if not iterator:
                return False
            page, code, _ = self._call("dynamodbstreams", "get_records", {"ShardIterator": iterator})
            if page is None or page["Records"]:
                return page is not None or code == "TrimmedDataAccessException"
            iterator = page.get("NextShardIterator")
        return False


def _not_seen(subject: str, action: str, code: str, message: str) -> Finding:
    """Return the finding for what only the doctor would look at: a worker runs without it."""
    if code in DENIED:
        return Finding(
            Verdict.SKIPPED, subject, f"not looked at: {action} is not allowed (the service does not need it)"
        )
    return Finding(Verdict.SKIPPED, subject, f"not looked at: {code} {message}".rstrip())
