"""Counts what arrives at the handlers of the embedded AWS: requests, what they carry, and write units, by caller.

At the handlers and not in a proxy in front: the bodies are already read there, and a request costs nothing more.
"""

# ruff: noqa: SLF001 - weighing items needs two internals of the pinned release (`ministack_mends.check` looks at them)
# ruff: noqa: ANN401 - ministack publishes no types; its modules are taken as they are

from __future__ import annotations

import contextvars
import json
import math
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from service.local.ministack_mends import Answer
from service.local.request_counts import OTHERS, OURS, Tally, caller_of

METER_PATH = "/_meter"
KIB = 1024
CLIENT_ERROR = 400
SERVER_ERROR = 500
Scope = MutableMapping[str, Any]


def _write_members(action: str, data: dict[str, Any]) -> int:
    """How many writes a DynamoDB request asks for: each costs at least one write unit, also when its condition fails.

    https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/read-write-operations.html
    """
    if action in {"PutItem", "UpdateItem", "DeleteItem"}:
        return 1
    if action == "BatchWriteItem":
        return sum(len(requests) for requests in data.get("RequestItems", {}).values())
    if action == "TransactWriteItems":
        return 2 * sum("ConditionCheck" not in item for item in data.get("TransactItems", ()))
    statements = _statements(action, data)
    writes = sum(not str(s.get("Statement", "")).lstrip().upper().startswith(("SELECT", "EXISTS")) for s in statements)
    return writes * (2 if action == "ExecuteTransaction" else 1)


def _statements(action: str, data: dict[str, Any]) -> list[dict[str, Any]]:
    if action == "ExecuteStatement":
        return [data]
    key = {"BatchExecuteStatement": "Statements", "ExecuteTransaction": "TransactStatements"}.get(action)
    return list(data.get(key, ())) if key else []


def _members(action: str, data: dict[str, Any]) -> int:
    """How many items, statements or records one request carries."""
    if action == "BatchGetItem":
        return sum(len(table.get("Keys", ())) for table in data.get("RequestItems", {}).values())
    if action == "PutRecords":
        return len(data.get("Records", ()))
    return len(_statements(action, data)) or _write_members(action, data) or 1


class Meter:
    """Counts what arrives at the handlers, by caller and operation."""

    def __init__(self) -> None:
        self.tallies: dict[str, Tally] = {OURS: Tally(), OTHERS: Tally()}
        self._extra: contextvars.ContextVar[list[int] | None] = contextvars.ContextVar("extra", default=None)

    def watch(self, module: Any, service: str) -> None:
        """Count every request of one service module."""
        handle = module.handle_request

        async def counted(
            method: str, path: str, headers: dict[str, str], body: bytes, query: dict[str, Any]
        ) -> Answer:
            action = headers.get("x-amz-target", "").rpartition(".")[2] or "Unknown"
            extra = [0]
            token = self._extra.set(extra)
            try:
                answer: Answer = await handle(method, path, headers, body, query)
            finally:
                self._extra.reset(token)
            data = json.loads(body) if body and answer[0] < SERVER_ERROR else {}
            self.tallies[caller_of(headers.get("user-agent", ""))].add(
                f"{service}.{action}",
                members=_members(action, data),
                write_units=_write_members(action, data) + extra[0] if service == "dynamodb" else 0,
                failed=answer[0] >= CLIENT_ERROR,
            )
            return answer

        module.handle_request = counted

    def weigh(self, dynamodb: Any) -> None:
        """Add what an item of more than 1 KiB costs over its first write unit: the larger of before and after counts.

        https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/read-write-operations.html
        """
        set_item, remove_item = dynamodb._set_item, dynamodb._remove_item

        def charge(*items: dict[str, Any] | None) -> None:
            extra = self._extra.get()
            if extra is not None:
                size = max(dynamodb._item_size_bytes(item) for item in items if item is not None)
                extra[0] += max(0, math.ceil(size / KIB) - 1)

        def weighed_set(table: Any, pk_val: str, sk_val: str, item: dict[str, Any]) -> Any:
            before = set_item(table, pk_val, sk_val, item)
            charge(item, before)
            return before

        def weighed_remove(table: Any, pk_val: str, sk_val: str) -> Any:
            before = remove_item(table, pk_val, sk_val)
            if before is not None:
                charge(before)
            return before

        dynamodb._set_item, dynamodb._remove_item = weighed_set, weighed_remove

    def app(self, app: Callable[..., Awaitable[None]]) -> Callable[..., Awaitable[None]]:
        """The ASGI application with the meter's own page in front."""

        async def with_meter(scope: Scope, receive: Callable[..., Any], send: Callable[..., Awaitable[None]]) -> None:
            if scope["type"] != "http" or scope["path"] != METER_PATH:
                await app(scope, receive, send)
                return
            body = json.dumps({caller: tally.as_json() for caller, tally in self.tallies.items()}).encode()
            headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            await send({"type": "http.response.body", "body": body})

        return with_meter
