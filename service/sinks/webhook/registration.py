"""What the webhook sink brings: its variables, and what can be said of them before a request is sent."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import msgspec

from service.runtime.fields import About, Form, Secret
from service.sinks.port import Fault, Parts, SinkType
from service.sinks.trials import Finding, Verdict
from service.sinks.webhook.address import shown_url, url_fault
from service.sinks.webhook.template import BUILT_IN, STANDARD, TemplateError, load_template

if TYPE_CHECKING:
    from service.ingest.stores import Sink

SUBJECT = "sink webhook"
_FORMAT = Form(
    f"{', '.join(f'`{name}`' for name in BUILT_IN)}, or the path of a template file (deploy/docs/sinks.md)",
)


def _attribute(text: str) -> str:
    rest = text.replace("{project}", "")
    if len(text) > 100 or "{" in rest or "}" in rest:  # noqa: PLR2004 - said by the form
        raise ValueError("is not a name, which may have {project} in it")
    return text


class WebhookSettings(msgspec.Struct, frozen=True, kw_only=True):
    """The sink's variables."""

    webhook_url: Annotated[
        Secret,
        About("Where requests are sent: https, or http on this machine. Only its host is ever shown."),
    ] = Secret("")
    webhook_format: Annotated[str, About("How a request looks.", _FORMAT)] = STANDARD
    webhook_secret: Annotated[
        Secret, About("Signing secret of Standard Webhooks: `whsec_` and base64. The format `standard` needs it.")
    ] = Secret("")
    webhook_token: Annotated[
        Secret, About("What the receiver knows us by: Segment's write key, Braze's API key, HubSpot's access token.")
    ] = Secret("")
    webhook_attribute: Annotated[
        str,
        About(
            "Name of the attribute that gets the score, in formats that have one. `{project}` stands for the project.",
            Form("a text of at most 100 characters", read=_attribute),
        ),
    ] = "engagement_score"
    webhook_batch_max: Annotated[
        int, About("Most people in a request; a format may have a lower limit of its own.", ge=1, le=100)
    ] = 100
    webhook_per_s: Annotated[float, About("Requests per second, of all workers together.", gt=0, le=10_000)] = 50.0
    webhook_timeout_s: Annotated[float, About("Longest time of a request.", ge=0.1, le=15)] = 10.0
    webhook_ca_file: Annotated[
        str, About("PEM file of the authorities that the receiver's certificate may come from. Empty: the system's.")
    ] = ""


def check(options: WebhookSettings) -> Sequence[Fault]:
    """Return what is wrong with the variables, as far as can be said without I/O."""
    faults = []
    fault = url_fault(options.webhook_url.reveal())
    if fault:
        faults.append(Fault("SCORING_WEBHOOK_URL", fault, "set an https:// URL; http:// is for this machine only"))
    if options.webhook_format == STANDARD and not options.webhook_secret:
        remedy = "set the secret that the receiver verifies requests with: whsec_ and base64 of 24 random bytes or more"
        faults.append(Fault("SCORING_WEBHOOK_SECRET", "is not set", remedy))
    signed = options.webhook_format not in set(BUILT_IN) - {STANDARD}
    if signed and options.webhook_secret and (fault := secret_fault(options.webhook_secret)):
        faults.append(Fault("SCORING_WEBHOOK_SECRET", fault, "set whsec_ and base64 of 24 to 64 bytes"))
    if options.webhook_format in BUILT_IN and options.webhook_format != STANDARD and not options.webhook_token:
        remedy = f"set the key that {options.webhook_format} knows this service by"
        faults.append(Fault("SCORING_WEBHOOK_TOKEN", "is not set", remedy))
    token = options.webhook_token.reveal()
    if not (token.isascii() and token.isprintable()):
        faults.append(Fault("SCORING_WEBHOOK_TOKEN", "has characters that no HTTP header can have", "set it again"))
    return faults


def secret_fault(secret: Secret) -> str:
    """Return what is wrong with a signing secret, without a part of it; empty: nothing.

    24 to 64 bytes (https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md,
    "Signature scheme").
    """
    import base64  # noqa: PLC0415 # only where there is a secret
    import binascii  # noqa: PLC0415 # likewise

    text = secret.reveal()
    if not text.startswith("whsec_"):
        return "does not start with whsec_"
    body = text.removeprefix("whsec_")
    try:
        key = base64.b64decode(body + "=" * (-len(body) % 4), validate=True)
    except (binascii.Error, ValueError):
        return "is not base64 after whsec_"
    return "" if 24 <= len(key) <= 64 else "is not 24 to 64 bytes long"  # noqa: PLR2004 - the specification's


async def _sink(options: WebhookSettings, parts: Parts) -> Sink:
    from service.sinks.webhook.sink import open_sink  # noqa: PLC0415 # slow to import

    return open_sink(options, parts)


def examine(options: WebhookSettings, _: Sequence[str]) -> Sequence[Finding]:
    """Return what `scoring doctor` says: no request is sent, as each one would be a delivery."""
    try:
        template = load_template(options.webhook_format)
    except TemplateError as error:
        remedy = "correct the file that SCORING_WEBHOOK_FORMAT names"
        return [Finding(Verdict.BROKEN, SUBJECT, str(error), remedy)]
    where = shown_url(options.webhook_url.reveal())
    detail = f"{template.name} to {where}, {template.batch} people a request at most"
    return [
        Finding(Verdict.OK, SUBJECT, detail),
        Finding(Verdict.SKIPPED, f"{SUBJECT}: {where}", "not tried: a request would be a delivery"),
    ]


SINK = SinkType(name="webhook", options=WebhookSettings, make=_sink, check=check, examine=examine)
