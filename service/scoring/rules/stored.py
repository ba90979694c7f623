"""Rules as they stand in a row of the definitions table: JSON with every rule's slot, and the history of the file.

The rules file in Git is the truth; the row is what workers read. Retired rules stay in it for ever, as people's items
still hold their sums.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from decimal import Decimal

import msgspec

from service.scoring.paths import PathError, lookup, parse_path
from service.scoring.rules.model import (
    ABSENT_VALUE,
    Amount,
    Cap,
    Condition,
    Group,
    Idle,
    Once,
    Op,
    Rule,
    RuleSet,
    Tier,
)

FORMAT = 1
"""Format of the JSON, and what a worker must be able to score by (`Member.capability`)."""

MAX_HISTORY = 50
"""Versions whose file is kept, the newest last."""

MAX_HISTORY_BYTES = 32 * 1024
"""Compressed; every worker reads the row every few seconds, at half a read unit for 4 KB."""

_MAX_UNPACKED = 64 * 1024 * 1024


class RulesRow(msgspec.Struct, frozen=True):
    """A project's row.

    Attributes:
        project_id: The project.
        version: Of the rules; grows by 1 with every `apply`.
        text: The rules, as `encode_rules` writes them.
        history: What `pack_history` made of the versions, this one included.
    """

    project_id: str
    version: int
    text: str
    history: bytes = b""


class Applied(msgspec.Struct, frozen=True):
    """One version of a project's rules.

    Attributes:
        version: From 1.
        at_ms: When it was applied, epoch milliseconds.
        retroactive: Whether changed prices concerned what was counted before.
        steps: What it changed, one line each.
        file: The rules file.
    """

    version: int
    at_ms: int
    retroactive: bool
    steps: tuple[str, ...]
    file: str


class StoredRulesError(ValueError):
    """A row that this version cannot score by; the message says why."""


class _Condition(msgspec.Struct, frozen=True, omit_defaults=True):
    path: str
    op: Op
    value: str | int | float | bool | list[str | int | float | bool] | None = None


class _Amount(msgspec.Struct, frozen=True):
    path: str
    factor: Decimal
    minimum: Decimal
    maximum: Decimal | None


class _Rule(msgspec.Struct, frozen=True, omit_defaults=True):
    rule_id: str
    slot: int
    on: tuple[str, ...]
    group: str
    points: Decimal | None = None
    amount: _Amount | None = None
    half_life: int = 0
    expire: int = 0
    once: Once | None = None
    cap: Cap | None = None
    when: tuple[_Condition, ...] = ()
    human: bool = False
    from_ms: int | None = None
    until_ms: int | None = None
    suppress: bool = False
    resume: bool = False
    active: bool = True


class _RuleSet(msgspec.Struct, frozen=True):
    format: int
    version: int
    groups: dict[str, Group]
    rules: tuple[_Rule, ...]
    idles: tuple[Idle, ...]
    tiers: tuple[Tier, ...]
    minimum: Decimal | None
    maximum: Decimal | None
    scale: int
    once_entries: int
    min_seconds: int
    slots_given: int


class _Format(msgspec.Struct, frozen=True):
    format: int


_decode = msgspec.json.Decoder(_RuleSet).decode
_decode_history = msgspec.json.Decoder(tuple[Applied, ...]).decode


def encode_rules(rules: RuleSet) -> str:
    """Return rules as the text of a row."""
    wire = _RuleSet(
        FORMAT,
        rules.version,
        dict(rules.groups),
        tuple(map(_wire_rule, rules.rules)),
        rules.idles,
        rules.tiers,
        rules.minimum,
        rules.maximum,
        rules.scale,
        rules.once_entries,
        rules.min_seconds,
        rules.slots_given,
    )
    return msgspec.json.encode(wire).decode()


def decode_rules(project_id: str, text: str) -> RuleSet:
    """Return the rules of a row.

    Raises:
        StoredRulesError: The text is of another format, or not of this kind.
    """
    try:
        found = msgspec.json.decode(text, type=_Format).format
        if found != FORMAT:
            raise StoredRulesError(f"the rules have format {found}; this version reads {FORMAT}")
        wire = _decode(text)
        rules = tuple(map(_rule, wire.rules))
    except (msgspec.DecodeError, PathError) as error:
        raise StoredRulesError(f"the rules cannot be read: {error}") from None
    return RuleSet(
        project_id,
        wire.version,
        wire.groups,
        rules,
        wire.idles,
        wire.tiers,
        wire.minimum,
        wire.maximum,
        wire.scale,
        wire.once_entries,
        wire.min_seconds,
        wire.slots_given,
    )


def _wire_rule(rule: Rule) -> _Rule:
    amount = rule.amount
    return _Rule(
        rule.rule_id,
        rule.slot,
        rule.on,
        rule.group,
        rule.points,
        None if amount is None else _Amount(amount.path, amount.factor, amount.minimum, amount.maximum),
        rule.half_life,
        rule.expire,
        rule.once,
        rule.cap,
        tuple(_Condition(each.path, each.op, _listed(each.value)) for each in rule.when),
        rule.human,
        rule.from_ms,
        rule.until_ms,
        rule.suppress,
        rule.resume,
        rule.active,
    )


def _listed(value: object) -> str | int | float | bool | list[str | int | float | bool] | None:
    if value is None or isinstance(value, str | int | float):
        return value
    if isinstance(value, tuple):
        return [each for each in value if isinstance(each, str | int | float)]
    raise TypeError(f"a condition compares with {type(value).__name__}")


def _rule(wire: _Rule) -> Rule:
    amount = wire.amount
    return Rule(
        wire.rule_id,
        wire.slot,
        wire.on,
        wire.group,
        wire.points,
        None
        if amount is None
        else Amount(
            amount.path,
            amount.factor,
            amount.minimum,
            amount.maximum,
            lookup(parse_path(amount.path), ABSENT_VALUE),
        ),
        wire.half_life,
        wire.expire,
        wire.once,
        wire.cap,
        tuple(
            Condition(
                each.path,
                each.op,
                tuple(each.value) if isinstance(each.value, list) else each.value,
                lookup(parse_path(each.path), ABSENT_VALUE),
            )
            for each in wire.when
        ),
        wire.human,
        wire.from_ms,
        wire.until_ms,
        wire.suppress,
        wire.resume,
        wire.active,
    )


def pack_history(versions: Sequence[Applied]) -> bytes:
    """Return versions as bytes, without the oldest ones where there are too many of them; the newest is always kept."""
    kept = list(versions)[-MAX_HISTORY:]
    while True:
        packed = zlib.compress(msgspec.json.encode(kept), 9)
        if len(packed) <= MAX_HISTORY_BYTES or len(kept) == 1:
            return packed
        del kept[: max(1, len(kept) // 8)]


def unpack_history(packed: bytes) -> tuple[Applied, ...]:
    """Return the versions that `pack_history` packed, the newest last.

    Raises:
        StoredRulesError: These are other bytes.
    """
    if not packed:
        return ()
    try:
        inflater = zlib.decompressobj()
        data = inflater.decompress(packed, _MAX_UNPACKED)
        if not inflater.eof:
            raise StoredRulesError("the history of the rules is cut off")
        return _decode_history(data)
    except (zlib.error, msgspec.DecodeError) as error:
        raise StoredRulesError(f"the history of the rules cannot be read: {error}") from None
