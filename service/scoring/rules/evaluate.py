"""Which rules an event meets, and what each gives it. A function of the event and the rules alone.

Odd values are never a fault of the event: an amount that is absent, not a number, or below its minimum counts 0, and
a comparison with an absent or incomparable value is false. What was odd is counted by the caller (`odd`).
"""

from __future__ import annotations

from decimal import ROUND_HALF_EVEN, Decimal, InvalidOperation
from hashlib import blake2b

import msgspec

from service.scoring.rules.human import is_human
from service.scoring.rules.model import (
    ABSENT_VALUE,
    ADJUST_SLOT,
    ADJUSTMENT,
    MICRO,
    NANO,
    PLAIN_SLOT,
    Amount,
    Condition,
    Once,
    Op,
    Rule,
    RuleSet,
)
from service.scoring.rules.state import HASH_BYTES

MAX_AMOUNT = Decimal(10) ** 9
"""Most points that one event can give, either way."""


class Facts(msgspec.Struct, frozen=True):
    """What rules ask of an event.

    Attributes:
        event_type: As its source names it.
        arrival_ms: When it arrived, epoch milliseconds: the earlier of what the sender and Kinesis say.
        payload: The decoded event; `ABSENT_VALUE` where no rule reads it.
        message: What `once: message` counts by; empty: not known.
        campaign: What `once: campaign` counts by; empty: not known.
        user_agent: Of an open or click; empty: not known.
        machine: Whether the sender itself says that a machine did it.
        at_ms: When it happened, epoch milliseconds; 0: not known.
        sent_ms: When the message it follows was sent, epoch milliseconds; 0: not known.
        adjustment: Points of an adjustment by hand; 0 otherwise.
    """

    event_type: str
    arrival_ms: int
    payload: object = ABSENT_VALUE
    message: str = ""
    campaign: str = ""
    user_agent: str = ""
    machine: bool = False
    at_ms: int = 0
    sent_ms: int = 0
    adjustment: Decimal = Decimal(0)


class Hit(msgspec.Struct, frozen=True, gc=False):
    """An event that meets a rule.

    Attributes:
        rule: The rule.
        value: What is added to the rule's sum: 1, or millionths.
        once: Hash of what is counted once; empty where every event counts.
    """

    rule: Rule
    value: int
    once: bytes = b""


class Evaluated(msgspec.Struct, frozen=True, gc=False):
    """What the rules make of one event.

    Attributes:
        hits: Rules met.
        odd: Amounts that counted 0 because they were absent, not a number, or out of bounds.
        machines: Rules not met because a machine did it.
    """

    hits: tuple[Hit, ...]
    odd: int = 0
    machines: int = 0


ADJUST_RULE = Rule("adjustment", ADJUST_SLOT, (ADJUSTMENT,), amount=Amount("", Decimal(1), -MAX_AMOUNT, MAX_AMOUNT, id))
"""The rule that every project has: what people add by hand."""


PLAIN_RULE = Rule("definitions", PLAIN_SLOT, ())
"""What plain definitions of a project with rules count in: billionths of points."""


def plain_hit(points: Decimal) -> Hit:
    """Return the hit of an event that no rule names and a plain definition gives points."""
    return Hit(PLAIN_RULE, int(points * NANO))


def covers(rules: RuleSet, event_type: str) -> bool:
    """Return whether any active rule names the event type."""
    return event_type in rules.by_type or event_type == ADJUSTMENT


def evaluate(rules: RuleSet, facts: Facts) -> Evaluated:
    """Return the rules that an event meets."""
    if facts.event_type == ADJUSTMENT:
        return Evaluated((Hit(ADJUST_RULE, _micro(facts.adjustment)),))
    hits: list[Hit] = []
    odd = machines = 0
    for rule in rules.by_type.get(facts.event_type, ()):
        if not _in_force(rule, facts.arrival_ms):
            continue
        if rule.when and not all(holds(condition, facts.payload) for condition in rule.when):
            continue
        if rule.human and not is_human(facts.user_agent, facts.machine, facts.at_ms, facts.sent_ms, rules.min_seconds):
            machines += 1
            continue
        value = rule.unit
        if rule.amount is not None:
            amount = amount_of(rule.amount, facts.payload)
            if amount is None:
                odd += 1
                amount = 0
            value = amount
        hits.append(Hit(rule, value, _once(rule, facts)))
    return Evaluated(tuple(hits), odd, machines)


def _in_force(rule: Rule, arrival_ms: int) -> bool:
    return (rule.from_ms is None or arrival_ms >= rule.from_ms) and (
        rule.until_ms is None or arrival_ms < rule.until_ms
    )


def _once(rule: Rule, facts: Facts) -> bytes:
    if rule.once is None:
        return b""
    about = facts.message if rule.once is Once.MESSAGE else facts.campaign
    # Where the source does not say which message it was, every event counts.
    return remembered(f"{rule.slot}", about) if about else b""


def remembered(*about: str) -> bytes:
    """Return the hash that stands for something in a person's once memory."""
    digest = blake2b(digest_size=HASH_BYTES)
    for part in about:
        encoded = part.encode("utf-8", "surrogatepass")
        digest.update(len(encoded).to_bytes(4, "big") + encoded)
    return digest.digest()


def holds(condition: Condition, payload: object) -> bool:
    """Return whether a condition holds for a payload."""
    found = condition.lookup(payload)
    if condition.op is Op.EXISTS:
        return found is not ABSENT_VALUE
    if condition.op is Op.NOT_EXISTS:
        return found is ABSENT_VALUE
    if found is ABSENT_VALUE:
        return False
    return _compare(condition.op, found, condition.value)


def _compare(op: Op, found: object, value: object) -> bool:
    match op:
        case Op.EQ:
            return _equal(found, value)
        case Op.NE:
            return not _equal(found, value)
        case Op.IN:
            return isinstance(value, tuple) and any(_equal(found, each) for each in value)
        case Op.PREFIX:
            return isinstance(found, str) and isinstance(value, str) and found.startswith(value)
    left, right = number(found), number(value)
    if left is None or right is None:
        return False
    match op:
        case Op.LT:
            return left < right
        case Op.LE:
            return left <= right
        case Op.GT:
            return left > right
        case _:
            return left >= right


def _equal(found: object, value: object) -> bool:
    """Return whether two values are the same; 1 and 1.0 are, true and 1 are not, "1" and 1 are not."""
    if isinstance(found, bool) or isinstance(value, bool):
        return found is value
    return found == value


def number(value: object) -> Decimal | None:
    """Return a finite number, or a text that is one, as a decimal; None for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float | str | Decimal):
        return None
    try:
        found = Decimal(value) if isinstance(value, int | Decimal) else Decimal(str(value))
    except (InvalidOperation, ValueError):
        return None
    return found if found.is_finite() else None


def amount_of(amount: Amount, payload: object) -> int | None:
    """Return the points of one event in millionths; None for an odd value, which counts 0.

    Odd are an absent value, one that is not a number, and a negative one below the minimum.
    """
    value = number(amount.lookup(payload))
    if value is None:
        return None
    if value.copy_abs() > MAX_AMOUNT:  # `abs` rounds, and overflows
        value = MAX_AMOUNT.copy_sign(value)
    points = value * amount.factor
    if points < 0 and points < amount.minimum:
        return None
    points = max(points, amount.minimum)
    if amount.maximum is not None:
        points = min(points, amount.maximum)
    return _micro(max(-MAX_AMOUNT, min(points, MAX_AMOUNT)))


def _micro(points: Decimal) -> int:
    return int((points * MICRO).to_integral_value(ROUND_HALF_EVEN))
