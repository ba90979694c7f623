"""Queries of dead letters."""

from __future__ import annotations

import base64
from collections import Counter
from collections.abc import Sequence

from service.aws.tables.dead_letters import DeadLetterTable, StoredLetter
from service.runtime.text import iso
from service.scoring.event import Reason


async def find(table: DeadLetterTable, reason: Reason | None, stage: str, most: int) -> tuple[list[StoredLetter], bool]:
    """Return letters without their payloads, unordered, and whether these are all.

    Args:
        table: The dead-letter table.
        reason: Only this reason; None: all.
        stage: Only this stage; empty: all.
        most: Most letters returned.

    Raises:
        TransientError: AWS does not answer.
        AwsSetupError: The table does not exist, or reading it is not permitted.
    """
    found: list[StoredLetter] = []
    async for stored in table.letters(reason=reason, stage=stage):
        if len(found) == most:
            return found, False
        found.append(stored)
    return found, True


def by_fault(letters: Sequence[StoredLetter]) -> list[tuple[str, str, int]]:
    """Return stage, reason and count, the most frequent first."""
    counted = Counter((stored.letter.stage, stored.letter.reason.value) for stored in letters)
    return [(stage, reason, count) for (stage, reason), count in counted.most_common()]


def pointer(stored: StoredLetter) -> str:
    """Return where the record was: `stream/shard/sequence`."""
    return f"{stored.letter.stream}/{stored.letter.shard_id}/{stored.letter.sequence}"


def described(stored: StoredLetter) -> dict[str, object]:
    """Return a letter without its payload, by the names that commands show."""
    letter = stored.letter
    return {
        "id": letter.letter_id,
        "stage": letter.stage,
        "reason": letter.reason.value,
        "detail": letter.detail,
        "at": iso(letter.at_ms),
        "state": stored.state,
        "state_at": iso(stored.state_ms),
        "redriven_to": stored.redriven_to,
        "expires_at": iso(stored.expires_s * 1000),
        "stream": letter.stream,
        "shard": letter.shard_id,
        "sequence": letter.sequence,
        "partition_key": letter.partition_key,
        "payload_size": letter.payload_size,
        "payload_kept": stored.payload_kept,
    }


def payload(stored: StoredLetter) -> dict[str, object]:
    """Return a letter's record: text, or Base64 if it is not UTF-8; empty if it was not stored."""
    if not stored.payload_kept:
        return {}
    try:
        return {"payload": stored.letter.payload.decode()}
    except UnicodeDecodeError:
        return {"payload_base64": base64.b64encode(stored.letter.payload).decode()}
