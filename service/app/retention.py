"""Reads the event stream's retention periodically: it may be changed while workers run."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import structlog

from service.runtime.clock import Clock
from service.runtime.errors import TransientError

EVERY_S = 300.0
"""Seconds between two reads. DescribeStreamSummary allows 20 a second and account
(https://docs.aws.amazon.com/kinesis/latest/APIReference/API_DescribeStreamSummary.html)."""

log = structlog.get_logger(__name__)


async def watch_retention(
    read: Callable[[], Awaitable[float]],
    report: Callable[[float, float], None],
    clock: Clock,
    *,
    every_s: float = EVERY_S,
) -> None:
    """Read a stream's retention every `every_s` and report it, until cancelled; opening the stream reports it first.

    Args:
        read: Returns how many seconds the stream keeps records now.
        report: Called with that, and with the monotonic second before the read.
        clock: Time.
        every_s: Seconds between two reads.
    """
    while True:
        await clock.sleep(every_s)
        asked_at = clock.monotonic()
        try:
            report(await read(), asked_at)
        except TransientError as error:
            log.warning("stream.retention_read_failed", error=str(error))
