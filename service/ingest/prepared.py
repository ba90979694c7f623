"""A batch between its preparation and its commit."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

import msgspec

from service.ingest.attribution import Waiting
from service.ingest.commit import NO_RULES, Tally
from service.ingest.letters import record_letter_id
from service.ingest.marks import shard_tag
from service.ingest.stores import DeadLetter, ProjectType
from service.scoring.event import Event, Rejected
from service.scoring.fold import Scorable, UserKey
from service.scoring.rules.model import RuleSet
from service.sources.outcomes import RejectedEvent
from service.sources.registry import Registry
from service.stream.ports import Batch, Record


class PreparedEvents(msgspec.Struct):
    """A batch ready to be committed.

    Attributes:
        batch: The records.
        registry: The sources that read them.
        rules: By project, for projects that have any: what its events are matched with and scored by.
        waiting: Its events that are worth points, each with its record.
        groups: The same by user, without those that have none.
        letters: Its events that are set aside.
        counts: Events by outcome, for those settled already.
        sources: Events by source and what reading them came to.
        undefined: Events whose type has no definition, by project and type.
        matching: What rules could not use: odd amounts, and events of machines.
        tally: What the commit came to; kept so that a retry after it does not commit again.
    """

    batch: Batch[bytes]
    registry: Registry
    rules: Mapping[str, RuleSet] = NO_RULES
    waiting: list[Waiting] = msgspec.field(default_factory=list)
    groups: dict[UserKey, list[Scorable]] = msgspec.field(default_factory=dict)
    letters: list[DeadLetter] = msgspec.field(default_factory=list)
    counts: Counter[str] = msgspec.field(default_factory=Counter)
    sources: Counter[tuple[str, str]] = msgspec.field(default_factory=Counter)
    undefined: dict[ProjectType, int] = msgspec.field(default_factory=dict)
    matching: Counter[str] = msgspec.field(default_factory=Counter)
    tally: Tally | None = None

    def set_aside(
        self,
        record: Record[bytes],
        event: Event | RejectedEvent,
        why: Rejected,
        now_ms: int,
        *,
        payload: bytes | None = None,
        stage: str = "ingest",
    ) -> None:
        """Make an event a dead letter: with its own payload, so that redriving it counts no sibling in its record.

        Args:
            record: What it came in.
            event: Its index and part say which event of the record it is.
            why: Reason and detail.
            now_ms: The letter's time, epoch milliseconds.
            payload: What to keep of it; None: what its source takes out of the record.
            stage: What could not be done with it, `ingest` or `commit`.
        """
        batch = self.batch
        if payload is None:
            payload = self.registry.payload(record.data, event.index, event.part) or record.data
        tag = shard_tag(batch.stream, batch.shard_id)
        self.letters.append(
            DeadLetter(
                letter_id=record_letter_id(tag, record.sequence, event.index, event.part),
                stage=stage,
                reason=why.reason,
                detail=why.detail,
                stream=batch.stream.name,
                shard_id=batch.shard_id,
                sequence=record.sequence,
                partition_key=record.partition_key,
                at_ms=now_ms,
                payload=payload,
                payload_size=len(payload),
            )
        )
