"""What Pinpoint brings: a sink, and the look-up of an endpoint's user."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import msgspec

from service.runtime.fields import About, Form
from service.sinks.port import LookupType, Parts, SinkType
from service.sinks.trials import PROBE, Rate, Trial

if TYPE_CHECKING:
    from service.ingest.stores import EndpointLookup, Sink

UPDATE_QUOTA, LOOKUP_QUOTA = 2.0, 10.0
"""Default quotas, calls per second (https://docs.aws.amazon.com/pinpoint/latest/developerguide/quotas.html)."""

_ATTRIBUTE = Form(
    "a name of at most 50 characters without spaces or `# : ? \\ /`",
    "is not an attribute name",
    re.compile(r"[^#:?\\/\s]{1,50}"),
)


class PinpointSettings(msgspec.Struct, frozen=True, kw_only=True):
    """The sink's variables."""

    score_attribute: Annotated[str, About("User attribute in Pinpoint that receives the score.", _ATTRIBUTE)] = (
        "EngagementScore"
    )
    score_metric: Annotated[
        str,
        About(
            "Metric of all the user's endpoints in Pinpoint that also receives it. Empty: none.",
            _ATTRIBUTE,
        ),
    ] = ""
    pinpoint_update_batch_per_s: Annotated[
        float,
        About(
            "`UpdateEndpointsBatch` calls per second, of all workers together; AWS's default quota is 2.",
            gt=0,
            le=10_000,
        ),
    ] = 2.0
    pinpoint_get_user_per_s: Annotated[
        float,
        About(
            "`GetUserEndpoints` calls per second, of all workers together; AWS's default quota is 300.", gt=0, le=10_000
        ),
    ] = 200.0
    pinpoint_endpoint_max_age_s: Annotated[
        float,
        About(
            "How long a user's endpoint is used before Pinpoint is asked again. An event may end this earlier.",
            gt=0,
            le=604_800,
        ),
    ] = 600.0
    pinpoint_no_endpoint_max_age_s: Annotated[
        float,
        About(
            "How long a user is remembered as having no endpoint. An event that names one ends this.",
            ge=0,
            le=604_800,
        ),
    ] = 600.0


async def _sink(options: PinpointSettings, parts: Parts) -> Sink:
    from service.sinks.pinpoint.directory import DirectoryOptions  # noqa: PLC0415 # slow to import
    from service.sinks.pinpoint.sink import PinpointOptions, PinpointSink  # noqa: PLC0415 # likewise

    return PinpointSink(
        # One user's endpoint that cannot be had now would hold up a whole call: the sender tries again, and sooner.
        await parts.client("pinpoint", attempts=1),
        parts.directory,
        parts.clock,
        parts.metrics,
        PinpointOptions(
            attribute=options.score_attribute,
            metric=options.score_metric,
            updates_per_s=options.pinpoint_update_batch_per_s,
            lookups_per_s=options.pinpoint_get_user_per_s,
            directory=DirectoryOptions(
                max_age_s=options.pinpoint_endpoint_max_age_s,
                absent_max_age_s=options.pinpoint_no_endpoint_max_age_s,
                request_timeout_s=parts.request_timeout_s,
            ),
        ),
        parts.share,
    )


async def _lookup(per_second: float, parts: Parts) -> EndpointLookup:
    from service.sinks.pinpoint.lookup import PinpointLookup  # noqa: PLC0415 # slow to import

    client = await parts.client("pinpoint")
    return PinpointLookup(client, parts.clock, parts.metrics, per_second=per_second, share=parts.share)


def _trial(project: str, operation: str, method: str, **params: object) -> Trial:
    proves = frozenset({"NotFoundException", "BadRequestException"})
    action, resource = f"mobiletargeting:{operation}", f"Pinpoint project {project}"
    return Trial(action, resource, "pinpoint", method, {"ApplicationId": project, **params}, proves)


def _exists(project: str) -> Trial:
    """Return the call that finds out whether there is such a project.

    The others cannot tell: Pinpoint answers `NotFoundException` for a user and for a project that do not exist.
    """
    return Trial(
        "mobiletargeting:GetApp",
        f"Pinpoint project {project}",
        "pinpoint",
        "get_app",
        {"ApplicationId": project},
        missing=frozenset({"NotFoundException", "BadRequestException"}),
        remedy="correct the project id, the account or the region, or create the project",
        optional="a missing project looks like one whose users have no endpoints",
    )


def _sink_trials(_: PinpointSettings, projects: Sequence[str]) -> Sequence[Sequence[Trial]]:
    return [
        (
            _exists(project),
            _trial(project, "GetUserEndpoints", "get_user_endpoints", UserId=PROBE),
            _trial(project, "UpdateEndpointsBatch", "update_endpoints_batch", EndpointBatchRequest={"Item": []}),
        )
        for project in projects
    ]


def _lookup_trials(projects: Sequence[str]) -> Sequence[Sequence[Trial]]:
    return [
        (_exists(project), _trial(project, "GetEndpoint", "get_endpoint", EndpointId=PROBE)) for project in projects
    ]


def _sink_rates(options: PinpointSettings) -> Sequence[Rate]:
    subject, variable = "Pinpoint quota UpdateEndpointsBatch", "SCORING_PINPOINT_UPDATE_BATCH_PER_S"
    return [Rate(subject, options.pinpoint_update_batch_per_s, UPDATE_QUOTA, variable)]


def _lookup_rates(per_second: float) -> Sequence[Rate]:
    return [Rate("Pinpoint quota GetEndpoint", per_second, LOOKUP_QUOTA, "SCORING_IDENTITY_LOOKUP_PER_S")]


SINK = SinkType(
    name="pinpoint",
    options=PinpointSettings,
    make=_sink,
    services=("pinpoint",),
    actions=frozenset(
        {"mobiletargeting:GetApp", "mobiletargeting:GetUserEndpoints", "mobiletargeting:UpdateEndpointsBatch"}
    ),
    trials=_sink_trials,
    per_project=True,
    rates=_sink_rates,
    uses_directory=True,
)

LOOKUP = LookupType(
    title="Pinpoint",
    sink=SINK.name,
    make=_lookup,
    services=("pinpoint",),
    actions=frozenset({"mobiletargeting:GetApp", "mobiletargeting:GetEndpoint"}),
    trials=_lookup_trials,
    rates=_lookup_rates,
)
