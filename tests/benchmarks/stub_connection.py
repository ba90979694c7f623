"""HTTP as the benchmark's AWS speaks it: each answer after a constant latency."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import cast

LATENCY_S = 0.002

Answer = tuple[int, bytes]
"""Status and body."""


class Connection(asyncio.Protocol):
    """HTTP/1.1 with `Content-Length`, one request at a time on a connection."""

    def __init__(self, answer: Callable[[str, str, str, bytes], Answer]) -> None:
        self._answer = answer
        self._buffer = bytearray()
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's transports are no subclasses of it

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        while True:
            end = self._buffer.find(b"\r\n\r\n")
            if end < 0:
                return
            head = bytes(self._buffer[:end]).decode("latin-1").split("\r\n")
            fields = {}
            for line in head[1:]:
                name, _, value = line.partition(":")
                fields[name.strip().lower()] = value.strip()
            length = int(fields.get("content-length", 0))
            if len(self._buffer) < end + 4 + length:
                if fields.get("expect"):
                    self._write(b"HTTP/1.1 100 Continue\r\n\r\n")
                    del self._buffer[: end + 4]
                    self._buffer[:0] = ("\r\n".join(x for x in head if not x.lower().startswith("expect"))).encode()
                    self._buffer[len(self._buffer) :] = b"\r\n\r\n"
                return
            body = bytes(self._buffer[end + 4 : end + 4 + length])
            del self._buffer[: end + 4 + length]
            method, path, _ = head[0].split(" ")
            path = path.partition("?")[0]
            status, answer = self._answer(method, path, fields.get("x-amz-target", ""), body)
            kind = b"application/json" if path.startswith("/v1/") else b"application/x-amz-json-1.0"
            response = b"HTTP/1.1 %d OK\r\nContent-Type: %b\r\nContent-Length: %d\r\nx-amzn-RequestId: 1\r\n\r\n%b" % (
                status,
                kind,
                len(answer),
                answer,
            )
            if path.startswith("/_bench/"):
                self._write(response)
            else:
                asyncio.get_running_loop().call_later(LATENCY_S, self._write, response)

    def _write(self, data: bytes) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(data)
