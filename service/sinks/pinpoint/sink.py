"""Scores to Amazon Pinpoint: one endpoint per user, up to 100 users per call.

`UpdateEndpointsBatch` takes up to 100 items and 7 MB, and answers 202 without a word about the items
(https://docs.aws.amazon.com/pinpoint/latest/apireference/apps-application-id-endpoints.html,
https://docs.aws.amazon.com/pinpoint/latest/developerguide/quotas.html; default quotas there: UpdateEndpointsBatch 2 a
second, GetEndpoint 10, operations not named 300).

Not promised: an endpoint that was deleted after it was looked up is made anew by the update, and one that was
deactivated is activated again. Both are bounded by `DirectoryOptions.max_age_s`, and a score that falls (a bounce, a
complaint, an opt-out) has its endpoint looked up first.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from decimal import Decimal
from sys import getsizeof
from typing import Any

import msgspec
from botocore.exceptions import ClientError

from service.aws.clients import AwsClient
from service.aws.errors import code_of, translated
from service.ingest.stores import (
    DirectoryEntry,
    EndpointDirectory,
    Identities,
    NoDestination,
    NoTarget,
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
from service.sinks.pinpoint.endpoints import batch_item
from service.sinks.pinpoint.projects import Projects
from service.sinks.ratelimit import RateLimit

MAX_ITEMS = 100
"""Items per call. The quota of 7 MB needs no counting: the ids of an item have 2,048 bytes each at most (DynamoDB's
longest key), six times that where each is escaped, so a call has 2.5 MB at most."""

_REFUSED = frozenset({"BadRequestException"})
_TOO_LARGE = frozenset({"PayloadTooLargeException", "RequestEntityTooLargeException"})

Outcome = SinkOutcome | TransientError
_PUBLISHED = Published()
_WRITTEN = 20_000
"""Users whose last score written here is kept, to tell whether the next one falls."""


class PinpointOptions(msgspec.Struct, frozen=True):
    """How scores are written.

    Attributes:
        attribute: User attribute that gets the score, as a list of one string.
        metric: Endpoint metric that gets it too, as a number; empty: none. Segments compare attributes as strings only.
        updates_per_s: `UpdateEndpointsBatch` calls per second.
        lookups_per_s: `GetUserEndpoints` calls per second.
        recheck_falling: Whether a score below the last one written here has its endpoint looked up anew.
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
        identities: Told which user the endpoints met belong to; None: nobody is.
    """

    name = "pinpoint"
    max_batch = MAX_ITEMS

    def __init__(
        self,
        client: AwsClient,
        directory: EndpointDirectory,
        clock: Clock,
        metrics: Metrics,
        options: PinpointOptions | None = None,
        identities: Identities | None = None,
    ) -> None:
        self._options = options = options or PinpointOptions()
        self._client = client
        self._updates = RateLimit(self.name, "update_endpoints_batch", options.updates_per_s, metrics)
        lookups = RateLimit(self.name, "get_user_endpoints", options.lookups_per_s, metrics)
        self._projects = Projects(
            client,
            clock,
            consequence="no score of this project is published; the scores stay in their table",
            remedy="correct SCORING_PROJECT_IDS or the definitions, or create the project and run `scoring reconcile`",
        )
        self._targets = Targets(client, self._projects, directory, lookups, clock, options.directory, identities)
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
            target = targets[change.key]
            if not isinstance(target, DirectoryEntry):
                outcomes[change.key] = target
            elif not target.endpoint_id:
                outcomes[change.key] = NoTarget()
            else:
                by_project.setdefault(change.key.project_id, []).append(change)
        for project_id, some in by_project.items():
            for start in range(0, len(some), MAX_ITEMS):
                part = some[start : start + MAX_ITEMS]
                outcomes.update(await self._send(project_id, part, [self._item(each, targets) for each in part]))
        errors = [outcome for outcome in outcomes.values() if isinstance(outcome, TransientError)]
        if len(errors) == len(changes):
            # It speaks for all of them: where one request may have been carried out, so may be said of each.
            raise next((error for error in errors if not error.undone), errors[0])
        return outcomes

    def _falls(self, change: ScoreChange) -> bool:
        last = self._written.get(change.key)
        return last is not None and change.score is not None and change.score < last

    def _item(self, change: ScoreChange, targets: Mapping[UserKey, Target]) -> dict[str, Any]:
        target = targets[change.key]
        assert isinstance(target, DirectoryEntry)  # noqa: S101 - the caller has looked
        return batch_item(
            change, target.endpoint_id, target.endpoint_status, self._options.attribute, self._options.metric
        )

    async def _send(
        self, project_id: str, changes: Sequence[ScoreChange], items: Sequence[Mapping[str, Any]]
    ) -> Mapping[UserKey, Outcome]:
        """Send one call; where it is refused, halve it until the item that is at fault stands alone."""
        keys = [change.key for change in changes]
        await self._updates.wait()
        try:
            with translated(f"Pinpoint project {project_id}", expected={"NotFoundException"} | _REFUSED | _TOO_LARGE):
                async with asyncio.timeout(self._options.directory.request_timeout_s):
                    await self._client.update_endpoints_batch(
                        ApplicationId=project_id, EndpointBatchRequest={"Item": items}
                    )
        except TransientError as error:
            return dict.fromkeys(keys, error)
        except ClientError as error:
            code = code_of(error)
            if code == "NotFoundException":
                self._projects.missing(project_id)  # an update creates endpoints: only the project can be missing
                return dict.fromkeys(keys, NoDestination())
            if len(changes) == 1:
                return {keys[0]: Rejected(Reason.SINK_REJECTED, f"UpdateEndpointsBatch refuses the item: {code}")}
        else:
            return dict.fromkeys(keys, _PUBLISHED)
        middle = len(changes) // 2
        return {
            **await self._send(project_id, changes[:middle], items[:middle]),
            **await self._send(project_id, changes[middle:], items[middle:]),
        }
