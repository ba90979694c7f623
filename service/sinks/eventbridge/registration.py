"""What EventBridge brings: its variables, and the call that tries it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import msgspec

from service.runtime.fields import About, Form
from service.sinks.port import Parts, SinkType
from service.sinks.trials import Trial

if TYPE_CHECKING:
    from service.ingest.stores import Sink

SERVICE = "events"
_BUS = r"(arn:aws[\w-]*:events:[a-z]+-[a-z]+-[\w-]+:[0-9]{12}:event-bus/)?[.\-_A-Za-z0-9]{1,256}"
"""As botocore's model of PutEvents says."""


class EventBridgeSettings(msgspec.Struct, frozen=True, kw_only=True):
    """The sink's variables."""

    eventbridge_bus: Annotated[
        str, About("Event bus, by name or ARN.", Form("an event bus", "is not an event bus", re.compile(_BUS)))
    ] = "default"
    eventbridge_source: Annotated[
        str,
        About(
            "`source` of the events.",
            Form(
                "a name of at most 256 letters, digits, `.`, `-`, `_` that does not begin with `aws.`",
                "is not a source",
                re.compile(r"(?!aws\.)[.\-_A-Za-z0-9]{1,256}"),
            ),
        ),
    ] = "engagement-scoring"
    eventbridge_per_s: Annotated[
        float, About("`PutEvents` calls per second, ten scores each, of all workers together.", gt=0, le=10_000)
    ] = 100.0


async def _sink(options: EventBridgeSettings, parts: Parts) -> Sink:
    from service.sinks.eventbridge.sink import EventBridgeSink  # noqa: PLC0415 # slow to import

    client = await parts.client(SERVICE, attempts=1)
    return EventBridgeSink(client, options, parts.metrics, request_timeout_s=parts.request_timeout_s, share=parts.share)


def trials(options: EventBridgeSettings, _: Sequence[str]) -> Sequence[Sequence[Trial]]:
    """Return the call that tries the permission: an event without a type, which EventBridge takes nowhere."""
    entry = {"EventBusName": options.eventbridge_bus, "Source": options.eventbridge_source}
    return [
        [
            Trial(
                "events:PutEvents",
                f"event bus {options.eventbridge_bus}",
                SERVICE,
                "put_events",
                {"Entries": [entry]},
                proves=frozenset({"ValidationException"}),
                remedy="create the event bus, or correct SCORING_EVENTBRIDGE_BUS",
            )
        ]
    ]


SINK = SinkType(
    name="eventbridge",
    options=EventBridgeSettings,
    make=_sink,
    services=(SERVICE,),
    actions=frozenset({"events:PutEvents"}),
    trials=trials,
)
