"""Every `SCORING_` variable: its unit, bounds and default. `load.py` reads them from the environment."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Any, Literal

import msgspec

from service.publish.min_change import MinChange, parse
from service.runtime.fields import About, Field, Form, fields_of, parts_of
from service.sinks.registry import LOOKUP, SINKS
from service.stream.position import LATEST, TRIM_HORIZON, at_timestamp

PREFIX = "SCORING_"

Role = Literal["all", "ingest", "publish"]
UnknownPerson = Literal["address", "set-aside"]
LogFormat = Literal["json", "console"]
LogLevel = Literal["debug", "info", "warning", "error"]

_STREAM_NAME = re.compile(r"[a-zA-Z0-9_.-]{1,128}")
STREAM_ARN = re.compile(r"arn:[\w-]+:kinesis:(?P<region>[\w-]+):\d{12}:stream/(?P<name>[a-zA-Z0-9_.-]{1,128})")


def epoch_ms(text: str) -> int:
    """Return the epoch milliseconds of an ISO 8601 time with a zone, for example `2026-01-31T12:00:00Z`.

    Raises:
        ValueError: Not a time, or a time without a zone, which would differ between machines.
    """
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise ValueError("is not an ISO 8601 time") from None
    if moment.tzinfo is None:
        raise ValueError("is a time without a zone")
    return round(moment.timestamp() * 1000)


def _position(text: str) -> str:
    return text if text in (TRIM_HORIZON, LATEST) else at_timestamp(epoch_ms(text))


def _sink_names(text: str) -> tuple[str, ...]:
    names = parts_of(text)
    if not names or not SINKS.keys() >= set(names):
        raise ValueError("is not an accepted value")
    return names


_STREAM = Form(
    "a stream name (letters, digits, `_`, `.`, `-`; at most 128) or ARN",
    "is not a stream name or ARN",
    re.compile(f"{_STREAM_NAME.pattern}|{STREAM_ARN.pattern}"),
)
_TABLE = Form(
    "a table name: 3 to 255 letters, digits, `_`, `.`, `-`", "is not a table name", re.compile(r"[a-zA-Z0-9_.-]{3,255}")
)
_START = Form(f"`{TRIM_HORIZON}`, `{LATEST}` or a time with its zone, such as `2026-01-31T12:00:00Z`", read=_position)
_PROJECTS = Form("project ids separated by commas")
_PROJECT = Form("a project id: 1 to 256 characters without blanks", "is not a project id", re.compile(r"\S{1,256}"))
_SINKS = Form(f"one or more of {', '.join(f'`{name}`' for name in SINKS)}, separated by commas", read=_sink_names)
_MIN_CHANGE = Form("a number of points above 0, or a percentage up to 100%", read=parse)
_EMF_SERVICE = Form(
    "a name of at most 255 letters, digits, `_`, `.`, `-`",
    "is not a service name",
    re.compile(r"[a-zA-Z0-9_.-]{1,255}"),
)


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """All settings. Immutable, read once, and passed on.

    `aws_region` has no variable of its own; it comes from AWS's (`AWS_REGION`, `AWS_DEFAULT_REGION`, or the profile).
    `sink_options` has the variables that the sinks declare (`service/sinks/registry.py`), by name of the sink.
    """

    aws_region: str = ""
    sink_options: Mapping[str, msgspec.Struct] = {}

    role: Annotated[
        Role, About("What a worker does: read the stream (`ingest`), write scores to sinks (`publish`), or both.")
    ] = "all"
    stream: Annotated[str, About("Kinesis stream with the events; not needed by the role `publish`.", _STREAM)] = ""
    start: Annotated[str, About("Where reading starts on a stream that was never read before.", _START)] = TRIM_HORIZON
    project_ids: Annotated[
        tuple[str, ...],
        About(
            "Projects whose events count and whose scores are published. Empty: all that have definitions.", _PROJECTS
        ),
    ] = ()
    default_project: Annotated[
        str,
        About(
            "Project of events that name none: most sources other than Pinpoint's. Empty: they go to the dead letters "
            "(`no_project`).",
            _PROJECT,
        ),
    ] = ""
    unknown_person: Annotated[
        UnknownPerson,
        About(
            "What becomes of an event whose e-mail address, phone number or profile id belongs to no known user: the "
            "address counts as a user (`address`), or the event goes to the dead letters (`set-aside`)."
        ),
    ] = "address"
    scores_table: Annotated[str, About("Table of scores.", _TABLE)] = "userEngagementScore"
    definitions_table: Annotated[str, About("Table of points per event type.", _TABLE)] = "engagementScoreDefinition"
    identities_table: Annotated[str, About("Table of the users of endpoints.", _TABLE)] = "engagementScoringIdentities"
    leases_table: Annotated[str, About("Table of leases and checkpoints.", _TABLE)] = "engagementScoringLeases"
    dead_letters_table: Annotated[str, About("Table of dead letters.", _TABLE)] = "engagementScoringDeadLetters"
    sinks: Annotated[tuple[str, ...], About("Where scores are published.", _SINKS)] = ("log",)

    batch_max_age_ms: Annotated[int, About("Longest wait before a batch is committed.", ge=10, le=60_000)] = 1000
    batch_max_records: Annotated[
        int, About("Most records per batch; a full shard receives 1,000 per second.", ge=1, le=10_000)
    ] = 5000
    checkpoint_interval_ms: Annotated[
        int,
        About(
            "Longest time between checkpoints of a shard; records since the last are read again after a crash.",
            ge=0,
            le=60_000,
        ),
    ] = 5000
    poll_max_ms: Annotated[int, About("Longest pause between reads of an idle shard.", ge=200, le=60_000)] = 1000
    read_budget_mib: Annotated[
        int,
        About(
            "Records read and not yet processed, of all shards, before reading pauses; a quarter is for publishing.",
            ge=4,
            le=65_536,
        ),
    ] = 16
    commit_concurrency_max: Annotated[
        int, About("Most writes of 25 scores in flight; throttling lowers the number automatically.", ge=1, le=256)
    ] = 16
    score_cache_entries: Annotated[
        int,
        About(
            "Users whose score is kept in memory, 1 KiB each on average; fewer if they take more.",
            ge=1000,
            le=10_000_000,
        ),
    ] = 25_000
    marks_kept_hours: Annotated[
        int,
        About(
            "Hours after which a score forgets which records of a shard it holds; 0: the stream's retention. Shorter "
            "for a stream that is kept for months: nothing may be read again from before.",
            ge=0,
            le=8760,
        ),
    ] = 0
    definitions_refresh_s: Annotated[float, About("Seconds between two reads of the definitions.", ge=0.1, le=3600)] = (
        5.0
    )

    fast_calls: Annotated[
        bool,
        About(
            "Make the ten most frequent AWS calls without botocore's serializer, for a third of the CPU. `off` is a "
            "fallback, in case an answer is ever read incorrectly."
        ),
    ] = True

    identity_lookup: Annotated[
        bool,
        About(
            f"Ask {LOOKUP.title} (`GetEndpoint`) for the user of an endpoint that no event has named.",
            default=f"`on` with the sink `{LOOKUP.sink}`",
        ),
    ] = True
    identity_lookup_per_s: Annotated[
        float,
        About("`GetEndpoint` calls per second, of all workers together; AWS's default quota is 10.", gt=0, le=10_000),
    ] = 10.0
    identity_lookup_wait_s: Annotated[
        float,
        About(
            "Longest wait for look-ups, per batch; events that still have no user become dead letters "
            "(`lookup_overdue`).",
            ge=0.1,
            le=300,
        ),
    ] = 5.0
    identity_lookup_transactional: Annotated[
        bool,
        About(
            f"Also ask {LOOKUP.title} about messages without a campaign or journey; "
            "their endpoint ids are mostly random.",
            default="`off`",
        ),
    ] = False
    identity_negative_ttl_s: Annotated[
        float, About("How long an endpoint without a user is not looked up again.", ge=0, le=86_400)
    ] = 300.0
    identity_cache_entries: Annotated[
        int,
        About(
            "Endpoints whose user is kept in memory, 0.5 KiB each on average; fewer if they take more.",
            ge=1000,
            le=10_000_000,
        ),
    ] = 25_000

    publish_linger_ms: Annotated[
        int, About("How long to wait for more changes of the same users before publishing.", ge=0, le=60_000)
    ] = 250
    publish_min_change: Annotated[
        MinChange | None,
        About(
            "Width of the steps within which a changed score is not published: points (`5`) or per cent (`10%`). "
            "A change of the tier always is. Empty: every change is published.",
            _MIN_CHANGE,
        ),
    ] = None
    dead_letter_ttl_days: Annotated[float, About("How long dead letters are kept.", gt=0, le=3650)] = 14.0

    lease_duration_s: Annotated[float, About("How long a silent worker keeps its shards.", ge=1, le=300)] = 10.0
    drain_timeout_s: Annotated[
        float, About("Longest time to finish after SIGTERM; at least 40, and below ECS's `stopTimeout`.", ge=1, le=115)
    ] = 45.0

    http_host: Annotated[str, About("Address of `/metrics`, `/healthz` and `/readyz`.")] = "127.0.0.1"
    http_port: Annotated[int, About("Port of these; 0 takes any free one.", ge=0, le=65_535)] = 9464
    metrics_max_shards: Annotated[int, About("Most shards with metrics of their own.", ge=1, le=10_000)] = 200
    log_format: Annotated[
        LogFormat | None, About("Format of log lines.", default="`console` on a terminal, else `json`")
    ] = None
    log_level: Annotated[
        LogLevel, About("Lowest level that is logged; `debug` also shows tracebacks of commands, and user ids.")
    ] = "info"
    emf_service: Annotated[
        str,
        About("Service name of the CloudWatch metrics that are logged once a minute (EMF). Empty: none.", _EMF_SERVICE),
    ] = ""

    @property
    def stream_name(self) -> str:
        """The stream's name, even if `stream` is an ARN."""
        match = STREAM_ARN.fullmatch(self.stream)
        return match["name"] if match else self.stream

    def options_of(self, sink: str) -> Any:  # noqa: ANN401 # the struct that the sink declares
        """Return the options of a sink, in use or not."""
        return self.sink_options.get(sink) or SINKS[sink].options()

    @property
    def ingests(self) -> bool:
        """Whether this worker reads the stream."""
        return self.role in ("all", "ingest")

    @property
    def publishes(self) -> bool:
        """Whether this worker publishes scores to sinks."""
        return self.role in ("all", "publish")


OPTIONS: Mapping[str, Mapping[str, Field]] = {name: fields_of(sink.options) for name, sink in SINKS.items()}
"""By sink, the fields of its options."""

FIELDS: Mapping[str, Field] = fields_of(Settings) | {
    name: field for fields in OPTIONS.values() for name, field in fields.items()
}
"""Field name to what it takes, in the order of the table."""

VARIABLES: Mapping[str, str] = {f"{PREFIX}{name.upper()}": name for name in FIELDS}
"""Field names by variable."""
