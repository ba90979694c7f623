"""An adjustment by hand as an event: it reaches the score as every event does, exactly once. Pure."""

from __future__ import annotations

from decimal import Decimal

import msgspec

from service.scoring.rules.model import ADJUSTMENT


def adjustment_event(
    user_id: str, project_id: str, points: Decimal, reason: str, adjustment_id: str, now_ms: int
) -> bytes:
    """Return the record, in the form of Pinpoint's events.

    Args:
        user_id: Whose score.
        project_id: Where.
        points: What is added; negative: taken.
        reason: The reason, for readers of the stream.
        adjustment_id: Where the project has rules, adjustments of one id count once.
        now_ms: Epoch milliseconds.
    """
    return msgspec.json.encode(
        {
            "event_type": ADJUSTMENT,
            "event_timestamp": now_ms,
            "arrival_timestamp": now_ms,
            "application": {"app_id": project_id},
            "attributes": {"points": f"{points:f}", "reason": reason, "adjustment_id": adjustment_id},
            "endpoint": {"User": {"UserId": user_id}},
        }
    )
