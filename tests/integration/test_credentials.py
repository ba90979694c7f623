"""Every way to credentials that a worker may be given: its own clients take all of them, and renew them."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterator
from itertools import product
from pathlib import Path

import boto3
import pytest
from aiohttp import web
from botocore.exceptions import BotoCoreError
from botocore.utils import ContainerMetadataFetcher

from service.admin.doctor import CALLS, Doctor
from service.admin.doctor_plan import Wanted
from service.admin.setup_plan import Names
from service.aws import credentials
from service.aws.clients import AwsSettings, clients
from service.aws.tables.leases import LeaseTable
from service.aws.translation import CREDENTIALS_REMEDY, AwsSetupError, watched
from service.runtime.errors import Trouble, TroubleError
from service.sinks.trials import Finding, Verdict
from service.stream.ports import StreamId
from tests.fakes.credential_providers import (
    Aws,
    assumed_role,
    container,
    instance,
    process,
    role_of_a_container,
    sso,
    web_identity,
)

BOUND_S = 60.0
RENEWED_S = 200.0
"""Life of credentials that outlive a test and, with `WINDOWS_S` as the tests set it, are renewed at every call."""
STREAM = StreamId("events", "arn:aws:kinesis:us-east-1:000000000000:stream/events", "tag1")


Case = Callable[[pytest.MonkeyPatch, Path, str], None]


@pytest.fixture
def clean(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[pytest.MonkeyPatch]:
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    return monkeypatch


NAMES = Names("events", "scores", "definitions", "identities", "leases", "letters")


async def doctors_verdict(*, fast_calls: bool) -> list[Finding]:
    """Return what the doctor finds wrong with the calls as such, and not with what they ask for."""
    async with clients(AwsSettings(region="us-east-1", attempts=1, fast_calls=fast_calls)) as made:
        doctor = Doctor(Wanted(NAMES, ingests=True, publishes=True), made)
        return [finding async for finding in doctor.examine() if finding.subject == CALLS]


async def with_aws(environment: pytest.MonkeyPatch, work: Callable[[Aws, str], object]) -> Aws:
    aws = Aws()
    app = web.Application()
    app.router.add_route("*", "/{any:.*}", aws.handle)
    site = web.AppRunner(app, shutdown_timeout=0.1)
    await site.setup()
    await web.TCPSite(site, "127.0.0.1", 0).start()
    url = f"http://127.0.0.1:{site.addresses[0][1]}"
    environment.setenv("AWS_ENDPOINT_URL", url)
    try:
        await work(aws, url)
    finally:
        await site.cleanup()
    return aws


WAYS = [assumed_role, web_identity, container, role_of_a_container, process, sso]


@pytest.mark.parametrize("case", WAYS)
def test_a_workers_own_clients_take_and_renew_credentials(case: Case, clean: pytest.MonkeyPatch, tmp_path: Path):
    async def work(aws: Aws, url: str) -> None:
        case(clean, tmp_path, url)
        aws.lives_s = 3.0  # whole seconds are left of it, and a process that gives credentials takes one to start
        async with clients(AwsSettings(region="us-east-1", attempts=1)) as made, asyncio.timeout(BOUND_S):
            table = LeaseTable(made.leases, "leases", "ingest", STREAM)
            while len(set(aws.signed)) < 2:  # renewed
                await table.snapshot()
        assert "BASE" not in aws.signed

    asyncio.run(with_aws(clean, work))


class Noted:
    """Keeps what a worker's watch is given."""

    def __init__(self) -> None:
        self.troubles: list[TroubleError] = []

    def worked(self) -> None:
        """Nothing."""

    def trouble(self, error: TroubleError) -> None:
        self.troubles.append(error)


@pytest.mark.parametrize(
    ("case", "fault"),
    # asyncio cannot end a process that it no longer waits for.
    [each for each in product(WAYS, ["500", "garbage", "expired", "hangs"]) if each != (process, "hangs")],
)
def test_a_failed_renewal_costs_no_call_while_credentials_are_good(
    case: Case, fault: str, clean: pytest.MonkeyPatch, tmp_path: Path
):
    clean.setenv("AWS_MAX_ATTEMPTS", "1")
    clean.setattr(ContainerMetadataFetcher, "SLEEP_TIME", 0)
    clean.setattr(credentials, "WAIT_S", 0.05)
    clean.setattr(credentials, "AGAIN_S", 0.0)
    clean.setattr(credentials, "WINDOWS_S", (RENEWED_S + 100,))
    noted = Noted()

    async def work(aws: Aws, url: str) -> None:
        case(clean, tmp_path, url)
        aws.lives_s = RENEWED_S
        async with clients(AwsSettings(region="us-east-1", attempts=1)) as made:
            table = LeaseTable(made.leases, "leases", "ingest", STREAM)
            await table.snapshot()
            aws.fault = fault
            async with asyncio.timeout(BOUND_S):
                while not (noted.troubles or (fault == "hangs" and "in vain" in aws.asked)):
                    await table.snapshot()  # a call that fails would end the test here
                calls = len(aws.signed)
                await table.snapshot()
                assert len(aws.signed) == calls + 1
                good, aws.fault = aws.signed[-1], ""
                while aws.signed[-1] == good:
                    await table.snapshot()
        assert {each.kind for each in noted.troubles} <= {Trouble.CREDENTIALS}

    with watched(noted):
        asyncio.run(with_aws(clean, work))


