"""The keys of all tables; a score's item in DynamoDB's JSON: reading and writing. Pure.

The other attributes of each table are in its file in `tables/`, and only there. The score table:

| attribute | type | meaning |
|---|---|---|
| `UserId` (HASH), `PinpointProjectId` (RANGE) | S | user and project |
| `Score` | N | running total; in a project with rules, the score by the rules |
| `Revision` | N | +1 per committed change; absent if another program wrote the item |
| `Applied` | B | marks: up to which record each shard has been applied (`scoring/marks.py`) |
| `UpdatedAt` | N | epoch milliseconds of the newest event in the score |
| `State` | B | the sums that the score is computed from (`scoring/rules/state.py`), if the project has or had rules |
| `AsOf` | N | the day, counted from 1970-01-01, for which the score was computed; with `State` |
| `Tier` | S | the tier on that day, empty: none; with `State` |

Version 0.1 wrote `Applied` as a map, shard tag -> last sequence number applied (24 bytes, big-endian). It is read, and
becomes a Binary when the item is next written. Version 0.1 refuses an item with a Binary (`BAD_SCORE_ITEM`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from decimal import Decimal
from functools import lru_cache
from sys import intern
from typing import Any

import msgspec

from service.aws.calls import Item
from service.ingest.stores import Change
from service.scoring.change import number_of, whole_of
from service.scoring.event import Reason, Rejected
from service.scoring.fold import ByRules, Origin, ScoreState, UserKey
from service.scoring.marks import SEQUENCE_BYTES, Mark, MarksFormatError, pack_marks, undated, unpack_marks

KEY_NAMES = ("UserId", "PinpointProjectId")
"""Hash and range key of the score table."""

DEFINITION_KEYS = ("EventType", "PinpointProjectId")
IDENTITY_KEYS = ("Id", "PinpointProjectId")
LEASE_KEYS = ("leaseKey",)
LETTER_KEYS = ("Origin", "Id")
"""Hash key of the other tables, and their range key if they have one; all keys are strings."""

EXPIRES = "ExpiresAt"
"""The attribute with the time to live, epoch seconds, in the tables whose items expire."""

_LONGEST_TAG = 200
"""Characters; a shard id has at most 128 (https://docs.aws.amazon.com/kinesis/latest/APIReference/API_Shard.html)."""
ATTRIBUTES = (*KEY_NAMES, "Score", "Revision", "Applied", "UpdatedAt", "State", "AsOf", "Tier")


def key_item(names: Sequence[str], values: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Return the key attributes of an item."""
    return {name: {"S": value} for name, value in zip(names, values, strict=True)}


def user_key_of(item: Item) -> UserKey:
    """Return whose score an item of the score table is."""
    return UserKey(*(item[name]["S"] for name in KEY_NAMES))


def updated_ms_of(item: Item) -> int:
    """Return when the newest event in a score arrived, epoch milliseconds; 0 if it is not known."""
    return whole_of(item.get("UpdatedAt", {})) or 0


def state_of(item: Item) -> ScoreState | Rejected:
    """Read a stored item; `Rejected` (`BAD_SCORE_ITEM`) if it is not a valid score.

    `UpdatedAt` decides nothing, so an invalid one counts as unknown.
    """
    score: Decimal | None = None
    if "Score" in item:
        score = number_of(item["Score"])
        if score is None:
            return Rejected(Reason.BAD_SCORE_ITEM, "Score is not a number")
    origin, revision = Origin.FOREIGN, 0
    if "Revision" in item:
        number = whole_of(item["Revision"])
        if number is None:
            return Rejected(Reason.BAD_SCORE_ITEM, "Revision is not a whole number from 0 up to 2**63 - 1")
        origin, revision = Origin.OURS, number
    applied = _applied_of(item["Applied"]) if "Applied" in item else {}
    if isinstance(applied, str):
        return Rejected(Reason.BAD_SCORE_ITEM, applied)
    by_rules = None
    if "State" in item:
        state = item["State"].get("B")
        if not isinstance(state, bytes):
            return Rejected(Reason.BAD_SCORE_ITEM, "State is not a binary")
        day, tier = whole_of(item.get("AsOf", {})) or 0, item.get("Tier", {}).get("S", "")
        by_rules = ByRules(state, day, intern(tier) if type(tier) is str else "")
    return ScoreState(origin, score, revision, applied, updated_ms_of(item), by_rules)


def _applied_of(value: Mapping[str, Any]) -> dict[str, Mark] | str:
    """Return the marks, or what is wrong with them."""
    packed = value.get("B")
    if isinstance(packed, bytes):
        try:
            return unpack_marks(packed)
        except MarksFormatError as error:
            return f"Applied cannot be read: {error}"
    marks = value.get("M")
    if marks is None:
        return "Applied is neither a binary nor a map"
    applied: dict[str, Mark] = {}
    for tag, mark in marks.items():
        sequence = mark.get("B")
        if len(tag) > _LONGEST_TAG or not tag.isascii():
            return "Applied is a map whose keys name no shards"
        if not isinstance(sequence, bytes) or len(sequence) != SEQUENCE_BYTES:
            return f"Applied is not a map of {SEQUENCE_BYTES}-byte sequence numbers"
        applied[intern(tag)] = undated(sequence)  # one string per shard, shared by many users
    return applied


class _Texts(msgspec.Struct, frozen=True):
    """The conditional statements of one table."""

    insert: str
    update: str
    first: str
    adopt: str
    adopt_first: str
    restate: str
    restate_foreign: str
    insert_view: str
    view: str
    first_view: str
    adopt_view: str
    adopt_first_view: str


@lru_cache(8)
def _texts(table: str) -> _Texts:
    to = "SET Revision = ? SET Applied = ? SET UpdatedAt = ? WHERE UserId = ? AND PinpointProjectId = ?"
    added = f'UPDATE "{table}" SET Score = Score + ? {to}'  # noqa: S608 - a table's name cannot be a parameter
    first = f'UPDATE "{table}" SET Score = ? {to}'  # noqa: S608 - likewise
    again = f'UPDATE "{table}" SET Revision = ? WHERE UserId = ? AND PinpointProjectId = ?'  # noqa: S608 - likewise
    # STATE is a reserved word of PartiQL
    # (https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/ReservedWords.html).
    view = f'UPDATE "{table}" SET Score = ? SET "State" = ? SET AsOf = ? SET Tier = ? {to}'  # noqa: S608 - likewise
    return _Texts(
        insert=f"""INSERT INTO "{table}" VALUE {{'UserId': ?, 'PinpointProjectId': ?, 'Score': ?, """
        "'Revision': ?, 'Applied': ?, 'UpdatedAt': ?}",
        update=f"{added} AND Revision = ?",
        first=f"{first} AND Revision = ? AND Score IS MISSING",
        adopt=f"{added} AND Revision IS MISSING",
        adopt_first=f"{first} AND Revision IS MISSING AND Score IS MISSING",
        restate=f"{again} AND Revision = ?",
        # Only an item with a score is published again; an item that is gone has none.
        restate_foreign=f"{again} AND Revision IS MISSING AND Score IS NOT MISSING",
        insert_view=f"""INSERT INTO "{table}" VALUE {{'UserId': ?, 'PinpointProjectId': ?, 'Score': ?, 'State': ?, """
        "'AsOf': ?, 'Tier': ?, 'Revision': ?, 'Applied': ?, 'UpdatedAt': ?}",
        view=f"{view} AND Revision = ? AND Score = ?",
        first_view=f"{view} AND Revision = ? AND Score IS MISSING",
        adopt_view=f"{view} AND Revision IS MISSING AND Score = ?",
        adopt_first_view=f"{view} AND Revision IS MISSING AND Score IS MISSING",
    )


def statement(table: str, change: Change) -> dict[str, Any]:
    """Return the conditional PartiQL statement for a change.

    The score is incremented, not set, so that increments by other programs are kept; it is set if there is none.
    """
    texts, folded = _texts(table), change.folded
    if folded.absorbed is not None:
        return _view_statement(texts, change.key, folded.before, folded.after)
    before, after = folded.before, folded.after
    revision, updated_ms = {"N": str(after.revision)}, {"N": str(after.updated_ms)}
    marks = {"B": pack_marks(after.applied)}
    user, project = {"S": change.key.user_id}, {"S": change.key.project_id}
    expected = []
    match before.origin:
        case Origin.ABSENT:
            score = _number(folded.points if after.score is None else after.score)
            return _statement(texts.insert, [user, project, score, revision, marks, updated_ms])
        case Origin.OURS:
            text = texts.first if before.score is None else texts.update
            expected = [{"N": str(before.revision)}]
        case Origin.FOREIGN:
            text = texts.adopt_first if before.score is None else texts.adopt
    return _statement(text, [_number(folded.points), revision, marks, updated_ms, user, project, *expected])


def _view_statement(texts: _Texts, key: UserKey, before: ScoreState, after: ScoreState) -> dict[str, Any]:
    """Return the statement that sets a score by rules if the stored score is still the one that the rules used."""
    by_rules, score = after.by_rules, after.score
    if by_rules is None or score is None:
        raise ValueError("a score by rules without its state")
    user, project = {"S": key.user_id}, {"S": key.project_id}
    values: list[dict[str, Any]] = [
        _number(score),
        {"B": by_rules.state},
        {"N": str(by_rules.day)},
        {"S": by_rules.tier},
        {"N": str(after.revision)},
        {"B": pack_marks(after.applied)},
        {"N": str(after.updated_ms)},
    ]
    if before.origin is Origin.ABSENT:
        return _statement(texts.insert_view, [user, project, *values])
    expected: list[dict[str, Any]] = []
    ours = before.origin is Origin.OURS
    if ours:
        expected.append({"N": str(before.revision)})
    if before.score is None:
        text = texts.first_view if ours else texts.adopt_first_view
    else:
        text = texts.view if ours else texts.adopt_view
        expected.append(_number(before.score))
    return _statement(text, [*values, user, project, *expected])


def restatement(table: str, key: UserKey, state: ScoreState) -> dict[str, Any]:
    """Return the statement that gives an item its next `Revision`, and changes nothing else."""
    texts = _texts(table)
    parameters = [{"N": str(state.revision + 1)}, {"S": key.user_id}, {"S": key.project_id}]
    if state.origin is Origin.FOREIGN:
        return _statement(texts.restate_foreign, parameters)
    return _statement(texts.restate, [*parameters, {"N": str(state.revision)}])


def _number(value: Decimal) -> dict[str, str]:
    text = str(value)
    return {"N": text if "E" not in text else format(value, "f")}


def _statement(text: str, parameters: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    return {"Statement": text, "Parameters": parameters, "ReturnValuesOnConditionCheckFailure": "ALL_OLD"}
