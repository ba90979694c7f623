"""What an event is worth: `Definition`s from a table, and the book that answers for one event.

The rows keep the form of the system this one replaces: `EventType` (HASH), `PinpointProjectId`
(RANGE), `ScoreOffset` (N).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from decimal import Decimal

import msgspec

MAX_INTEGER_DIGITS = 15
MAX_FRACTION_DIGITS = 9
"""Bounds of `ScoreOffset`: with them a sum stays exact in the 38 digits of a DynamoDB number for
10**14 events and more (https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/Constraints.html)."""


RESERVED = "#"
"""First character of the keys of rows that are not definitions."""


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
    """The definitions in force: immutable; a refresh makes a new book from the last."""

    def __init__(self, points: Mapping[str, Mapping[str, Decimal]] | None = None) -> None:
        self._points = points or {}

    def points(self, event_type: str, project_id: str) -> Decimal | None:
        """Return what such an event is worth, or None when no definition covers it."""
        by_type = self._points.get(project_id)
        return None if by_type is None else by_type.get(event_type)

    def __len__(self) -> int:
        return sum(map(len, self._points.values()))

    def definitions(self) -> list[Definition]:
        """Return every definition in force, sorted by project and type."""
        return [
            Definition(event_type, project_id, points)
            for project_id, by_type in sorted(self._points.items())
            for event_type, points in sorted(by_type.items())
        ]

    def refreshed(self, rows: Iterable[Definition | Malformed]) -> DefinitionBook:
        """Return the book after reading the whole table as `rows`.

        A malformed row keeps the last good definition of its key; a row that is gone is gone.
        """
        points: dict[str, dict[str, Decimal]] = {}
        for row in rows:
            match row:
                case Definition():
                    value: Decimal | None = row.points
                case Malformed():
                    value = self.points(row.event_type, row.project_id)
            if value is not None:
                points.setdefault(row.project_id, {})[row.event_type] = value
        return DefinitionBook(points)


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
