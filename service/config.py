"""Configuration: every `SCORING_` variable, its unit, bounds and default, read once into `Settings`.

`load` is pure: it reads the mapping it is given and nothing else, no `.env` file and no AWS profile. All
that is wrong is said at once. A variable set to nothing counts as not set, because that is what
`SCORING_X=${SCORING_X}` gives in a compose file.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from enum import Enum
from typing import Annotated, Any, Literal, get_args

import msgspec
from pydantic import BeforeValidator, Field, JsonValue, ValidationError
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from service.shards.position import LATEST, TRIM_HORIZON, at_timestamp

PREFIX = "SCORING_"
MAX_SHOWN = 80
"""Characters of a bad value that an error shows."""

Role = Literal["all", "ingest", "publish"]
SinkName = Literal["pinpoint", "log"]
LogFormat = Literal["json", "console"]
LogLevel = Literal["debug", "info", "warning", "error"]

_STREAM_NAME = re.compile(r"[a-zA-Z0-9_.-]{1,128}")
_STREAM_ARN = re.compile(r"arn:[\w-]+:kinesis:(?P<region>[\w-]+):\d{12}:stream/(?P<name>[a-zA-Z0-9_.-]{1,128})")
_TABLE_NAME = re.compile(r"[a-zA-Z0-9_.-]{3,255}")
_EMF_SERVICE = re.compile(r"[a-zA-Z0-9_.-]{1,255}")
_ATTRIBUTE_NAME = re.compile(r"[^#:?\\/\s]{1,50}")


class Purpose(Enum):
    """What the configuration is for, which decides what it must name."""

    RUN = "run"
    """A worker: the stream, unless it only publishes, and a region."""
    STREAM = "stream"
    """A command that needs the stream, and a region."""
    TABLES = "tables"
    """A command that needs tables only: a region."""
    LOCAL = "local"
    """A command that asks nothing of AWS."""


class Problem(msgspec.Struct, frozen=True):
    """One thing wrong: the variable, what is wrong with it, and what to do."""

    variable: str
    fault: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.variable} {self.fault}: {self.remedy}"


class ConfigurationError(Exception):
    """The environment is not usable; `problems` has everything that is wrong, in the order of the table."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        super().__init__("\n".join(str(problem) for problem in problems))
        self.problems = tuple(problems)


def _comma_separated(value: object) -> object:
    if not isinstance(value, str):
        return value
    return tuple(dict.fromkeys(part for part in (part.strip() for part in value.split(",")) if part))


def _lower(value: object) -> object:
    return value.strip().lower() if isinstance(value, str) else value


def _stream(value: object) -> object:
    if isinstance(value, str) and not _STREAM_NAME.fullmatch(value) and not _STREAM_ARN.fullmatch(value):
        raise ValueError("is no stream name or ARN")
    return value


def _table(value: object) -> object:
    if isinstance(value, str) and not _TABLE_NAME.fullmatch(value):
        raise ValueError("is no table name")
    return value


def _attribute(value: object) -> object:
    if isinstance(value, str) and value and not _ATTRIBUTE_NAME.fullmatch(value):
        raise ValueError("is no attribute name")
    return value


def _emf_service(value: object) -> object:
    if isinstance(value, str) and value and not _EMF_SERVICE.fullmatch(value):
        raise ValueError("is no name of a service")
    return value


def _start(value: object) -> object:
    if not isinstance(value, str) or value in (TRIM_HORIZON, LATEST):
        return value
    return at_timestamp(epoch_ms(value))


def epoch_ms(text: str) -> int:
    """Return the epoch milliseconds of an ISO 8601 time with a zone, for example `2026-01-31T12:00:00Z`.

    Raises:
        ValueError: No such time, or one without a zone, which would mean something else on every machine.
    """
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise ValueError("is no ISO 8601 time") from None
    if moment.tzinfo is None:
        raise ValueError("is a time without a zone")
    return round(moment.timestamp() * 1000)


def _expect(text: str) -> dict[str, JsonValue]:
    return {"expected": text}


