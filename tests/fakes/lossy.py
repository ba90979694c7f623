"""An AWS endpoint whose answers can get lost: a small HTTP proxy on loopback, in a thread of its own."""

from __future__ import annotations

import http.client
import threading
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Self
from urllib.parse import urlsplit


class LossyProxy:
    """Hands requests on to `target`.

    Attributes:
        lose: By operation, such as `PutRecords`: so many next answers are dropped after the request was carried out.
        asked: Requests by operation.
    """

    def __init__(self, target: str) -> None:
        self.lose: Counter[str] = Counter()
        self.asked: Counter[str] = Counter()
        address = urlsplit(target)
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                operation = self.headers.get("X-Amz-Target", "").rpartition(".")[2]
                proxy.asked[operation] += 1
                body = self.rfile.read(int(self.headers["Content-Length"]))
                onward = http.client.HTTPConnection(str(address.hostname), address.port, timeout=10)
                onward.request("POST", self.path, body, dict(self.headers))
                answer = onward.getresponse()
                data = answer.read()
                onward.close()
                if proxy.lose[operation] > 0:
                    proxy.lose[operation] -= 1
                    self.close_connection = True
                    return
                self.send_response(answer.status)
                for name, value in answer.getheaders():
                    if name.lower() not in {"content-length", "connection", "transfer-encoding", "date", "server"}:
                        self.send_header(name, value)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *_: object) -> None:
                """Keep quiet."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
