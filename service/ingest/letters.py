"""The ids of dead letters, and what a table needs to find the letters of a stretch of a shard.

An id is `<origin>.<rest>`. For a record, the origin is its shard's tag and the rest its sequence number in
base 36 and one width, so ids of one shard sort as its records do. The letter of one event of several in a record, or of
one person of an event that concerns several, has `.<index>.<part>` behind it, as in the outcome
(`service/sources/outcomes.py`). So the same fault of the same event has the same id, however often it is written.

What an id without index and part stands for is the whole record; part 0 is the whole event.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection

from service.scoring.marks import SEQUENCE_BYTES

_DIGITS = "0123456789abcdefghijklmnopqrstuvwxyz"
_WIDTH = 38  # of the largest number of SEQUENCE_BYTES bytes

_OF_A_RECORD = re.compile(r"(.+)\.([0-9a-z]{38}(?:\.([0-9]+)\.([0-9]+))?)", re.DOTALL)
_BEHIND_PLACES = "/"
"""Sorts behind every `.<index>.<part>`."""


def record_letter_id(shard_tag: str, sequence: str, index: int = 0, part: int = 0) -> str:
    """Return the id of the letter of a record, or of one event in it.

    Args:
        shard_tag: Of its shard.
        sequence: Its decimal sequence number.
        index: Which event of the record, from 1; 0: all of it.
        part: Which person of the event, from 1; 0: all of it.

    Raises:
        ValueError: `sequence` is not a decimal number of at most `SEQUENCE_BYTES` bytes.
    """
    whole = f"{shard_tag}.{sortable(sequence)}"
    return f"{whole}.{index}.{part}" if index or part else whole


def is_lettered(letters: Collection[str], shard_tag: str, sequence: str, index: int, part: int) -> bool:
    """Return whether one of `letters` holds an event: its own, that of its whole event, or that of its whole record.

    The sources may have changed since a letter was written. What was one unknown event then may be several people's
    now, and redriving its letter counts them all.
    """
    return any(
        record_letter_id(shard_tag, sequence, *place) in letters for place in {(0, 0), (index, 0), (index, part)}
    )


def place_of(letter_id: str) -> tuple[int, int]:
    """Return index and part of what a letter holds; (0, 0): a whole record, or nothing of a record."""
    found = _OF_A_RECORD.fullmatch(letter_id)
    return (int(found[3]), int(found[4])) if found is not None and found[3] else (0, 0)


def publish_letter_id(*what: str) -> str:
    """Return the id of the letter of a change that a sink refuses: the same for the same change and sink."""
    digest = hashlib.blake2b("\n".join(what).encode(), digest_size=10)
    return f"publish.{digest.hexdigest()}"


def split_letter_id(letter_id: str) -> tuple[str, str]:
    """Return origin and rest of an id.

    Raises:
        ValueError: It is not the id of a dead letter.
    """
    found = _OF_A_RECORD.fullmatch(letter_id)
    if found is not None:
        return found[1], found[2]
    origin, _, rest = letter_id.rpartition(".")
    if not origin or not rest:
        raise ValueError(f"{letter_id!r} is not the id of a dead letter: `scoring dead-letters list` shows them")
    return origin, rest


def stretch(first: str, last: str) -> tuple[str, str]:
    """Return between which texts the rest of every id lies whose sequence number is `first` to `last`."""
    return sortable(first), f"{sortable(last)}{_BEHIND_PLACES}"


def sortable(sequence: str) -> str:
    """Return a decimal sequence number as base 36 of one width: text that sorts as the number does."""
    number = int(sequence)
    if number < 0 or number >> 8 * SEQUENCE_BYTES:
        raise ValueError(f"{sequence} is not a sequence number")
    digits = []
    while number:
        number, digit = divmod(number, 36)
        digits.append(_DIGITS[digit])
    return "".join(reversed(digits)).rjust(_WIDTH, "0")
