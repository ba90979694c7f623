"""Single fields of a rules file: names, numbers, days, times, paths and conditions. `load` puts them together."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation

import yaml

from service.scoring.definitions import points_fault
from service.scoring.paths import PathError, lookup, parse_path
from service.scoring.rules.decay import MAX_HALF_LIFE
from service.scoring.rules.model import ABSENT_VALUE, Condition, Lookup, Op
from service.scoring.yaml_nodes import NodeReader, shown

MAX_CONDITIONS, MAX_VALUES = 20, 100

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,59}")
_DAYS = re.compile(r"(\d{1,5})d")


def name_fault(name: str) -> str | None:
    """Return why a text cannot be the name of a rule, a group or a tier, or None when it can."""
    if _NAME.fullmatch(name) is not None:
        return None
    return f"{shown(name)} cannot be a name: letters, digits, `_`, `-` and `.`"


class Fields:
    """Reads fields and collects problems in `reader`."""

    def __init__(self, reader: NodeReader) -> None:
        self.reader = reader

    def bounds(self, entries: Mapping[str, yaml.Node], path: str) -> tuple[Decimal | None, Decimal | None]:
        """Return what `min` and `max` of a mapping say; None where one is missing."""
        low = self.points(entries["min"], f"{path}.min") if "min" in entries else None
        high = self.points(entries["max"], f"{path}.max") if "max" in entries else None
        if low is not None and high is not None and low > high:
            self.reader.problem(entries["min"], path, f"min {low} is above max {high}")
        return low, high

    def name(self, node: yaml.Node, path: str) -> str:
        """Return the name of a rule, a group or a tier; empty, and a problem, where it is not one."""
        name = self.reader.text(node, path, "a name") or ""
        if name and (fault := name_fault(name)) is not None:
            self.reader.problem(node, path, fault)
        return name

    def days(self, node: yaml.Node, path: str) -> int:
        """Return a number of days; 0, and a problem, where it is not one."""
        text = self.reader.text(node, path, "a number of days such as `30d`")
        match = _DAYS.fullmatch(text) if text is not None else None
        if text is not None and (match is None or not 1 <= int(match[1]) <= MAX_HALF_LIFE):
            self.reader.problem(node, path, f"{shown(text)}: write whole days from 1d to {MAX_HALF_LIFE}d")
            return 0
        return int(match[1]) if match else 0

    def moment(self, node: yaml.Node, path: str) -> int | None:
        """Return a day or a time in epoch milliseconds; None, and a problem, where it is neither.

        It is UTC unless it names an offset.
        """
        written = node.value if isinstance(node, yaml.ScalarNode) else ""
        try:
            moment = datetime.fromisoformat(written)
        except ValueError:
            self.reader.problem(node, path, f"{shown(written)}: write a day or a time, such as 2026-12-01T00:00:00Z")
            return None
        moment = moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)
        return round(moment.timestamp() * 1000)

    def points(self, node: yaml.Node, path: str) -> Decimal | None:
        """Return points, exactly as written; None, and a problem, where it is not a number of at most 9 decimals."""
        value = self.reader.scalar(node, path)
        if value is None:
            return None
        if isinstance(value, bool | str):
            self.reader.problem(node, path, "a number is expected here")
            return None
        try:
            points = Decimal(node.value if "_" not in node.value else "no number")
        except InvalidOperation:
            self.reader.problem(node, path, f"{shown(node.value)} is not a plain number; write 12 or 0.5")
            return None
        if (fault := points_fault(points)) is not None:
            self.reader.problem(node, path, fault.replace("ScoreOffset ", ""))
            return None
        return points

    def whole(self, node: yaml.Node | None, path: str, low: int, high: int, default: int) -> int:
        """Return a whole number from `low` to `high`; `default` where it is missing or, with a problem, wrong."""
        if node is None:
            return default
        value = self.reader.scalar(node, path)
        if value is None:
            return default
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            self.reader.problem(node, path, f"a whole number from {low} to {high} is expected here")
            return default
        return value

    def texts(self, node: yaml.Node, path: str, limit: int) -> list[str]:
        """Return the texts of a list, or the only one."""
        items = self.reader.sequence(node, path, limit) if isinstance(node, yaml.SequenceNode) else [node]
        return [text for item in items or () if (text := self.reader.text(item, path)) is not None]

    def lookup(self, node: yaml.Node, text: str, path: str) -> Lookup:
        """Compile a path; one that finds nothing, and a problem, where it cannot be read."""
        if text:
            try:
                return lookup(parse_path(text), ABSENT_VALUE)
            except PathError as error:
                self.reader.problem(node, path, str(error))
        return lambda _: ABSENT_VALUE

    def _value(self, node: yaml.Node, op: Op, path: str) -> object:
        if op is Op.IN:
            items = self.reader.sequence(node, path, MAX_VALUES) or ()
            return tuple(self.reader.scalar(item, path) for item in items)
        value = self.reader.scalar(node, path)
        if op is Op.PREFIX and not isinstance(value, str):
            self.reader.problem(node, path, "`prefix` compares with a text; put it in quotes")
        if op in (Op.LT, Op.LE, Op.GT, Op.GE) and (isinstance(value, bool) or not isinstance(value, int | float)):
            self.reader.problem(node, path, f"`{op.value}` compares with a number")
        return value

    def _condition(self, node: yaml.Node, path: str) -> Condition | None:
        entries = self.reader.mapping(node, path, ("path", "op", "value"))
        if entries is None:
            return None
        if missing := [name for name in ("path", "op") if name not in entries]:
            self.reader.problem(node, path, f"`{missing[0]}` is missing")
            return None
        said = self.reader.text(entries["op"], f"{path}.op", "a comparison")
        if said not in [op.value for op in Op]:
            if said is not None:
                known = ", ".join(op.value for op in Op)
                self.reader.problem(entries["op"], f"{path}.op", f"{shown(said)} is not known; known are {known}")
            return None
        op = Op(said)
        alone = op in (Op.EXISTS, Op.NOT_EXISTS)
        if alone == ("value" in entries):
            text = f"`{op.value}` takes no `value`" if alone else "`value` is missing"
            self.reader.problem(node, path, text)
            return None
        text = self.reader.text(entries["path"], f"{path}.path", "a path") or ""
        value = None if alone else self._value(entries["value"], op, f"{path}.value")
        return Condition(text, op, value, self.lookup(entries["path"], text, f"{path}.path"))

    def when(self, node: yaml.Node, path: str) -> tuple[tuple[Condition, ...], bool]:
        """Return the conditions of a list, and whether `human` is among them."""
        conditions: list[Condition] = []
        human = False
        for index, item in enumerate(self.reader.sequence(node, path, MAX_CONDITIONS) or ()):
            where = f"{path}[{index}]"
            if isinstance(item, yaml.ScalarNode):
                said = self.reader.text(item, where, "`human` or {path, op, value}")
                if said is not None and said != "human":
                    self.reader.problem(
                        item, where, f"{shown(said)} is not known; write `human` or {{path, op, value}}"
                    )
                human = True
            elif (condition := self._condition(item, where)) is not None:
                conditions.append(condition)
        return tuple(conditions), human