_STREAM_FORM = _expect("a stream name (letters, digits, `_`, `.`, `-`; at most 128) or ARN")
_TABLE_FORM = _expect("a table name: 3 to 255 letters, digits, `_`, `.`, `-`")
_ATTRIBUTE_FORM = _expect("a name of at most 50 characters without spaces or `# : ? \\ /`")
_START_FORM = _expect(f"`{TRIM_HORIZON}`, `{LATEST}` or a time with its zone, such as `2026-01-31T12:00:00Z`")

TableName = Annotated[str, BeforeValidator(_table), Field(json_schema_extra=_TABLE_FORM)]
AttributeName = Annotated[str, BeforeValidator(_attribute), Field(json_schema_extra=_ATTRIBUTE_FORM)]


class Settings(BaseSettings):
    """Everything the environment decides. Immutable, and handed down: nothing reads the environment again.

    `aws_region` has no variable of its own: it is AWS's (`AWS_REGION`, `AWS_DEFAULT_REGION`, or the profile).
    """

    model_config = SettingsConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, validate_default=False)

    aws_region: str = Field("", exclude=True)

    role: Annotated[Role, BeforeValidator(_lower)] = Field(
        "all", description="What a worker does: read the stream (`ingest`), write scores to sinks (`publish`), or both."
    )
    stream: Annotated[str, BeforeValidator(_stream)] = Field(
        "", description="Kinesis stream with the events; the role `publish` needs none.", json_schema_extra=_STREAM_FORM
    )
    start: Annotated[str, BeforeValidator(_start)] = Field(
        TRIM_HORIZON,
        description="Where reading starts when a stream is read for the first time.",
        json_schema_extra=_START_FORM,
    )
    project_ids: Annotated[tuple[str, ...], BeforeValidator(_comma_separated)] = Field(
        (),
        description="Projects whose events count. Empty: every project that has definitions.",
        json_schema_extra=_expect("project ids separated by commas"),
    )
    scores_table: TableName = Field("userEngagementScore", description="Table of scores.")
    definitions_table: TableName = Field("engagementScoreDefinition", description="Table of points per event type.")
    identities_table: TableName = Field("engagementScoringIdentities", description="Table of endpoints' users.")
    leases_table: TableName = Field("engagementScoringLeases", description="Table of leases and checkpoints.")
    dead_letters_table: TableName = Field("engagementScoringDeadLetters", description="Table of dead letters.")
    sinks: Annotated[tuple[SinkName, ...], BeforeValidator(_comma_separated)] = Field(
        ("pinpoint",),
        min_length=1,
        description="Where scores are published.",
        json_schema_extra=_expect("`pinpoint`, `log`, or both separated by a comma"),
    )

    batch_max_age_ms: int = Field(1000, ge=10, le=60_000, description="Longest wait before a batch is committed.")
    batch_max_records: int = Field(
        5000, ge=1, le=10_000, description="Most records per batch; a full shard receives 1,000 per second."
    )
    checkpoint_interval_ms: int = Field(
        5000, ge=0, le=60_000, description="How long a shard's checkpoint may wait for more: read again after a crash."
    )
    poll_max_ms: int = Field(1000, ge=200, le=60_000, description="Longest pause between reads of an idle shard.")
    read_budget_mib: int = Field(
        32, ge=16, le=65_536, description="Records in hand, of all shards together, before reading pauses."
    )
    commit_concurrency_max: int = Field(
        16, ge=1, le=256, description="Most writes of 25 scores in flight; throttling lowers it by itself."
    )
    score_cache_entries: int = Field(
        25_000, ge=1000, le=10_000_000, description="Users whose score is kept in memory; about 1 KiB each."
    )
    definitions_refresh_s: float = Field(5.0, ge=0.1, le=3600, description="How often definitions are read again.")

    identity_lookup: bool = Field(
        default_factory=lambda data: "pinpoint" in data.get("sinks", ()),
        description="Ask Pinpoint (`GetEndpoint`) whose an endpoint is when no event ever said so.",
        json_schema_extra={"default": "`on` with the sink `pinpoint`"},
    )
    identity_lookup_per_s: float = Field(
        10.0, gt=0, le=10_000, description="`GetEndpoint` calls per second; AWS's default quota is 10."
    )
    identity_negative_ttl_s: float = Field(
        300.0, ge=0, le=86_400, description="How long an endpoint that has no user is not asked for again."
    )
    identity_cache_entries: int = Field(
        25_000, ge=1000, le=10_000_000, description="Endpoints whose user is kept in memory; about 0.5 KiB each."
    )

    publish_linger_ms: int = Field(
        250, ge=0, le=60_000, description="Wait for more changes of the same users before publishing."
    )
    score_attribute: AttributeName = Field("EngagementScore", description="User attribute that gets the score.")
    score_metric: AttributeName = Field(
        "", description="Endpoint metric that gets the score too, for numeric segments. Empty: none."
    )
    pinpoint_update_batch_per_s: float = Field(
        2.0, gt=0, le=10_000, description="`UpdateEndpointsBatch` calls per second; AWS's default quota is 2."
    )
    pinpoint_get_user_per_s: float = Field(
        200.0, gt=0, le=10_000, description="`GetUserEndpoints` calls per second; AWS's default quota is 300."
    )
    directory_max_age_h: float = Field(
        24.0, gt=0, le=8760, description="How long a user's endpoint is trusted before it is asked for again."
    )
    dead_letter_ttl_days: float = Field(14.0, gt=0, le=3650, description="How long dead letters are kept.")

    lease_duration_s: float = Field(10.0, ge=1, le=300, description="How long a silent worker keeps its shards.")
    drain_timeout_s: float = Field(
        30.0, ge=1, le=115, description="Longest time to finish after SIGTERM; keep it below ECS's `stopTimeout`."
    )

    http_host: str = Field("127.0.0.1", description="Address of `/metrics`, `/healthz` and `/readyz`.")
    http_port: int = Field(9464, ge=0, le=65_535, description="Their port; 0 takes any free one.")
    metrics_max_shards: int = Field(200, ge=1, le=10_000, description="Shards told apart in metrics.")
    log_format: Annotated[LogFormat | None, BeforeValidator(_lower)] = Field(
        None, description="How log lines look.", json_schema_extra={"default": "`console` on a terminal, else `json`"}
    )
    log_level: Annotated[LogLevel, BeforeValidator(_lower)] = Field(
        "info", description="Least level logged; `debug` also shows tracebacks of commands, and user ids."
    )
    emf_service: Annotated[str, BeforeValidator(_emf_service)] = Field(
        "",
        description="Name under which metrics for CloudWatch are logged once a minute (EMF). Empty: none.",
        json_schema_extra=_expect("a name of at most 255 letters, digits, `_`, `.`, `-`"),
    )

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],  # noqa: ARG003 # the names are pydantic-settings' own
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Take only what `load` passes: constructing settings never looks at the process's environment."""
        return (init_settings,)

    @property
    def stream_name(self) -> str:
        """The stream's name, also where `stream` is an ARN."""
        match = _STREAM_ARN.fullmatch(self.stream)
        return match["name"] if match else self.stream

    @property
    def ingests(self) -> bool:
        """Whether this worker reads the stream."""
        return self.role in ("all", "ingest")

    @property
    def publishes(self) -> bool:
        """Whether this worker writes scores to sinks."""
        return self.role in ("all", "publish")


