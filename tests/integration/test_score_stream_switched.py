"""A worker goes on publishing when the score table's stream is switched off and on again."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import pytest

from service.app import publishing
from service.app.worker import Worker
from service.cli.context import settings_for
from service.config.load import Purpose
from service.ingest.stores import Published
from service.scoring.change import ScoreChange
from service.sinks.log.sink import LogSink

Aws: TypeAlias = Any  # clients have no types
ON = {"StreamEnabled": True, "StreamViewType": "NEW_AND_OLD_IMAGES"}


class Seen:
    """What was published to the sink."""

    def __init__(self) -> None:
        self.scores: dict[str, str] = {}
        self._more = asyncio.Event()

    async def publish(self, changes: Sequence[ScoreChange]) -> list[Published]:
        self.scores.update({change.key.user_id: f"{change.score}" for change in changes})
        self._more.set()
        return [Published() for _ in changes]

    async def has(self, **scores: str) -> None:
        async with asyncio.timeout(60):
            while not scores.items() <= self.scores.items():
                self._more.clear()
                await self._more.wait()


@pytest.mark.usefixtures("aws_environment")
def test_a_stream_switched_off_and_on_is_followed(
    aws_clients: Aws, make_table: Callable[[str], str], monkeypatch: pytest.MonkeyPatch, run: Callable[..., Any]
):
    table = make_table("scores")
    environment = {
        "SCORING_SCORES_TABLE": table,
        "SCORING_LEASES_TABLE": make_table("leases"),
        "SCORING_DEAD_LETTERS_TABLE": make_table("dead_letters"),
        "SCORING_IDENTITIES_TABLE": make_table("identities"),
        "SCORING_ROLE": "publish",
        "SCORING_SINKS": "log",
        "SCORING_HTTP_PORT": "0",
        "SCORING_LEASE_DURATION_S": "2",
    }
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(publishing, "LOOK_S", 0.5)
    monkeypatch.setattr(publishing, "SETTLE_S", 1.0)
    seen = Seen()
    monkeypatch.setattr(LogSink, "publish", lambda _, changes: seen.publish(changes))

    def update(**changes: object) -> None:
        run(aws_clients.dynamodb.update_table(TableName=table, **changes))

    def put(user: str, score: int) -> None:
        item = {"UserId": {"S": user}, "PinpointProjectId": {"S": "p"}, "Score": {"N": str(score)}}
        run(aws_clients.dynamodb.put_item(TableName=table, Item={**item, "Revision": {"N": str(score)}}))

    async def main() -> None:
        worker = Worker(settings_for(Purpose.RUN))
        async with asyncio.TaskGroup() as group:
            running = group.create_task(worker.run())
            await asyncio.to_thread(put, "ann", 1)
            await seen.has(ann="1")
            await asyncio.to_thread(update, StreamSpecification={"StreamEnabled": False})
            await asyncio.to_thread(put, "ann", 2)
            await asyncio.to_thread(put, "bob", 1)
            await asyncio.to_thread(update, StreamSpecification=ON)
            await seen.has(ann="2", bob="1")
            await asyncio.to_thread(put, "bob", 5)
            await seen.has(ann="2", bob="5")
            worker.stop()
            assert await running

    asyncio.run(main())
