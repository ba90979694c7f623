"""A dry run: says what would be written, and writes nothing."""

from __future__ import annotations

from collections.abc import Sequence

import structlog

from service.ingest.stores import Ordering, Published, SinkOutcome
from service.runtime.errors import TransientError
from service.scoring.change import ScoreChange, format_score

MAX_BATCH = 1000


class LogSink:
    """`Sink` that writes one line per batch: counts, and at DEBUG the users and scores."""

    name = "log"
    max_batch = MAX_BATCH
    ordering = Ordering.VERSIONED  # a line holds nothing: none can be overwritten by an older one

    def __init__(self) -> None:
        self._log = structlog.get_logger(__name__)

    async def publish(self, changes: Sequence[ScoreChange]) -> Sequence[SinkOutcome | TransientError]:
        """Log; everything counts as published."""
        self._log.info(
            "scores.published", users=len(changes), projects=len({change.key.project_id for change in changes})
        )
        for change in changes:
            self._log.debug(
                "score.published",
                user=change.key.user_id,
                project=change.key.project_id,
                score=None if change.score is None else format_score(change.score),
                revision=change.revision,
                tier=change.tier,
            )
        return [Published()] * len(changes)
