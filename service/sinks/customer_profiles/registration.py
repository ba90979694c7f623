"""What Customer Profiles brings: its variables, the object type that it needs, and what can be said of its domain."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

import msgspec

from service.runtime.fields import About, Form
from service.sinks.customer_profiles.objects import ATTRIBUTE, NAME, difference, filled, object_type
from service.sinks.port import Fault, Parts, SinkType
from service.sinks.setup import Look, Wanted
from service.sinks.trials import Finding, Trial, Verdict

if TYPE_CHECKING:
    from service.ingest.stores import Sink

SERVICE = "customer-profiles"
_MISSING = frozenset({"ResourceNotFoundException"})


def _template(pattern: re.Pattern[str]) -> Form:
    def read(text: str) -> str:
        if not pattern.fullmatch(filled(text, "p")):
            raise ValueError("is not such a name")
        return text

    return Form("letters, digits, `_` and `-`, no digit first; `{project}` stands for the project", read=read)


class CustomerProfilesSettings(msgspec.Struct, frozen=True, kw_only=True):
    """The sink's variables."""

    customer_profiles_domain: Annotated[
        str,
        About(
            "Domain of Customer Profiles, in the service's own region; the sink needs it.",
            Form("1 to 64 letters, digits, `_`, `-`", "is not a domain's name", re.compile(r"[a-zA-Z0-9_-]{1,64}")),
        ),
    ] = ""
    customer_profiles_object_type: Annotated[
        str, About("Object type that carries the score; `scoring setup` makes it.", _template(NAME))
    ] = "EngagementScore"
    customer_profiles_attribute: Annotated[
        str, About("Attribute of the profile that gets the score, as a number.", _template(ATTRIBUTE))
    ] = "EngagementScore"
    customer_profiles_expiration_days: Annotated[
        int, About("How long a score stays in a profile after it was last written.", ge=1, le=1098)
    ] = 1098
    customer_profiles_create: Annotated[
        bool,
        About("Whether a user without a profile gets one. `off`: the score goes to the domain's dead-letter queue."),
    ] = False
    customer_profiles_per_s: Annotated[
        float,
        About("`BatchPutProfileObject` calls per second, ten scores each, of all workers together.", gt=0, le=10_000),
    ] = 10.0


async def _sink(options: CustomerProfilesSettings, parts: Parts) -> Sink:
    from service.sinks.customer_profiles.sink import CustomerProfilesSink  # noqa: PLC0415 # slow to import

    client = await parts.client(SERVICE, attempts=1)
    return CustomerProfilesSink(
        client, options, parts.clock, parts.metrics, request_timeout_s=parts.request_timeout_s, share=parts.share
    )


def check(options: CustomerProfilesSettings) -> Sequence[Fault]:
    """Return what is wrong with the variables."""
    if options.customer_profiles_domain:
        return ()
    remedy = "set the name of the domain (aws customer-profiles list-domains)"
    return [Fault("SCORING_CUSTOMER_PROFILES_DOMAIN", "is not set", remedy)]


def _names(options: CustomerProfilesSettings, projects: Sequence[str]) -> dict[str, str]:
    """Return the attribute by object type; a name with `{project}` needs a project that is known."""
    found: dict[str, str] = {}
    several = "{project}" in options.customer_profiles_object_type + options.customer_profiles_attribute
    for project in projects or ([] if several else [""]):
        name = filled(options.customer_profiles_object_type, project)
        attribute = filled(options.customer_profiles_attribute, project)
        if NAME.fullmatch(name) and ATTRIBUTE.fullmatch(attribute):
            found.setdefault(name, attribute)
    return found


def _domain(options: CustomerProfilesSettings) -> dict[str, str]:
    return {"DomainName": options.customer_profiles_domain}


