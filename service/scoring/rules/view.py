"""What a person's state shows on a given day: contributions, groups, score, tier. Exact until the last rounding.

A contribution is price x count. Contributions of a group are added, then the group is clamped; groups are added, then
the score is clamped. Nothing that is clamped is ever stored: +80, +80, -100 within 0 to 100 shows 80, 100, 60.
Values are rounded half to even to the rules' `scale`, each from its exact value.
"""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from functools import lru_cache

import msgspec

from service.scoring.rules.decay import day_of, day_weight, decayed, unexpired
from service.scoring.rules.evaluate import ADJUST_RULE
from service.scoring.rules.model import (
    FOREIGN_SLOT,
    MAIN_GROUP,
    MICRO,
    NANO,
    PLAIN_SLOT,
    Idle,
    Rule,
    RuleSet,
    Tier,
)
from service.scoring.rules.state import DECAYING, EXACT, EXPIRING, PersonState, Slot

FORESIGHT_DAYS = 400
"""How far ahead the next fall of a tier is looked for."""

_PARTS = NANO * MICRO
"""Sums are added in these parts of a point."""

_RESERVED = {FOREIGN_SLOT: "foreign", PLAIN_SLOT: "definitions"}


class Fraction(msgspec.Struct, frozen=True, gc=False):
    """An exact value: numerator by a positive denominator, not reduced (reducing costs more than it saves)."""

    numerator: int
    denominator: int

    def plus(self, other: Fraction) -> Fraction:
        """Return the sum."""
        if not self.numerator:
            return other
        if self.denominator == other.denominator:
            return Fraction(self.numerator + other.numerator, self.denominator)
        return Fraction(
            self.numerator * other.denominator + other.numerator * self.denominator,
            self.denominator * other.denominator,
        )

    def clamped(self, minimum: Decimal | None, maximum: Decimal | None) -> Fraction:
        """Return the value within bounds."""
        if maximum is not None and self.above(maximum):
            return fraction(maximum)
        if minimum is not None and fraction(minimum).numerator * self.denominator > self.numerator * NANO:
            return fraction(minimum)
        return self

    def above(self, bound: Decimal) -> bool:
        """Return whether it is more than `bound`."""
        return self.numerator * NANO > fraction(bound).numerator * self.denominator

    def at_least(self, bound: Decimal) -> bool:
        """Return whether it is `bound` or more."""
        return self.numerator * NANO >= fraction(bound).numerator * self.denominator

    def rounded(self, scale: int) -> Decimal:
        """Return it with `scale` decimals, half to even."""
        whole, rest = divmod(self.numerator * 10**scale, self.denominator)
        if 2 * rest > self.denominator or (2 * rest == self.denominator and whole & 1):
            whole += 1
        return EXACT.scaleb(Decimal(whole), -scale)


ZERO = Fraction(0, 1)


@lru_cache(maxsize=4096)
def fraction(value: Decimal) -> Fraction:
    """Return a decimal of at most 9 decimals, in billionths."""
    return Fraction(int(value * NANO), NANO)


class Shown(msgspec.Struct, frozen=True, gc=False):
    """What is published of a person.

    Attributes:
        score: The score.
        groups: By name, every group of the rules.
        tier: Name of the tier; empty: none.
    """

    score: Decimal
    groups: Mapping[str, Decimal]
    tier: str


class Contribution(msgspec.Struct, frozen=True):
    """What one slot gives before any clamp.

    Attributes:
        slot: The slot; -1 for `idle`, which has none.
        rule_id: Its rule; `foreign`, `definitions`, `adjustment`, or `slot <n>` where no rule is known by that number.
        group: Its group.
        points: Rounded.
        count: Its decayed count of events, or of points where it is capped in points or counts amounts; rounded.
        active: Whether the rule still counts events.
    """

    slot: int
    rule_id: str
    group: str
    points: Decimal
    count: Decimal
    active: bool


class GroupView(msgspec.Struct, frozen=True):
    """One group.

    Attributes:
        name: Its name.
        score: What it shows.
        unclamped: Before its clamps and suppression.
        suppressed_ms: Since when it is suppressed, epoch milliseconds; 0: it is not.
    """

    name: str
    score: Decimal
    unclamped: Decimal
    suppressed_ms: int


