"""Scores to a service of one's own, or to one that takes a batch of people: an HTTPS POST, signed where that is asked.

Facts: https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md (headers, signature,
an id that stays the same for every attempt); what the services say stands in `formats/`.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime

import msgspec
import structlog
from standardwebhooks.webhooks import Webhook

from service.ingest.stores import NoDestination, Published, SinkOutcome
from service.runtime.clock import Clock
from service.runtime.errors import SetupError, TransientError, Trouble, TroubleError
from service.runtime.fields import Secret
from service.scoring.change import ScoreChange
from service.scoring.event import Reason, Rejected
from service.sinks.port import Parts
from service.sinks.ratelimit import RateLimit
from service.sinks.webhook.client import Reply, WebhookClient
from service.sinks.webhook.registration import WebhookSettings
from service.sinks.webhook.template import (
    Template,
    TemplateError,
    batch_id,
    body_bytes,
    change_id,
    failures_in,
    item_bytes,
    load_template,
)
from service.sinks.webhook.verdicts import Answer, remedy, retry_after_s, verdict

log = structlog.get_logger(__name__)

Outcome = SinkOutcome | TransientError
_PUBLISHED = Published()
_MARGIN = 1000
"""Bytes left for what a body has beside the people."""


class _Item(msgspec.Struct, frozen=True):
    """A change and its part of the body."""

    change: ScoreChange
    data: bytes


def open_sink(options: WebhookSettings, parts: Parts) -> WebhookSink:
    """Return the sink; its connections are closed with the worker's clients.

    Raises:
        SetupError: The template or the file of authorities cannot be used.
    """
    try:
        template = load_template(options.webhook_format)
    except TemplateError as error:
        raise SetupError(f"SCORING_WEBHOOK_FORMAT: {error}", Trouble.REFUSED) from error
    timeout_s = min(options.webhook_timeout_s, parts.request_timeout_s)
    client = WebhookClient(options.webhook_url, timeout_s=timeout_s, ca_file=options.webhook_ca_file)
    parts.on_close(client.close)
    limit = RateLimit("webhook", "requests", options.webhook_per_s, parts.metrics, parts.share)
    return WebhookSink(client, template, options, limit, parts.clock)


class WebhookSink:
    """`Sink` that posts to one URL.

    Args:
        client: Posts.
        template: How a request looks.
        options: Secrets, the attribute's name, and the largest batch.
        limit: For requests.
        clock: Time.
    """

    name = "webhook"

    def __init__(
        self, client: WebhookClient, template: Template, options: WebhookSettings, limit: RateLimit, clock: Clock
    ) -> None:
        self._client = client
        self._template = template
        self._attribute = options.webhook_attribute
        self._secret = Webhook(options.webhook_secret.reveal()) if template.sign and options.webhook_secret else None
        self._authorization = _authorization(template.authorization, options.webhook_token)
        self._limit = limit
        self._clock = clock
        self._not_before = 0.0
        self._gone = False
        self.max_batch = min(template.batch, options.webhook_batch_max)
        self.ordering = template.orders

    async def publish(self, changes: Sequence[ScoreChange]) -> Sequence[Outcome]:
        """Send the scores; one outcome for each.

        Raises:
            TransientError: None went out, for all that is known.
        """
        outcomes: dict[int, Outcome] = {}
        for part in self._parts(changes, outcomes):
            outcomes.update(zip(part, await self._send([part[place] for place in part]), strict=True))
        errors = [each for each in outcomes.values() if isinstance(each, TransientError)]
        if len(errors) == len(changes):
            raise next((error for error in errors if not error.undone), errors[0])
        return [outcomes[place] for place in range(len(changes))]

    def _parts(self, changes: Sequence[ScoreChange], outcomes: dict[int, Outcome]) -> Iterator[dict[int, _Item]]:
        """Divide changes into requests that are not too large; what is too large by itself is refused here."""
        most = self._template.bytes - _MARGIN
        part: dict[int, _Item] = {}
        size = 0
        for place, change in enumerate(changes):
            data = item_bytes(self._template, change, len(part), self._attribute)
            if len(data) > min(self._template.item_bytes or most, most):
                outcomes[place] = Rejected(Reason.SINK_REJECTED, f"a request with this user has {len(data)} bytes")
                continue
            if part and size + len(data) + 1 > most:
                yield part
                part, size = {}, 0
                data = item_bytes(self._template, change, 0, self._attribute)
            part[place] = _Item(change, data)
            size += len(data) + 1
        if part:
            yield part

    async def _send(self, items: Sequence[_Item]) -> list[Outcome]:
        """Send one request; halve it where it is refused, until the person at fault stands alone."""
        if self._gone:
            return [NoDestination()] * len(items)
        wait_s = self._not_before - self._clock.monotonic()
        if wait_s > 0:
            error = TransientError(f"the receiver asked to wait {wait_s:.0f} s more", throttled=True)
            return [error] * len(items)
        try:
            await self._limit.wait()
            reply = await self._post(items)
        except TransientError as error:
            return [error] * len(items)
        match verdict(reply.status):
            case Answer.TAKEN:
                return await self._taken(items, reply)
            case Answer.GONE:
                return self._stopped(len(items))
            case Answer.HALVE:
                reason = f"the receiver answers {reply.status}"
                return await self._halved(items, Rejected(Reason.SINK_REJECTED, reason))
            case Answer.AGAIN:
                self._not_before = self._clock.monotonic() + retry_after_s(reply.retry_after, self._wall_s())
                throttled = reply.status == 429  # noqa: PLR2004 - HTTP's own
                return [TransientError(f"the receiver answers {reply.status}", throttled=throttled)] * len(items)
            case Answer.SETTING:
                return [self._trouble(reply.status)] * len(items)

    def _trouble(self, status: int) -> TroubleError:
        trouble = TroubleError(f"webhook {self._client.shown} answers {status}", Trouble.REFUSED, remedy(status))
        log.error("webhook.request_refused", status=status, url=self._client.shown, remedy=trouble.remedy)
        return trouble

    async def _post(self, items: Sequence[_Item]) -> Reply:
        now_ms = self._clock.wall_ms()
        body = body_bytes(self._template, [item.data for item in items], now_ms)
        headers = {"Content-Type": "application/json", **self._authorization}
        if self._secret is not None:
            message = batch_id([change_id(item.change) for item in items])
            moment = datetime.fromtimestamp(now_ms // 1000, UTC)
            headers["webhook-id"] = message
            headers["webhook-timestamp"] = str(now_ms // 1000)
            headers["webhook-signature"] = self._secret.sign(message, moment, body.decode())
        return await self._client.post(body, headers)

    async def _taken(self, items: Sequence[_Item], reply: Reply) -> list[Outcome]:
        """Return the outcomes of an answer that says success, and may still tell of people that were refused."""
        failures = failures_in(self._template, reply.body)
        outcomes: list[Outcome] = [_PUBLISHED] * len(items)
        for failure in failures:
            refused: Outcome = (
                TransientError(f"the receiver says: {failure.reason}")
                if failure.again
                else Rejected(Reason.SINK_REJECTED, f"the receiver says: {failure.reason}")
            )
            if failure.index is None or failure.index >= len(items):
                # Nobody is named. Scores are absolute: each half may be sent again.
                return [refused] * len(items) if failure.again else await self._halved(items, refused)
            outcomes[failure.index] = refused
        return outcomes

    async def _halved(self, items: Sequence[_Item], refused: Outcome) -> list[Outcome]:
        if len(items) == 1:
            return [refused]
        middle = len(items) // 2
        return [*await self._again(items[:middle]), *await self._again(items[middle:])]

    async def _again(self, items: Sequence[_Item]) -> list[Outcome]:
        """Send part of a refused request; places in the batch are counted from 0 again."""
        fresh = [
            _Item(item.change, item_bytes(self._template, item.change, place, self._attribute))
            for place, item in enumerate(items)
        ]
        return await self._send(fresh)

    def _stopped(self, count: int) -> list[Outcome]:
        self._gone = True
        log.error(
            "webhook.receiver_stopped",
            url=self._client.shown,
            why="the receiver answers 410: it wants no more requests",
            consequence="nothing is sent to it until this worker starts again; the scores stay in their table",
            remedy="take `webhook` out of SCORING_SINKS, or set SCORING_WEBHOOK_URL, and run `scoring reconcile`",
        )
        return [NoDestination()] * count

    def _wall_s(self) -> float:
        return self._clock.wall_ms() / 1000


def _authorization(kind: str, token: Secret) -> dict[str, str]:
    if kind == "none" or not token:
        return {}
    if kind == "bearer":
        return {"Authorization": f"Bearer {token.reveal()}"}
    return {"Authorization": f"Basic {base64.b64encode(f'{token.reveal()}:'.encode()).decode()}"}
