"""What a rules file must come to, worked out from the file's text and the distinct events: no code of the service.

Weights are real powers of two to 50 digits, not the integers of the service. Where the rules let the order of events
decide (a cap over several days together with decay, events of windows long gone), the result is a range.
"""

from __future__ import annotations

from datetime import date, timedelta
from decimal import Decimal, localcontext
from typing import Any, NamedTuple

import yaml

EPSILON = Decimal("0.000001")
"""Far below the last digit published; far above the rounding of the service's weights."""


class Given(NamedTuple):
    """An event: its day, counted from 1970-01-01, and what rules ask of it."""

    day: int
    event_type: str
    message: str = ""
    amount: Decimal | None = None
    event_id: str = ""
    millisecond: int = 0


class Range(NamedTuple):
    """The least and the most that something can be."""

    low: Decimal
    high: Decimal

    def plus(self, other: Range) -> Range:
        return Range(self.low + other.low, self.high + other.high)

    def within(self, low: object, high: object) -> Range:
        found = self
        if high is not None:
            found = Range(min(found.low, Decimal(str(high))), min(found.high, Decimal(str(high))))
        if low is not None:
            found = Range(max(found.low, Decimal(str(low))), max(found.high, Decimal(str(low))))
        return found


NOTHING = Range(Decimal(0), Decimal(0))


def score(text: str, events: list[Given], foreign: Decimal, day: int) -> Range:
    """Return what the rules in `text` show on `day`, before rounding."""
    with localcontext() as context:
        context.prec = 50
        doc = yaml.safe_load(text)
        events = _distinct(events)
        groups = dict.fromkeys(doc.get("groups") or {}, NOTHING) | {"main": Range(foreign, foreign)}
        hidden: dict[str, list[tuple[int, int, int]]] = {}
        for rule in doc["rules"]:
            # YAML 1.1 reads the key `on` as true.
            types = rule.get("on", rule.get(True, []))
            types = [types] if isinstance(types, str) else types
            met = [event for event in events if event.event_type in types]
            for kind, sign in (("suppress", 1), ("resume", 0)):
                if kind in rule and met:
                    newest = max((event.day, event.millisecond) for event in met)
                    hidden.setdefault(rule[kind], []).append((*newest, sign))
            if "suppress" not in rule and "resume" not in rule:
                name = rule.get("group", "main")
                group = (doc.get("groups") or {}).get(name, {})
                groups[name] = groups[name].plus(_counted(rule, group, met, day))
        total = NOTHING
        for name, value in groups.items():
            group = (doc.get("groups") or {}).get(name, {})
            shown = (
                NOTHING if max(hidden.get(name, [(0, 0, 0)]))[-1] else value.within(group.get("min"), group.get("max"))
            )
            total = total.plus(shown)
        bounds = doc.get("score") or {}
        return total.within(bounds.get("min"), bounds.get("max"))


def _distinct(events: list[Given]) -> list[Given]:
    seen: set[str] = set()
    found = []
    for event in events:
        if event.event_id and event.event_id in seen:
            continue
        seen.add(event.event_id)
        found.append(event)
    return found


def _counted(rule: dict[str, Any], group: dict[str, Any], met: list[Given], day: int) -> Range:
    if rule.get("once") == "message":
        first: dict[str, Given] = {}
        met = [event for event in met if not event.message or first.setdefault(event.message, event) is event]
    if rule.get("once") == "life":
        rule = {**rule, "cap": {"per": "life", "events": 1}}
    worth = [(_weight(group, day - event.day), _points(rule, event), event.day) for event in met]
    if "cap" not in rule:
        total = sum((weight * points for weight, points, _ in worth), Decimal(0))
        return Range(total, total)
    windows: dict[int, list[tuple[Decimal, Decimal]]] = {}
    for weight, points, of_day in worth:
        windows.setdefault(_window(rule["cap"]["per"], of_day), []).append((weight, points))
    total = NOTHING
    for window, entries in windows.items():
        found = _capped(rule["cap"], entries)
        # Of a window before the last but one, what comes after newer ones is not counted.
        total = total.plus(found if window >= max(windows) - 1 else Range(min(Decimal(0), found.low), found.high))
    return total


def _capped(cap: dict[str, Any], entries: list[tuple[Decimal, Decimal]]) -> Range:
    if "points" in cap:
        limit = Decimal(str(cap["points"]))
        share = (
            min(Decimal(1), limit / sum(points for _, points in entries)) if any(p for _, p in entries) else Decimal(1)
        )
        weights = [weight for weight, _ in entries]
        whole = sum((points for _, points in entries), Decimal(0)) * share
        return Range(whole * min(weights), whole * max(weights))
    values = sorted(weight * points for weight, points in entries)
    kept = min(len(values), int(cap["events"]))
    return Range(sum(values[:kept], Decimal(0)), sum(values[len(values) - kept :], Decimal(0)))


def _points(rule: dict[str, Any], event: Given) -> Decimal:
    if "per" not in rule:
        return Decimal(str(rule["points"]))
    per = rule["per"]
    if event.amount is None:
        return Decimal(0)
    points = event.amount * Decimal(str(per.get("factor", 1)))
    low, high = Decimal(str(per.get("min", 0))), per.get("max")
    if points < 0 and points < low:
        return Decimal(0)
    points = max(points, low)
    points = points if high is None else min(points, Decimal(str(high)))
    return points.quantize(Decimal("0.000001"))


def _weight(group: dict[str, Any], age: int) -> Decimal:
    if "half_life" in group:
        return Decimal(2) ** (Decimal(-age) / int(group["half_life"][:-1]))
    if "expire" in group:
        return Decimal(age < int(group["expire"][:-1]))
    return Decimal(1)


def _window(per: str, day: int) -> int:
    on = date(1970, 1, 1) + timedelta(days=day)
    match per:
        case "day":
            return day
        case "week":
            return (on - timedelta(days=on.weekday())).toordinal() // 7
        case "month":
            return on.year * 12 + on.month
    return 0
