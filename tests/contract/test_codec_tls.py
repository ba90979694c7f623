"""The short way over TLS: AWS itself is never spoken to without it, and the emulators never with it."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trustme
from aiohttp import web

from service.aws.clients import AwsSettings, clients
from service.aws.translation import translated
from service.runtime.errors import TransientError, TroubleError

ANSWER = b'{"Responses":{"scores":[]},"UnprocessedKeys":{}}'
KEYS = {"scores": {"Keys": [{"UserId": {"S": "ann"}}]}}
SETTINGS = AwsSettings(region="us-east-1", attempts=1)


class Server:
    """Answers every call alike, over TLS; remembers which connections it was called on."""

    def __init__(self) -> None:
        self.peers: list[object] = []
        self.port = 0

    async def answer(self, request: web.Request) -> web.Response:
        await request.read()
        assert request.transport is not None
        self.peers.append(request.transport.get_extra_info("peername"))
        return web.Response(body=ANSWER, content_type="application/x-amz-json-1.0")

    @asynccontextmanager
    async def running(self, certificate: trustme.LeafCert) -> AsyncIterator[None]:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        certificate.configure_cert(context)
        app = web.Application()
        app.router.add_post("/", self.answer)
        runner = web.AppRunner(app)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context)
        await site.start()
        self.port = runner.addresses[0][1]
        try:
            yield
        finally:
            await runner.cleanup()


@pytest.fixture
def trusted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> trustme.CA:
    authority = trustme.CA()
    bundle = tmp_path / "authority.pem"
    authority.cert_pem.write_to_path(str(bundle))
    monkeypatch.setenv("AWS_CA_BUNDLE", str(bundle))
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    return authority


async def read(server: Server, monkeypatch: pytest.MonkeyPatch, calls: int) -> list[object]:
    monkeypatch.setenv("AWS_ENDPOINT_URL_DYNAMODB", f"https://localhost:{server.port}")
    async with clients(SETTINGS) as aws:
        answers = []
        for _ in range(calls):
            with translated("table scores"):
                answer = await aws.dynamodb.batch_get_item(RequestItems=KEYS)
            answers.append({name: answer[name] for name in ("Responses", "UnprocessedKeys")})
        return answers


def test_later_calls_go_over_a_kept_tls_connection_of_their_own(trusted: trustme.CA, monkeypatch: pytest.MonkeyPatch):
    server = Server()

    async def main() -> list[object]:
        async with server.running(trusted.issue_cert("localhost")):
            return await read(server, monkeypatch, 4)

    assert asyncio.run(main()) == [{"Responses": {"scores": []}, "UnprocessedKeys": {}}] * 4
    first, second, *rest = server.peers
    assert second != first  # the first call is aiobotocore's, and so is its connection
    assert rest == [second, second]


@pytest.mark.parametrize("fault", ["another authority", "another name"])
def test_a_certificate_that_is_not_to_be_trusted_is_not(
    trusted: trustme.CA, monkeypatch: pytest.MonkeyPatch, fault: str
):
    server = Server()
    certificate = trustme.CA().issue_cert("localhost") if fault == "another authority" else trusted.issue_cert("other")

    async def main() -> None:
        async with server.running(certificate):
            await read(server, monkeypatch, 1)

    with pytest.raises(TroubleError, match="CERTIFICATE_VERIFY_FAILED"):
        asyncio.run(main())
    assert server.peers == []


def test_the_short_way_itself_checks_the_certificate(trusted: trustme.CA, monkeypatch: pytest.MonkeyPatch):
    """The first call goes well; then the server comes back on the same port with a certificate of somebody else."""
    server = Server()

    async def main() -> None:
        async with server.running(trusted.issue_cert("localhost")):
            monkeypatch.setenv("AWS_ENDPOINT_URL_DYNAMODB", f"https://localhost:{server.port}")
            stack = clients(SETTINGS)
            aws = await stack.__aenter__()
            for _ in range(2):
                await aws.dynamodb.batch_get_item(RequestItems=KEYS)
        try:
            port = server.port
            context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
            trustme.CA().issue_cert("localhost").configure_cert(context)
            impostor = await asyncio.start_server(lambda *_: None, "127.0.0.1", port, ssl=context, reuse_address=True)
            async with impostor:
                with pytest.raises(TransientError), translated("table scores"):
                    await aws.dynamodb.batch_get_item(RequestItems=KEYS)
        finally:
            await stack.__aexit__(None, None, None)

    asyncio.run(main())
    assert len(server.peers) == 2
