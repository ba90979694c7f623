"""A Kinesis that answers PutRecords only when it is let: for tests of what a command does while a call is in flight."""

from __future__ import annotations

import json
import queue
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Self

WAIT_S = 30.0


class GatedKinesis:
    """A context manager; serves on 127.0.0.1 on a free port until its end.

    Attributes:
        calls: The number of records of each call, as it comes.
        gate: A permit lets one call be answered.
    """

    def __init__(self) -> None:
        self.calls: queue.Queue[int] = queue.Queue()
        self.gate = threading.Semaphore(0)
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:  # the library's name
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                records = body["Records"]
                outer.calls.put(len(records))
                outer.gate.acquire(timeout=WAIT_S)
                results = [{"ShardId": "shardId-000000000000", "SequenceNumber": "1"} for _ in records]
                answer = json.dumps({"FailedRecordCount": 0, "Records": results}).encode()
                self.send_response(200)
                self.send_header("Content-Type", "application/x-amz-json-1.1")
                self.send_header("Content-Length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002 # the library's name
                """Say nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.gate.release(1_000)
        self._server.shutdown()
        self._server.server_close()
