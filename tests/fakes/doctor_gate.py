"""A proxy in front of the embedded AWS that denies single calls, and answers for Pinpoint."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class DoctorGate(ThreadingHTTPServer):
    """Passes requests on to the embedded AWS, but for the operations in `denied`: those are not allowed."""

    def __init__(self, upstream: str) -> None:
        self.upstream = upstream
        self.pinpoint = ""
        self.denied: set[str] = set()
        super().__init__(("127.0.0.1", 0), _Pass)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class _Pass(BaseHTTPRequestHandler):
    server: DoctorGate

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        operation = self.headers.get("X-Amz-Target", "").rpartition(".")[2]
        if operation in self.server.denied:
            refusal = {"__type": "AccessDeniedException", "message": f"not authorized to perform {operation}"}
            self._answer(400, {"Content-Type": "application/x-amz-json-1.0"}, json.dumps(refusal).encode())
            return
        self._pass(self.server.upstream, body)

    def do_PUT(self) -> None:
        self._pass(self.server.pinpoint + self.path, self.rfile.read(int(self.headers["Content-Length"])))

    def do_GET(self) -> None:
        self._pass(self.server.pinpoint + self.path, None)

    def _pass(self, url: str, body: bytes | None) -> None:
        headers = {name: value for name, value in self.headers.items() if name.lower() != "host"}
        request = urllib.request.Request(url, body, headers, method=self.command)  # noqa: S310 # loopback
        try:
            with urllib.request.urlopen(request) as answer:  # noqa: S310 # loopback
                self._answer(answer.status, dict(answer.headers), answer.read())
        except urllib.error.HTTPError as error:
            with error:
                self._answer(error.code, dict(error.headers), error.read())

    def _answer(self, status: int, headers: Mapping[str, str], body: bytes) -> None:
        self.send_response(status)
        for name, value in headers.items():
            if name.lower() not in {"content-length", "connection", "transfer-encoding", "date", "server"}:
                self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Say nothing."""