class Explanation(msgspec.Struct, frozen=True):
    """Why a person's score is what it is.

    Attributes:
        day: The day, counted from 1970-01-01.
        shown: What is published.
        unclamped: The sum of the groups before the score's own clamps.
        groups: By name.
        contributions: By slot.
    """

    day: int
    shown: Shown
    unclamped: Decimal
    groups: Mapping[str, GroupView]
    contributions: tuple[Contribution, ...]


class _Sums(msgspec.Struct):
    """Exact values on the way to a view: by group, and since when each group is suppressed (0: it is not)."""

    groups: dict[str, Fraction]
    hidden: dict[str, int]


def view(rules: RuleSet, state: PersonState, tier: str, updated_ms: int, day: int) -> Shown:
    """Return what `state` shows.

    Args:
        rules: The rules in force.
        state: The person's state.
        tier: Name of the tier at the last write; empty: none.
        updated_ms: Newest arrival in the state, epoch milliseconds; 0: none.
        day: The day, counted from 1970-01-01; one before the newest arrival counts as that day.
    """
    sums = _sums(rules, state, updated_ms, max(day, day_of(updated_ms)))
    scale = rules.scale
    clamped = _clamped(rules, sums)
    score = _total(clamped).clamped(rules.minimum, rules.maximum).rounded(scale)
    groups = {name: value.rounded(scale) for name, value in clamped.items()}
    return Shown(score, groups, tier_of(rules.tiers, tier, score))


def score_of(rules: RuleSet, state: PersonState, tier: str, updated_ms: int, day: int) -> tuple[Decimal, str]:
    """Return the score and the tier that `view` shows; the arguments are those of `view`."""
    clamped = _clamped(rules, _sums(rules, state, updated_ms, max(day, day_of(updated_ms))))
    score = _total(clamped).clamped(rules.minimum, rules.maximum).rounded(rules.scale)
    return score, tier_of(rules.tiers, tier, score)


def explain(rules: RuleSet, state: PersonState, tier: str, updated_ms: int, day: int) -> Explanation:
    """Return what `state` shows and what it comes of; the arguments are those of `view`."""
    day = max(day, day_of(updated_ms))
    sums = _sums(rules, state, updated_ms, day)
    groups = {
        name: GroupView(
            name,
            value.rounded(rules.scale),
            sums.groups.get(name, ZERO).rounded(rules.scale),
            sums.hidden.get(name, 0),
        )
        for name, value in _clamped(rules, sums).items()
    }
    parts = [
        _contribution(rules, number, slot, day)
        for number, slot in sorted(state.slots.items())
        if not ((rule := rules.by_slot.get(number)) is not None and rule.is_stamp)
    ]
    parts += [
        Contribution(-1, idle.rule_id, idle.group, fraction(idle.points).rounded(rules.scale), Decimal(1), active=True)
        for idle in rules.idles
        if _is_idle(idle, updated_ms, day)
    ]
    return Explanation(
        day,
        view(rules, state, tier, updated_ms, day),
        _total(_clamped(rules, sums)).rounded(rules.scale),
        groups,
        tuple(parts),
    )


def _sums(rules: RuleSet, state: PersonState, updated_ms: int, day: int) -> _Sums:
    """Return the groups' sums before any clamp.

    Slots of one group that fade alike have one denominator: they are added as integers, in `_PARTS` of a point.
    """
    parts: dict[tuple[str, int], int] = {}
    stamps: dict[str, tuple[int, int]] = {}
    by_slot = rules.by_slot
    for number, slot in state.slots.items():
        rule = by_slot.get(number)
        if rule is not None and rule.is_stamp:
            suppressed, resumed = stamps.get(rule.group, (0, 0))
            at = slot.sums.get(0, 0)
            stamps[rule.group] = (max(suppressed, at), resumed) if rule.suppress else (suppressed, max(resumed, at))
            continue
        group, half_life, value = _worth(number, rule, slot, day)
        key = group, half_life
        parts[key] = parts.get(key, 0) + value
    for idle in rules.idles:
        if _is_idle(idle, updated_ms, day):
            key = idle.group, 0
            parts[key] = parts.get(key, 0) + int(idle.points * NANO) * MICRO
    totals: dict[str, Fraction] = {}
    for (group, half_life), value in parts.items():
        found = Fraction(value, _weight(day, half_life) * _PARTS)
        before = totals.get(group)
        totals[group] = found if before is None else before.plus(found)
    hidden = {name: at for name, (at, resumed) in stamps.items() if at and at >= resumed}
    return _Sums(totals, hidden)


