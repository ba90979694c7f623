"""What a rule may say, as compiled from a rules file. Pure data; `parse` makes it, `evaluate` and `view` use it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from decimal import Decimal
from enum import Enum
from functools import cached_property

import msgspec

MICRO = 1_000_000
"""Amounts (`per`) and partly counted events (`cap` in points) are kept in millionths."""

NANO = 1_000_000_000
"""Prices are kept in billionths: `points` has at most 9 decimals."""

MAX_SLOTS = 253
"""Slots that rules can have per project, 0 to 252; the last three are reserved."""

PLAIN_SLOT = 253
"""Points of plain definitions, of event types that no rule names."""

ADJUST_SLOT = 254
"""What people added by hand (`scoring scores adjust`)."""

ADJUSTMENT = "_adjustment"
"""Event type of `scoring scores adjust`: its amount counts in a slot of its own, undecayed, whatever the rules say."""

FOREIGN_SLOT = 255
"""What something else added to `Score`, and the score that an item had before its project had rules."""

MAIN_GROUP = "main"
ONCE_ENTRIES = 16
"""Default number of messages, campaigns and event ids remembered per person."""

Lookup = Callable[[object], object]
"""Returns what stands at a path of a decoded payload; `ABSENT_VALUE` where nothing does."""


class _Absent(Enum):
    ABSENT = "absent"


ABSENT_VALUE = _Absent.ABSENT
"""Nothing stands at the path. JSON's null is a value, and differs."""


class Window(Enum):
    """Calendar windows of a cap, UTC."""

    DAY = "day"
    WEEK = "week"
    MONTH = "month"
    LIFE = "life"


class Op(Enum):
    """Comparisons of a condition."""

    EQ = "eq"
    NE = "ne"
    IN = "in"
    PREFIX = "prefix"
    LT = "lt"
    LE = "le"
    GT = "gt"
    GE = "ge"
    EXISTS = "exists"
    NOT_EXISTS = "not_exists"


class Once(Enum):
    """What a rule counts once for."""

    MESSAGE = "message"
    CAMPAIGN = "campaign"


class Condition(msgspec.Struct, frozen=True):
    """One condition on the payload.

    Attributes:
        path: As written, for explanations.
        op: The comparison.
        value: What to compare with; a tuple for `in`, unused for `exists` and `not_exists`.
        lookup: The compiled path.
    """

    path: str
    op: Op
    value: object
    lookup: Lookup


class Amount(msgspec.Struct, frozen=True):
    """Points from a number in the event: value x factor, clamped.

    Attributes:
        path: As written, for explanations.
        factor: Points per unit.
        minimum: Least points of one event.
        maximum: Most points of one event; None: no limit but `MAX_AMOUNT`.
        lookup: The compiled path.
    """

    path: str
    factor: Decimal
    minimum: Decimal
    maximum: Decimal | None
    lookup: Lookup


class Cap(msgspec.Struct, frozen=True):
    """At most `limit` in a window.

    Attributes:
        window: The calendar window.
        limit: Events; millionths of points where `in_points`.
        in_points: Whether points are limited rather than events.
    """

    window: Window
    limit: int
    in_points: bool


class Group(msgspec.Struct, frozen=True):
    """A named part of the score.

    Attributes:
        name: Its name; `main` is where rules without a group belong.
        half_life: Days in which a sum halves; 0: no decay.
        expire: Days after which an event no longer counts; 0: never. Not together with `half_life`.
        minimum: The least the group shows; None: no limit.
        maximum: The most it shows; None: no limit.
    """

    name: str
    half_life: int = 0
    expire: int = 0
    minimum: Decimal | None = None
    maximum: Decimal | None = None


class Tier(msgspec.Struct, frozen=True):
    """A tier is entered at a score of at least `enter` and left below `leave`; `leave` is at most `enter`."""

    name: str
    enter: Decimal
    leave: Decimal