VARIABLES: Mapping[str, str] = {
    f"{PREFIX}{name.upper()}": name for name, field in Settings.model_fields.items() if not field.exclude
}
"""Variable to field name, in the order of the table."""


def load(environ: Mapping[str, str], purpose: Purpose = Purpose.RUN, *, profile_region: str | None = None) -> Settings:
    """Return the settings that `environ` describes.

    Args:
        environ: Environment variables.
        purpose: What must be there.
        profile_region: Region of the AWS profile in use, which only AWS's own library can read.

    Raises:
        ConfigurationError: With everything that is wrong.
    """
    problems = _unknown(environ)
    given: dict[str, Any] = {
        field: environ[name].strip() for name, field in VARIABLES.items() if environ.get(name, "").strip()
    }
    region = environ.get("AWS_REGION") or environ.get("AWS_DEFAULT_REGION") or profile_region or ""
    settings: Settings | None = None
    try:
        settings = Settings(**given, aws_region=region)
    except ValidationError as error:
        problems += _invalid(error, given)
    problems += _missing(given, purpose, region)
    if settings is not None:
        problems += _contradictions(settings)
    if settings is None or problems:
        raise ConfigurationError(problems)
    return settings


def _unknown(environ: Mapping[str, str]) -> list[Problem]:
    """Return a problem per variable that nobody reads. Its value is not shown: it may be a secret."""
    problems = []
    for name in sorted(environ):
        if name in VARIABLES or not name.upper().startswith(PREFIX):
            continue
        # Without the prefix, which would make every name alike.
        fields = VARIABLES.values()
        near = difflib.get_close_matches(name.lower().removeprefix(PREFIX.lower()), fields, n=1, cutoff=0.6)
        remedy = (
            f"did you mean {PREFIX}{near[0].upper()}?"
            if near
            else "remove it; the README lists the variables there are"
        )
        problems.append(Problem(name, "is not a variable of this service", remedy))
    return problems


