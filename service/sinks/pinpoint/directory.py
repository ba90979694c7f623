"""Where users' scores go in Pinpoint: remembered in memory and in a table, asked for only where that is too old."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping, Sequence

import msgspec
from botocore.exceptions import ClientError

from service.aws.clients import AwsClient
from service.aws.errors import code_of, translated
from service.ingest.stores import DirectoryEntry, EndpointDirectory, EndpointKey, Identities, NoDestination
from service.runtime.clock import Clock
from service.runtime.errors import TransientError
from service.scoring.event import Reason, Rejected
from service.scoring.fold import UserKey
from service.sinks.pinpoint.endpoints import choose_endpoint
from service.sinks.pinpoint.projects import Projects
from service.sinks.ratelimit import RateLimit

Target = DirectoryEntry | NoDestination | Rejected | TransientError

_FORESEEN = frozenset({"NotFoundException", "BadRequestException"})


class DirectoryOptions(msgspec.Struct, frozen=True):
    """How long an answer is trusted, and how it is asked for.

    Attributes:
        max_age_s: Age up to which a user's endpoint is trusted.
        absent_max_age_s: Age up to which it is trusted that a user has none.
        concurrency: `GetUserEndpoints` calls in flight at most.
        request_timeout_s: Longest time of a call.
    """

    max_age_s: float = 24 * 3600.0
    absent_max_age_s: float = 3600.0
    concurrency: int = 16
    request_timeout_s: float = 15.0


class Targets:
    """Finds the endpoint of each user.

    Args:
        client: Pinpoint.
        projects: Tells a missing project from a user without endpoints.
        directory: What is remembered across workers and restarts.
        limit: For `GetUserEndpoints`.
        clock: Time.
        options: Bounds.
        identities: Told which user the endpoints met belong to; None: nobody is.
    """

    def __init__(
        self,
        client: AwsClient,
        projects: Projects,
        directory: EndpointDirectory,
        limit: RateLimit,
        clock: Clock,
        options: DirectoryOptions,
        identities: Identities | None = None,
    ) -> None:
        self._client = client
        self._projects = projects
        self._directory = directory
        self._limit = limit
        self._clock = clock
        self._options = options
        self._identities = identities
        self._gate = asyncio.Semaphore(options.concurrency)

    async def find(self, keys: Sequence[UserKey], anew: Collection[UserKey] = ()) -> Mapping[UserKey, Target]:
        """Return where each of `keys` goes; an entry with an empty `endpoint_id`: nowhere.

        Args:
            keys: Different users.
            anew: Those of them whose endpoint is asked for however fresh the answer in hand is.

        Raises:
            TransientError: The directory cannot be read. Here as in the answer it is `undone`: no score is written yet.
        """
        now_ms, options = self._clock.wall_ms(), self._options
        oldest = now_ms - options.max_age_s * 1000, now_ms - options.absent_max_age_s * 1000

        def fresh(entry: DirectoryEntry) -> bool:
            return entry.checked_ms > oldest[not entry.endpoint_id]

        try:
            known = await self._directory.get(keys, fresh)
        except TransientError as error:
            raise _unwritten(error) from error
        ask = [key for key in keys if (entry := known.get(key)) is None or key in anew or not fresh(entry)]
        return {**known, **await self._ask_all({key: known.get(key) for key in ask})} if ask else known

    async def _ask_all(self, kept: Mapping[UserKey, DirectoryEntry | None]) -> Mapping[UserKey, Target]:
        users: dict[EndpointKey, str] = {}

        async def ask(key: UserKey, entry: DirectoryEntry | None) -> Target:
            async with self._gate:
                try:
                    return await self._ask(key, entry.endpoint_id if entry else "", users)
                except TransientError as error:
                    return _unwritten(error)

        async with asyncio.TaskGroup() as group:
            tasks = {key: group.create_task(ask(key, entry)) for key, entry in kept.items()}
        found = {key: task.result() for key, task in tasks.items()}
        await self._remember(
            {key: target for key, target in found.items() if isinstance(target, DirectoryEntry)}, users
        )
        return found

    async def _ask(self, key: UserKey, kept: str, users: dict[EndpointKey, str]) -> Target:
        """Ask Pinpoint (https://docs.aws.amazon.com/pinpoint/latest/apireference/apps-application-id-users-user-id.html)."""
        await self._limit.wait()
        try:
            with translated(f"Pinpoint project {key.project_id}", expected=_FORESEEN):
                async with asyncio.timeout(self._options.request_timeout_s):
                    answer = await self._client.get_user_endpoints(ApplicationId=key.project_id, UserId=key.user_id)
        except ClientError as error:
            code = code_of(error)
            if code == "NotFoundException":
                if not await self._projects.exists(key.project_id):
                    return NoDestination()
                return DirectoryEntry("", "", "", self._clock.wall_ms())
            return Rejected(Reason.SINK_REJECTED, "GetUserEndpoints refuses the user id")
        # An odd user id (`..`) may be taken for another path: only what says it is this user's counts.
        endpoints = [
            endpoint
            for endpoint in answer.get("EndpointsResponse", {}).get("Item", [])
            if endpoint.get("Id") and endpoint.get("User", {}).get("UserId", key.user_id) == key.user_id
        ]
        users.update((EndpointKey(endpoint["Id"], key.project_id), key.user_id) for endpoint in endpoints)
        choice = choose_endpoint(endpoints, kept)
        if choice is None:
            return DirectoryEntry("", "", "", self._clock.wall_ms())
        return DirectoryEntry(choice.endpoint_id, choice.status, choice.channel, self._clock.wall_ms())

    async def _remember(self, entries: Mapping[UserKey, DirectoryEntry], users: Mapping[EndpointKey, str]) -> None:
        chosen = {EndpointKey(entry.endpoint_id, key.project_id) for key, entry in entries.items()}
        others = {endpoint: user_id for endpoint, user_id in users.items() if endpoint not in chosen}
        try:
            if entries:
                await self._directory.put(entries)
            if self._identities is not None and others:
                await self._identities.learn(others)
        except TransientError:
            # Both only spare calls: whoever needs to know asks again.
            return


def _unwritten(error: TransientError) -> TransientError:
    return TransientError(str(error), throttled=error.throttled, undone=True)
