"""Reports an emulator whose score table's stream never shows a change; nothing would be published."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import structlog

from service.aws.streams.silence import REMEDY, WHY
from service.runtime.clock import Clock
from service.runtime.errors import TransientError

LOOK_S = 60.0
"""Seconds between two checks while the answer is unknown, and before the first."""
REPEAT_S = 600.0
"""Seconds between two log lines while the stream stays silent."""

log = structlog.get_logger(__name__)


async def watch_for_silence(is_silent: Callable[[int], Awaitable[bool | None]], clock: Clock) -> None:
    """Log an error while the stream is silent; return once it has shown a change.

    Args:
        is_silent: Answers for a time in epoch milliseconds; None: unknown yet.
        clock: Time.
    """
    pause = LOOK_S
    while True:
        await clock.sleep(pause)
        try:
            silent = await is_silent(clock.wall_ms())
        except TransientError:
            continue  # logged and counted where it was recognized
        if silent is False:
            return
        pause = REPEAT_S if silent else LOOK_S
        if silent:
            log.error("score_stream.stayed_silent", why=WHY, remedy=REMEDY)
