"""What an event is worth: `Definition`s from a table, and the book that answers for one event.

The rows keep the form of the system this one replaces: `EventType` (HASH), `PinpointProjectId`
(RANGE), `ScoreOffset` (N).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from functools import cached_property

import msgspec

from service.scoring.rules.model import ADJUSTMENT, RuleSet
from service.scoring.rules.stored import RulesRow, StoredRulesError, decode_rules

MAX_INTEGER_DIGITS = 15
MAX_FRACTION_DIGITS = 9
"""Bounds of `ScoreOffset`: with them a sum stays exact in the 38 digits of a DynamoDB number for
10**14 events and more (https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/Constraints.html)."""


RESERVED = "#"
"""First character of the keys of rows that are not definitions."""

RULES_TYPE = f"{RESERVED}rules"
"""`EventType` of a row that holds a project's rules."""


class Definition(msgspec.Struct, frozen=True):
    """Points for one event type of one project; `points` may be negative, and may have decimals."""

    event_type: str
    project_id: str
    points: Decimal


class Malformed(msgspec.Struct, frozen=True):
    """A row of the table that cannot be used. `event_type` and `project_id` are empty where unreadable."""

    event_type: str
    project_id: str
    detail: str


def points_fault(points: Decimal) -> str | None:
    """Return why `points` cannot be a `ScoreOffset`, or None when it can."""
    if not points.is_finite():
        return f"ScoreOffset {points} is not a finite number"
    if points and points.adjusted() >= MAX_INTEGER_DIGITS:
        return f"ScoreOffset {points} has more than {MAX_INTEGER_DIGITS} digits before the point"
    exponent = points.normalize().as_tuple().exponent
    if isinstance(exponent, int) and -exponent > MAX_FRACTION_DIGITS:
        return f"ScoreOffset {points} has more than {MAX_FRACTION_DIGITS} digits after the point"
    return None


class DefinitionBook:
    """The definitions and rules in force: immutable; a refresh makes a new book from the last.

    Attributes:
        rules: By project; a project that is missing has plain definitions only.
        faults: Rows of the last refresh that cannot be used; their last good version is in force.
    """

    def __init__(
        self,
        points: Mapping[str, Mapping[str, Decimal]] | None = None,
        rules: Mapping[str, RuleSet] | None = None,
        rows: Mapping[str, RulesRow] | None = None,
        faults: Sequence[Malformed] = (),
    ) -> None:
        self._points = points or {}
        self._rows = rows or {}
        self.rules = rules or {}
        self.faults = faults

    def points(self, event_type: str, project_id: str) -> Decimal | None:
        """Return what such an event is worth, or None when no definition covers it."""
        by_type = self._points.get(project_id)
        return None if by_type is None else by_type.get(event_type)

    @cached_property
    def detailed(self) -> frozenset[str]:
        """Event types whose payload is read: those that some rule asks about, and adjustments by hand."""
        return frozenset({ADJUSTMENT}).union(*(rules.wants_payload for rules in self.rules.values()))

    def __len__(self) -> int:
        return sum(map(len, self._points.values()))

    def definitions(self) -> list[Definition]:
        """Return every definition in force, sorted by project and type."""
        return [
            Definition(event_type, project_id, points)
            for project_id, by_type in sorted(self._points.items())
            for event_type, points in sorted(by_type.items())
        ]

    def refreshed(self, rows: Iterable[Definition | Malformed | RulesRow]) -> DefinitionBook:
        """Return the book after reading the whole table as `rows`.

        A row that cannot be used keeps the last good definition, or rules, of its key; a row that is gone is gone.

        Raises:
            StoredRulesError: The rules of a project cannot be used, and it has none from before: without them its
                events would count otherwise.
        """
        points: dict[str, dict[str, Decimal]] = {}
        rules: dict[str, RulesRow] = {}
        faults: list[Malformed] = []
        for row in rows:
            value: Decimal | None = None
            match row:
                case RulesRow():
                    rules[row.project_id] = row
                case Definition():
                    value = row.points
                case Malformed():
                    faults.append(row)
                    value = self.points(row.event_type, row.project_id)
                    if row.event_type.startswith(RESERVED):
                        rules[row.project_id] = self._last_good(row)
            if value is not None and not isinstance(row, RulesRow):
                points.setdefault(row.project_id, {})[row.event_type] = value
        decoded: dict[str, RuleSet] = {}
        for project_id, row in rules.items():
            if self._rows.get(project_id) == row:
                decoded[project_id] = self.rules[project_id]
                continue
            try:
                decoded[project_id] = decode_rules(project_id, row.text)
            except StoredRulesError as error:
                fault = Malformed(RULES_TYPE, project_id, str(error))
                faults.append(fault)
                rules[project_id] = self._last_good(fault)
                decoded[project_id] = self.rules[project_id]
        return DefinitionBook(points, decoded, rules, faults)

    def _last_good(self, row: Malformed) -> RulesRow:
        last = self._rows.get(row.project_id)
        if last is None:
            raise StoredRulesError(f"the rules of project {row.project_id} cannot be used: {row.detail}")
        return last


DEFAULT_POINTS: Mapping[str, Decimal] = {
    "_email.click": Decimal(50),
    "_email.open": Decimal(10),
    "_email.delivered": Decimal(2),
    "_email.hardbounce": Decimal(-1000),
    "_email.complaint": Decimal(-1000),
    "_email.unsubscribe": Decimal(-500),
    "_SMS.SUCCESS": Decimal(2),
    "_SMS.OPTOUT": Decimal(-500),
    "_campaign.send": Decimal(2),
    "_campaign.opened_notification": Decimal(50),
    "_campaign.received_foreground": Decimal(2),
    "_campaign.received_background": Decimal(2),
    "_session.start": Decimal(2),
    "_userauth.sign_up": Decimal(50),
    "_monetization.purchase": Decimal(100),
}
"""What `scoring setup` writes for a project that has no definitions yet."""
