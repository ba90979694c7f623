"""The ids of dead letters, and what a table needs to find the letters of a stretch of a shard.

An id is `<origin>.<rest>`. For a record, the origin is its shard's tag and the rest its sequence number in
base 36 and one width: ids of one shard sort as its records do, and a record has one letter, whatever went
wrong with it and whoever writes it how often.
"""

from __future__ import annotations

import hashlib

from service.scoring.marks import SEQUENCE_BYTES

_DIGITS = "0123456789abcdefghijklmnopqrstuvwxyz"
_WIDTH = 38  # of the largest number of SEQUENCE_BYTES bytes


def record_letter_id(shard_tag: str, sequence: str) -> str:
    """Return the id of the letter of a record.

    Raises:
        ValueError: `sequence` is not a decimal number of at most `SEQUENCE_BYTES` bytes.
    """
    return f"{shard_tag}.{sortable(sequence)}"


def publish_letter_id(*what: str) -> str:
    """Return the id of the letter of a change that a sink refuses: the same for the same change and sink."""
    digest = hashlib.blake2b("\n".join(what).encode(), digest_size=10)
    return f"publish.{digest.hexdigest()}"


def split_letter_id(letter_id: str) -> tuple[str, str]:
    """Return origin and rest of an id.

    Raises:
        ValueError: It is no id of a dead letter.
    """
    origin, _, rest = letter_id.rpartition(".")
    if not origin or not rest:
        raise ValueError(f"{letter_id!r} is no id of a dead letter: `scoring dead-letters list` shows them")
    return origin, rest


def sortable(sequence: str) -> str:
    """Return a decimal sequence number as base 36 of one width: text that sorts as the number does."""
    number = int(sequence)
    if number < 0 or number >> 8 * SEQUENCE_BYTES:
        raise ValueError(f"{sequence} is no sequence number")
    digits = []
    while number:
        number, digit = divmod(number, 36)
        digits.append(_DIGITS[digit])
    return "".join(reversed(digits)).rjust(_WIDTH, "0")
