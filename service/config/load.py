"""Reading `Settings` from the environment, or reporting everything that is wrong with it.

`load` is pure: it reads only the mapping that it receives, no `.env` file and no AWS profile. It reports all problems
at once. A variable with an empty value counts as not set, because that is what `SCORING_X=${SCORING_X}` gives in a
compose file.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, Sequence
from enum import Enum

import msgspec

from service.config.settings import FIELDS, OPTIONS, PREFIX, STREAM_ARN, VARIABLES, Settings
from service.runtime.fields import Secret, expected, read
from service.sinks.registry import LOOKUP, SINKS
from service.stream.position import timestamp_of

MAX_SHOWN = 80
"""Most characters of an invalid value that an error shows."""

TO_COME = "is in the future, and Kinesis reads nothing from there", "give a time in the past"
"""The fault of such a time, and the remedy
(https://docs.aws.amazon.com/kinesis/latest/APIReference/API_GetShardIterator.html)."""


class Purpose(Enum):
    """What the configuration is used for; decides which variables are required."""

    RUN = "run"
    """A worker: the stream, unless it only publishes, and a region."""
    STREAM = "stream"
    """A command that needs the stream, and a region."""
    TABLES = "tables"
    """A command that needs tables only: a region."""
    LOCAL = "local"
    """A command that does not call AWS."""


class Problem(msgspec.Struct, frozen=True):
    """One problem: the variable, what is wrong with it, and the remedy."""

    variable: str
    fault: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.variable} {self.fault}: {self.remedy}"


class ConfigurationError(Exception):
    """The environment is invalid; `problems` lists everything that is wrong, in the order of the table."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        super().__init__("\n".join(str(problem) for problem in problems))
        self.problems = tuple(problems)


def load(
    environ: Mapping[str, str],
    purpose: Purpose = Purpose.RUN,
    *,
    profile_region: str | None = None,
    now_ms: int | None = None,
) -> Settings:
    """Return the settings that `environ` describes.

    Args:
        environ: Environment variables.
        purpose: Decides which variables are required.
        profile_region: Region of the AWS profile in use, which only AWS's library can read.
        now_ms: Epoch milliseconds; reading cannot start after it.

    Raises:
        ConfigurationError: Lists everything that is wrong.
    """
    problems = _unknown(environ) + _endpoints(environ)
    given: dict[str, str] = {
        field: environ[name].strip() for name, field in VARIABLES.items() if environ.get(name, "").strip()
    }
    values: dict[str, object] = {}
    for name, text in given.items():
        try:
            values[name] = read(FIELDS[name], text)
        except ValueError as error:
            problems.append(_invalid(name, text, str(error)))
    region = environ.get("AWS_REGION") or environ.get("AWS_DEFAULT_REGION") or profile_region or ""
    faulty = given.keys() - values.keys()
    problems += _missing(given, purpose, region)
    if not faulty:
        options = {
            sink: SINKS[sink].options(**{name: values.pop(name) for name in fields.keys() & values.keys()})
            for sink, fields in OPTIONS.items()
        }
        settings = Settings(aws_region=region, sink_options=options, **values)  # type: ignore[arg-type] # `read` gives each field's own type
        if "identity_lookup" not in values:
            settings = msgspec.structs.replace(settings, identity_lookup=LOOKUP.sink in settings.sinks)
        problems += _contradictions(settings)
        if now_ms is not None and (timestamp_of(settings.start) or 0) > now_ms:
            problems.append(Problem("SCORING_START", *TO_COME))
    if faulty or problems:
        raise ConfigurationError(problems)
    return settings


_URL = re.compile(r"https?://[^\s/]+\S*")


def _endpoints(environ: Mapping[str, str]) -> list[Problem]:
    """Return a problem per AWS endpoint that is not a URL."""
    return [
        Problem(name, f"= {text!r} is not a URL", "set it to http:// or https:// with a host, or unset it")
        for name, text in sorted(environ.items())
        if name.startswith("AWS_ENDPOINT_URL") and text and not _URL.fullmatch(text)
    ]


def _unknown(environ: Mapping[str, str]) -> list[Problem]:
    """Return a problem per unknown variable. The value is not shown: it may be a secret."""
    problems = []
    for name in sorted(environ):
        if name in VARIABLES or not name.upper().startswith(PREFIX):
            continue
        # Compared without the prefix, which would make all names similar.
        fields = VARIABLES.values()
        near = difflib.get_close_matches(name.lower().removeprefix(PREFIX.lower()), fields, n=1, cutoff=0.6)
        remedy = (
            f"did you mean {PREFIX}{near[0].upper()}?"
            if near
            else "remove it; deploy/docs/configuration.md lists all variables"
        )
        problems.append(Problem(name, "is not a variable of this service", remedy))
    return problems


def _invalid(field: str, text: str, fault: str) -> Problem:
    if FIELDS[field].kind is Secret:
        return Problem(f"{PREFIX}{field.upper()}", fault, f"set {expected(FIELDS[field])}")
    shown = text if len(text) <= MAX_SHOWN else f"{text[:MAX_SHOWN]}..."
    return Problem(f"{PREFIX}{field.upper()}", f"= {shown!r} {fault}", f"set {expected(FIELDS[field])}")


def _missing(given: Mapping[str, str], purpose: Purpose, region: str) -> list[Problem]:
    problems = []
    needs_stream = purpose is Purpose.STREAM or (
        purpose is Purpose.RUN and str(given.get("role", "all")).lower() != "publish"
    )
    if needs_stream and "stream" not in given:
        remedy = f"set {expected(FIELDS['stream'])}"
        if purpose is Purpose.RUN:
            remedy += ", or run with the role `publish`, which does not read a Kinesis stream"
        problems.append(Problem("SCORING_STREAM", "is not set", remedy))
    if purpose is not Purpose.LOCAL and not region:
        problems.append(
            Problem(
                "AWS_REGION",
                "is not set",
                "set it, for example to us-east-1, or choose a profile that has one (aws configure list-profiles)",
            )
        )
    return problems


def _contradictions(settings: Settings) -> list[Problem]:
    problems = []
    arn = STREAM_ARN.fullmatch(settings.stream)
    if arn and settings.aws_region and arn["region"] != settings.aws_region:
        problems.append(
            Problem(
                "SCORING_STREAM",
                f"is in {arn['region']}, but the AWS region is {settings.aws_region}",
                "run in the stream's region: set AWS_REGION to it",
            )
        )
    for name in settings.sinks if settings.publishes else ():
        faults = SINKS[name].check(settings.options_of(name))
        problems += [Problem(each.variable, each.fault, each.remedy) for each in faults]
    lease_ms = settings.lease_duration_s * 1000
    for name in ("batch_max_age_ms", "poll_max_ms"):
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