def _invalid(error: ValidationError, given: Mapping[str, Any]) -> list[Problem]:
    problems: dict[str, Problem] = {}
    for fault in error.errors(include_url=False):
        field = str(fault["loc"][0])
        own = fault.get("ctx", {}).get("error")
        what = str(own) if isinstance(own, ValueError) else _fault(fault["type"])
        shown = given.get(field, "")
        shown = shown if len(shown) <= MAX_SHOWN else f"{shown[:MAX_SHOWN]}..."
        variable = f"{PREFIX}{field.upper()}"
        problems.setdefault(variable, Problem(variable, f"= {shown!r} {what}", f"set {expected(field)}"))
    return list(problems.values())


def _fault(kind: str) -> str:
    if kind.startswith(("greater_than", "less_than")):
        return "is out of bounds"
    if kind.startswith(("int_", "float_", "finite_")):
        return "is no such number"
    return "is not a value it can have"


def _missing(given: Mapping[str, Any], purpose: Purpose, region: str) -> list[Problem]:
    problems = []
    needs_stream = purpose is Purpose.STREAM or (
        purpose is Purpose.RUN and str(given.get("role", "all")).lower() != "publish"
    )
    if needs_stream and "stream" not in given:
        remedy = f"set {expected('stream')}"
        if purpose is Purpose.RUN:
            remedy += ", or run with the role `publish`, which reads no Kinesis stream"
        problems.append(Problem("SCORING_STREAM", "is not set", remedy))
    if purpose is not Purpose.LOCAL and not region:
        problems.append(Problem("AWS_REGION", "is not set", "set it, for example to us-east-1, or choose a profile"))
    return problems


def _contradictions(settings: Settings) -> list[Problem]:
    problems = []
    arn = _STREAM_ARN.fullmatch(settings.stream)
    if arn and settings.aws_region and arn["region"] != settings.aws_region:
        problems.append(
            Problem(
                "SCORING_STREAM",
                f"is in {arn['region']}, but the AWS region is {settings.aws_region}",
                "run in the stream's region: set AWS_REGION to it",
            )
        )
    lease_ms = settings.lease_duration_s * 1000
    for name in ("batch_max_age_ms", "checkpoint_interval_ms", "poll_max_ms"):
        value = getattr(settings, name)
        if value >= lease_ms:
            problems.append(
                Problem(
                    f"{PREFIX}{name.upper()}",
                    f"= {value} is not below the lease duration of {settings.lease_duration_s:g} s",
                    "set it lower, or SCORING_LEASE_DURATION_S higher",
                )
            )
    return problems


def expected(field_name: str) -> str:
    """Return what a field takes, for a person: `a whole number from 1 to 300`."""
    field = Settings.model_fields[field_name]
    extra = field.json_schema_extra
    if isinstance(extra, dict) and "expected" in extra:
        return str(extra["expected"])
    if field.annotation is bool:
        return "`on` or `off`"
    if field.annotation in (int, float):
        number = "a whole number" if field.annotation is int else "a number"
        bounds = {key: value for item in field.metadata for key, value in _bounds(item)}
        low = f"from {bounds['ge']:,}" if "ge" in bounds else f"above {bounds['gt']:,}"
        return f"{number} {low} to {bounds['le']:,}"
    literals = [
        choice
        for part in (field.annotation, *get_args(field.annotation))
        for choice in get_args(part)
        if isinstance(choice, str)
    ]
    return " or ".join(f"`{choice}`" for choice in dict.fromkeys(literals)) or "a text"


def _bounds(item: object) -> list[tuple[str, Any]]:
    return [(key, getattr(item, key)) for key in ("ge", "gt", "le") if getattr(item, key, None) is not None]
