"""Where users' scores go in Pinpoint: remembered in memory and in a table, looked up where that is too old or ended."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

import msgspec
from botocore.exceptions import ClientError

from service.aws.clients import AwsClient
from service.aws.translation import code_of, translated
from service.ingest.stores import DirectoryEntry, Disputes, EndpointDirectory, Found, Known, NoDestination
from service.runtime.clock import Clock
from service.runtime.errors import TransientError
from service.scoring.event import Reason, Rejected
from service.scoring.fold import UserKey
from service.sinks.pinpoint.endpoints import ACTIVE, choose_endpoint
from service.sinks.pinpoint.projects import Projects
from service.sinks.ratelimit import RateLimit

Target = DirectoryEntry | NoDestination | Rejected | TransientError

_FORESEEN = frozenset({"NotFoundException", "BadRequestException"})

ROUNDS = 4
"""Times that a user is looked up whose endpoints are learned to be others' at that moment."""


class DirectoryOptions(msgspec.Struct, frozen=True):
    """How long an answer is trusted, and how it is asked for.

    Attributes:
        max_age_s: Age up to which a user's endpoint is trusted, unless an event ends it.
        absent_max_age_s: Age up to which it is trusted that a user has none, likewise.
        every_endpoint: Whether the user's other endpoints are wanted too.
        concurrency: `GetUserEndpoints` calls in flight at most.
        request_timeout_s: Longest time of a call.
    """

    max_age_s: float = 600.0
    absent_max_age_s: float = 600.0
    every_endpoint: bool = False
    concurrency: int = 16
    request_timeout_s: float = 15.0


class _Answer(msgspec.Struct, frozen=True):
    """What Pinpoint says of a user: where the score goes, and the ids of all endpoints, in lower case."""

    entry: DirectoryEntry
    endpoints: Sequence[str] = ()


class Targets:
    """Finds the endpoint of each user.

    Args:
        client: Pinpoint.
        projects: Tells a missing project from a user without endpoints.
        directory: What is remembered across workers and restarts.
        limit: For `GetUserEndpoints`.
        clock: Time.
        options: Bounds.
    """

    def __init__(
        self,
        client: AwsClient,
        projects: Projects,
        directory: EndpointDirectory,
        limit: RateLimit,
        clock: Clock,
        options: DirectoryOptions,
    ) -> None:
        self._client = client
        self._projects = projects
        self._directory = directory
        self._limit = limit
        self._clock = clock
        self._options = options
        self._gate = asyncio.Semaphore(options.concurrency)

    async def find(self, keys: Sequence[UserKey], again: Collection[UserKey] = ()) -> dict[UserKey, Target]:
        """Return where each of `keys` goes; an entry with an empty `endpoint_id`: nowhere.

        Args:
            keys: Different users.
            again: Those of them whose endpoint is looked up however fresh the answer in hand is.

        Raises:
            TransientError: The directory cannot be read. Here as in the answer it is `undone`: no score is written yet.
        """
        found: dict[UserKey, Target] = {}
        left: dict[UserKey, Disputes] = dict.fromkeys(keys, frozenset())
        again = set(again)
        for _ in range(ROUNDS):
            try:
                known = await self._directory.get(list(left), self._fresh, again)
                found |= {
                    key: each.entry
                    for key, each in known.items()
                    if each.entry is not None and key not in again and self._fresh(each.entry)
                }
                answers = await self._ask_all({key: each for key, each in known.items() if key not in found})
                found |= {key: answer for key, answer in answers.items() if not isinstance(answer, _Answer)}
                heard = {key: answer for key, answer in answers.items() if isinstance(answer, _Answer)}
                left = dict(
                    await self._directory.put(
                        {
                            key: Found(answer.entry, answer.endpoints, known[key].row, left[key])
                            for key, answer in heard.items()
                        }
                    )
                )
            except TransientError as error:
                raise _unwritten(error) from error
            found |= {key: answer.entry for key, answer in heard.items() if key not in left}
            again &= left.keys()
            if not left:
                return found
        return found | dict.fromkeys(left, TransientError("the user's endpoints change hands", undone=True))

    def confirmed(self, targets: Mapping[UserKey, Target]) -> list[UserKey]:
        """Return the users whose target this worker has read or looked up a moment ago, with no event since."""
        return [key for key, target in targets.items() if self._directory.confirmed(key) == target]

    def _fresh(self, entry: DirectoryEntry) -> bool:
        options = self._options
        age_s = (self._clock.wall_ms() - entry.checked_ms) / 1000
        return age_s < (options.max_age_s if entry.endpoint_id else options.absent_max_age_s)

    async def _ask_all(self, known: Mapping[UserKey, Known]) -> Mapping[UserKey, _Answer | Target]:
        async def ask(key: UserKey, kept: str) -> _Answer | Target:
            async with self._gate:
                try:
                    return await self._ask(key, kept)
                except TransientError as error:
                    return _unwritten(error)

        async with asyncio.TaskGroup() as group:
            tasks = {
                key: group.create_task(ask(key, each.entry.endpoint_id if each.entry else ""))
                for key, each in known.items()
            }
        return {key: task.result() for key, task in tasks.items()}

    async def _ask(self, key: UserKey, kept: str) -> _Answer | Target:
        """Ask Pinpoint (https://docs.aws.amazon.com/pinpoint/latest/apireference/apps-application-id-users-user-id.html)."""
        await self._limit.wait()
        listed: Mapping[str, Any] = {}
        try:
            with translated(f"Pinpoint project {key.project_id}", expected=_FORESEEN):
                async with asyncio.timeout(self._options.request_timeout_s):
                    answer = await self._client.get_user_endpoints(ApplicationId=key.project_id, UserId=key.user_id)
                listed = answer["EndpointsResponse"]
        except ClientError as error:
            if code_of(error) != "NotFoundException":
                return Rejected(Reason.SINK_REJECTED, "GetUserEndpoints refuses the user id")
            if not await self._projects.exists(key.project_id):
                return NoDestination()
        # An odd user id (`..`) may be taken for another path: only what says it is this user's counts.
        return self._chosen(
            [
                endpoint
                for endpoint in listed.get("Item", [])
                if endpoint.get("Id") and endpoint.get("User", {}).get("UserId", key.user_id) == key.user_id
            ],
            kept,
        )

    def _chosen(self, endpoints: Sequence[Mapping[str, Any]], kept: str) -> _Answer:
        now_ms = self._clock.wall_ms()
        choice = choose_endpoint(endpoints, kept)
        if choice is None:
            return _Answer(DirectoryEntry("", "", "", now_ms))
        others = _statuses(endpoints, but=choice.endpoint_id) if self._options.every_endpoint else ()
        entry = DirectoryEntry(choice.endpoint_id, choice.status, choice.channel, now_ms, tuple(others))
        return _Answer(entry, tuple({endpoint["Id"].lower(): None for endpoint in endpoints}))


def _statuses(endpoints: Iterable[Mapping[str, Any]], *, but: str) -> Iterable[tuple[str, str]]:
    return sorted(
        (endpoint["Id"], endpoint.get("EndpointStatus", ACTIVE)) for endpoint in endpoints if endpoint["Id"] != but
    )


def _unwritten(error: TransientError) -> TransientError:
    return TransientError(str(error), throttled=error.throttled, undone=True)
