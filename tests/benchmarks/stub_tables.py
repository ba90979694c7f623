"""DynamoDB, as far as the contenders use it: items, the few expressions they send, PartiQL statements, a stream."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import msgspec

Item = dict[str, dict[str, Any]]

KEYS = {
    "userEngagementScore": ("UserId", "PinpointProjectId"),
    "engagementScoreDefinition": ("EventType", "PinpointProjectId"),
    "engagementScoringIdentities": ("Id", "PinpointProjectId"),
    "engagementScoringLeases": ("leaseKey",),
    "engagementScoringDeadLetters": ("Id",),
}
STREAM_KEPT = 50_000
"""Read stream records that are kept for a reader that starts again behind them."""


class ConditionFailedError(Exception):
    """A condition did not hold; carries the item that is there."""

    def __init__(self, item: Item | None) -> None:
        super().__init__()
        self.item = item


class Stream:
    """The one shard of a table's stream: encoded records, dropped once they have been read long ago."""

    def __init__(self) -> None:
        self.records: deque[bytes] = deque()
        self.first = 0

    @property
    def end(self) -> int:
        return self.first + len(self.records)

    def page(self, start: int, count: int) -> tuple[list[bytes], int]:
        while self.first < start - STREAM_KEPT:
            self.records.popleft()
            self.first += 1
        begin = max(start, self.first)
        end = min(self.end, begin + count)
        offset = begin - self.first
        return [self.records[index] for index in range(offset, offset + end - begin)], end


class Table:
    """Items by key."""

    def __init__(self, name: str, keys: tuple[str, ...], stream: Stream | None = None) -> None:
        self.name = name
        self.keys = keys
        self.items: dict[tuple[str, ...], Item] = {}
        self.stream = stream

    def key_of(self, item: Item) -> tuple[str, ...]:
        return tuple(item[name]["S"] for name in self.keys)

    def put(self, key: tuple[str, ...], item: Item, now: float) -> None:
        self.items[key] = item
        if self.stream is not None:
            self.stream.records.append(
                b'{"eventID":"%d","eventName":"MODIFY","eventVersion":"1.1","eventSource":"aws:dynamodb",'
                b'"awsRegion":"us-east-1","dynamodb":{"ApproximateCreationDateTime":%.3f,"Keys":%b,"NewImage":%b,'
                b'"SequenceNumber":"%024d","SizeBytes":300,"StreamViewType":"NEW_AND_OLD_IMAGES"}}'
                % (
                    self.stream.end,
                    now,
                    msgspec.json.encode({name: item[name] for name in self.keys}),
                    msgspec.json.encode(item),
                    self.stream.end + 1,
                )
            )


def check(condition: str, values: dict[str, Any], item: Item | None) -> None:
    """Raise `ConditionFailedError` where a condition of comparisons and existence tests does not hold."""
    for each in condition.split(" AND ") if condition else ():
        test = each.strip()
        exists = re.fullmatch(r"attribute_(not_)?exists\((\w+)\)", test)
        if exists:
            there = item is not None and exists[2] in item
            if there == bool(exists[1]):
                raise ConditionFailedError(item)
            continue
        name, _, value = test.partition(" = ")
        if item is None or item.get(name) != values[value]:
            raise ConditionFailedError(item)


def add(old: dict[str, Any] | None, new: dict[str, Any]) -> dict[str, Any]:
    return {"N": str(Decimal(old["N"] if old else 0) + Decimal(new["N"]))}


_CLAUSES = re.compile(r"\b(ADD|SET)\b")


def update(item: Item, expression: str, values: dict[str, Any]) -> None:
    """Apply `ADD a :v, b :w` and `SET a = :v, b = b + :w`."""
    parts = _CLAUSES.split(expression)[1:]
    for kind, clause in zip(parts[::2], parts[1::2], strict=True):
        for action in clause.split(","):
            words = action.split()
            if kind == "ADD":
                item[words[0]] = add(item.get(words[0]), values[words[1]])
            elif len(words) == 3:
                item[words[0]] = values[words[2]]
            else:
                item[words[0]] = add(item.get(words[2]), values[words[4]])


class Statement(msgspec.Struct, frozen=True):
    """A PartiQL text, understood: where each parameter goes."""

    table: str
    insert: tuple[str, ...] = ()
    sets: tuple[tuple[str, bool], ...] = ()
    where: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()


_statements: dict[str, Statement] = {}


def parse(text: str) -> Statement:
    """Read a statement; a text met before costs nothing."""
    known = _statements.get(text)
    if known is not None:
        return known
    insert = re.fullmatch(r'INSERT INTO "([^"]+)" VALUE \{(.*)\}', text)
    if insert:
        parsed = Statement(insert[1], insert=tuple(re.findall(r"'(\w+)': \?", insert[2])))
    else:
        head, _, where = text.partition(" WHERE ")
        table = re.match(r'UPDATE "([^"]+)"', head)
        if table is None:
            raise ValueError(text)
        parsed = Statement(
            table[1],
            sets=tuple((name, bool(plus)) for name, plus in re.findall(r"SET (\w+) = (\w+ \+ )?\?", head)),
            where=tuple(re.findall(r"(\w+) = \?", where)),
            missing=tuple(re.findall(r"(\w+) IS MISSING", where)),
        )
    _statements[text] = parsed
    return parsed


Find = Callable[[Table, tuple[str, ...]], Item | None]


def execute(tables: dict[str, Table], request: dict[str, Any], now: float, find: Find) -> dict[str, Any]:
    """Carry one statement out; return its part of the answer. `find` returns the item of a key, if there is one."""
    statement = parse(request["Statement"])
    table, values = tables[statement.table], request["Parameters"]
    if statement.insert:
        item = dict(zip(statement.insert, values, strict=True))
        key = table.key_of(item)
        if find(table, key) is not None:
            return {"Error": {"Code": "DuplicateItem", "Message": "Duplicate primary key exists in table"}}
        table.put(key, item, now)
        return {"TableName": table.name}
    set_values = values[: len(statement.sets)]
    where = dict(zip(statement.where, values[len(statement.sets) :], strict=True))
    key = tuple(where.pop(name)["S"] for name in table.keys)
    item = find(table, key)
    if (
        item is None
        or any(item.get(name) != value for name, value in where.items())
        or any(name in item for name in statement.missing)
    ):
        error: dict[str, Any] = {"Code": "ConditionalCheckFailed", "Message": "The conditional request failed"}
        if item is not None:
            error["Item"] = item
        return {"Error": error}
    new = dict(item)
    for (name, adds), value in zip(statement.sets, set_values, strict=True):
        new[name] = add(item.get(name), value) if adds else value
    table.put(key, new, now)
    return {"TableName": table.name}
