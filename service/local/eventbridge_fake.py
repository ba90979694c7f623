"""An event bus, as far as PutEvents goes: it keeps the events, and answers for each entry.

At most ten entries; an entry without source, type or detail, with a detail that is not a JSON object, or of another
account's source (`aws.`) is refused by itself, with a code; the others are taken
(https://docs.aws.amazon.com/eventbridge/latest/userguide/eb-putevents.html,
https://docs.aws.amazon.com/eventbridge/latest/APIReference/API_PutEvents.html).
"""

from __future__ import annotations

from typing import Any

import msgspec
from aiohttp import web

from service.local.fake_server import FakeServer
from service.local.loopback import CREDENTIALS

MAX_ENTRIES = 10
MAX_ENTRY_BYTES = 256 * 1024
"""As https://docs.aws.amazon.com/eventbridge/latest/userguide/eb-putevents.html said for years; it may be more now."""

TYPE = "application/x-amz-json-1.1"


_read_detail = msgspec.json.Decoder(dict[str, Any], float_hook=str).decode


class EventBridgeFake(FakeServer):
    """The bus.

    Attributes:
        buses: Names of those that exist.
        events: Source, type and detail of each event taken, in order.
        refused: Code by user, for entries that are refused.
    """

    def __init__(self, *, latency_s: float = 0.0) -> None:
        super().__init__(latency_s=latency_s)
        self.buses = {"default"}
        self.events: list[tuple[str, str, dict[str, Any]]] = []
        self.refused: dict[str, str] = {}
        self.batches: list[int] = []

    def environment(self) -> dict[str, str]:
        """Return the variables that point an AWS SDK at it."""
        return {**CREDENTIALS, "AWS_ENDPOINT_URL_EVENTBRIDGE": self.url}

    def score_of(self, user: str) -> str | None:
        """Return the score of a user that a receiver has which compares revisions; None: none."""
        mine = [detail for _, _, detail in self.events if detail["user"] == user]
        newest = max(mine, key=lambda detail: int(detail["revision"]), default=None)
        return None if newest is None else str(newest["score"])

    def answer(self, request: web.Request, body: bytes) -> web.Response:
        """See `FakeServer`."""
        if request.headers.get("X-Amz-Target") != "AWSEvents.PutEvents":
            return _error("UnknownOperationException", "no such operation")
        entries = msgspec.json.decode(body).get("Entries")
        if not isinstance(entries, list) or not 1 <= len(entries) <= MAX_ENTRIES:
            return _error("ValidationException", "Entries has to have 1 to 10 members")
        self.batches.append(len(entries))
        answers = [self._take(entry, number) for number, entry in enumerate(entries)]
        failed = sum("ErrorCode" in each for each in answers)
        return web.json_response({"FailedEntryCount": failed, "Entries": answers}, content_type=TYPE)

    def _take(self, entry: dict[str, Any], number: int) -> dict[str, str]:
        missing = [name for name in ("Source", "DetailType", "Detail") if not entry.get(name)]
        if missing:
            return {"ErrorCode": "InvalidArgument", "ErrorMessage": f"{missing[0]} is required"}
        if entry["Source"].startswith("aws."):
            return {"ErrorCode": "NotAuthorizedForSourceException", "ErrorMessage": "not your source"}
        size = sum(len(entry[name].encode()) for name in ("Source", "DetailType", "Detail"))
        if size > MAX_ENTRY_BYTES:
            return {"ErrorCode": "InvalidArgument", "ErrorMessage": "the entry is too large"}
        try:
            detail = _read_detail(entry["Detail"])
        except msgspec.DecodeError:
            return {"ErrorCode": "MalformedDetail", "ErrorMessage": "Detail is not a JSON object"}
        if entry.get("EventBusName", "default") not in self.buses:
            return {"ErrorCode": "ResourceNotFoundException", "ErrorMessage": "there is no such event bus"}
        if code := self.refused.get(detail.get("user", "")):
            return {"ErrorCode": code, "ErrorMessage": "refused"}
        self.events.append((entry["Source"], entry["DetailType"], detail))
        return {"EventId": f"event-{len(self.events)}-{number}"}


def _error(code: str, text: str) -> web.Response:
    return web.json_response({"__type": code, "message": text}, status=400, content_type=TYPE)
