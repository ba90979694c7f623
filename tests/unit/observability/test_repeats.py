"""An outage writes a few lines, not one for every retry of every loop and shard."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import structlog

from service.observability.repeats import BURST, EVERY_S, MAX_KEYS, Repeats


class Log:
    """What passes."""

    def __init__(self) -> None:
        self.now = 0.0
        self._repeats = Repeats(lambda: self.now)
        self.lines: list[dict[str, Any]] = []

    def say(self, event: str, method: str = "warning", **fields: object) -> None:
        with suppress(structlog.DropEvent):
            self.lines.append(dict(self._repeats(None, method, {"event": event, **fields})))


def test_a_loop_that_retries_all_the_time_is_said_twice_a_minute():
    log = Log()
    for tick in range(600):
        log.now = tick / 10
        for what in ("beat", "take", "survey"):
            log.say("loop.failed", what=what, pipeline="ingest")
    assert len(log.lines) == 6
    assert sum(line.get("suppressed", 0) for line in log.lines) + len(log.lines) >= 600 * 3 / 2 - 10


def test_the_next_line_says_how_many_were_dropped():
    log = Log()
    log.say("a", what="x")
    log.say("a", what="x")
    log.say("a", what="x")
    log.now = EVERY_S
    log.say("a", what="x")
    assert log.lines == [{"event": "a", "what": "x"}, {"event": "a", "what": "x", "suppressed": 2}]


def test_different_things_are_said_but_not_thousands_of_them():
    log = Log()
    log.say("a", pipeline="ingest")
    log.say("a", pipeline="publish")
    log.say("b", pipeline="ingest")
    assert len(log.lines) == 3
    for number in range(1_000):
        log.say("c", shard=str(number))
    assert len(log.lines) == 3 + BURST


def test_errors_and_what_is_below_a_warning_always_pass():
    log = Log()
    for method in ("error", "info", "debug"):
        log.say("a", method)
        log.say("a", method)
    assert len(log.lines) == 6


def test_what_is_remembered_is_bounded():
    log = Log()
    for number in range(3 * MAX_KEYS):
        log.say(f"event {number}", shard=str(number))
    assert len(log._repeats._shown) <= MAX_KEYS
    assert len(log._repeats._windows) <= MAX_KEYS + 1
