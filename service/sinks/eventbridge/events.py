"""The event that tells of a score. Pure.

Facts: a request takes 10 entries (https://docs.aws.amazon.com/eventbridge/latest/APIReference/API_PutEvents.html); an
entry's size is that of its source, type, detail and time. An entry here has less than 32 KB even if each character of
the longest ids is escaped, so ten stay below the limit without counting. EventBridge delivers at least once and in no
order, so a receiver compares `revision`.

`Tier Changed` has the shape that the schema says; it is not sent yet.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from service.runtime.text import iso
from service.scoring.change import ScoreChange, format_score

MAX_ENTRIES = 10
SCORE_CHANGED = "Score Changed"
TIER_CHANGED = "Tier Changed"
SCHEMAS: Mapping[str, Path] = {
    SCORE_CHANGED: Path(__file__).parent / "schemas" / "score-changed.json",
    TIER_CHANGED: Path(__file__).parent / "schemas" / "tier-changed.json",
}
"""JSON Schema of each type's `detail`."""

AGAIN = frozenset({"ThrottlingException", "InternalFailure", "InternalException", "ServiceUnavailable"})
"""Codes of entries that may be taken later."""

SETTING = frozenset({"AccessDeniedException", "NotAuthorizedForSourceException", "ResourceNotFoundException"})
"""Codes of entries that somebody must change a setting for."""


def detail_of(change: ScoreChange) -> str:
    """Return the detail of `Score Changed`."""
    score = format_score(change.score) if change.score is not None else "0"
    detail = {
        "user": change.key.user_id,
        "project": change.key.project_id,
        "score": msgspec.Raw(score.encode()),
        "tier": change.tier or None,
        "revision": change.revision,
        "updated": iso(change.updated_ms) or None,
    }
    return msgspec.json.encode(detail).decode()


def entry_of(change: ScoreChange, bus: str, source: str) -> dict[str, Any]:
    """Return a PutEvents entry."""
    return {"EventBusName": bus, "Source": source, "DetailType": SCORE_CHANGED, "Detail": detail_of(change)}
