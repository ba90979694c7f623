"""Tells a project that does not exist from a user or an endpoint that does not exist.

Pinpoint answers `NotFoundException` in both cases
(https://docs.aws.amazon.com/pinpoint/latest/apireference/apps-application-id-users-user-id.html), and its text is not
documented. `GetApp` asks about the project alone
(https://docs.aws.amazon.com/pinpoint/latest/apireference/apps-application-id.html).
"""

from __future__ import annotations

import asyncio

import msgspec
import structlog
from botocore.exceptions import ClientError

from service.aws.clients import AwsClient
from service.aws.translation import AwsSetupError, code_of, translated
from service.runtime.cache import RecentCache
from service.runtime.clock import Clock

REQUEST_TIMEOUT_S = 15.0

FOUND_FOR_S = 600.0
"""Seconds for which a project that was found is believed to exist."""

MISSING_FOR_S = 60.0
"""Seconds for which a project that was not found is believed to be missing; then it is looked up again."""

MAX_PROJECTS = 1000
"""Projects remembered. Their ids come from definitions and events, so their number has no other bound."""

log = structlog.get_logger(__name__)

_FORESEEN = frozenset({"NotFoundException", "BadRequestException", "ForbiddenException"})


class _Answer(msgspec.Struct, frozen=True):
    """Whether a project exists, and the monotonic second until which that is believed."""

    exists: bool
    until: float


class Projects:
    """Answers whether a Pinpoint project exists. One call per project and `FOUND_FOR_S` or `MISSING_FOR_S`.

    Args:
        client: Pinpoint.
        clock: Time.
        consequence: What a missing project means for the caller's work: one sentence for the log.
        remedy: What to do about it, likewise.
    """

    def __init__(self, client: AwsClient, clock: Clock, *, consequence: str, remedy: str) -> None:
        self._client = client
        self._clock = clock
        self._consequence = consequence
        self._remedy = remedy
        self._answers: RecentCache[str, _Answer] = RecentCache(MAX_PROJECTS, lambda project_id, _: len(project_id))
        self._asking = asyncio.Lock()

    def known_missing(self, project_id: str) -> bool:
        """Return whether the project was missing when it was looked up last, less than `MISSING_FOR_S` ago."""
        answer = self._fresh(project_id)
        return answer is not None and not answer.exists

    async def exists(self, project_id: str) -> bool:
        """Return whether the project exists; True where this role may not ask.

        Raises:
            TransientError: Pinpoint cannot be asked now.
        """
        async with self._asking:  # of many users of one project, the first one asks
            answer = self._fresh(project_id)
            if answer is not None:
                return answer.exists
            exists = await self._ask(project_id)
            if exists:
                self._found(project_id)
            else:
                self.missing(project_id)
            return exists

    def missing(self, project_id: str) -> None:
        """Take note that a call said that the project does not exist, and report it once per `MISSING_FOR_S`."""
        if not self.known_missing(project_id):
            log.error(
                "pinpoint.project_not_found",
                project=project_id,
                consequence=self._consequence,
                remedy=self._remedy,
            )
        self._answers.put(project_id, _Answer(exists=False, until=self._clock.monotonic() + MISSING_FOR_S))

    def _found(self, project_id: str) -> None:
        before = self._answers.get(project_id)
        if before is not None and not before.exists:
            log.warning("pinpoint.project_found", project=project_id, remedy="scoring reconcile")
        self._answers.put(project_id, _Answer(exists=True, until=self._clock.monotonic() + FOUND_FOR_S))

    def _fresh(self, project_id: str) -> _Answer | None:
        answer = self._answers.get(project_id)
        return answer if answer is not None and answer.until > self._clock.monotonic() else None

    async def _ask(self, project_id: str) -> bool:
        try:
            with translated(f"Pinpoint project {project_id}", expected=_FORESEEN):
                async with asyncio.timeout(REQUEST_TIMEOUT_S):
                    await self._client.get_app(ApplicationId=project_id)
        except ClientError as error:
            code = code_of(error)
            if code in {"NotFoundException", "BadRequestException"}:
                return False  # an id that Pinpoint refuses belongs to no project
            return self._cannot_tell(project_id, str(error))
        except AwsSetupError as error:
            return self._cannot_tell(project_id, str(error))
        return True

    def _cannot_tell(self, project_id: str, error: str) -> bool:
        log.warning(
            "pinpoint.project_check_failed",
            project=project_id,
            error=error,
            consequence="a project that does not exist looks like one whose users have no endpoints",
            remedy="allow mobiletargeting:GetApp to this role",
        )
        return True
