"""An emulator that writes scores and shows no change, as plain ministack does: what worker and doctor make of it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator
from typing import TypeVar

import pytest

from service.admin.doctor import Doctor
from service.admin.doctor_plan import Wanted
from service.admin.setup import Setup
from service.admin.setup_plan import Names
from service.aws.clients import Clients, clients
from service.aws.streams.dynamodb_streams import DynamoDbStreamSource
from service.aws.streams.silence import is_silent
from service.local.emulator import Emulator
from service.sinks.trials import Finding, Verdict
from tests.fakes.embedded import PATIENT, FreshName
from tests.fakes.plain_ministack import PlainEmulator

T = TypeVar("T")
SETTINGS = PATIENT
LATER_S = 45
"""Seconds after which a change must be in the stream, and before which a clock counts as right."""


@pytest.fixture(scope="module")
def plain() -> Iterator[Emulator]:
    with PlainEmulator() as running:
        yield running


@pytest.fixture(params=["mended", "plain"])
def emulator(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Emulator:
    running: Emulator = request.getfixturevalue("aws" if request.param == "mended" else "plain")
    for name, value in running.environment().items():
        monkeypatch.setenv(name, value)
    return running


async def set_up(names: Names, aws: Clients) -> None:
    await Setup(names, aws.dynamodb, aws.kinesis).run()


@pytest.fixture
def names(emulator: Emulator, fresh_name: FreshName) -> Names:
    assert emulator
    made = Names("", *(fresh_name(f"silence-{field}") for field in Names.__struct_fields__[1:]))
    with_clients(lambda aws: set_up(made, aws))
    return made


def with_clients(work: Callable[[Clients], Awaitable[T]]) -> T:
    async def worked() -> T:
        async with clients(SETTINGS) as aws:
            return await work(aws)

    return asyncio.run(worked())


async def write_score(aws: Clients, table: str) -> None:
    text = f"INSERT INTO \"{table}\" VALUE {{'UserId': ?, 'PinpointProjectId': ?, 'Score': ?, 'UpdatedAt': ?}}"
    values = [{"S": "ann"}, {"S": "p"}, {"N": "1"}, {"N": str(time.time_ns() // 1_000_000)}]
    answer = await aws.dynamodb.batch_execute_statement(Statements=[{"Statement": text, "Parameters": values}])
    assert "Error" not in answer["Responses"][0]


def found(names: Names) -> Finding:
    async def examined(aws: Clients) -> list[Finding]:
        wanted = Wanted(names, ingests=False, publishes=True)
        doctor = Doctor(wanted, aws, wall_s=lambda: time.time() + LATER_S)
        return [each async for each in doctor.examine() if each.subject.startswith("changes in the stream")]

    (finding,) = with_clients(examined)
    return finding


def asked(names: Names) -> bool | None:
    async def ask(aws: Clients) -> bool | None:
        source = await DynamoDbStreamSource.open(aws.dynamodb, aws.streams, names.scores)
        return await is_silent(aws.dynamodb, names.scores, source, int((time.time() + LATER_S) * 1000))

    return with_clients(ask)


def test_before_the_first_score_nobody_can_tell(names: Names):
    assert asked(names) is None
    assert found(names).verdict is Verdict.SKIPPED


def test_an_emulator_whose_table_stream_stays_silent_is_noticed(emulator: Emulator, names: Names):
    with_clients(lambda aws: write_score(aws, names.scores))
    finding = found(names)
    if isinstance(emulator, PlainEmulator):
        assert asked(names) is True
        assert finding.verdict is Verdict.BROKEN
        assert "scoring local up" in finding.remedy
    else:
        assert asked(names) is False
        assert finding.verdict is Verdict.OK
