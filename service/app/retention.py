"""How long the event stream keeps records, read again now and then: a person may change it while workers run."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import structlog

from service.observability.metrics import Metrics
from service.runtime.clock import Clock
from service.runtime.errors import TransientError

EVERY_S = 300.0
"""Seconds between two reads. DescribeStreamSummary allows 20 a second and account
(https://docs.aws.amazon.com/kinesis/latest/APIReference/API_DescribeStreamSummary.html)."""

log = structlog.get_logger(__name__)


async def watch_retention(read: Callable[[], Awaitable[float]], pipeline: str, metrics: Metrics, clock: Clock) -> None:
    """Keep the metric that the retention alert divides by up to date, until cancelled.

    Args:
        read: Returns how many seconds the stream keeps records now.
        pipeline: Whose stream.
        metrics: The catalogue; opening the stream sets the metric first.
        clock: Time.
    """
    while True:
        await clock.sleep(EVERY_S)
        try:
            metrics.retention.labels(pipeline).set(await read())
        except TransientError as error:
            log.warning("stream.retention_not_read", pipeline=pipeline, error=str(error))
