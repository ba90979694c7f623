"""The identity fallback: asks Pinpoint which user an endpoint belongs to."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from botocore.exceptions import ClientError

from service.aws.clients import AwsClient
from service.aws.translation import code_of, translated
from service.ingest.stores import AliasKey
from service.observability.metrics import Metrics
from service.runtime.clock import Clock
from service.sinks.pinpoint.projects import Projects
from service.sinks.port import whole
from service.sinks.ratelimit import RateLimit

REQUEST_TIMEOUT_S = 15.0

_FORESEEN = frozenset({"NotFoundException", "BadRequestException"})


class PinpointLookup:
    """`EndpointLookup` by `GetEndpoint`.

    Args:
        client: Pinpoint.
        clock: Time.
        metrics: The catalogue.
        per_second: Calls per second, of all workers together; 10 is the default quota
            (https://docs.aws.amazon.com/pinpoint/latest/developerguide/quotas.html).
        share: Returns this worker's part of the rate, from 0 to 1.
    """

    def __init__(
        self,
        client: AwsClient,
        clock: Clock,
        metrics: Metrics,
        *,
        per_second: float = 10.0,
        share: Callable[[], float] = whole,
    ) -> None:
        self._client = client
        self._projects = Projects(
            client,
            clock,
            consequence="no user is looked up in this project; its events that need one go to the dead letters",
            remedy="correct the project id that senders use, or create the project; then redrive the letters",
        )
        self._limit = RateLimit("pinpoint", "get_endpoint", per_second, metrics, share)

    async def user_of(self, key: AliasKey) -> str | None:
        """Return the user of an endpoint; empty where it has none.

        None where it does not exist, or cannot be an endpoint's id, and where the whole project does not exist, which
        is reported.
        """
        if self._projects.known_missing(key.project_id):
            return None
        await self._limit.wait()
        try:
            with translated(f"Pinpoint project {key.project_id}", expected=_FORESEEN):
                async with asyncio.timeout(REQUEST_TIMEOUT_S):
                    answer = await self._client.get_endpoint(ApplicationId=key.project_id, EndpointId=key.value)
                endpoint = answer["EndpointResponse"]
        except ClientError as error:
            if code_of(error) == "NotFoundException":
                await self._projects.exists(key.project_id)  # reports a project that does not
            return None
        if endpoint.get("Id", key.value).lower() != key.value.lower():
            return None  # an odd id (`..`) was taken for another path
        user = endpoint.get("User", {}).get("UserId", "")
        return user if isinstance(user, str) else None
