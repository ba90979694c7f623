"""What the demo does to its embedded AWS besides playing events: prepare it, look into it, spoil it. All blocking."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from decimal import Decimal
from functools import cached_property
from itertools import islice
from typing import Any

from service.aws.blocking import client_in
from service.aws.translation import translated
from service.config.settings import Settings
from service.local.emulator import Emulator
from service.local.meter import Counts, Meter
from service.local.pinpoint_fake import PinpointProcess
from service.local.population import PROJECT_ID, Endpoint, Population
from service.local.truth import Found
from service.runtime.errors import TransientError

STREAM_TIMEOUT_S = 20.0
BATCH = 100
"""Endpoints per UpdateEndpointsBatch
(https://docs.aws.amazon.com/pinpoint/latest/apireference/apps-application-id-endpoints.html)."""
MAX_THROTTLES = 200
"""Times that preparing endpoints waits for the fake's rate limit before it is a failure."""
THROTTLE_PAUSE_S = 0.1
WRONG_SCORE = "31337"
"""The score that `spoil` writes."""


class LocalAwsError(Exception):
    """The embedded AWS did not do what the demo needs of it."""


class LocalAws:
    """The embedded AWS and the Pinpoint fake, seen from outside the service.

    Args:
        environment: `AWS_*` variables that name endpoints, credentials and region.
        settings: What the worker is configured with: names of stream, tables and attribute.
        aws: The embedded AWS, for its meter.
        pinpoint: The Pinpoint fake, for its own pages.
    """

    def __init__(
        self, environment: Mapping[str, str], settings: Settings, aws: Emulator, pinpoint: PinpointProcess
    ) -> None:
        self._environment = environment
        self._settings = settings
        self._aws = aws
        self._fake = pinpoint

    @cached_property
    def kinesis(self) -> Any:  # noqa: ANN401 - likewise
        """A client that does not retry."""
        return client_in("kinesis", self._environment)

    @cached_property
    def _dynamodb(self) -> Any:  # noqa: ANN401 - likewise
        return client_in("dynamodb", self._environment)

    @cached_property
    def _pinpoint(self) -> Any:  # noqa: ANN401 - likewise
        return client_in("pinpoint", self._environment)

    def create_stream(self, shards: int) -> None:
        """Create the stream with this many shards, and wait until it is there."""
        name = self._settings.stream_name
        self.kinesis.create_stream(StreamName=name, ShardCount=shards)
        deadline = time.monotonic() + STREAM_TIMEOUT_S
        while True:
            summary = self.kinesis.describe_stream_summary(StreamName=name)["StreamDescriptionSummary"]
            if summary["StreamStatus"] == "ACTIVE":
                return
            if time.monotonic() > deadline:
                raise LocalAwsError(
                    f"the stream {name} was still {summary['StreamStatus']} after {STREAM_TIMEOUT_S:g} s"
                )
            time.sleep(0.1)

    def define(self, points: Mapping[str, Decimal]) -> None:
        """Write definitions of the project."""
        for event_type, worth in points.items():
            self._dynamodb.put_item(
                TableName=self._settings.definitions_table,
                Item={
                    "EventType": {"S": event_type},
                    "PinpointProjectId": {"S": PROJECT_ID},
                    "ScoreOffset": {"N": str(worth)},
                },
            )

    def settle(self, population: Population) -> None:
        """Create every endpoint of the population in the fake."""
        settle(self._pinpoint, population, PROJECT_ID)

    def users_scored(self) -> int:
        """Return how many items the score table holds."""
        return self._count(self._settings.scores_table)

    def letters(self) -> int:
        """Return how many dead letters there are."""
        return self._count(self._settings.dead_letters_table)

    def _count(self, table: str) -> int:
        count: int = self._dynamodb.describe_table(TableName=table)["Table"]["ItemCount"]
        return count

    def counts(self) -> Counts:
        """Return what the meters counted of this service's own requests, so far."""
        return Meter.read(self._aws, self._fake)

    def endpoints(self) -> list[dict[str, Any]]:
        """Return every endpoint of the project in the fake, as `GetEndpoint` would."""
        return [endpoint for endpoint in self._fake.endpoints() if endpoint["ApplicationId"] == PROJECT_ID]

    def endpoints_scored(self) -> int:
        """Return how many endpoints show a score."""
        return sum(1 for endpoint in self.endpoints() if self._score_of(endpoint) is not None)

    def _score_of(self, endpoint: Mapping[str, Any]) -> list[str] | None:
        attributes = (endpoint.get("User") or {}).get("UserAttributes") or {}
        score: list[str] | None = attributes.get(self._settings.options_of("pinpoint").score_attribute)
        return score

    def found(self) -> Found:
        """Read back everything that must be right."""
        endpoints = self.endpoints()
        scores: dict[str, Decimal] = {}
        for item in self._scan(self._settings.scores_table):
            # A score of another project is as wrong as a wrong score: it keeps its project's name here.
            own = item["PinpointProjectId"]["S"] == PROJECT_ID
            user_id = item["UserId"]["S"] if own else f"{item['UserId']['S']} of {item['PinpointProjectId']['S']}"
            scores[user_id] = Decimal(item.get("Score", {}).get("N", "NaN"))
        letters = self._scan(self._settings.dead_letters_table)
        return Found(
            scores=scores,
            endpoints={endpoint["Id"]: self._score_of(endpoint) for endpoint in endpoints},
            active={endpoint["Id"]: endpoint.get("EndpointStatus") == "ACTIVE" for endpoint in endpoints},
            dead_letters=Counter(item["Reason"]["S"] for item in letters),
        )

    def _scan(self, table: str) -> Iterator[dict[str, Any]]:
        for page in self._dynamodb.get_paginator("scan").paginate(TableName=table, ConsistentRead=True):
            yield from page["Items"]

    def spoil(self, endpoint: Endpoint) -> None:
        """Give an endpoint's user a wrong score, to see that it is found."""
        request = _request(endpoint)
        del request["Id"]
        request["User"] = {
            "UserId": endpoint.user_id,
            "UserAttributes": {self._settings.options_of("pinpoint").score_attribute: [WRONG_SCORE]},
        }
        self._pinpoint.update_endpoint(
            ApplicationId=PROJECT_ID, EndpointId=endpoint.endpoint_id, EndpointRequest=request
        )


def settle(pinpoint: Any, population: Population, project_id: str) -> None:  # noqa: ANN401 - a boto3 client
    """Create every endpoint of the population in a project.

    Raises:
        LocalAwsError: It was throttled for too long.
    """
    endpoints = iter(population.everything)
    while batch := [_request(endpoint) for endpoint in islice(endpoints, BATCH)]:
        _update_batch(pinpoint, batch, project_id)


def _update_batch(pinpoint: Any, batch: Sequence[Mapping[str, Any]], project_id: str) -> None:  # noqa: ANN401 - likewise
    for _ in range(MAX_THROTTLES):
        try:
            with translated(f"Pinpoint project {project_id}"):
                pinpoint.update_endpoints_batch(ApplicationId=project_id, EndpointBatchRequest={"Item": batch})
        except TransientError as error:
            if not error.throttled:
                raise
            time.sleep(THROTTLE_PAUSE_S)
        else:
            return
    raise LocalAwsError(f"Pinpoint refused {len(batch)} endpoints {MAX_THROTTLES} times")


def _request(endpoint: Endpoint) -> dict[str, Any]:
    request: dict[str, Any] = {
        "Id": endpoint.endpoint_id,
        "ChannelType": endpoint.channel,
        "Address": endpoint.address,
        "EndpointStatus": "ACTIVE" if endpoint.active else "INACTIVE",
        "OptOut": "ALL" if endpoint.opted_out else "NONE",
    }
    if endpoint.user_id:
        request["User"] = {"UserId": endpoint.user_id}
    return request