def _weight(day: int, half_life: int) -> int:
    return day_weight(day, half_life) if half_life else 1


def _is_idle(idle: Idle, updated_ms: int, day: int) -> bool:
    return bool(updated_ms) and day - day_of(updated_ms) >= idle.days


def _worth(number: int, rule: Rule | None, slot: Slot, day: int) -> tuple[str, int, int]:
    """Return a slot's group, its half-life, and what it is worth in `_PARTS` of a point times the day's weight.

    A slot that no rule is known for is worth nothing.
    """
    if rule is None:
        if number in (FOREIGN_SLOT, PLAIN_SLOT):
            return MAIN_GROUP, 0, slot.sums.get(0, 0) * MICRO
        if number != ADJUST_RULE.slot:
            return MAIN_GROUP, 0, 0
        rule = ADJUST_RULE
    numerator, half_life = _sum(rule, slot, day)
    return rule.group, half_life, numerator * rule.price * (MICRO // rule.unit)


def _sum(rule: Rule, slot: Slot, day: int) -> tuple[int, int]:
    """Return a slot's sum on a day times the weight of its half-life, and that half-life (0: the weight is 1)."""
    if slot.kind == DECAYING and rule.half_life:
        return decayed(slot.sums, day, rule.half_life), rule.half_life
    if slot.kind == EXPIRING:
        return unexpired(slot.sums, day, rule.expire), 0
    return slot.sums.get(0, 0), 0


def _contribution(rules: RuleSet, number: int, slot: Slot, day: int) -> Contribution:
    rule = rules.by_slot.get(number)
    group, half_life, value = _worth(number, rule, slot, day)
    weight = _weight(day, half_life)
    points = Fraction(value, weight * _PARTS).rounded(rules.scale)
    if rule is None and number in _RESERVED:
        return Contribution(number, _RESERVED[number], group, points, points, active=False)
    if rule is None and number != ADJUST_RULE.slot:
        return Contribution(number, f"slot {number}", group, points, Decimal(0), active=False)
    rule = rule or ADJUST_RULE
    count = Fraction(_sum(rule, slot, day)[0], weight * rule.unit).rounded(rules.scale)
    return Contribution(number, rule.rule_id, group, points, count, rule.active)


def _clamped(rules: RuleSet, sums: _Sums) -> dict[str, Fraction]:
    """Return what each group shows, before rounding."""
    groups = {
        name: ZERO if name in sums.hidden else sums.groups.get(name, ZERO).clamped(group.minimum, group.maximum)
        for name, group in rules.groups.items()
    }
    for name, value in sums.groups.items():
        if name not in groups:  # `main` where the rules name no such group; a group that only retired rules have
            groups[name] = ZERO if name in sums.hidden else value
    return groups


def _total(groups: Mapping[str, Fraction]) -> Fraction:
    total = ZERO
    for value in groups.values():
        if value.numerator:
            total = total.plus(value)
    return total


def tier_of(tiers: tuple[Tier, ...], before: str, score: Decimal) -> str:
    """Return the tier of a score, given the tier before: entered at `enter`, left below `leave`.

    A person who falls out of one tier falls through those below it in turn. A tier that is gone from the rules counts
    as none.
    """
    level = next((index for index, tier in enumerate(tiers) if tier.name == before), -1)
    while level >= 0 and score < tiers[level].leave:
        level -= 1
    while level + 1 < len(tiers) and score >= tiers[level + 1].enter:
        level += 1
    return tiers[level].name if level >= 0 else ""


def next_fall(rules: RuleSet, state: PersonState, tier: str, updated_ms: int, day: int) -> tuple[int, str] | None:
    """Return the day on which the tier changes without events, and the tier then; None within `FORESIGHT_DAYS`."""
    for ahead in range(day + 1, day + 1 + FORESIGHT_DAYS):
        then = view(rules, state, tier, updated_ms, ahead).tier
        if then != tier:
            return ahead, then
    return None
