"""What was set aside."""

from __future__ import annotations

import base64
from collections import Counter
from collections.abc import Sequence

from service.aws.tables.dead_letters import DeadLetterTable, StoredLetter
from service.runtime.text import iso
from service.scoring.event import Reason


async def find(table: DeadLetterTable, reason: Reason | None, stage: str, most: int) -> tuple[list[StoredLetter], bool]:
    """Return letters without their payloads, in no order, and whether those are all.

    Args:
        table: Where they are.
        reason: Only this class of fault; None: every one.
        stage: Only this stage; empty: every one.
        most: Letters returned at most.

    Raises:
        TransientError: AWS does not answer.
        AwsSetupError: There is no such table, or it may not be read.
    """
    found: list[StoredLetter] = []
    async for stored in table.letters(reason=reason, stage=stage):
        if len(found) == most:
            return found, False
        found.append(stored)
    return found, True


def by_fault(letters: Sequence[StoredLetter]) -> list[tuple[str, str, int]]:
    """Return stage, reason and number, the most frequent first."""
    counted = Counter((stored.letter.stage, stored.letter.reason.value) for stored in letters)
    return [(stage, reason, count) for (stage, reason), count in counted.most_common()]


def pointer(stored: StoredLetter) -> str:
    """Return where the record was: `stream/shard/sequence`."""
    return f"{stored.letter.stream}/{stored.letter.shard_id}/{stored.letter.sequence}"


def described(stored: StoredLetter) -> dict[str, object]:
    """Return a letter by the names that people see, without its payload."""
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
    """Return a letter's record: text, or Base64 where it is not UTF-8; nothing where it was not kept."""
    if not stored.payload_kept:
        return {}
    try:
        return {"payload": stored.letter.payload.decode()}
    except UnicodeDecodeError:
        return {"payload_base64": base64.b64encode(stored.letter.payload).decode()}
