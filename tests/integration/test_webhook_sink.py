from __future__ import annotations

import asyncio
import logging
import random
import socket
import ssl
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from decimal import Decimal
from pathlib import Path

import pytest
import trustme
from aiohttp.abc import AbstractResolver, ResolveResult
from msgspec.structs import replace

from service.ingest.stores import NoDestination, Published
from service.local.fake_server import Trick
from service.local.webhook_fake.credentials import SIGNING_SECRET, TOKEN
from service.local.webhook_fake.server import WebhookFake
from service.observability.metrics import Metrics
from service.runtime.clock import SystemClock
from service.runtime.errors import SetupError, TransientError, Trouble, TroubleError
from service.runtime.fields import Secret
from service.scoring.change import ScoreChange
from service.scoring.event import Rejected
from service.scoring.fold import UserKey
from service.sinks.port import Parts
from service.sinks.webhook.client import WebhookClient
from service.sinks.webhook.registration import WebhookSettings
from service.sinks.webhook.sink import WebhookSink, open_sink


def change(user: str, score: str = "1", revision: int = 1) -> ScoreChange:
    return ScoreChange(UserKey(user, "shop"), Decimal(score), revision, 0)


def settings(form: str, url: str, **options: object) -> WebhookSettings:
    made = WebhookSettings(
        webhook_url=Secret(url),
        webhook_format=form,
        webhook_secret=Secret(SIGNING_SECRET),
        webhook_token=Secret(TOKEN),
        webhook_per_s=10_000,
        webhook_timeout_s=5,
    )
    return replace(made, **options)


async def nothing(*_: object, **__: object) -> object:
    raise AssertionError


class NoDirectory:
    """This sink remembers nothing."""


@asynccontextmanager
async def opened(made: WebhookSettings) -> AsyncIterator[WebhookSink]:
    async with AsyncExitStack() as stack:
        parts = Parts(
            nothing, NoDirectory(), SystemClock(), Metrics(), random.Random(1), stack.push_async_callback, 15.0
        )
        yield open_sink(made, parts)


@asynccontextmanager
async def receiver(form: str, **options: object) -> AsyncIterator[tuple[WebhookFake, WebhookSink]]:
    async with WebhookFake(form) as fake, opened(settings(form, fake.url, **options)) as sink:
        yield fake, sink


async def failure(sink: WebhookSink, changes: Sequence[ScoreChange]) -> TransientError:
    with pytest.raises(TransientError) as caught:
        await sink.publish(changes)
    return caught.value


def test_a_message_is_verified_and_keeps_its_id_when_repeated():
    async def main() -> None:
        async with receiver("standard") as (fake, sink):
            for _ in range(2):
                assert await sink.publish([change("ann", "12.5"), change("bob")]) == [Published()] * 2
            assert fake.scores == {"ann": "12.5", "bob": "1"}
            assert fake.requests == [2, 2]
            assert len(set(fake.ids)) == 1
            await sink.publish([change("ann", "13", 2)])
            assert len(set(fake.ids)) == 2
        async with WebhookFake("standard") as fake:
            other = f"whsec_{'B' * 32}"
            async with opened(settings("standard", fake.url, webhook_secret=Secret(other))) as sink:
                error = await failure(sink, [change("ann")])
                assert isinstance(error, TroubleError)
                assert "SCORING_WEBHOOK_SECRET" in error.remedy

    asyncio.run(main())


def test_an_older_message_that_lands_late_is_ignored_by_the_receiver():
    async def main() -> None:
        async with receiver("standard") as (fake, sink):
            await sink.publish([change("ann", "8", 8)])
            await sink.publish([change("ann", "7", 7)])
            assert fake.scores == {"ann": "8"}

    asyncio.run(main())


@pytest.mark.parametrize("form", ["braze", "hubspot"])
def test_one_refused_person_does_not_cost_the_others_their_score(form: str):
    async def main() -> None:
        async with receiver(form) as (fake, sink):
            users = [f"user-{n}@example.com" for n in range(20)]
            fake.refused = {users[7]}
            outcomes = await sink.publish([change(user) for user in users])
            assert isinstance(outcomes[7], Rejected)
            assert outcomes.count(Published()) == 19
            assert fake.requests == [20]
            assert len(fake.scores) == 19

    asyncio.run(main())


