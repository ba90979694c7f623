"""An emulator that writes scores and shows no change, as plain ministack does: what worker and doctor make of it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from typing import Any

import pytest

from service.admin.doctor import Doctor
from service.admin.doctor_plan import Finding, Verdict, Wanted
from service.admin.setup import Setup
from service.admin.setup_plan import Names
from service.aws.blocking import client
from service.aws.clients import AwsSettings, clients
from service.aws.streams.dynamodb_streams import DynamoDbStreamSource
from service.aws.streams.silence import is_silent
from service.local.emulator import REGION, Emulator
from tests.fakes.embedded import FreshName
from tests.fakes.plain_ministack import PlainEmulator

SETTINGS = AwsSettings(region=REGION)
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


@pytest.fixture
def names(emulator: Emulator, boto3_clients: dict[str, Any], fresh_name: FreshName) -> Names:
    assert emulator
    made = Names("", *(fresh_name(f"silence-{field}") for field in Names.__struct_fields__[1:]))
    Setup(made, boto3_clients["dynamodb"], boto3_clients["kinesis"]).run()
    return made


@pytest.fixture
def boto3_clients(emulator: Emulator) -> Iterator[dict[str, Any]]:
    assert emulator
    made = {name: client(name, SETTINGS) for name in ("kinesis", "dynamodb", "dynamodbstreams")}
    yield made
    for each in made.values():
        each.close()


def write_score(dynamodb: Any, table: str) -> None:  # noqa: ANN401 # boto3's
    text = f"INSERT INTO \"{table}\" VALUE {{'UserId': ?, 'PinpointProjectId': ?, 'Score': ?, 'UpdatedAt': ?}}"
    values = [{"S": "ann"}, {"S": "p"}, {"N": "1"}, {"N": str(time.time_ns() // 1_000_000)}]
    (answer,) = dynamodb.batch_execute_statement(Statements=[{"Statement": text, "Parameters": values}])["Responses"]
    assert "Error" not in answer


def found(boto3_clients: dict[str, Any], names: Names) -> Finding:
    doctor = Doctor(Wanted(names, ingests=False, publishes=True), boto3_clients, wall_s=lambda: time.time() + LATER_S)
    (finding,) = [each for each in doctor.examine() if each.subject.startswith("changes in the stream")]
    return finding


def asked(names: Names) -> bool | None:
    async def ask() -> bool | None:
        async with clients(SETTINGS) as aws:
            source = await DynamoDbStreamSource.open(aws.dynamodb, aws.streams, names.scores)
            return await is_silent(aws.dynamodb, names.scores, source, int((time.time() + LATER_S) * 1000))

    return asyncio.run(ask())


def test_before_the_first_score_nobody_can_tell(boto3_clients: dict[str, Any], names: Names):
    assert asked(names) is None
    assert found(boto3_clients, names).verdict is Verdict.SKIPPED


def test_an_emulator_whose_table_stream_stays_silent_is_noticed(
    emulator: Emulator, boto3_clients: dict[str, Any], names: Names
):
    write_score(boto3_clients["dynamodb"], names.scores)
    finding = found(boto3_clients, names)
    if isinstance(emulator, PlainEmulator):
        assert asked(names) is True
        assert finding.verdict is Verdict.BROKEN
        assert "scoring local up" in finding.remedy
    else:
        assert asked(names) is False
        assert finding.verdict is Verdict.OK
