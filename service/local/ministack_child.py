"""The embedded AWS as a process of its own: ministack with two gaps mended and a meter at its handlers.

Run as `python -m service.local.ministack_child [--port N]` by `service.local.emulator`. It binds 127.0.0.1 only, prints
`{"port": N}` as its first line, and ends when its standard input closes.

What is mended, and why here: deploy/decisions/0001-ministack-stream-records.md. Internals are touched, so the release is
pinned exactly and everything that is relied on is checked at the start: a child that runs is a child that is mended.
"""

from __future__ import annotations

import argparse
import asyncio
import contextvars
import inspect
import json
import logging
import math
import os
import signal
import socket
import sys
import time
from collections.abc import Awaitable, Callable, Iterator, MutableMapping
from importlib import import_module
from importlib.metadata import version
from typing import Any

from service.local.processes import exit_with_parent
from service.local.wire import OTHERS, OURS, Tally, caller_of

MENDED_VERSION = "1.5.33"
"""The only release of ministack whose internals the mends below were written against."""

METER_PATH = "/_meter"
KIB = 1024

Answer = tuple[int, dict[str, str], bytes]
Scope = MutableMapping[str, Any]
Emission = tuple[str, str, dict[str, Any] | None, dict[str, Any] | None]


class UnmendableError(RuntimeError):
    """The installed ministack is not the one that the mends were written for."""


def check(dynamodb: Any, kinesis: Any, installed: str) -> None:
    """Raise UnmendableError unless the internals that the mends rely on are there, with the signatures they had."""
    if installed != MENDED_VERSION:
        raise UnmendableError(f"ministack {installed} is installed, the mends are for {MENDED_VERSION} exactly")
    expected = {
        (dynamodb, "_partiql_insert"): ("table", "parsed"),
        (dynamodb, "_partiql_update"): ("table", "parsed", "data"),
        (dynamodb, "_partiql_delete"): ("table", "parsed", "data"),
        (dynamodb, "_partiql_key_target"): ("table", "parsed"),
        (dynamodb, "_execute_transaction"): ("data",),
        (dynamodb, "_emit_stream_event"): ("table_name", "event_name", "old_item", "new_item", "replicate"),
        (dynamodb, "_set_item"): ("table", "pk_val", "sk_val", "item"),
        (dynamodb, "_remove_item"): ("table", "pk_val", "sk_val"),
        (dynamodb, "_item_size_bytes"): ("item",),
        (dynamodb, "_extract_key_val"): ("attr",),
        (dynamodb, "handle_request"): ("method", "path", "headers", "body", "query_params"),
        (kinesis, "handle_request"): ("method", "path", "headers", "body", "query_params"),
        (kinesis, "_expire_records"): ("stream",),
    }
    for (module, name), parameters in expected.items():
        function = getattr(module, name, None)
        if not callable(function) or tuple(inspect.signature(function).parameters) != parameters:
            raise UnmendableError(f"{module.__name__}.{name}({', '.join(parameters)}) is not there")


def mend_partiql_stream_records(dynamodb: Any) -> None:
    """Make every PartiQL write leave its stream record, as DynamoDB does; a transaction all of them or none.

    Upstream's item API emits records by itself and is not touched, so nothing is emitted twice.
    """
    in_transaction: contextvars.ContextVar[list[Emission] | None] = contextvars.ContextVar("emissions", default=None)

    def emit(emission: Emission) -> None:
        held = in_transaction.get()
        if held is None:
            dynamodb._emit_stream_event(*emission)
        else:
            held.append(emission)

    def stored(table: dict[str, Any], keys: tuple[str, str]) -> dict[str, Any] | None:
        item: dict[str, Any] | None = table["items"].get(keys[0], {}).get(keys[1])
        return item

    def keys_of_insert(table: dict[str, Any], parsed: dict[str, Any]) -> tuple[str, str] | None:
        item = parsed.get("item") or {}
        if set(item) == {"M"}:
            item = item["M"]
        sort = dynamodb._extract_key_val(item.get(table["sk_name"])) if table["sk_name"] else "__no_sort__"
        return dynamodb._extract_key_val(item.get(table["pk_name"])), sort

    def keys_of_target(table: dict[str, Any], parsed: dict[str, Any]) -> tuple[str, str] | None:
        partition, sort, _condition, error = dynamodb._partiql_key_target(table, parsed)
        return None if error else (partition, sort)

    def emitting(
        write: Callable[..., Answer],
        keys_of: Callable[[dict[str, Any], dict[str, Any]], tuple[str, str] | None],
        event_name: str,
    ) -> Callable[..., Answer]:
        def wrapped(table: dict[str, Any], parsed: dict[str, Any], *rest: Any) -> Answer:
            keys = keys_of(table, parsed)
            before = stored(table, keys) if keys else None
            answer = write(table, parsed, *rest)
            if answer[0] == 200 and keys:  # noqa: PLR2004
                after = stored(table, keys)
                if before is not None or after is not None:
                    emit((table["TableName"], event_name, before, after))
            return answer

        return wrapped

    def transaction(data: dict[str, Any], execute: Callable[..., Answer] = dynamodb._execute_transaction) -> Answer:
        held: list[Emission] = []
        token = in_transaction.set(held)
        try:
            answer = execute(data)
        finally:
            in_transaction.reset(token)
        if answer[0] == 200:  # noqa: PLR2004
            for emission in held:
                emit(emission)
        return answer

    dynamodb._partiql_insert = emitting(dynamodb._partiql_insert, keys_of_insert, "INSERT")
    dynamodb._partiql_update = emitting(dynamodb._partiql_update, keys_of_target, "MODIFY")
    dynamodb._partiql_delete = emitting(dynamodb._partiql_delete, keys_of_target, "REMOVE")
    dynamodb._execute_transaction = transaction