def test_a_failure_that_names_nobody_is_halved_down_to_one():
    async def main() -> None:
        async with receiver("hubspot") as (fake, sink):
            nameless = b'{"errors": [{"category": "VALIDATION_ERROR"}]}'
            fake.tricks.extend([Trick(207, body=nameless), Trick(207, body=nameless), Trick(207, body=nameless)])
            users = ["a@x.io", "b@x.io", "c@x.io", "d@x.io"]
            outcomes = await sink.publish([change(user) for user in users])
            assert isinstance(outcomes[0], Rejected)
            assert outcomes[1:] == [Published()] * 3
            assert set(fake.scores) == set(users[1:])

    asyncio.run(main())


def test_a_batch_that_is_refused_as_a_whole_is_halved():
    async def main() -> None:
        async with receiver("segment") as (fake, sink):
            fake.tricks.extend([Trick(400), Trick(400), Trick(413)])
            outcomes = await sink.publish([change(f"u{n}") for n in range(4)])
            assert [type(each) for each in outcomes] == [Rejected, Published, Published, Published]

    asyncio.run(main())


def test_requests_stay_below_the_bytes_of_their_format():
    async def main() -> None:
        async with receiver("segment") as (fake, sink):
            users = [f"{n:02d}-{'x' * 20_000}" for n in range(60)]
            outcomes = await sink.publish([change(user) for user in [*users, "y" * 40_000]])
            assert outcomes[:-1] == [Published()] * 60
            assert isinstance(outcomes[-1], Rejected)
            assert len(fake.requests) > 2
            assert set(fake.scores) == set(users)

    asyncio.run(main())


def test_a_receiver_that_asks_to_wait_gets_no_request_before():
    async def main() -> None:
        async with receiver("braze") as (fake, sink):
            fake.tricks.append(Trick(429, {"Retry-After": "60"}))
            error = await failure(sink, [change("ann")])
            assert error.throttled
            assert error.undone
            error = await failure(sink, [change("ann")])
            assert "asked to wait" in str(error)
            assert len(fake.ids) == 1

    asyncio.run(main())


def test_an_unavailable_receiver_is_tried_again():
    async def main() -> None:
        async with receiver("standard") as (fake, sink):
            fake.tricks.append(Trick(503))
            error = await failure(sink, [change("ann")])
            assert not error.undone, "it may have been carried out"
            assert await sink.publish([change("ann")]) == [Published()]

    asyncio.run(main())


def test_a_receiver_that_is_gone_gets_nothing_more(caplog: pytest.LogCaptureFixture):
    async def main() -> None:
        async with receiver("standard") as (fake, sink):
            fake.tricks.append(Trick(410))
            for _ in range(3):
                assert await sink.publish([change("ann"), change("bob")]) == [NoDestination()] * 2
            assert len(fake.ids) == 1

    with caplog.at_level(logging.DEBUG):
        asyncio.run(main())


def test_a_slow_answer_is_given_up_and_leaves_the_score_uncertain():
    async def main() -> None:
        async with receiver("standard", webhook_timeout_s=0.2) as (fake, sink):
            fake.tricks.append(Trick(204, delay_s=30, carried_out=True))
            error = await failure(sink, [change("ann")])
            assert "no answer within 0.2 s" in str(error)
            assert not error.undone

    asyncio.run(main())


def test_a_connection_cut_before_the_answer_leaves_the_score_uncertain():
    async def main() -> None:
        async with receiver("standard") as (fake, sink):
            fake.tricks.append(Trick(0, carried_out=True))
            assert not (await failure(sink, [change("ann")])).undone

    asyncio.run(main())


def test_a_receiver_that_cannot_be_reached_changed_nothing():
    async def main() -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            url = f"http://127.0.0.1:{free.getsockname()[1]}/"
        async with opened(settings("standard", url)) as sink:
            assert (await failure(sink, [change("ann")])).undone

    asyncio.run(main())


def test_a_redirect_is_not_followed_and_the_secret_goes_nowhere():
    async def main() -> None:
        async with WebhookFake("braze") as thief, receiver("braze") as (fake, sink):
            fake.tricks.append(Trick(307, {"Location": thief.url}))
            error = await failure(sink, [change("ann")])
            assert isinstance(error, TroubleError)
            assert "redirects are not followed" in error.remedy
            assert thief.ids == []

    asyncio.run(main())


@pytest.mark.parametrize("status", [401, 403, 404, 405])
def test_what_a_setting_must_repair_is_tried_again_and_lost_nowhere(status: int):
    async def main() -> None:
        async with receiver("braze") as (fake, sink):
            fake.tricks.append(Trick(status))
            error = await failure(sink, [change("ann")])
            assert isinstance(error, TroubleError)
            assert "SCORING_WEBHOOK_" in error.remedy
            assert await sink.publish([change("ann")]) == [Published()]

    asyncio.run(main())


