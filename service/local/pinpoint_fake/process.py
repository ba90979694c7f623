"""The fake in a child process that has an owner."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from service.local.loopback import CREDENTIALS, LoopbackServer

ANSWER_TIMEOUT_S = 30.0


class PinpointProcess(LoopbackServer):
    """`with PinpointProcess(apps=["..."]) as pinpoint: ... pinpoint.environment() ...`."""

    def __init__(
        self, *, port: int = 0, quotas: str = "none", apps: Sequence[str] = (), log_path: Path | None = None
    ) -> None:
        """Describe it; nothing starts yet.

        Args:
            port: TCP port on 127.0.0.1; 0 takes any free one.
            quotas: As `quotas.parse_quotas` reads it.
            apps: Ids of applications that exist from the start.
            log_path: Where the child's log is appended; when None its last lines are kept in memory only.
        """
        super().__init__(
            "the Pinpoint fake", "service.local.pinpoint_fake", health_path="/_fake/healthz", log_path=log_path
        )
        self._port = port
        self._quotas = quotas
        self._apps = tuple(apps)

    def arguments(self) -> Sequence[str]:
        """Arguments of the child."""
        apps = [argument for app in self._apps for argument in ("--app", app)]
        return ("--exit-with-owner", "--port", str(self._port), "--quotas", self._quotas, *apps)

    def environment(self) -> dict[str, str]:
        """The AWS_* variables with which any AWS SDK talks to it."""
        return CREDENTIALS | {"AWS_ENDPOINT_URL_PINPOINT": self.endpoint_url}

    def endpoints(self) -> Iterator[dict[str, Any]]:
        """Every endpoint (Pinpoint's EndpointResponse) with its user's attributes, of all applications."""
        with self._open("endpoints") as lines:
            for line in lines:
                yield json.loads(line)

    def stats(self) -> dict[str, Any]:
        """Requests by caller and operation, throttled requests, dropped batch items: see `server`."""
        with self._open("stats") as answer:
            document: dict[str, Any] = json.load(answer)
        return document

    def fail(self, operation: str, **how: float | bool | None) -> None:
        """Let the next requests of `operation` fail; `how` are the fields of `faults.Fault`. Raises HTTPError (400)."""
        self._open("fail", json.dumps({"operation": operation, **how}).encode()).close()

    def _open(self, page: str, body: bytes | None = None) -> Any:  # noqa: ANN401 - urllib's answer has no type
        return urllib.request.urlopen(f"{self.endpoint_url}/_fake/{page}", body, timeout=ANSWER_TIMEOUT_S)  # noqa: S310
