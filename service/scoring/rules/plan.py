"""What applying a rules file changes: which rule keeps its slot, which gets a new one, which is retired. Pure.

A slot belongs to one way of counting for ever. A rule that counts differently from now on (other event types,
conditions, caps, half-life, amounts) therefore gets a new slot; the old one keeps its price and is fed no more. A
changed price or group concerns the view alone: it applies from now on, by a new slot, or retroactively, by giving the
old slot the new price. Slots are never reused, as items of people who have not been seen since still hold them.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum

import msgspec

from service.scoring.rules.load import RulesFile
from service.scoring.rules.model import MAX_SLOTS, Rule, RuleSet


class Kind(Enum):
    """What becomes of a rule."""

    ADDED = "added"
    """It counts from now on."""
    KEPT = "kept"
    """Nothing changes."""
    REPRICED = "repriced"
    """What was counted so far gets the new price or group."""
    REPLACED = "replaced"
    """It counts in another way, or at another price, from now on; what was counted keeps its price."""
    RETIRED = "retired"
    """It counts no more; what was counted keeps its price."""
    WITHDRAWN = "withdrawn"
    """It counts no more, and what was counted is worth nothing any more."""
    SETTING = "setting"
    """Something else than a rule: how sums are shown, or what is remembered."""


class Step(msgspec.Struct, frozen=True):
    """What becomes of one rule.

    Attributes:
        rule_id: The rule.
        kind: What becomes of it.
        slot: The slot that counts from now on; the old one for what is retired or withdrawn.
        why: What differs, in the words of a rules file; empty where nothing does.
    """

    rule_id: str
    kind: Kind
    slot: int
    why: tuple[str, ...] = ()


class Plan(msgspec.Struct, frozen=True):
    """What applying a file does.

    Attributes:
        steps: In the file's order, then what the file no longer has.
        rules: The rules after it; None where `refused`.
        refused: Why it cannot be applied; empty: it can.
    """

    steps: tuple[Step, ...]
    rules: RuleSet | None
    refused: str = ""


def plan(current: RuleSet | None, file: RulesFile, *, retroactive: bool) -> Plan:
    """Return what applying `file` over `current` does.

    Args:
        current: The rules in force; None: the project has none.
        file: What is to be in force.
        retroactive: Whether changed prices and groups, and rules that are gone, concern what was counted so far.
    """
    before = {rule.rule_id: rule for rule in current.rules if rule.active} if current is not None else {}
    given = current.slots_given if current is not None else 0
    steps: list[Step] = []
    active: list[Rule] = []
    retired: list[Rule] = [rule for rule in current.rules if not rule.active] if current is not None else []
    for rule in file.rules:
        old = before.pop(rule.rule_id, None)
        why = () if old is None else differences(old, rule)
        if old is not None and (not why or (retroactive and not set(why) - {"points", "group"})):
            steps.append(Step(rule.rule_id, Kind.REPRICED if why else Kind.KEPT, old.slot, why))
            active.append(msgspec.structs.replace(rule, slot=old.slot))
            continue
        steps.append(Step(rule.rule_id, Kind.ADDED if old is None else Kind.REPLACED, given, why))
        active.append(msgspec.structs.replace(rule, slot=given))
        given += 1
        if old is not None:
            retired.append(msgspec.structs.replace(old, active=False))
    for old in before.values():
        steps.append(Step(old.rule_id, Kind.WITHDRAWN if retroactive else Kind.RETIRED, old.slot))
        if not retroactive:
            retired.append(msgspec.structs.replace(old, active=False))
    if given > MAX_SLOTS:
        return Plan(
            tuple(steps),
            None,
            f"the project would have given out {given} slots, and there are {MAX_SLOTS}: every changed way of counting "
            "takes one. Apply changed prices with --retroactive, or begin with another project",
        )
    return Plan(tuple(steps), _rules(current, file, (*active, *retired), given))


def differences(old: Rule, new: Rule) -> tuple[str, ...]:
    """Return what differs between two versions of a rule, in the words of a rules file."""
    pairs: Sequence[tuple[str, object, object]] = (
        ("points", old.points, new.points),
        ("group", old.group, new.group),
        ("on", set(old.on), set(new.on)),
        ("per", _amount(old), _amount(new)),
        ("half_life", old.half_life, new.half_life),
        ("expire", old.expire, new.expire),
        ("once", old.once, new.once),
        ("cap", old.cap, new.cap),
        ("when", _conditions(old), _conditions(new)),
        ("from", old.from_ms, new.from_ms),
        ("until", old.until_ms, new.until_ms),
        ("suppress", (old.suppress, old.resume), (new.suppress, new.resume)),
    )
    return tuple(name for name, one, other in pairs if one != other)


def _amount(rule: Rule) -> object:
    if rule.amount is None:
        return rule.points is None  # from `per` to `points`, or back, is another way of counting
    return rule.amount.path, rule.amount.factor, rule.amount.minimum, rule.amount.maximum


def _conditions(rule: Rule) -> object:
    return rule.human, [(each.path, each.op, each.value) for each in rule.when]


def _rules(current: RuleSet | None, file: RulesFile, rules: tuple[Rule, ...], given: int) -> RuleSet:
    return RuleSet(
        file.project_id,
        1 if current is None else current.version + 1,
        file.groups,
        rules,
        file.idles,
        file.tiers,
        file.minimum,
        file.maximum,
        file.scale,
        file.once_entries,
        file.min_seconds,
        slots_given=given,
    )