def test_a_provider_that_fails_is_not_asked_for_every_call(clean: pytest.MonkeyPatch, tmp_path: Path):
    clean.setattr(ContainerMetadataFetcher, "SLEEP_TIME", 0)
    clean.setattr(credentials, "WINDOWS_S", (RENEWED_S + 100,))
    clean.setattr(credentials, "AGAIN_S", 3600.0)

    async def work(aws: Aws, url: str) -> None:
        container(clean, tmp_path, url)
        aws.lives_s = RENEWED_S
        async with clients(AwsSettings(region="us-east-1", attempts=1)) as made:
            table = LeaseTable(made.leases, "leases", "ingest", STREAM)
            await table.snapshot()
            aws.fault = "500"
            for _ in range(20):
                await table.snapshot()
        # One renewal, of as many requests as the provider makes.
        assert aws.asked.count("in vain") <= ContainerMetadataFetcher.RETRY_ATTEMPTS

    asyncio.run(with_aws(clean, work))


def test_a_provider_that_hangs_is_an_error_that_names_it(clean: pytest.MonkeyPatch, tmp_path: Path):
    clean.setattr(credentials, "TIMEOUT_S", 0.05)

    async def work(aws: Aws, url: str) -> None:
        container(clean, tmp_path, url)
        aws.fault = "hangs"
        async with clients(AwsSettings(region="us-east-1", attempts=1)) as made:
            with pytest.raises(TroubleError, match=r"no answer in 0\.05 s") as raised:
                await LeaseTable(made.leases, "leases", "ingest", STREAM).snapshot()
        assert raised.value.kind is Trouble.CREDENTIALS

    asyncio.run(with_aws(clean, work))


def test_making_clients_waits_for_no_provider(clean: pytest.MonkeyPatch, tmp_path: Path):
    async def work(aws: Aws, url: str) -> None:
        container(clean, tmp_path, url)
        aws.fault = "hangs"
        async with clients(AwsSettings(region="us-east-1")):
            assert aws.asked == []

    asyncio.run(with_aws(clean, work))


def test_half_a_pair_in_the_environment_is_a_matter_of_setup(clean: pytest.MonkeyPatch):
    async def work(_aws: Aws, _url: str) -> None:
        clean.setenv("AWS_ACCESS_KEY_ID", "alone")
        async with clients(AwsSettings(region="us-east-1", attempts=1)) as made:
            with pytest.raises(AwsSetupError, match="AWS_SECRET_ACCESS_KEY"):
                await LeaseTable(made.leases, "leases", "ingest", STREAM).snapshot()

    asyncio.run(with_aws(clean, work))


def test_an_instances_late_metadata_service_gives_credentials(clean: pytest.MonkeyPatch, tmp_path: Path):
    async def work(aws: Aws, url: str) -> None:
        instance(clean, tmp_path, url)
        aws.role = ""
        async with clients(AwsSettings(region="us-east-1", attempts=1)) as made:
            table = LeaseTable(made.leases, "leases", "ingest", STREAM)
            with pytest.raises(AwsSetupError, match="run with a role"):
                await table.snapshot()
            aws.role = "worker"
            await table.snapshot()
        assert aws.signed == ["KEY1"]

    asyncio.run(with_aws(clean, work))


BROKEN: dict[str, Case] = {
    "no token file": lambda environment, folder, _: (
        environment.setenv("AWS_WEB_IDENTITY_TOKEN_FILE", str(folder / "none")),
        environment.setenv("AWS_ROLE_ARN", "arn:aws:iam::111122223333:role/worker"),
    ),
    "a process that prints no JSON": lambda environment, folder, _: (
        (folder / "config").write_text("[profile worker]\ncredential_process = echo hello\n"),
        environment.setenv("AWS_PROFILE", "worker"),
    ),
    "a process that prints half of it": lambda environment, folder, _: (
        (folder / "config").write_text('[profile worker]\ncredential_process = echo {"Version":1}\n'),
        environment.setenv("AWS_PROFILE", "worker"),
    ),
    "a container endpoint that is not there": lambda environment, _folder, _url: environment.setenv(
        "AWS_CONTAINER_CREDENTIALS_FULL_URI", "http://127.0.0.1:1/none"
    ),
    "a role whose base has no keys": lambda environment, folder, _: (
        (folder / "config").write_text(
            "[profile base]\nregion = us-east-1\n"
            "[profile worker]\nrole_arn = arn:aws:iam::1:role/w\nsource_profile = base\n"
        ),
        environment.setenv("AWS_PROFILE", "worker"),
    ),
}