def mend_record_expiry(kinesis: Any) -> None:
    """Look only at the oldest record for what has expired: upstream copies every shard's whole list on every read.

    Records of a shard are in arrival order. Measured on 100,000 retained records: 39 ms a GetRecords becomes 4 ms.
    """

    def expire(stream: dict[str, Any]) -> None:
        cutoff = time.time() - stream["RetentionPeriodHours"] * 3600
        for shard in stream["shards"].values():
            records = shard["records"]
            if records and records[0]["ApproximateArrivalTimestamp"] < cutoff:
                shard["records"] = [r for r in records if r["ApproximateArrivalTimestamp"] >= cutoff]

    kinesis._expire_records = expire


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
    """Counts what arrives at the handlers, by caller and operation. Sizes are of the items as stored, per started KiB."""

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
            data = json.loads(body) if body and answer[0] != 500 else {}  # noqa: PLR2004
            self.tallies[caller_of(headers.get("user-agent", ""))].add(
                f"{service}.{action}",
                members=_members(action, data),
                write_units=_write_members(action, data) + extra[0] if service == "dynamodb" else 0,
                failed=answer[0] >= 400,  # noqa: PLR2004
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


def _serving_socket(port: int) -> socket.socket:
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind(("127.0.0.1", port))
    return listener


def serve(port: int) -> None:
    """Mend, bind, announce the port on standard output, and serve until a signal comes or the owner goes."""
    listener = _serving_socket(port)
    bound: int = listener.getsockname()[1]
    # Read by ministack when its modules are imported, so before they are.
    os.environ.update({"BIND_HOST": "127.0.0.1", "GATEWAY_PORT": str(bound)})
    dynamodb, kinesis, streams, app = (
        import_module(f"ministack.{name}")
        for name in ("services.dynamodb", "services.kinesis", "services.dynamodb_streams", "app")
    )
    check(dynamodb, kinesis, version("ministack"))
    mend_partiql_stream_records(dynamodb)
    mend_record_expiry(kinesis)
    meter = Meter()
    meter.weigh(dynamodb)
    for module, service in ((dynamodb, "dynamodb"), (kinesis, "kinesis"), (streams, "dynamodbstreams")):
        meter.watch(module, service)

    from hypercorn.asyncio import serve as hypercorn_serve  # noqa: PLC0415 - comes with ministack: extra `local`
    from hypercorn.config import Config  # noqa: PLC0415

    config = Config()
    config.bind = [f"fd://{listener.detach()}"]
    config.loglevel = "WARNING"
    config.graceful_timeout = 0.2
    config.keep_alive_timeout = 75
    sys.stdout.write(json.dumps({"port": bound}) + "\n")
    sys.stdout.flush()
    asyncio.run(hypercorn_serve(meter.app(app.app), config))  # type: ignore[arg-type]


def main(arguments: Iterator[str] | None = None) -> None:
    """Entry point of the child process."""
    parser = argparse.ArgumentParser(description="The embedded AWS (ministack, mended) on 127.0.0.1")
    parser.add_argument("--port", type=int, default=0, help="0: any free port")
    options = parser.parse_args(list(arguments) if arguments is not None else None)
    exit_with_parent()
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))  # nothing here outlives the process
    logging.basicConfig(level=logging.WARNING)
    serve(options.port)


if __name__ == "__main__":
    main()
