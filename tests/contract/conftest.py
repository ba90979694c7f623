"""The contract suites run with the fast calls and without them: SCORING_FAST_CALLS=off must be a way out."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import msgspec
import pytest

from service.aws.clients import Clients, clients
from service.local.emulator import Emulator
from tests.fakes.embedded import PATIENT


@pytest.fixture(scope="session", params=[True, False], ids=["fast calls", "stock calls"])
def fast_calls(request: pytest.FixtureRequest) -> bool:
    """Whether the clients take the short way; suites that ask for their subjects by name must use it by mark."""
    wanted: bool = request.param
    return wanted


@pytest.fixture(scope="session")
def aws_clients(fast_calls: bool, aws: Emulator, runner: asyncio.Runner) -> Iterator[Clients]:  # noqa: FBT001 - a fixture
    """aiobotocore clients of `aws`; use them with `run`."""
    with pytest.MonkeyPatch.context() as environment:
        for name, value in aws.environment().items():
            environment.setenv(name, value)
        opened = clients(msgspec.structs.replace(PATIENT, fast_calls=fast_calls))
        made = runner.run(opened.__aenter__())
        runner.run(made.dynamodb.list_tables())  # credentials are found at the first call
    yield made
    runner.run(opened.__aexit__(None, None, None))
