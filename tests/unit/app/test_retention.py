"""The retention that the alert divides by is read again while a worker runs."""

from __future__ import annotations

import asyncio

from service.app.retention import EVERY_S, watch_retention
from service.observability.metrics import Metrics
from service.runtime.errors import TransientError
from tests.fakes.aio import VirtualClock, in_virtual_time

DAY_S = 24 * 3600.0


@in_virtual_time
async def test_a_changed_retention_is_noticed_and_a_failure_keeps_the_last():
    metrics, answers = Metrics(), iter([TransientError("throttled"), 7 * DAY_S])

    async def read() -> float:
        match next(answers):
            case TransientError() as error:
                raise error
            case float() as seconds:
                return seconds
        raise AssertionError

    asked: list[float] = []

    def tell(seconds: float, asked_at: float) -> None:
        metrics.retention.labels("ingest").set(seconds)
        asked.append(asked_at)

    def shown() -> float | None:
        return metrics.registry.get_sample_value("scoring_retention_seconds", {"pipeline": "ingest"})

    metrics.retention.labels("ingest").set(DAY_S)
    task = asyncio.create_task(watch_retention(read, tell, VirtualClock()))
    seen = []
    for _ in range(3):
        await asyncio.sleep(1)
        seen.append(shown())
        await asyncio.sleep(EVERY_S - 1)
    task.cancel()
    assert seen == [DAY_S, DAY_S, 7 * DAY_S]
    assert asked == [2 * EVERY_S]
