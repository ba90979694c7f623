"""A receiver of webhooks on 127.0.0.1 that answers as the services' documentation says; for tests and trials.

- `standard` checks the signature, by the `standardwebhooks` library: 401 to a wrong one. It keeps the highest revision:
  204.
- `segment` answers 400 to a request of more than 500 KB, a call of more than 32 KB, or what is not JSON; else 200,
  whatever the write key.
- `braze` answers 401 to a wrong API key, 400 to more than 75 objects, and 201 with the failed objects in `errors`, by
  index. A user that it does not know is ignored without a word (`_update_existing_only`).
- `hubspot` answers 401 to a wrong token, 400 to more than 100 contacts or the same one twice, and 200, or 207 with the
  failed ones by their `objectWriteTraceId`. Without such an id, a single bad contact fails the batch with 400.

The documentation's addresses are in `service/sinks/webhook/formats/`. Not documented, so a choice here: the texts.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable
from typing import Any

import msgspec
from aiohttp import web
from standardwebhooks.webhooks import Webhook, WebhookVerificationError

from service.local.fake_server import FakeServer
from service.local.webhook_fake.credentials import SIGNING_SECRET, TOKEN

SEGMENT_BYTES, SEGMENT_CALL_BYTES = 500_000, 32_000
BRAZE_OBJECTS, HUBSPOT_CONTACTS = 75, 100


class WebhookFake(FakeServer):
    """The receiver; an asynchronous context manager.

    Args:
        form: Which service it is.
        known: The users that it knows, where that matters; None: all.
        certificate: For https; None: http.
        latency_s: Seconds that each answer takes.

    Attributes:
        scores: By user, what it holds, as a text.
        revisions: By user, where a request says it.
        requests: Number of people in each request.
        refused: Users of whom it takes no score.
    """

    def __init__(
        self,
        form: str,
        *,
        known: set[str] | None = None,
        certificate: ssl.SSLContext | None = None,
        latency_s: float = 0.0,
    ) -> None:
        super().__init__(certificate, latency_s=latency_s)
        self._form = form
        self._known = known
        self.scores: dict[str, str] = {}
        self.revisions: dict[str, int] = {}
        self.requests: list[int] = []
        self.refused: set[str] = set()
        self._take: Callable[[web.Request, bytes], web.Response] = {
            "standard": self._standard,
            "segment": self._segment,
            "braze": self._braze,
            "hubspot": self._hubspot,
        }[form]

    @property
    def ids(self) -> list[str]:
        """The `webhook-id` of each request."""
        return [headers.get("webhook-id", "") for headers in self.received]

    def environment(self) -> dict[str, str]:
        """Return the variables that point the service at it."""
        return {
            "SCORING_WEBHOOK_URL": f"{self.url}/hook",
            "SCORING_WEBHOOK_FORMAT": self._form,
            "SCORING_WEBHOOK_SECRET": SIGNING_SECRET,
            "SCORING_WEBHOOK_TOKEN": TOKEN,
        }

    def answer(self, request: web.Request, body: bytes) -> web.Response:
        """See `FakeServer`."""
        return self._take(request, body)

    def _keep(self, user: str, score: object, revision: int = 0) -> None:
        if revision >= self.revisions.get(user, 0):
            self.scores[user] = str(score)
            self.revisions[user] = revision

    def _standard(self, request: web.Request, body: bytes) -> web.Response:
        try:
            message = Webhook(SIGNING_SECRET).verify(body, dict(request.headers))
        except WebhookVerificationError as error:
            return web.json_response({"error": str(error)}, status=401)
        scores = message["data"]["scores"]
        self.requests.append(len(scores))
        for each in scores:
            self._keep(each["user"], each["score"], each["revision"])
        return web.Response(status=204)

    def _segment(self, _: web.Request, body: bytes) -> web.Response:
        calls = _listed(body, "batch")
        if calls is None or len(body) > SEGMENT_BYTES:
            return web.Response(status=400, text="malformed JSON" if calls is None else "payload too large")
        if any(len(msgspec.json.encode(call)) > SEGMENT_CALL_BYTES for call in calls):
            return web.Response(status=400, text="call too large")
        self.requests.append(len(calls))
        for call in calls:
            if call.get("userId") and call["type"] == "identify":
                self._keep(call["userId"], next(iter(call["traits"].values())))
        return web.json_response({"success": True})

    def _braze(self, request: web.Request, body: bytes) -> web.Response:
        if request.headers.get("Authorization") != f"Bearer {TOKEN}":
            return web.json_response({"message": "Invalid API key"}, status=401)
        objects = _listed(body, "attributes")
        if objects is None or len(objects) > BRAZE_OBJECTS:
            return web.json_response({"message": "The request is malformed or has too many objects"}, status=400)
        self.requests.append(len(objects))
        errors = []
        for index, each in enumerate(objects):
            user = each.get("external_id")
            if not user or user in self.refused:
                text = "'external_id' is required"
                errors.append({"type": text, "input_array": "attributes", "index": index})
            elif self._known is None or user in self._known:
                names = each.keys() - {"external_id", "_update_existing_only"}
                self._keep(user, each[next(iter(names))])
        done: dict[str, Any] = {"message": "success", "attributes_processed": len(objects) - len(errors)}
        return web.json_response(done | ({"errors": errors} if errors else {}), status=201)

    def _hubspot(self, request: web.Request, body: bytes) -> web.Response:
        if request.headers.get("Authorization") != f"Bearer {TOKEN}":
            return web.json_response({"status": "error", "category": "INVALID_AUTHENTICATION"}, status=401)
        inputs = _listed(body, "inputs")
        ids = [each.get("id") for each in inputs or ()]
        if inputs is None or len(inputs) > HUBSPOT_CONTACTS or len(set(ids)) < len(ids):
            return web.json_response({"status": "error", "category": "VALIDATION_ERROR"}, status=400)
        bad = [each for each in inputs if "@" not in each["id"] or each["id"] in self.refused]
        if any("objectWriteTraceId" not in each for each in bad):
            return web.json_response({"status": "error", "category": "VALIDATION_ERROR"}, status=400)
        self.requests.append(len(inputs))
        for each in inputs:
            if each not in bad:
                self._keep(each["id"], next(iter(each["properties"].values())))
        errors = [
            {
                "status": "error",
                "category": "VALIDATION_ERROR",
                "message": "Property values were not valid",
                "context": {"objectWriteTraceId": [each["objectWriteTraceId"]]},
            }
            for each in bad
        ]
        answer: dict[str, Any] = {"status": "COMPLETE", "results": [{} for each in inputs if each not in bad]}
        if errors:
            return web.json_response(answer | {"numErrors": len(errors), "errors": errors}, status=207)
        return web.json_response(answer)


def _listed(body: bytes, name: str) -> list[dict[str, Any]] | None:
    try:
        found = msgspec.json.decode(body)[name]
    except (msgspec.DecodeError, KeyError, TypeError):
        return None
    return found if isinstance(found, list) else None
