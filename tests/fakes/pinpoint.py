"""The Pinpoint sink of several workers, over HTTP, in front of the fake and one identity table in memory."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest

from service.aws.clients import AwsSettings, clients
from service.ingest.identity_plan import user_row
from service.ingest.identity_rows import Row
from service.ingest.identity_store import IdentityStore
from service.ingest.stores import DirectoryEntry
from service.local.pinpoint_fake import PinpointFake
from service.local.pinpoint_fake.shapes import EndpointRequest, User
from service.observability.metrics import Metrics
from service.runtime.clock import SystemClock
from service.scoring.change import ScoreChange
from service.scoring.fold import UserKey
from service.sinks.pinpoint.sink import PinpointOptions, PinpointSink
from tests.fakes.identities import MemoryRows

APP = "a" * 32
QUICK = PinpointOptions(updates_per_s=1000, lookups_per_s=10_000)


class PinpointSetup:
    def __init__(self, fake: PinpointFake, client: Any, options: PinpointOptions) -> None:  # noqa: ANN401 - made at run time
        self.fake = fake
        self.client = client
        self.rows = MemoryRows()
        self.now = 0.0
        self.metrics = Metrics()
        self.identities = self.another_table()
        self.sink = self.another_sink(options, self.identities)

    def another_table(self) -> IdentityStore:
        """The identity table as another worker has it."""
        return IdentityStore(self.rows, monotonic=lambda: self.now)

    def another_sink(self, options: PinpointOptions = QUICK, identities: IdentityStore | None = None) -> PinpointSink:
        """The sink of another worker, unless `identities` are of one that is there."""
        table = identities or self.another_table()
        return PinpointSink(self.client, table, SystemClock(), self.metrics, options)

    def remember(self, user: str, entry: DirectoryEntry, project: str = APP) -> None:
        """Have the table say where a user's score goes."""
        row = Row(
            stamp="put",
            endpoint_id=entry.endpoint_id,
            status=entry.endpoint_status,
            channel=entry.channel,
            checked_ms=entry.checked_ms,
        )
        self.rows.rows[user_row(UserKey(user, project))] = row

    def owner(self, endpoint_id: str) -> str | None:
        """Whose an endpoint is in Pinpoint."""
        user = self.fake.state.get_endpoint(APP, endpoint_id).user
        return user.user_id if user else None

    def add(self, user: str, endpoint_id: str, *, status: str = "ACTIVE", channel: str = "EMAIL") -> None:
        request = EndpointRequest(
            channel_type=channel, address=endpoint_id, endpoint_status=status, user=User(user_id=user)
        )
        self.fake.state.update_endpoint(APP, endpoint_id, request, datetime.now(UTC))

    def score(self, endpoint_id: str, name: str = "EngagementScore") -> str | None:
        user = self.fake.state.get_endpoint(APP, endpoint_id).user
        values = ((user.user_attributes or {}) if user else {}).get(name)
        return values[0] if values else None

    def calls(self, operation: str) -> int:
        tallies = self.fake.stats()["requests"].values()
        return sum(tally[name]["requests"] for tally in tallies if (name := f"pinpoint.{operation}") in tally)


@asynccontextmanager
async def pinpoint(
    monkeypatch: pytest.MonkeyPatch, options: PinpointOptions = QUICK, attempts: int = 1
) -> AsyncIterator[PinpointSetup]:
    async with PinpointFake(apps=[APP]) as fake:
        for name, value in (fake.environment() | {"AWS_DEFAULT_REGION": "us-east-1"}).items():
            monkeypatch.setenv(name, value)
        async with clients(AwsSettings(region="us-east-1", attempts=attempts)) as made:
            yield PinpointSetup(fake, await made.client("pinpoint"), options)


def change(user: str, score: str, revision: int = 1, project: str = APP) -> ScoreChange:
    return ScoreChange(UserKey(user, project), Decimal(score), revision, 0)
