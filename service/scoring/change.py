"""A score that changed: what the score table's stream tells, and which of two changes is the newer."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal, InvalidOperation

import msgspec

from service.scoring.event import Reason, Rejected
from service.scoring.fold import UserKey

Image = Mapping[str, Mapping[str, object]]
"""An item in DynamoDB's own JSON, such as `{"Score": {"N": "12"}}`
(https://docs.aws.amazon.com/amazondynamodb/latest/APIReference/API_AttributeValue.html)."""

MAX_WHOLE = 2**63 - 1
"""Largest revision or time believed. DynamoDB holds 1E+125, but to count that up takes more than its 38 digits
(https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/Constraints.html), and JSON encoders end at 64 bit."""

_SURELY_WHOLE_DIGITS = 18  # all of them are below MAX_WHOLE


class ScoreChange(msgspec.Struct, frozen=True):
    """The score a user has now; absolute, so publishing it twice does no harm.

    Attributes:
        key: Whose score.
        score: The running total; None says that the score item was removed.
        revision: The item's `Revision`; 0 for an item that something else wrote without one.
        updated_ms: Newest event arrival in the score, epoch milliseconds; 0 when not known.
    """

    key: UserKey
    score: Decimal | None
    revision: int
    updated_ms: int

    @property
    def is_removal(self) -> bool:
        """Whether the score is gone rather than changed."""
        return self.score is None


def supersedes(newer: ScoreChange, older: ScoreChange) -> bool:
    """Return whether `newer`, read later from the stream, replaces `older`.

    Changes of one user arrive in the order they were made, but a replay starts again with old ones, so
    `Revision` decides. Equal revisions are the same change, or a foreign increment after it: both read
    later for a reason. A removal ends a life; what is read after it begins another, from revision 1.
    """
    return newer.is_removal or older.is_removal or newer.revision >= older.revision


def change_of(keys: Image, new: Image | None) -> ScoreChange | Rejected | None:
    """Read a stream image of the score table.

    Args:
        keys: The item's key attributes.
        new: The item after the change; None for a removal.

    Returns:
        The change; None for an item that holds no `Score` (yet), which is nobody's fault; `Rejected`
        (`BAD_SCORE_ITEM`) for one that cannot be a score.
    """
    user_id, project_id = _text(keys, "UserId"), _text(keys, "PinpointProjectId")
    if not user_id or not project_id:
        return Rejected(Reason.BAD_SCORE_ITEM, "UserId and PinpointProjectId are not both non-empty strings")
    key = UserKey(user_id, project_id)
    if new is None:
        return ScoreChange(key, None, 0, 0)
    if "Score" not in new:
        return None
    score = number_of(new["Score"])
    if score is None:
        return Rejected(Reason.BAD_SCORE_ITEM, "Score is not a number")
    revision = whole_of(new["Revision"]) if "Revision" in new else 0
    if revision is None:
        return Rejected(Reason.BAD_SCORE_ITEM, "Revision is not a whole number from 0 up to 2**63 - 1")
    return ScoreChange(key, score, revision, whole_of(new.get("UpdatedAt", {})) or 0)


def number_of(value: Mapping[str, object]) -> Decimal | None:
    """Return the number that an attribute value holds; None for any other type."""
    text = value.get("N")
    if not isinstance(text, str):
        return None
    try:
        number = Decimal(text)
    except InvalidOperation:
        return None
    return number if number.is_finite() else None


def whole_of(value: Mapping[str, object]) -> int | None:
    """Return the whole number from 0 to `MAX_WHOLE` that an attribute value holds; None for anything else."""
    text = value.get("N")
    if isinstance(text, str) and len(text) <= _SURELY_WHOLE_DIGITS and text.isascii() and text.isdecimal():
        return int(text)
    number = number_of(value)
    if number is None or not 0 <= number <= MAX_WHOLE or number != number.to_integral_value():
        return None
    return int(number)


def _text(item: Image, name: str) -> str:
    text = item.get(name, {}).get("S", "")
    return text if isinstance(text, str) else ""
