"""What the status of an answer means to the sender. Pure.

| status | meaning |
|---|---|
| 2xx | taken; the body may tell of single people that were refused |
| 410 | the receiver wants no more of this: nothing is sent until the worker starts again |
| 429, 408, 425, 5xx | again, not before `Retry-After` |
| 413, and 400, 422 for several people | halved, until the person at fault stands alone |
| 400, 422 for one person | a dead letter |
| 3xx | not followed: a secret would go where nobody has looked |
| 401, 403, 404 and others | somebody must change a setting: again, and reported |

Sources: https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md, "Operational
considerations"; https://www.rfc-editor.org/rfc/rfc9110#name-retry-after.
"""

from __future__ import annotations

from email.utils import parsedate_to_datetime
from enum import Enum

MAX_WAIT_S = 3600.0
"""Longest `Retry-After` that is kept to."""


class Answer(Enum):
    """What to do about an answer."""

    TAKEN = "taken"
    GONE = "gone"
    AGAIN = "again"
    HALVE = "halve"
    SETTING = "setting"


def verdict(status: int) -> Answer:
    """Return what an answer's status means."""
    if 200 <= status < 300:  # noqa: PLR2004 - HTTP's own
        return Answer.TAKEN
    if status == 410:  # noqa: PLR2004 - likewise
        return Answer.GONE
    if status in {408, 425, 429} or status >= 500:  # noqa: PLR2004 - likewise
        return Answer.AGAIN
    return Answer.HALVE if status in {400, 413, 422} else Answer.SETTING


def remedy(status: int) -> str:
    """Return what a person can do about a status that needs one."""
    if 300 <= status < 400:  # noqa: PLR2004 - HTTP's own
        return "set SCORING_WEBHOOK_URL to the address that the receiver redirects to; redirects are not followed"
    if status in {401, 403}:
        return "set SCORING_WEBHOOK_TOKEN or SCORING_WEBHOOK_SECRET to what the receiver expects"
    return "check SCORING_WEBHOOK_URL and SCORING_WEBHOOK_FORMAT"


def retry_after_s(text: str, now_s: float) -> float:
    """Return the seconds that a `Retry-After` header asks for, 0 where it asks for none or cannot be read.

    Args:
        text: Seconds, or an HTTP date.
        now_s: Epoch seconds.
    """
    text = text.strip()
    if text.isascii() and text.isdecimal():
        return min(float(text[:9]), MAX_WAIT_S)
    try:
        moment = parsedate_to_datetime(text)
    except (TypeError, ValueError):
        return 0.0
    return min(max(0.0, moment.timestamp() - now_s), MAX_WAIT_S)