@pytest.mark.parametrize("case", BROKEN)
def test_whatever_a_provider_raises_may_pass(case: str, clean: pytest.MonkeyPatch, tmp_path: Path):
    async def work(_aws: Aws, url: str) -> None:
        BROKEN[case](clean, tmp_path, url)
        async with clients(AwsSettings(region="us-east-1", attempts=1)) as made:
            with pytest.raises(TroubleError) as raised:
                await LeaseTable(made.leases, "leases", "ingest", STREAM).snapshot()
        assert raised.value.kind is Trouble.CREDENTIALS
        assert not isinstance(raised.value, AwsSetupError)
        assert raised.value.remedy

    asyncio.run(with_aws(clean, work))


async def boto3_takes_them() -> bool:
    """Return whether the AWS SDK that the worker does not use gets credentials here."""

    def frozen() -> bool:
        try:
            provided = boto3.Session().get_credentials()
            return provided is not None and bool(provided.get_frozen_credentials().access_key)
        except BotoCoreError:
            return False

    return await asyncio.to_thread(frozen)


@pytest.mark.parametrize("fast_calls", [True, False])
def test_credentials_that_only_boto3_takes_fail_the_doctor(
    clean: pytest.MonkeyPatch, tmp_path: Path, *, fast_calls: bool
):
    # A worker waits for its first credentials for so long, and no longer.
    clean.setattr(credentials, "TIMEOUT_S", 0.2)

    async def work(aws: Aws, url: str) -> None:
        container(clean, tmp_path, url)
        aws.answers_after_s = 0.6
        assert await boto3_takes_them()
        (finding,) = await doctors_verdict(fast_calls=fast_calls)
        assert finding.verdict is Verdict.BROKEN
        assert "no answer in 0.2 s" in finding.detail
        assert finding.remedy == CREDENTIALS_REMEDY
        async with clients(AwsSettings(region="us-east-1", attempts=1, fast_calls=fast_calls)) as made:
            with pytest.raises(TroubleError):  # the worker says the same
                await LeaseTable(made.leases, "leases", "ingest", STREAM).snapshot()

    asyncio.run(with_aws(clean, work))


@pytest.mark.parametrize("fast_calls", [True, False])
def test_credentials_that_only_a_worker_takes_pass_the_doctor(
    clean: pytest.MonkeyPatch, tmp_path: Path, *, fast_calls: bool
):
    async def work(aws: Aws, url: str) -> None:
        # A role whose profile names no region: boto3 does not read AWS_REGION, a worker gives STS its own region.
        assumed_role(clean, tmp_path, url)
        clean.setenv("AWS_REGION", "us-east-1")
        assert not await boto3_takes_them()
        assert await doctors_verdict(fast_calls=fast_calls) == []
        assert "AssumeRole" in aws.asked
        assert "BASE" not in aws.signed

    asyncio.run(with_aws(clean, work))


@pytest.mark.parametrize("case", WAYS)
def test_the_doctor_takes_credentials_in_every_way_that_a_worker_does(
    case: Case, clean: pytest.MonkeyPatch, tmp_path: Path
):
    async def work(aws: Aws, url: str) -> None:
        case(clean, tmp_path, url)
        assert await doctors_verdict(fast_calls=True) == []
        assert aws.signed

    asyncio.run(with_aws(clean, work))


@pytest.mark.parametrize("case", BROKEN)
def test_the_doctor_reports_what_a_provider_raises_as_a_worker_does(
    case: str, clean: pytest.MonkeyPatch, tmp_path: Path
):
    async def work(_aws: Aws, url: str) -> None:
        BROKEN[case](clean, tmp_path, url)
        (finding,) = await doctors_verdict(fast_calls=True)
        assert (finding.verdict, finding.remedy) == (Verdict.BROKEN, CREDENTIALS_REMEDY)

    asyncio.run(with_aws(clean, work))


def test_the_doctor_without_any_credentials_says_so(clean: pytest.MonkeyPatch):
    async def work(_aws: Aws, _url: str) -> None:
        (finding,) = await doctors_verdict(fast_calls=True)
        assert "or run with a role" in finding.detail

    asyncio.run(with_aws(clean, work))


def test_an_endpoint_that_does_not_answer_is_a_finding_and_no_traceback(clean: pytest.MonkeyPatch):
    clean.setenv("AWS_ACCESS_KEY_ID", "key")
    clean.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    clean.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    (finding,) = asyncio.run(doctors_verdict(fast_calls=True))
    assert finding.verdict is Verdict.BROKEN
    assert "AWS_ENDPOINT_URL" in finding.remedy
