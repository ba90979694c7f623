"""Trouble is logged once a minute a kind and counted always; a worker for which nothing works any more gives up."""

from __future__ import annotations

import pytest
import structlog

from service.app.call_watch import GIVE_UP_S, REPEAT_S, CallWatch
from service.observability.metrics import Metrics
from service.runtime.errors import NothingWorksError, Trouble, TroubleError


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now

    def wall_ms(self) -> int:
        return int(self.now * 1000)

    async def sleep(self, seconds: float) -> None:
        self.now += seconds


def test_trouble_of_one_kind_is_counted_each_time_and_logged_once_a_min():
    clock, metrics = Clock(), Metrics()
    watch = CallWatch(clock, metrics)
    with structlog.testing.capture_logs() as lines:
        for _ in range(5):
            watch.trouble(TroubleError("table scores: refused", Trouble.CLOCK, "set the clock"))
        watch.trouble(TroubleError("table scores: other", Trouble.ANSWER))
        watch.trouble(TroubleError("table leases: refused", Trouble.CLOCK, "set the clock"))
        clock.now += REPEAT_S
        watch.trouble(TroubleError("table scores: refused again", Trouble.CLOCK, "set the clock"))
    assert [(line["event"], line["kind"], line.get("more_since_then")) for line in lines] == [
        ("aws.call_failed", "clock", None),
        ("aws.call_failed", "answer", None),
        ("aws.call_failed", "clock", None),
        ("aws.call_failed", "clock", 4),
    ]
    assert lines[0]["remedy"] == "set the clock"
    assert metrics.aws_trouble.labels("clock")._value.get() == 7


def test_it_gives_up_only_when_nothing_has_worked_for_minutes():
    clock = Clock()
    watch = CallWatch(clock, Metrics())
    watch.trouble(TroubleError("signature expired", Trouble.CLOCK, "set the clock"))
    clock.now += GIVE_UP_S - 1
    watch.check()
    watch.worked()
    clock.now += GIVE_UP_S - 1
    watch.check()
    clock.now += 1
    with pytest.raises(NothingWorksError, match="signature expired") as raised:
        watch.check()
    assert raised.value.remedy == "set the clock"