class Rule(msgspec.Struct, frozen=True, dict=True):
    """One rule, with the slot it counts in.

    Attributes:
        rule_id: Its id in the file.
        slot: Where its sum is kept, 0 to 252; never reused for another rule.
        on: Event types.
        group: The group its points belong to. For `suppress` and `resume` the group acted on.
        points: Points per event; None for `per`, `suppress` and `resume`.
        amount: Points from the event; None unless `per`.
        half_life: Days, from its group when the slot was given; 0: no decay.
        expire: Days, likewise; 0: never.
        once: What it counts once for; None: every event.
        cap: At most so much; None: no limit.
        when: All must hold.
        human: Whether events of known prefetchers and scanners are left out.
        from_ms: Arrivals before it do not count, epoch milliseconds; None: no bound.
        until_ms: Arrivals from it on do not count; None: no bound.
        suppress: Whether it hides its group.
        resume: Whether it shows its group again.
        active: False for a slot that is not fed any more but still counts at its last price.
    """

    rule_id: str
    slot: int
    on: tuple[str, ...]
    group: str = MAIN_GROUP
    points: Decimal | None = None
    amount: Amount | None = None
    half_life: int = 0
    expire: int = 0
    once: Once | None = None
    cap: Cap | None = None
    when: tuple[Condition, ...] = ()
    human: bool = False
    from_ms: int | None = None
    until_ms: int | None = None
    suppress: bool = False
    resume: bool = False
    active: bool = True

    @cached_property
    def unit(self) -> int:
        """How much of the slot's sum is one event (1) or one point (`MICRO`)."""
        return MICRO if self.amount is not None or (self.cap is not None and self.cap.in_points) else 1

    @cached_property
    def price(self) -> int:
        """Points per whole of the slot's sum, in billionths."""
        return NANO if self.points is None else int(self.points * NANO)

    @cached_property
    def is_stamp(self) -> bool:
        """Whether the slot keeps a time rather than a sum."""
        return self.suppress or self.resume


class Idle(msgspec.Struct, frozen=True):
    """Points (mostly negative) shown once a person has had no event for `days` days."""

    rule_id: str
    group: str
    days: int
    points: Decimal


class RuleSet(msgspec.Struct, frozen=True, dict=True):
    """The rules of one project in one version.

    Attributes:
        project_id: The project.
        version: Grows with every `apply`.
        groups: By name; rules name no others.
        rules: Active and retired ones, each with a slot of its own.
        idles: Rules without events.
        tiers: By `enter`, rising.
        minimum: The least the score shows; None: no limit.
        maximum: The most it shows; None: no limit.
        scale: Decimals of what is published, 0 to 9.
        once_entries: Messages, campaigns and event ids remembered per person.
        min_seconds: For `human`: least seconds between the sending and what follows, where both are known.
        slots_given: Slots given out so far, from 0; the next new one is this. None is ever given out again.
    """

    project_id: str
    version: int
    groups: Mapping[str, Group]
    rules: tuple[Rule, ...]
    idles: tuple[Idle, ...] = ()
    tiers: tuple[Tier, ...] = ()
    minimum: Decimal | None = None
    maximum: Decimal | None = None
    scale: int = 2
    once_entries: int = ONCE_ENTRIES
    min_seconds: int = 2
    slots_given: int = 0

    @cached_property
    def by_slot(self) -> Mapping[int, Rule]:
        """Every rule by its slot."""
        return {rule.slot: rule for rule in self.rules}

    @cached_property
    def by_type(self) -> Mapping[str, tuple[Rule, ...]]:
        """Active rules by event type."""
        found: dict[str, list[Rule]] = {}
        for rule in self.rules:
            if rule.active:
                for event_type in rule.on:
                    found.setdefault(event_type, []).append(rule)
        return {event_type: tuple(rules) for event_type, rules in found.items()}

    @cached_property
    def wants_payload(self) -> frozenset[str]:
        """Event types for which some rule reads the payload, or what a Pinpoint event says of its message."""
        return frozenset(
            event_type
            for event_type, rules in self.by_type.items()
            if any(rule.when or rule.amount is not None or rule.human or rule.once is not None for rule in rules)
        )
