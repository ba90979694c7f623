"""Logs and counts failed AWS calls, and ends a worker for which no call succeeds any more."""

from __future__ import annotations

import structlog

from service.observability.metrics import Metrics
from service.runtime.clock import Clock
from service.runtime.errors import NothingWorksError, Trouble, TroubleError

GIVE_UP_S = 300.0
"""Seconds without a successful call after which a worker ends, because the fault may be its own."""

LOOK_S = 10.0
REPEAT_S = 60.0
"""Seconds between two log lines about the same kind of failure of one resource; all failures are counted."""

MAX_TOLD_APART = 200
"""Most pairs of kind and resource remembered; resources are the tables, streams and projects in use."""

log = structlog.get_logger(__name__)


class CallWatch:
    """Implements `service.aws.translation.Watch` for one worker.

    Args:
        clock: Time.
        metrics: Where failures are counted, by kind.
        give_up_s: See `GIVE_UP_S`.
    """

    def __init__(self, clock: Clock, metrics: Metrics, *, give_up_s: float = GIVE_UP_S) -> None:
        self._clock = clock
        self._metrics = metrics
        self._give_up_s = give_up_s
        self._last_worked = clock.monotonic()
        self._last: TroubleError | None = None
        self._logged: dict[tuple[Trouble, str], float] = {}
        self._unsaid: dict[tuple[Trouble, str], int] = {}

    def worked(self) -> None:
        """Record a successful call."""
        self._last_worked = self._clock.monotonic()

    def trouble(self, error: TroubleError) -> None:
        """Record an answer that is unexpected, or that a person must act on."""
        self._last = error
        self._metrics.aws_trouble.labels(error.kind.value).inc()
        now = self._clock.monotonic()
        # The text begins with the resource: failures of one table must not hide those of another.
        which = error.kind, str(error).partition(":")[0]
        if now - self._logged.get(which, float("-inf")) < REPEAT_S:
            self._unsaid[which] = self._unsaid.get(which, 0) + 1
            return
        if len(self._logged) >= MAX_TOLD_APART:
            self._logged.clear()
            self._unsaid.clear()
        self._logged[which] = now
        more = {"remedy": error.remedy} if error.remedy else {}
        unsaid = self._unsaid.pop(which, 0)
        log.error(
            "aws.call_failed",
            kind=error.kind.value,
            error=str(error),
            consequence="this call is retried; other calls are not affected",
            **more,
            **({"more_since_then": unsaid} if unsaid else {}),
        )

    async def run(self) -> None:
        """Check periodically whether any call succeeds.

        Raises:
            NothingWorksError: No call has succeeded for `give_up_s`.
        """
        while True:
            await self._clock.sleep(LOOK_S)
            self.check()

    def check(self) -> None:
        """Check whether a call has succeeded within `give_up_s`.

        Raises:
            NothingWorksError: None has.
        """
        silent_s = self._clock.monotonic() - self._last_worked
        if silent_s >= self._give_up_s:
            last = f"; the last failure: {self._last}" if self._last is not None else ""
            raise NothingWorksError(
                f"no call to AWS has succeeded for {silent_s:.0f} s{last}", self._last.remedy if self._last else ""
            )
