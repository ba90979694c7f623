"""Values of events in the one form that the rest of the service works with."""

from __future__ import annotations

import re
from datetime import UTC, datetime

MAX_TIME_MS = 253_402_300_799_999
"""The end of the year 9999: no later time can be shown, and none is meant."""

_SECONDS_BELOW = 100_000_000_000
"""A smaller number is epoch seconds (until the year 5138), a larger one epoch milliseconds (from 1973 on)."""

_LEAST_EPOCH = 100_000_000
"""Smaller numbers (seconds until 1973) are not believed to be a time: a duration, a counter."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

_NUMBER = re.compile(r"[0-9]{9,15}(?:\.[0-9]{1,9})?")
"""Digits that are an epoch, not a date such as 20261120: 9 digits of seconds begin in 1973."""


def text_of(value: object) -> str | None:
    """Return a text or whole number as text; None for anything else: true, 1.5, lists and objects name nothing."""
    if type(value) is str:
        return value
    if type(value) is int:
        return str(value) if -(10**30) < value < 10**30 else None
    return None


def email_of(text: str) -> str:
    """Return an e-mail address in lower case, without display name: `Ada <Ada@Example.org>` is `ada@example.org`.

    Lower case is right for the domain and, in practice, for every large mailbox provider. Nothing else is changed:
    dots and `+tags` are part of the address.
    """
    text = text.strip().lower()
    if "<" in text and text.endswith(">"):
        return text[text.rfind("<") + 1 : -1].strip()
    return text


def time_ms(value: object) -> int:
    """Return epoch milliseconds of a time; 0 for what is not a time between 1970 and 9999.

    Args:
        value: ISO 8601 text (without offset: UTC), or epoch seconds or milliseconds, as number or as text of digits:
            WhatsApp's events carry seconds in a text.
    """
    if type(value) is str:
        return _time_of_text(value)
    if type(value) is int or type(value) is float:
        return _time_of_number(value)
    return 0


def _time_of_number(value: float) -> int:
    if not _LEAST_EPOCH <= value <= MAX_TIME_MS:  # NaN too
        return 0
    return round(value * 1000) if value < _SECONDS_BELOW else int(value)


def _time_of_text(text: str) -> int:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return _time_of_number(float(text)) if _NUMBER.fullmatch(text) else 0
    if moment.tzinfo is None:
        if _NUMBER.fullmatch(text):
            return _time_of_number(float(text))
        moment = moment.replace(tzinfo=UTC)
    since = moment - _EPOCH
    milliseconds = since.days * 86_400_000 + since.seconds * 1000 + since.microseconds // 1000
    return milliseconds if 0 < milliseconds <= MAX_TIME_MS else 0
