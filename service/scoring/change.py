"""A score that changed: what the score table's stream tells, and which of two changes is the newer."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal, InvalidOperation
from sys import intern

import msgspec

from service.scoring.event import MAX_ID_BYTES, Reason, Rejected, id_fault
from service.scoring.fold import UserKey

Json = bytes | msgspec.Raw
"""The text of an object in DynamoDB's own JSON, such as `{"Score": {"N": "12"}}`
(https://docs.aws.amazon.com/amazondynamodb/latest/APIReference/API_AttributeValue.html)."""


class StreamImage(msgspec.Struct, frozen=True, gc=False):
    """What a stream record of the score table says of an item: read only when its turn comes.

    Attributes:
        keys: The item's key attributes.
        new: The item after the change; None for a removal.
        old: The item before the change; None where the stream does not show it.
    """

    keys: msgspec.Raw
    new: msgspec.Raw | None
    old: msgspec.Raw | None = None


MAX_WHOLE = 2**63 - 1
"""Largest revision or time believed. DynamoDB holds 1E+125, but to count that up takes more than its 38 digits
(https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/Constraints.html), and JSON encoders end at 64 bit."""

_SURELY_SHORT = MAX_ID_BYTES // 4  # whatever its characters
_SURELY_WHOLE_DIGITS = 18  # all of them are below MAX_WHOLE


class ScoreChange(msgspec.Struct, frozen=True, gc=False):
    """The score a user has now; absolute, so publishing it twice does no harm.

    Attributes:
        key: Whose score.
        score: The running total; None says that the score item was removed.
        revision: The item's `Revision`; 0 for an item that something else wrote without one.
        updated_ms: Newest event arrival in the score, epoch milliseconds; 0 when not known.
        tier: The tier that the score was in when it was written; empty: none, or the project has no rules.
        as_of: The day that the score was viewed for, counted from 1970-01-01; 0: the project has no rules.
    """

    key: UserKey
    score: Decimal | None
    revision: int
    updated_ms: int
    tier: str = ""
    as_of: int = 0

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


def format_score(score: Decimal) -> str:
    """Return the shortest plain decimal: no exponent, no point in a whole number, no `-0`."""
    if not score:
        return "0"
    text = f"{score:f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


class _Value(msgspec.Struct, frozen=True, gc=False):
    """An attribute value: a number, a text, or neither."""

    n: object = msgspec.field(name="N", default=None)
    s: object = msgspec.field(name="S", default=None)


_ABSENT = _Value()


class _Keys(msgspec.Struct, gc=False):
    user: _Value = msgspec.field(name="UserId", default=_ABSENT)
    project: _Value = msgspec.field(name="PinpointProjectId", default=_ABSENT)


class _Item(_Keys, gc=False):
    score: _Value = msgspec.field(name="Score", default=_ABSENT)
    revision: _Value = msgspec.field(name="Revision", default=_ABSENT)
    updated: _Value = msgspec.field(name="UpdatedAt", default=_ABSENT)
    tier: _Value = msgspec.field(name="Tier", default=_ABSENT)
    as_of: _Value = msgspec.field(name="AsOf", default=_ABSENT)


_read_keys = msgspec.json.Decoder(_Keys).decode
_read_item = msgspec.json.Decoder(_Item).decode


def change_of(keys: Json, new: Json | None) -> ScoreChange | Rejected | None:
    """Read a stream image of the score table.

    Args:
        keys: The item's key attributes.
        new: The item after the change; None for a removal.

    Returns:
        The change; None for an item that holds no `Score` (yet), which is nobody's fault; `Rejected`
        (`BAD_SCORE_ITEM`) for one that cannot be a score.
    """
    try:
        whose = _read_keys(keys)
        item = None if new is None else _read_item(new)
    except msgspec.DecodeError as error:
        return Rejected(Reason.BAD_SCORE_ITEM, f"the image is not DynamoDB's JSON: {error}")
    return _change(whose, item)


class Shown(msgspec.Struct, frozen=True, gc=False):
    """What an image shows of a score.

    Attributes:
        score: None where there is none, or it cannot be read.
        tier: Empty: none.
    """

    score: Decimal | None
    tier: str


def shown_in(image: Json | None) -> Shown:
    """Read an image of an item; one that is missing or cannot be read shows nothing."""
    try:
        item = _read_item(image) if image else _Item()
    except msgspec.DecodeError:
        item = _Item()
    return Shown(_number(item.score.n), item.tier.s if isinstance(item.tier.s, str) else "")


def _change(whose: _Keys, item: _Item | None) -> ScoreChange | Rejected | None:
    user_id, project_id = whose.user.s, whose.project.s
    if not isinstance(user_id, str) or not isinstance(project_id, str) or not user_id or not project_id:
        return Rejected(Reason.BAD_SCORE_ITEM, "UserId and PinpointProjectId are not both non-empty strings")
    if len(user_id) > _SURELY_SHORT and (fault := id_fault("UserId", user_id)) is not None:
        return Rejected(Reason.BAD_SCORE_ITEM, fault.detail)
    key = UserKey(user_id, intern(project_id))  # kept for many users: one text serves all
    if item is None:
        return ScoreChange(key, None, 0, 0)
    if item.score is _ABSENT:
        return None
    score = _number(item.score.n)
    if score is None:
        return Rejected(Reason.BAD_SCORE_ITEM, "Score is not a number")
    revision = 0 if item.revision is _ABSENT else _whole(item.revision.n)
    if revision is None:
        return Rejected(Reason.BAD_SCORE_ITEM, "Revision is not a whole number from 0 up to 2**63 - 1")
    tier = item.tier.s
    return ScoreChange(
        key,
        score,
        revision,
        _whole(item.updated.n) or 0,
        intern(tier) if type(tier) is str else "",  # kept for many users, as above
        _whole(item.as_of.n) or 0,
    )


def number_of(value: Mapping[str, object]) -> Decimal | None:
    """Return the number that an attribute value holds; None for any other type."""
    return _number(value.get("N"))


def whole_of(value: Mapping[str, object]) -> int | None:
    """Return the whole number from 0 to `MAX_WHOLE` that an attribute value holds; None for anything else."""
    return _whole(value.get("N"))


def _number(text: object) -> Decimal | None:
    if not isinstance(text, str):
        return None
    try:
        number = Decimal(text)
    except InvalidOperation:
        return None
    return number if number.is_finite() else None


def _whole(text: object) -> int | None:
    if isinstance(text, str) and len(text) <= _SURELY_WHOLE_DIGITS and text.isascii() and text.isdecimal():
        return int(text)
    number = _number(text)
    if number is None or not 0 <= number <= MAX_WHOLE or number != number.to_integral_value():
        return None
    return int(number)
