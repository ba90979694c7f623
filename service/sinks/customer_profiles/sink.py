"""Scores to profiles: BatchPutProfileObject, ten objects a call.

An answer tells of each object whether it was queued; what becomes of it then shows in the domain's dead-letter queue
only. The order of two calls is not documented, so a user's scores are sent one after the other, and again where an
older one may come late (deploy/decisions/0003).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import structlog
from botocore.exceptions import ClientError

from service.aws.clients import AwsClient
from service.aws.translation import code_of, translated
from service.ingest.stores import NoDestination, Ordering, Published, SinkOutcome
from service.observability.metrics import Metrics
from service.runtime.cache import RecentCache
from service.runtime.clock import Clock
from service.runtime.errors import TransientError
from service.scoring.change import ScoreChange
from service.scoring.event import Reason, Rejected
from service.sinks.customer_profiles.objects import MAX_ACCOUNT, MAX_ITEMS, NAME, filled, profile_object
from service.sinks.customer_profiles.registration import CustomerProfilesSettings
from service.sinks.port import whole
from service.sinks.ratelimit import RateLimit

log = structlog.get_logger(__name__)

Outcome = SinkOutcome | TransientError
_PUBLISHED = Published()

MISSING_FOR_S = 60.0
"""Seconds for which an object type that was not found is believed to be missing; then it is tried again."""

_FORESEEN = frozenset({"BadRequestException", "ResourceNotFoundException"})
_SERVER_ERROR, _TOO_MANY_REQUESTS = 500, 429


class CustomerProfilesSink:
    """`Sink` to one domain; each project has an object type and an attribute of its own where the names say so.

    Args:
        client: Customer Profiles.
        options: Domain, names and rate.
        clock: Time.
        metrics: The catalogue.
        request_timeout_s: Longest time of a call.
        share: Returns this worker's part of the rate, from 0 to 1.
    """

    name = "customer-profiles"
    max_batch = MAX_ITEMS
    ordering = Ordering.LAST_WRITE

    def __init__(
        self,
        client: AwsClient,
        options: CustomerProfilesSettings,
        clock: Clock,
        metrics: Metrics,
        *,
        request_timeout_s: float = 15.0,
        share: Callable[[], float] = whole,
    ) -> None:
        self._client = client
        self._options = options
        self._clock = clock
        self._timeout_s = request_timeout_s
        self._limit = RateLimit(self.name, "batch_put_profile_object", options.customer_profiles_per_s, metrics, share)
        self._missing: RecentCache[str, float] = RecentCache(1000, lambda name, _: len(name))

    async def publish(self, changes: Sequence[ScoreChange]) -> Sequence[Outcome]:
        """Queue the scores; one outcome for each.

        Raises:
            TransientError: None was queued, for all that is known.
        """
        outcomes: dict[int, Outcome] = {}
        by_type: dict[str, list[int]] = {}
        for place, change in enumerate(changes):
            name = filled(self._options.customer_profiles_object_type, change.key.project_id)
            refused = self._refused(change, name)
            if refused is None:
                by_type.setdefault(name, []).append(place)
            else:
                outcomes[place] = refused
        for name, places in by_type.items():
            outcomes.update(zip(places, await self._send(name, [changes[each] for each in places]), strict=True))
        errors = [each for each in outcomes.values() if isinstance(each, TransientError)]
        if len(errors) == len(changes):
            raise next((error for error in errors if not error.undone), errors[0])
        return [outcomes[place] for place in range(len(changes))]

    def _refused(self, change: ScoreChange, name: str) -> Outcome | None:
        """Return what becomes of a score without a call; None where it can be sent."""
        if (self._missing.get(name) or 0.0) > self._clock.monotonic():
            return NoDestination()
        if len(change.key.user_id) > MAX_ACCOUNT:
            reason = f"the user id is longer than the {MAX_ACCOUNT} characters of an account number"
            return Rejected(Reason.SINK_REJECTED, reason)
        if not NAME.fullmatch(name):
            return Rejected(Reason.SINK_REJECTED, "the project id cannot be part of an object type's name")
        return None

    async def _send(self, name: str, changes: Sequence[ScoreChange]) -> list[Outcome]:
        """Send one call; where it is refused, halve it until the object at fault stands alone."""
        items = [{"Id": str(place), "Object": profile_object(change)} for place, change in enumerate(changes)]
        await self._limit.wait()
        try:
            with translated(f"Customer Profiles domain {self._options.customer_profiles_domain}", expected=_FORESEEN):
                async with asyncio.timeout(self._timeout_s):
                    answer = await self._client.batch_put_profile_object(
                        DomainName=self._options.customer_profiles_domain, ObjectTypeName=name, Items=items
                    )
                return outcomes_of(answer, len(items))
        except TransientError as error:
            return [error] * len(changes)
        except ClientError as error:
            if code_of(error) == "ResourceNotFoundException":
                return self._not_there(name, len(changes))
        if len(changes) == 1:
            return [Rejected(Reason.SINK_REJECTED, "BatchPutProfileObject refuses the object: BadRequestException")]
        middle = len(changes) // 2
        return [*await self._send(name, changes[:middle]), *await self._send(name, changes[middle:])]

    def _not_there(self, name: str, count: int) -> list[Outcome]:
        self._missing.put(name, self._clock.monotonic() + MISSING_FOR_S)
        log.error(
            "customer_profiles.object_type_not_found",
            domain=self._options.customer_profiles_domain,
            object_type=name,
            consequence="no score of this project is published; the scores stay in their table",
            remedy="run `scoring setup`, or correct SCORING_CUSTOMER_PROFILES_DOMAIN; then `scoring reconcile`",
        )
        return [NoDestination()] * count


def outcomes_of(answer: Mapping[str, Any], count: int) -> list[Outcome]:
    """Return what an answer says of each object, by its place.

    https://docs.aws.amazon.com/connect/latest/APIReference/API_connect-customer-profiles_BatchPutProfileObjectErrorItem.html:
    `Code` is an HTTP status.
    """
    silent = TransientError("BatchPutProfileObject says nothing of the object")
    outcomes: list[Outcome] = [silent] * count
    for each in answer.get("Successful", ()):
        outcomes[int(each["Id"])] = _PUBLISHED
    for each in answer.get("Failed", ()):
        code = each["Code"]
        text = f"BatchPutProfileObject refuses the object: {code} {each.get('Message', '')}"[:300].rstrip()
        if code == _TOO_MANY_REQUESTS or code >= _SERVER_ERROR:
            outcomes[int(each["Id"])] = TransientError(text, throttled=code == _TOO_MANY_REQUESTS)
        else:
            outcomes[int(each["Id"])] = Rejected(Reason.SINK_REJECTED, text)
    return outcomes
