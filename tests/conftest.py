"""What all tests share: the embedded AWS, a loop for its clients, and tables made as `scoring setup` makes them."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Iterator
from itertools import count

import pytest
import structlog
from hypothesis import settings

from service.admin.setup_plan import Names, plan_table, tables
from service.aws.clients import Clients, clients
from service.local.emulator import Emulator
from tests.fakes.embedded import PATIENT, FreshName, MakeTable, Run
from tests.fakes.listeners import exposed_below

# How long one example takes says more about the machine's other work than about the code.
settings.register_profile("suite", deadline=None)
settings.load_profile("suite")

_numbers = count(1)
_foreign_listeners: set[str] = set()


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_teardown(item: pytest.Item, nextitem: pytest.Item | None) -> None:
    """Fail where a server of the tests can be reached from another machine; looked at while fixtures still run.

    Unit tests hardly start any, and a look takes some milliseconds: there it is once for each file.
    """
    if "unit" in item.path.parts and nextitem is not None and nextitem.path == item.path:
        return
    reachable = exposed_below(os.getpid(), _foreign_listeners)
    assert not reachable, f"listening on more than loopback: {sorted(reachable)}"


@pytest.fixture(autouse=True)
def logging_as_before() -> Iterator[None]:
    """Undo what a test did to structlog: a threshold that one test leaves would silence the lines another one reads.

    A logger that was used while `cache_logger_on_first_use` was set keeps that configuration in an attribute of its
    own (structlog's `BoundLoggerLazyProxy.bind`), so resetting the configuration is not enough.
    """
    before = structlog.get_config()
    yield
    if all(before[key] is value for key, value in structlog.get_config().items()):
        return
    structlog.configure(**before)
    for module in [module for name, module in sys.modules.items() if name.startswith("service.")]:
        for value in vars(module).values():
            if type(value).__name__ == "BoundLoggerLazyProxy":
                vars(value).pop("bind", None)


@pytest.fixture(scope="session")
def aws() -> Iterator[Emulator]:
    """The embedded AWS: one for all tests, in which each test makes what it needs under names of its own."""
    with Emulator() as emulator:
        yield emulator


@pytest.fixture
def aws_environment(aws: Emulator, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """The variables with which any AWS SDK talks to `aws`, set for this test; returned for child processes."""
    environment = aws.environment()
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    return environment


@pytest.fixture(scope="session")
def runner() -> Iterator[asyncio.Runner]:
    """A loop that outlives a test, so that clients can be shared."""
    with asyncio.Runner() as runner:
        yield runner


@pytest.fixture
def run(runner: asyncio.Runner) -> Run:
    """Run a coroutine on the loop of `aws_clients`, in real time."""
    return runner.run


@pytest.fixture(scope="session")
def aws_clients(aws: Emulator, runner: asyncio.Runner) -> Iterator[Clients]:
    """aiobotocore clients of `aws`; use them with `run`."""
    with pytest.MonkeyPatch.context() as environment:
        for name, value in aws.environment().items():
            environment.setenv(name, value)
        opened = clients(PATIENT)
        made = runner.run(opened.__aenter__())
        runner.run(made.dynamodb.list_tables())  # credentials are found at the first call
    yield made
    runner.run(opened.__aexit__(None, None, None))


@pytest.fixture
def fresh_name() -> FreshName:
    """Return names that no other test uses."""
    return lambda stem: f"{stem}-{next(_numbers)}"


@pytest.fixture
def make_table(aws_clients: Clients, run: Run, fresh_name: FreshName) -> MakeTable:
    """Make a table of a kind (`scores`, `definitions`, `identities`, `leases`, `dead_letters`); return its name."""

    def make(kind: str) -> str:
        name = fresh_name(kind)
        names = Names("", *(name if field == kind else field for field in Names.__struct_fields__[1:]))
        spec = next(spec for spec in tables(names) if spec.name == name)
        run(aws_clients.dynamodb.create_table(**plan_table(spec, None)[0].params))
        return name

    return make