def server_context(authority: trustme.CA, name: str) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert(name).configure_cert(context)
    return context


@pytest.mark.parametrize(("name", "trusted"), [("127.0.0.1", True), ("127.0.0.1", False), ("example.com", True)])
def test_a_certificate_must_be_trusted_and_the_receivers_own(name: str, trusted: bool, tmp_path: Path):  # noqa: FBT001 - a parameter
    authority = trustme.CA()
    bundle = tmp_path / "ca.pem"
    (authority if trusted else trustme.CA()).cert_pem.write_to_path(str(bundle))

    async def main() -> None:
        async with WebhookFake("standard", certificate=server_context(authority, name)) as fake:
            made = settings("standard", fake.url, webhook_ca_file=str(bundle))
            async with opened(made) as sink:
                if trusted and name == "127.0.0.1":
                    assert await sink.publish([change("ann")]) == [Published()]
                    return
                error = await failure(sink, [change("ann")])
                assert isinstance(error, TroubleError)
                assert error.kind is Trouble.CERTIFICATE
                assert error.undone
                assert "SCORING_WEBHOOK_CA_FILE" in error.remedy
                assert fake.ids == []

    asyncio.run(main())


def test_a_file_of_authorities_that_cannot_be_read_ends_the_start(tmp_path: Path):
    async def main() -> None:
        bad = tmp_path / "ca.pem"
        bad.write_text("no certificate")
        for path in (bad, tmp_path / "none.pem"):
            with pytest.raises(SetupError, match="SCORING_WEBHOOK_CA_FILE"):
                async with opened(settings("standard", "https://example.com/", webhook_ca_file=str(path))):
                    pass
        with pytest.raises(SetupError, match="SCORING_WEBHOOK_FORMAT"):
            async with opened(settings(str(tmp_path / "none.yaml"), "https://example.com/")):
                pass

    asyncio.run(main())


class Names(AbstractResolver):
    """Says that every name is at one address."""

    def __init__(self, address: str) -> None:
        self.address = address

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        kind = socket.AF_INET6 if ":" in self.address else family
        return [ResolveResult(hostname=host, host=self.address, port=port, family=kind, proto=0, flags=0)]

    async def close(self) -> None:
        """Nothing to release."""


@pytest.mark.parametrize("address", ["169.254.169.254", "127.0.0.1", "::1", "fd00:ec2::254", "::ffff:169.254.169.254"])
def test_a_name_that_leads_to_a_refused_address_gets_no_request(address: str):
    async def main() -> None:
        client = WebhookClient(Secret("https://hook.example.com/"), timeout_s=2, resolver=Names(address))
        try:
            with pytest.raises(TroubleError) as caught:
                await client.post(b"{}", {})
            assert caught.value.undone
            assert caught.value.kind is Trouble.REFUSED
        finally:
            await client.close()

    asyncio.run(main())


@pytest.mark.parametrize("host", ["2852039166", "0xA9FEA9FE", "169.254.43518"])
def test_an_address_in_disguise_gets_no_request(host: str):
    async def main() -> None:
        client = WebhookClient(Secret(f"https://{host}/"), timeout_s=2)
        try:
            with pytest.raises(TransientError) as caught:
                await client.post(b"{}", {})
            assert caught.value.undone
        finally:
            await client.close()

    asyncio.run(main())


def test_no_secret_is_in_an_error_or_a_log_line(capfd: pytest.CaptureFixture[str]):
    """The path of a URL may be a secret too."""
    told: list[str] = []

    async def main() -> None:
        async with receiver("braze", webhook_url=Secret("unset")) as (fake, _):
            url = Secret(f"{fake.url}/hunter2?key=hunter2")
            async with opened(settings("braze", url.reveal(), webhook_token=Secret("hunter2"))) as sink:
                fake.tricks.extend([Trick(500), Trick(404), Trick(302), Trick(0), Trick(429), Trick(410)])
                told.extend([repr(await failure(sink, [change("ann")])) for _ in range(5)])
                await sink.publish([change("ann")])
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            url = Secret(f"http://127.0.0.1:{free.getsockname()[1]}/hunter2")
        async with opened(settings("braze", url.reveal())) as sink:
            told.append(repr(await failure(sink, [change("ann")])))

    asyncio.run(main())
    out, err = capfd.readouterr()
    assert "hunter2" not in f"{told} {out} {err}"
    assert TOKEN not in f"{told} {out} {err}"
