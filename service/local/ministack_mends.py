"""Patches of ministack, made by replacing functions of its modules.

The reasons: deploy/decisions/0001-ministack-stream-records.md.

The patches replace internals, so the release is pinned exactly, and `check` verifies everything that they rely on
before anything is replaced. An embedded AWS that runs is always patched.
"""

# ruff: noqa: SLF001 - replacing internals of a pinned release is what this file is for
# ruff: noqa: ANN401 - ministack publishes no types; its modules are taken as they are

from __future__ import annotations

import contextvars
import inspect
import time
from collections.abc import Callable
from typing import Any

MENDED_VERSION = "1.5.33"
"""The only release of ministack whose internals the patches below were written against."""

OK = 200
Answer = tuple[int, dict[str, str], bytes]
"""Status, headers, body: what every handler of ministack returns."""
Item = dict[str, Any]
Keys = tuple[str, str]
Emission = tuple[str, str, Item | None, Item | None]
"""Table name, event name, old image, new image."""


class UnmendableError(RuntimeError):
    """The installed ministack is not the one that the patches were written for."""


def check(dynamodb: Any, kinesis: Any, installed: str) -> None:
    """Raise UnmendableError unless the internals that the patches rely on are there, with the signatures they had."""
    if installed != MENDED_VERSION:
        raise UnmendableError(f"ministack {installed} is installed, the patches are for {MENDED_VERSION} exactly")
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
        (kinesis, "_update_shard_count"): ("data",),
        (kinesis, "_resolve_stream"): ("data",),
        (kinesis, "_max_shard_index"): ("stream",),
    }
    for (module, name), parameters in expected.items():
        function = getattr(module, name, None)
        if not callable(function) or tuple(inspect.signature(function).parameters) != parameters:
            raise UnmendableError(f"{module.__name__}.{name}({', '.join(parameters)}) is not there")


class _StreamRecords:
    """Emits stream records; holds those of a transaction until it is known to have succeeded."""

    def __init__(self, dynamodb: Any) -> None:
        self._dynamodb = dynamodb
        self._held: contextvars.ContextVar[list[Emission] | None] = contextvars.ContextVar("held", default=None)

    def emit(self, emission: Emission) -> None:
        held = self._held.get()
        if held is None:
            self._dynamodb._emit_stream_event(*emission)
        else:
            held.append(emission)

    def all_or_none(self, execute: Callable[[Item], Answer]) -> Callable[[Item], Answer]:
        def transaction(data: Item) -> Answer:
            held: list[Emission] = []
            token = self._held.set(held)
            try:
                answer = execute(data)
            finally:
                self._held.reset(token)
            if answer[0] == OK:
                for emission in held:
                    self.emit(emission)
            return answer

        return transaction

    def after(
        self, write: Callable[..., Answer], keys_of: Callable[[Item, Item], Keys | None], event_name: str
    ) -> Callable[..., Answer]:
        def written(table: Item, parsed: Item, *rest: Any) -> Answer:
            keys = keys_of(table, parsed)
            # An image is never changed once stored (ministack stores a new dictionary), so no copy is needed.
            before = _stored(table, keys)
            answer = write(table, parsed, *rest)
            after = _stored(table, keys)
            if answer[0] == OK and (before is not None or after is not None):
                self.emit((table["TableName"], event_name, before, after))
            return answer

        return written


def _stored(table: Item, keys: Keys | None) -> Item | None:
    if keys is None:
        return None
    item: Item | None = table["items"].get(keys[0], {}).get(keys[1])
    return item


def mend_partiql_stream_records(dynamodb: Any) -> None:
    """Make every PartiQL write leave its stream record, as DynamoDB does; a transaction all of them or none.

    Upstream's item API emits its records by itself and is not touched, so nothing is emitted twice.
    """

    def keys_of_insert(table: Item, parsed: Item) -> Keys | None:
        item = parsed.get("item") or {}
        if set(item) == {"M"}:
            item = item["M"]
        sort = dynamodb._extract_key_val(item.get(table["sk_name"])) if table["sk_name"] else "__no_sort__"
        return dynamodb._extract_key_val(item.get(table["pk_name"])), sort

    def keys_of_target(table: Item, parsed: Item) -> Keys | None:
        partition, sort, _condition, error = dynamodb._partiql_key_target(table, parsed)
        return None if error else (partition, sort)

    records = _StreamRecords(dynamodb)
    dynamodb._partiql_insert = records.after(dynamodb._partiql_insert, keys_of_insert, "INSERT")
    dynamodb._partiql_update = records.after(dynamodb._partiql_update, keys_of_target, "MODIFY")
    dynamodb._partiql_delete = records.after(dynamodb._partiql_delete, keys_of_target, "REMOVE")
    dynamodb._execute_transaction = records.all_or_none(dynamodb._execute_transaction)


def mend_record_expiry(kinesis: Any) -> None:
    """Look only at the oldest record for what has expired: upstream copies every shard's whole list on every read.

    Records of a shard are in arrival order. Measured at the tip of 100,000 retained records: a GetRecords
    round trip of 9.4 ms becomes one of 2.5 ms (empty stream: 1.6 ms).
    """

    def expire(stream: dict[str, Any]) -> None:
        cutoff = time.time() - stream["RetentionPeriodHours"] * 3600
        for shard in stream["shards"].values():
            records = shard["records"]
            if records and records[0]["ApproximateArrivalTimestamp"] < cutoff:
                shard["records"] = [r for r in records if r["ApproximateArrivalTimestamp"] >= cutoff]

    kinesis._expire_records = expire


def mend_shard_ids(kinesis: Any) -> None:
    """Give the shards that UpdateShardCount makes ids that the stream never had, and parents.

    Upstream numbers them from 0 again. On AWS a shard id names one shard for as long as the stream exists, so workers
    take one that starts elsewhere for a shard of another stream (`service/stream/identity.py`). Upstream's SplitShard
    and MergeShards count on from the highest id, and need nothing.
    """
    update_shard_count = kinesis._update_shard_count

    def update(data: Item) -> Answer:
        _, stream = kinesis._resolve_stream(data)
        before = dict(stream["shards"]) if stream else {}
        first = kinesis._max_shard_index(stream) + 1 if stream else 0
        answer: Answer = update_shard_count(data)
        if answer[0] == OK:
            made = enumerate(stream["shards"].values(), first)
            stream["shards"] = {f"shardId-{number:012d}": _with_parents(shard, before) for number, shard in made}
        return answer

    kinesis._update_shard_count = update


def _with_parents(shard: Item, before: dict[str, Item]) -> Item:
    """Return a new shard with the first two shards that had a part of its hash keys: AWS names no more than two."""
    low, high = _hash_keys(shard)
    overlapping = [name for name, old in before.items() if _hash_keys(old)[0] <= high and low <= _hash_keys(old)[1]]
    parent, adjacent = (*overlapping, None, None)[:2]
    return {**shard, "parent_shard_id": parent, "adjacent_parent_shard_id": adjacent}


def _hash_keys(shard: Item) -> tuple[int, int]:
    return int(shard["starting_hash_key"]), int(shard["ending_hash_key"])
