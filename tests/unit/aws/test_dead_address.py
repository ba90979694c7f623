"""A name with several addresses, the first of which does not answer: the next one is tried beside it, at once."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import time

import pytest

from service.aws.fast.wire import Address, Wire


async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.readuntil(b"\r\n\r\n")
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
    await writer.drain()
    writer.close()


def test_a_dead_first_address_costs_a_moment_and_not_the_call(monkeypatch: pytest.MonkeyPatch):
    async def main() -> float:
        server = await asyncio.start_server(answer, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        loop = asyncio.get_running_loop()
        with contextlib.ExitStack() as stack:
            dead = stack.enter_context(socket.socket())
            dead.bind(("127.0.0.2", port))
            dead.listen(0)
            for _ in range(3):  # its queue is full: further connections get no answer at all
                waiting = stack.enter_context(socket.socket())
                waiting.settimeout(0)
                waiting.connect_ex(("127.0.0.2", port))

            async def both(*_: object, **__: object) -> list[tuple[object, ...]]:
                kind = (socket.AF_INET, socket.SOCK_STREAM, 6, "")
                return [(*kind, ("127.0.0.2", port)), (*kind, ("127.0.0.1", port))]

            monkeypatch.setattr(loop, "getaddrinfo", both)
            wire = Wire(limit=1, connect_timeout_s=60.0, answer_timeout_s=60.0, tls=ssl.create_default_context)
            started = time.monotonic()
            got = await wire.exchange(Address("two.example", port, tls=False), b"GET / HTTP/1.1\r\n\r\n", "lane")
            assert bytes(got.body) == b"ok"
            took = time.monotonic() - started
            await wire.close()
            server.close()
            return took

    assert asyncio.run(main()) < 30.0, "half the time that the dead address would have taken"
