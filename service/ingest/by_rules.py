"""What the rules of a project make of an event. Pure."""

from __future__ import annotations

from collections import Counter
from decimal import Decimal

from service.scoring.event import Event
from service.scoring.fold import Scorable, sequence_bytes
from service.scoring.rules.evaluate import MAX_AMOUNT, Evaluated, Facts, Hit, evaluate, number, plain_hit, remembered
from service.scoring.rules.fold import RuleEvent
from service.scoring.rules.model import ADJUSTMENT, MICRO, NANO, RuleSet
from service.stream.ports import Record

UNMET = Scorable(b"", Decimal(0), 0)
"""Stands for an event that a rule or definition is about and that none counts."""

_ZERO = Decimal(0)


def adjustment_of(event: Event) -> Decimal | None:
    """Return the points of an adjustment by hand; None where the event has no such number, or one beyond 10**9.

    It has the shape of a Pinpoint event: `attributes` holds `points`, `adjustment_id` and `reason`, all texts.
    """
    points = number(_attribute(event, "points"))
    return points if points is not None and points.copy_abs() <= MAX_AMOUNT else None


def _attribute(event: Event, name: str) -> object:
    payload = event.details.payload if event.details is not None else {}
    attributes = payload.get("attributes")
    return attributes.get(name) if isinstance(attributes, dict) else None


def match(
    rules: RuleSet | None, points: Decimal | None, event: Event, record: Record[bytes], outcomes: Counter[str]
) -> Scorable | None:
    """Return an event as rules see it, or an adjustment by hand of a project without rules.

    Args:
        rules: Of its project; None: it has none.
        points: Of its definition; None: it has none.
        event: The event, with `details` where its type is in `DefinitionBook.detailed`.
        record: Its record.
        outcomes: Where amounts that are not usable (`odd_amount`) and machines (`machine`) are counted.

    Returns:
        None where neither a rule nor a definition is about the event's type; `UNMET` where no rule counts the event.
    """
    # The earlier of both: a sender's clock that is ahead must not make a decaying sum astronomic.
    arrival_ms = min(event.arrival_ms or record.arrival_ms, record.arrival_ms or event.arrival_ms)
    sequence = sequence_bytes(record.sequence)
    if rules is None:
        adjustment = adjustment_of(event)
        if adjustment is None:
            outcomes["odd_amount"] += 1
            return UNMET
        return Scorable(sequence, adjustment, arrival_ms, event.event_type)
    found = _evaluated(rules, points, event, arrival_ms)
    if found is None:
        return None
    if found.odd or found.machines:
        outcomes.update(odd_amount=found.odd, machine=found.machines)
    if not found.hits:
        return UNMET
    event_id = event.event_id
    if event.event_type == ADJUSTMENT and isinstance(given := _attribute(event, "adjustment_id"), str):
        event_id = given
    digest = remembered("event", event.source, event_id) if event_id else b""
    worth = sum((_worth(hit) for hit in found.hits), _ZERO)
    return Scorable(sequence, worth, arrival_ms, event.event_type, RuleEvent(arrival_ms, found.hits, digest))


def _evaluated(rules: RuleSet, points: Decimal | None, event: Event, arrival_ms: int) -> Evaluated | None:
    event_type, details = event.event_type, event.details
    if event_type not in rules.by_type:
        if event_type == ADJUSTMENT:
            adjustment = adjustment_of(event)
            if adjustment is None:
                return Evaluated((), odd=1)
            return evaluate(rules, Facts(event_type, arrival_ms, adjustment=adjustment))
        return None if points is None else Evaluated((plain_hit(points),))
    if details is None:
        facts = Facts(event_type, arrival_ms, message=event.message, campaign=event.campaign)
    else:
        facts = Facts(
            event_type,
            arrival_ms,
            details.payload,
            event.message,
            event.campaign,
            details.user_agent,
            details.machine,
            event.arrival_ms,
            details.sent_ms,
        )
    return evaluate(rules, facts)


def _worth(hit: Hit) -> Decimal:
    """Return the points of a hit before caps, decay and clamps: what the statistics of events show."""
    rule = hit.rule
    if rule.points is not None:
        return rule.points
    if rule.is_stamp:
        return _ZERO
    return Decimal(hit.value) / (MICRO if rule.amount is not None else NANO)
