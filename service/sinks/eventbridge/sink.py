"""Scores as events: PutEvents, ten a call, each entry with an answer of its own."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from botocore.exceptions import ClientError

from service.aws.clients import AwsClient
from service.aws.translation import code_of, translated
from service.ingest.stores import Ordering, Published, SinkOutcome
from service.observability.metrics import Metrics
from service.runtime.errors import TransientError, Trouble, TroubleError
from service.scoring.change import ScoreChange
from service.scoring.event import Reason, Rejected
from service.sinks.eventbridge.events import AGAIN, MAX_ENTRIES, SETTING, entry_of
from service.sinks.eventbridge.registration import EventBridgeSettings
from service.sinks.port import whole
from service.sinks.ratelimit import RateLimit

Outcome = SinkOutcome | TransientError
_PUBLISHED = Published()
_FORESEEN = frozenset({"ValidationException", "InvalidArgument", "RequestEntryTooLargeException"})


class EventBridgeSink:
    """`Sink` to one event bus.

    Args:
        client: EventBridge.
        options: Bus, source and rate.
        metrics: The catalogue.
        request_timeout_s: Longest time of a call.
        share: Returns this worker's part of the rate, from 0 to 1.
    """

    name = "eventbridge"
    max_batch = MAX_ENTRIES
    ordering = Ordering.VERSIONED  # EventBridge keeps no order: a receiver has to compare revisions anyway

    def __init__(
        self,
        client: AwsClient,
        options: EventBridgeSettings,
        metrics: Metrics,
        *,
        request_timeout_s: float = 15.0,
        share: Callable[[], float] = whole,
    ) -> None:
        self._client = client
        self._options = options
        self._timeout_s = request_timeout_s
        self._limit = RateLimit(self.name, "put_events", options.eventbridge_per_s, metrics, share)

    async def publish(self, changes: Sequence[ScoreChange]) -> Sequence[Outcome]:
        """Send the events; one outcome for each.

        Raises:
            TransientError: None was taken, for all that is known.
        """
        outcomes = await self._send(changes)
        errors = [each for each in outcomes if isinstance(each, TransientError)]
        if len(errors) == len(changes):
            raise next((error for error in errors if not error.undone), errors[0])
        return outcomes

    async def _send(self, changes: Sequence[ScoreChange]) -> list[Outcome]:
        """Send one call; where it is refused, halve it until the entry at fault stands alone."""
        bus, source = self._options.eventbridge_bus, self._options.eventbridge_source
        entries = [entry_of(change, bus, source) for change in changes]
        await self._limit.wait()
        try:
            with translated(f"event bus {bus}", expected=_FORESEEN, remedy="create it, or set SCORING_EVENTBRIDGE_BUS"):
                async with asyncio.timeout(self._timeout_s):
                    answer = await self._client.put_events(Entries=entries)
                return outcomes_of(answer, len(entries))
        except TransientError as error:
            return [error] * len(changes)
        except ClientError as error:
            refused = Rejected(Reason.SINK_REJECTED, f"PutEvents refuses the event: {code_of(error)}")
        if len(changes) == 1:
            return [refused]
        middle = len(changes) // 2
        return [*await self._send(changes[:middle]), *await self._send(changes[middle:])]


def outcomes_of(answer: Mapping[str, Any], count: int) -> list[Outcome]:
    """Return what an answer says of each entry; they are in the request's order
    (https://docs.aws.amazon.com/eventbridge/latest/userguide/eb-putevents.html, "Handling failures").
    """  # noqa: D205 - the address does not fit one line
    entries = answer["Entries"]
    if len(entries) != count:
        return [TransientError(f"PutEvents answers of {len(entries)} events, not of {count}")] * count
    return [_outcome(entry) for entry in entries]


def _outcome(entry: Mapping[str, Any]) -> Outcome:
    code = entry.get("ErrorCode", "")
    if not code:
        return _PUBLISHED
    text = f"PutEvents refuses the event: {code}"
    if code in AGAIN:
        return TransientError(text, throttled=code == "ThrottlingException")
    if code in SETTING:
        remedy = "check SCORING_EVENTBRIDGE_BUS and SCORING_EVENTBRIDGE_SOURCE, and allow events:PutEvents to this role"
        return TroubleError(text, Trouble.REFUSED, remedy)
    return Rejected(Reason.SINK_REJECTED, text)
