"""What `scoring doctor` tries and how it judges the answers. Pure: no call is made here.

A permission is tried by a call that cannot change anything: a condition that no item meets, a key that no item
has, a statement without its key. The answer tells "not allowed" from "allowed, and pointless". That AWS looks at
the permission before the statement's key is an assumption: were it the other way round, a missing
`dynamodb:PartiQLInsert` would pass unnoticed here (and stop a worker with the same words).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from service.admin.setup_plan import RETENTION_H, VIEWS_IN_USE, FoundTable, Names, TableSpec
from service.aws.schema import IDENTITY_KEYS, KEY_NAMES, LEASE_KEYS, key_item
from service.aws.tables.leases import Fleet
from service.aws.translation import DENIED, MISSING
from service.sinks.registry import LOOKUP, SINKS
from service.sinks.trials import PROBE, Finding, Trial, Verdict
from service.stream.leases.target import other

MAX_SKEW_S = 60.0
"""AWS refuses requests whose clock is 5 minutes off
(https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-troubleshooting.html)."""

MAX_PROJECTS = 20
"""Projects that are looked at where none is configured, and the definitions name them."""

NEW_ONLY = "NEW_IMAGE"
"""The view of a stream that does not show what an item was before
(https://docs.aws.amazon.com/amazondynamodb/latest/APIReference/API_StreamSpecification.html)."""

SCORE_STREAM_HOURS = 24.0
"""What every DynamoDB stream keeps
(https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/Streams.html)."""


class Wanted(msgspec.Struct, frozen=True):
    """What the configuration says.

    Attributes:
        names: Stream and tables.
        ingests: Whether this installation reads the stream.
        publishes: Whether it writes scores to sinks.
        projects: Projects whose events count; empty: all that have definitions.
        sinks: Names of the sinks in use, each with its options.
        lookups: Whether users of endpoints are looked up.
        lookups_per_s: Configured rate of these look-ups.
        compares_images: Whether publishing compares a score with the one before.
    """

    names: Names
    ingests: bool
    publishes: bool
    projects: tuple[str, ...] = ()
    sinks: tuple[tuple[str, msgspec.Struct], ...] = ()
    lookups: bool = False
    lookups_per_s: float = 10.0
    compares_images: bool = False

    @property
    def looks_up(self) -> bool:
        """Whether this installation looks up which user an endpoint belongs to."""
        return self.ingests and self.lookups

    @property
    def published(self) -> tuple[tuple[str, msgspec.Struct], ...]:
        """The sinks that this installation writes to, each with its options."""
        return self.sinks if self.publishes else ()

    @property
    def per_project(self) -> list[str]:
        """What is examined project by project, for people."""
        names = [name for name, _ in self.published if SINKS[name].per_project]
        return [*names, *([f"look-up in {LOOKUP.title}"] if self.looks_up else ())]


def _dynamodb(operation: str, method: str, table: str, proves: str = "", **params: object) -> Trial:
    whole = {"TableName": table, **params}
    return Trial(f"dynamodb:{operation}", f"table {table}", "dynamodb", method, whole, frozenset({proves} - {""}))


def _batched(operation: str, method: str, table: str, request: object) -> Trial:
    return Trial(f"dynamodb:{operation}", f"table {table}", "dynamodb", method, {"RequestItems": {table: request}})


def _statement(verb: str, table: str, text: str, keys: Sequence[str], *proves: str) -> Trial:
    statement: dict[str, Any] = {"Statement": text, "Parameters": [{"S": key} for key in keys]}
    params = {"Statements": [statement if keys else {"Statement": text}]}
    action = f"dynamodb:PartiQL{verb}"
    return Trial(action, f"table {table}", "dynamodb", "batch_execute_statement", params, frozenset(proves))


def trials(wanted: Wanted) -> list[Trial]:
    """Return the calls that need nothing but names; those on shards follow from what they answer."""
    names = wanted.names
    both = key_item(IDENTITY_KEYS, (PROBE, PROBE))
    user = key_item(KEY_NAMES, (PROBE, PROBE))
    get = {"Keys": [user], "ConsistentRead": True}
    condition = {"ConditionExpression": "attribute_exists(leaseKey)"}
    lease = key_item(LEASE_KEYS, (PROBE,))
    failed = "ConditionalCheckFailedException"
    tried = [
        _dynamodb("Scan", "scan", names.leases, Limit=1),
        _dynamodb("GetItem", "get_item", names.leases, Key=lease),
        _dynamodb("PutItem", "put_item", names.leases, failed, Item=lease, **condition),
        _dynamodb(
            "UpdateItem",
            "update_item",
            names.leases,
            failed,
            Key=lease,
            UpdateExpression="SET leaseCounter = :zero",
            ExpressionAttributeValues={":zero": {"N": "0"}},
            **condition,
        ),
        _dynamodb("DeleteItem", "delete_item", names.leases, failed, Key=lease, **condition),
        _batched("BatchGetItem", "batch_get_item", names.identities, {"Keys": [both]}),
        _batched("BatchWriteItem", "batch_write_item", names.identities, [{"DeleteRequest": {"Key": both}}]),
        _batched("BatchGetItem", "batch_get_item", names.scores, get),
        _dynamodb(
            "Query",
            "query",
            names.dead_letters,
            KeyConditionExpression="Origin = :origin",
            ExpressionAttributeValues={":origin": {"S": PROBE}},
            Limit=1,
        ),
        _statement("Insert", names.dead_letters, f"INSERT INTO \"{names.dead_letters}\" VALUE {{'NoKey': ?}}", [PROBE],
                   "ValidationError", "ValidationException"),
    ]  # fmt: skip
    mapping = f'UPDATE "{names.identities}" SET Stamp = ? WHERE Id = ? AND PinpointProjectId = ?'  # noqa: S608
    tried += [
        _statement("Insert", names.identities, f"INSERT INTO \"{names.identities}\" VALUE {{'NoKey': ?}}", [PROBE],
                   "ValidationError", "ValidationException"),
        _statement("Update", names.identities, f"{mapping} AND Stamp = ?", [PROBE] * 4, "ConditionalCheckFailed"),
    ]  # fmt: skip
    change = f'UPDATE "{names.scores}" SET Revision = 0 WHERE UserId = ? AND PinpointProjectId = ?'  # noqa: S608
    tried.append(
        _statement("Update", names.scores, f"{change} AND Revision = 0", [PROBE, PROBE], "ConditionalCheckFailed")
    )
    if wanted.ingests:
        tried += [
            _dynamodb("Scan", "scan", names.definitions),
            _statement("Insert", names.scores, f"INSERT INTO \"{names.scores}\" VALUE {{'NoKey': ?}}", [PROBE],
                       "ValidationError", "ValidationException"),
        ]  # fmt: skip
    # Publishing publishes every score again where changes were lost; ingest sweeps once a day where there are rules.
    tried.append(_dynamodb("Scan", "scan", names.scores, Limit=1))
    return tried


def sink_trials(wanted: Wanted, projects: Sequence[str]) -> list[list[Trial]]:
    """Return the calls that sinks and the look-up want tried, in groups (see `SinkType.trials`)."""
    groups = [
        *(LOOKUP.trials(projects) if wanted.looks_up else ()),
        *(group for name, options in wanted.published for group in SINKS[name].trials(options, projects)),
    ]
    found: dict[tuple[str, str, str], list[Trial]] = {}
    for group in groups:
        first = group[0]
        merged = found.setdefault((first.service, first.operation, first.resource), [])
        merged += [trial for trial in group if trial not in merged]  # the look-up and a sink may ask the same
    return list(found.values())


def judge(trial: Trial, code: str, message: str = "", remedy: str = "") -> Finding:
    """Return what an answer says of a permission.

    Args:
        trial: What was tried.
        code: Error code of the answer; empty: there was none.
        message: What AWS said with it.
        remedy: What a worker's log would advise; empty if it has no advice for this code.
    """
    subject = f"{trial.action} on {trial.resource}"
    if not code or code in trial.proves:
        return Finding(Verdict.OK, subject, "allowed")
    if code in DENIED:
        remedy = f"allow {trial.action} on {trial.resource} to this role"
        if trial.optional:
            return Finding(Verdict.NOTE, subject, f"not allowed: {trial.optional}", remedy)
        return Finding(Verdict.BROKEN, subject, "not allowed", remedy)
    if code in (trial.missing or MISSING):
        return Finding(Verdict.BROKEN, subject, f"there is no {trial.resource}", trial.remedy)
    return Finding(
        Verdict.BROKEN, subject, f"{code}: {message}", remedy or "try again; if it stays, the message says more"
    )


def judge_table(spec: TableSpec, found: FoundTable | None, *, compares_images: bool = False) -> list[Finding]:
    """Return what is to say of a table's keys, stream and time to live."""
    subject = f"table {spec.name}"
    if found is None:
        return [Finding(Verdict.BROKEN, subject, "does not exist", "run `scoring setup`, or correct the name")]
    keys = ", ".join(spec.keys)
    if found.keys != spec.keys or set(found.types) != {"S"}:
        has = ", ".join(f"{key} ({kind})" for key, kind in zip(found.keys, found.types, strict=True))
        remedy = f"a table's keys cannot be changed: name a table with the keys {keys} (all strings)"
        return [Finding(Verdict.BROKEN, subject, f"has the keys {has}", remedy)]
    findings = [Finding(Verdict.OK, subject, f"has the keys {keys}")]
    if spec.streamed:
        findings.append(_view(subject, found.view))
        if compares_images and found.view == NEW_ONLY:
            detail = "its stream shows no old images: SCORING_PUBLISH_MIN_CHANGE has no effect"
            remedy = "switch the stream off and on again with StreamViewType NEW_AND_OLD_IMAGES"
            findings.append(Finding(Verdict.NOTE, subject, detail, remedy))
    if spec.ttl and found.ttl != spec.ttl:
        remedy = f"switch time to live on, attribute {spec.ttl} (`scoring setup` does)"
        findings.append(Finding(Verdict.NOTE, subject, "rows never expire", remedy))
    return findings


def _view(subject: str, view: str) -> Finding:
    if view in VIEWS_IN_USE:
        return Finding(Verdict.OK, subject, f"its stream shows {view}")
    if not view:
        return Finding(Verdict.BROKEN, subject, "has no stream", "run `scoring setup`, which switches it on")
    remedy = "switch the stream off and on again with StreamViewType NEW_IMAGE"
    return Finding(Verdict.BROKEN, subject, f"its stream shows {view} only", remedy)


def judge_retention(subject: str, retention_h: float, lag_s: float | None) -> Finding:
    """Return what a stream's retention means for the lag. `lag_s` is None where nothing was read yet."""
    kept = f"keeps {retention_h:g} h"
    if lag_s is not None and lag_s > retention_h * 1800:
        remedy = "catch up now: add workers, or lengthen the retention (aws kinesis increase-stream-retention-period)"
        return Finding(Verdict.BROKEN, subject, f"{kept}, and the service is {lag_s / 3600:.1f} h behind", remedy)
    behind = "" if lag_s is None else f", the service is {lag_s:.0f} s behind"
    if retention_h < RETENTION_H:
        remedy = f"set it to {RETENTION_H} h (aws kinesis increase-stream-retention-period)"
        return Finding(Verdict.NOTE, subject, f"{kept}{behind}: a longer outage loses events", remedy)
    return Finding(Verdict.OK, subject, f"{kept}{behind}")


def judge_target(leases: str, before: str, now: str) -> list[Finding]:
    """Return what is to say where the positions in the leases belong to another score table than the one in use."""
    if not before:
        return []
    subject = f"positions in table {leases}"
    if not other(before, now):
        return [Finding(Verdict.OK, subject, f"belong to table {now.partition(' ')[0]}")]
    remedy = (
        "a table restored from a backup: stop the workers, and `scoring position reset --to-time` of the backup; one "
        "that holds every score of the table before: `scoring position confirm`"
    )
    detail = f"belong to {before}, not to {now}: what was scored there is not read again"
    return [Finding(Verdict.BROKEN, subject, detail, remedy)]


def judge_clock(skew_s: float) -> Finding:
    """Return what a difference between this clock and AWS's (positive: this one is ahead) means."""
    if abs(skew_s) > MAX_SKEW_S:
        remedy = "set the clock (chrony, systemd-timesyncd): AWS refuses requests that are 5 minutes off"
        return Finding(Verdict.BROKEN, "clock", f"differs from AWS's by {skew_s:+.0f} s", remedy)
    return Finding(Verdict.OK, "clock", f"differs from AWS's by {skew_s:+.0f} s")


def judge_definitions(table: str, found: Mapping[str, int], projects: Sequence[str]) -> list[Finding]:
    """Return what the definitions found mean for the projects.

    Args:
        table: Where they are.
        found: How many definitions each project has there.
        projects: Projects whose events count; empty: all that have definitions.
    """
    subject = f"definitions in {table}"
    if not found and not projects:
        remedy = "write the defaults: scoring setup --project ID"
        return [Finding(Verdict.BROKEN, subject, "there are none: no event counts", remedy)]
    return [
        Finding(Verdict.OK, f"{subject} for project {project}", f"{found[project]} event types")
        if found.get(project)
        else Finding(
            Verdict.BROKEN,
            f"{subject} for project {project}",
            "there are none: no event of the project counts",
            f"correct the project id, or write the defaults: scoring setup --project {project}",
        )
        for project in (projects or sorted(found)[:MAX_PROJECTS])
    ]


def judge_shards(open_shards: int, limit: int) -> Finding:
    """Return whether the account has shards left to reshard with."""
    detail = f"{open_shards} of {limit} shards of the account are in use"
    if open_shards > limit * 0.9:
        return Finding(
            Verdict.NOTE, "Kinesis quota", detail, "ask for more: Service Quotas, Kinesis, shards per account"
        )
    return Finding(Verdict.OK, "Kinesis quota", detail)


def judge_fleet(pipeline: str, fleet: Fleet) -> Finding:
    """Return how the workers of a pipeline keep to the configured rates, which are those of all of them together."""
    subject = f"rates of {pipeline}"
    workers = f"{fleet.workers} worker{'s' if fleet.workers > 1 else ''}"
    if fleet.share or fleet.workers == 1:
        return Finding(Verdict.OK, subject, f"shared by {workers}")
    return Finding(
        Verdict.NOTE,
        subject,
        f"{workers} and a leader of version 0.1: each calls at the full rate, together {fleet.workers} times as often "
        "as is configured",
        "update every worker",
    )


def judge_rates(wanted: Wanted) -> list[Finding]:
    """Return a note for each configured rate above the quota that an account has by default."""
    rates = [
        *(LOOKUP.rates(wanted.lookups_per_s) if wanted.looks_up else ()),
        *(rate for name, options in wanted.published for rate in SINKS[name].rates(options)),
    ]
    return [
        Finding(
            Verdict.NOTE,
            rate.subject,
            f"{rate.configured:g}/s is configured for all workers together, {rate.quota:g}/s is the default quota",
            f"make sure that the account's quota was raised, or lower {rate.variable}",
        )
        for rate in rates
        if rate.configured > rate.quota
    ]
