"""Scores to Amazon Pinpoint: one endpoint per user, up to 100 endpoints per call.

`UpdateEndpointsBatch` takes up to 100 items and 7 MB, and answers 202 without a word about the items
(https://docs.aws.amazon.com/pinpoint/latest/apireference/apps-application-id-endpoints.html,
https://docs.aws.amazon.com/pinpoint/latest/developerguide/quotas.html; default quotas there: UpdateEndpointsBatch 2 a
second, GetEndpoint 10, operations not named 300).

An update names the endpoint's user, so an update of an endpoint that has changed hands would take it away from its new
user. Two things prevent that: an event that names the new user ends what is known of the former one (see
`service/ingest/identity_plan.py`), and a target is read again where it was not confirmed a moment before the call.

Not promised, because Pinpoint has no conditional update. For up to `DirectoryOptions.max_age_s` after Pinpoint was
asked, an endpoint that changed hands without an event is written for its former user, one that was deleted is created
again, and one that was deactivated is activated again. A score that falls (a bounce, a complaint, an opt-out) has its
endpoint looked up first.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping, Sequence
from decimal import Decimal
from sys import getsizeof
from typing import Any

import msgspec
from botocore.exceptions import ClientError
from msgspec.structs import replace

from service.aws.clients import AwsClient
from service.aws.translation import code_of, translated
from service.ingest.stores import (
    DirectoryEntry,
    EndpointDirectory,
    NoDestination,
    NoTarget,
    Ordering,
    Published,
    SinkOutcome,
)
from service.observability.metrics import Metrics
from service.runtime.cache import RecentCache
from service.runtime.clock import Clock
from service.runtime.errors import TransientError
from service.scoring.change import ScoreChange
from service.scoring.event import Reason, Rejected
from service.scoring.fold import UserKey
from service.sinks.pinpoint.directory import DirectoryOptions, Target, Targets
from service.sinks.pinpoint.endpoints import batch_items
from service.sinks.pinpoint.projects import Projects
from service.sinks.port import whole
from service.sinks.ratelimit import RateLimit

MAX_ITEMS = 100
"""Items per call. The quota of 7 MB needs no counting: the ids of an item have 2,048 bytes each at most (DynamoDB's
longest key), six times that where each is escaped, so a call has 2.5 MB at most."""

_REFUSED = frozenset({"BadRequestException", "PayloadTooLargeException", "RequestEntityTooLargeException"})

Outcome = SinkOutcome | TransientError
_PUBLISHED = Published()
_WRITTEN = 20_000
"""Users whose last score written here is kept, to tell whether the next one falls."""


class PinpointOptions(msgspec.Struct, frozen=True):
    """How scores are written.

    Attributes:
        attribute: User attribute that gets the score, as a list of one string.
        metric: Metric of every endpoint of the user that gets it too, as a number; empty: none. Segments compare
            attributes as strings only.
        updates_per_s: `UpdateEndpointsBatch` calls per second, of all workers together.
        lookups_per_s: `GetUserEndpoints` calls per second, of all workers together.
        recheck_falling: Whether a score below the last one written here has its endpoint looked up again.
        directory: How long an endpoint is trusted.
    """

    attribute: str = "EngagementScore"
    metric: str = ""
    updates_per_s: float = 2.0
    lookups_per_s: float = 200.0
    recheck_falling: bool = True
    directory: DirectoryOptions = DirectoryOptions()


class PinpointSink:
    """`Sink` to Pinpoint projects; a change's project id is the application id.

    Args:
        client: Pinpoint.
        directory: What is remembered of users' endpoints.
        clock: Time.
        metrics: The catalogue.
        options: How scores are written.
        share: Returns this worker's part of the rates, from 0 to 1.
    """

    name = "pinpoint"
    max_batch = MAX_ITEMS
    ordering = Ordering.LAST_WRITE

    def __init__(
        self,
        client: AwsClient,
        directory: EndpointDirectory,
        clock: Clock,
        metrics: Metrics,
        options: PinpointOptions | None = None,
        share: Callable[[], float] = whole,
    ) -> None:
        self._options = options = options or PinpointOptions()
        self._client = client
        self._updates = RateLimit(self.name, "update_endpoints_batch", options.updates_per_s, metrics, share)
        lookups = RateLimit(self.name, "get_user_endpoints", options.lookups_per_s, metrics, share)
        self._projects = Projects(
            client,
            clock,
            consequence="no score of this project is published; the scores stay in their table",
            remedy="correct SCORING_PROJECT_IDS or the definitions, or create the project and run `scoring reconcile`",
        )
        wanted = replace(options.directory, every_endpoint=bool(options.metric))
        self._targets = Targets(client, self._projects, directory, lookups, clock, wanted)
        self._written: RecentCache[UserKey, Decimal] = RecentCache(_WRITTEN, lambda key, _: getsizeof(key.user_id))

    async def publish(self, changes: Sequence[ScoreChange]) -> Sequence[Outcome]:
        """Write the scores; one outcome for each.

        Raises:
            TransientError: None went out.
        """
        outcomes: dict[UserKey, Outcome] = {
            change.key: NoDestination() for change in changes if self._projects.known_missing(change.key.project_id)
        }
        wanted = [change for change in changes if change.key not in outcomes]
        if wanted:
            outcomes.update(await self._publish(wanted))
        for change in wanted:
            if isinstance(outcomes[change.key], Published) and change.score is not None:
                self._written.put(change.key, change.score)
        return [outcomes[change.key] for change in changes]

    async def _publish(self, changes: Sequence[ScoreChange]) -> Mapping[UserKey, Outcome]:
        falling = {change.key for change in changes if self._falls(change)} if self._options.recheck_falling else ()
        targets = await self._targets.find([change.key for change in changes], falling)
        outcomes: dict[UserKey, Outcome] = {}
        by_project: dict[str, list[ScoreChange]] = {}
        for change in changes:
            outcome = _nowhere(targets[change.key])
            if outcome is None:
                by_project.setdefault(change.key.project_id, []).append(change)
            else:
                outcomes[change.key] = outcome
        for project_id, some in by_project.items():
            for part in _packed(some, targets):
                outcomes |= await self._send(project_id, part, targets)
        errors = [outcome for outcome in outcomes.values() if isinstance(outcome, TransientError)]
        if len(errors) == len(changes):
            # It speaks for all of them: where one request may have been carried out, so may be said of each.
            raise next((error for error in errors if not error.undone), errors[0])
        return outcomes

    def _falls(self, change: ScoreChange) -> bool:
        last = self._written.get(change.key)
        return last is not None and change.score is not None and change.score < last

    async def _send(
        self, project_id: str, changes: Sequence[ScoreChange], targets: Mapping[UserKey, Target]
    ) -> dict[UserKey, Outcome]:
        """Send one call; where it is refused, or too much, halve it until the user that is at fault stands alone."""
        await self._updates.wait()
        targets = await self._confirmed({change.key: targets[change.key] for change in changes})
        outcomes = {key: outcome for key, target in targets.items() if (outcome := _nowhere(target)) is not None}
        changes = [change for change in changes if change.key not in outcomes]
        items = [item for change in changes for item in self._items(change, targets[change.key])]
        if not items:
            return outcomes
        if len(items) <= MAX_ITEMS or len(changes) == 1:
            outcome = await self._call(project_id, items[:MAX_ITEMS])
            if not isinstance(outcome, Rejected) or len(changes) == 1:
                return outcomes | {change.key: outcome for change in changes}
        middle = len(changes) // 2
        return {
            **outcomes,
            **await self._send(project_id, changes[:middle], targets),
            **await self._send(project_id, changes[middle:], targets),
        }

    async def _confirmed(self, targets: Mapping[UserKey, Target]) -> Mapping[UserKey, Target]:
        """Return the targets as they are now; a `TransientError` for those that cannot be confirmed in time."""
        fine = set(self._targets.confirmed(targets))
        late = [key for key in targets if key not in fine]
        if not late:
            return targets
        try:
            now: dict[UserKey, Target] = {**targets, **await self._targets.find(late)}
        except TransientError as error:
            now = {**targets, **dict.fromkeys(late, error)}
        fine = set(self._targets.confirmed(now))
        too_late = TransientError("the user's endpoint was not confirmed in time", undone=True)
        return {key: target if key in fine or _nowhere(target) is not None else too_late for key, target in now.items()}

    def _items(self, change: ScoreChange, target: Target) -> list[dict[str, Any]]:
        assert isinstance(target, DirectoryEntry)  # noqa: S101 - the caller has looked
        return batch_items(change, target, self._options.attribute, self._options.metric)

    async def _call(self, project_id: str, items: Sequence[Mapping[str, Any]]) -> Outcome:
        """Return what a call came to, for each of its users; `Rejected` where one item or more is refused."""
        try:
            with translated(f"Pinpoint project {project_id}", expected=_REFUSED | {"NotFoundException"}):
                async with asyncio.timeout(self._options.directory.request_timeout_s):
                    await self._client.update_endpoints_batch(
                        ApplicationId=project_id, EndpointBatchRequest={"Item": items}
                    )
        except TransientError as error:
            return error
        except ClientError as error:
            code = code_of(error)
            if code != "NotFoundException":
                return Rejected(Reason.SINK_REJECTED, f"UpdateEndpointsBatch refuses the item: {code}")
            self._projects.missing(project_id)  # an update creates endpoints: only the project can be missing
            return NoDestination()
        return _PUBLISHED


def _nowhere(target: Target) -> Outcome | None:
    """Return what becomes of a score without a call; None where its target is an endpoint."""
    if not isinstance(target, DirectoryEntry):
        return target
    return None if target.endpoint_id else NoTarget()


def _packed(changes: Sequence[ScoreChange], targets: Mapping[UserKey, Target]) -> Iterator[list[ScoreChange]]:
    """Divide changes into as many as fill a call."""
    part: list[ScoreChange] = []
    items = 0
    for change in changes:
        target = targets[change.key]
        count = 1 + len(target.others) if isinstance(target, DirectoryEntry) else 1
        if part and items + count > MAX_ITEMS:
            yield part
            part, items = [], 0
        part.append(change)
        items += count
    if part:
        yield part
