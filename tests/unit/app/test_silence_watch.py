"""An emulator whose table stream shows nothing is reported until it does, and nothing is said where it works."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

import pytest
import structlog

from service.app.silence_watch import LOOK_S, REPEAT_S, watch_for_silence
from service.aws.endpoints import is_aws
from service.aws.streams.silence import KEPT_MS, SETTLE_MS, changed_lately
from service.runtime.errors import TransientError
from tests.fakes.clock import ManualClock

NOW = 100 * 3_600_000


def watched(answers: Iterable[bool | TransientError | None]) -> tuple[list[int], list[str]]:
    left, asked_at = iter(answers), []

    async def is_silent(now_ms: int) -> bool | None:
        asked_at.append(now_ms // 1000)
        answer = next(left)
        if isinstance(answer, TransientError):
            raise answer
        return answer

    with structlog.testing.capture_logs() as lines:
        asyncio.run(watch_for_silence(is_silent, ManualClock()))
    return asked_at, [line["event"] for line in lines]


def test_a_stream_that_shows_a_change_is_looked_at_once():
    assert watched([False]) == ([LOOK_S], [])


def test_it_waits_for_a_score_and_for_an_answer():
    assert watched([None, TransientError("no"), False]) == ([LOOK_S, 2 * LOOK_S, 3 * LOOK_S], [])


def test_a_silent_stream_is_an_error_until_it_shows_something():
    asked_at, events = watched([None, True, True, False])
    assert asked_at == [LOOK_S, 2 * LOOK_S, 2 * LOOK_S + REPEAT_S, 2 * LOOK_S + 2 * REPEAT_S]
    assert events == ["score_stream.stayed_silent"] * 2


@pytest.mark.parametrize(
    ("ages", "tells"),
    [
        ([], False),
        ([SETTLE_MS], True),
        ([SETTLE_MS - 1], False),
        ([KEPT_MS], True),
        ([KEPT_MS + 1], False),
        ([1, KEPT_MS + 1, SETTLE_MS], True),
    ],
)
def test_only_a_change_that_must_be_in_the_stream_tells(ages: list[int], tells: bool):  # noqa: FBT001 # a table
    assert changed_lately(({"UpdatedAt": {"N": str(NOW - age)}} for age in ages), NOW) is tells


def test_scores_that_say_nothing_of_their_time_tell_nothing():
    assert not changed_lately([{}, {"UpdatedAt": {"S": "yesterday"}}, {"UpdatedAt": {"N": "NaN"}}], NOW)


@pytest.mark.parametrize(
    ("url", "aws"),
    [
        ("https://streams.dynamodb.eu-west-1.amazonaws.com", True),
        ("https://streams.dynamodb.cn-north-1.amazonaws.com.cn", True),
        ("https://vpce-1-2.streams.dynamodb.us-east-1.vpce.amazonaws.com", True),
        ("https://kinesis.us-east-1.api.aws", True),
        ("http://127.0.0.1:4566", False),
        ("http://aws:4566", False),
        ("http://amazonaws.com.example.org", False),
        ("http://[::1]:4566", False),
        ("", False),
    ],
)
def test_emulators_are_told_from_aws_by_their_name(url: str, aws: bool):  # noqa: FBT001 # a table
    assert is_aws(url) is aws