def wanted(options: CustomerProfilesSettings, projects: Sequence[str]) -> Sequence[Wanted]:
    """Return the object types that `scoring setup` makes where they are missing."""
    domain = _domain(options)
    remedy = (
        f"make it, with a dead-letter queue: aws customer-profiles create-domain --domain-name {domain['DomainName']} "
        "--default-expiration-days 366 --dead-letter-queue-url URL; or correct SCORING_CUSTOMER_PROFILES_DOMAIN"
    )
    return [
        Wanted(
            resource=f"object type {name} of domain {domain['DomainName']}",
            detail=f"userId to AccountNumber, score to Attributes.{attribute}",
            service=SERVICE,
            inside=Look(f"Customer Profiles domain {domain['DomainName']}", "get_domain", domain, remedy),
            look=("get_profile_object_type", {**domain, "ObjectTypeName": name}),
            make=("put_profile_object_type", {**domain, **made}),
            differs=partial(difference, made),
            remedy="it is not changed: choose another SCORING_CUSTOMER_PROFILES_OBJECT_TYPE, or change it by "
            "`aws customer-profiles put-profile-object-type`",
        )
        for name, attribute in _names(options, projects).items()
        for made in [
            object_type(
                name,
                attribute,
                expiration_days=options.customer_profiles_expiration_days,
                create=options.customer_profiles_create,
            )
        ]
    ]


def trials(options: CustomerProfilesSettings, projects: Sequence[str]) -> Sequence[Sequence[Trial]]:
    """Return the calls that `scoring doctor` tries. Nothing is put: an object cannot be taken back."""
    domain, name = _domain(options), f"Customer Profiles domain {options.customer_profiles_domain}"
    lost = "whether the domain exists, and has a dead-letter queue, is not known"
    first = Trial(
        "profile:GetDomain",
        name,
        SERVICE,
        "get_domain",
        domain,
        missing=_MISSING,
        remedy="correct SCORING_CUSTOMER_PROFILES_DOMAIN or the region, or create the domain",
        optional=lost,
        read=partial(_judged, name),
    )
    types = [
        Trial(
            "profile:GetProfileObjectType",
            f"object type {each} of {name}",
            SERVICE,
            "get_profile_object_type",
            {**domain, "ObjectTypeName": each},
            missing=_MISSING,
            remedy="run `scoring setup`",
            optional="whether the object type exists is not known",
            read=partial(_compared, options, each, attribute),
        )
        for each, attribute in _names(options, projects).items()
    ]
    return [[first, *types]]


def _judged(name: str, answer: Mapping[str, Any]) -> Sequence[Finding]:
    if answer.get("DeadLetterQueueUrl"):
        return [Finding(Verdict.OK, name, "has a dead-letter queue")]
    remedy = "aws customer-profiles update-domain --dead-letter-queue-url URL"
    detail = "has no dead-letter queue: a score of somebody without a profile is lost without a trace"
    return [Finding(Verdict.NOTE, name, detail, remedy)]


def _compared(
    options: CustomerProfilesSettings, name: str, attribute: str, answer: Mapping[str, Any]
) -> Sequence[Finding]:
    made = object_type(
        name,
        attribute,
        expiration_days=options.customer_profiles_expiration_days,
        create=options.customer_profiles_create,
    )
    found = difference(made, answer)
    subject = f"object type {name}"
    if not found:
        return [Finding(Verdict.OK, subject, f"writes Attributes.{attribute}")]
    return [Finding(Verdict.NOTE, subject, f"differs: {found}", "see `scoring setup --dry-run`")]


def alone(options: CustomerProfilesSettings, projects: Sequence[str]) -> Sequence[Finding]:
    """Return a finding where several projects would write one attribute."""
    names = (options.customer_profiles_object_type, options.customer_profiles_attribute)
    if len(projects) < 2 or all("{project}" in name for name in names):  # noqa: PLR2004 - several
        return ()
    remedy = "put {project} into SCORING_CUSTOMER_PROFILES_OBJECT_TYPE and SCORING_CUSTOMER_PROFILES_ATTRIBUTE"
    detail = f"{len(projects)} projects write one attribute: each overwrites the others' scores"
    return [Finding(Verdict.BROKEN, f"sink {SERVICE}", detail, remedy)]


SINK = SinkType(
    name="customer-profiles",
    options=CustomerProfilesSettings,
    make=_sink,
    services=(SERVICE,),
    actions=frozenset({"profile:PutProfileObject"}),
    check=check,
    trials=trials,
    setup=wanted,
    examine=alone,
)
