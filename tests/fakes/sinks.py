"""A sink in memory, which records, delays and fails as it is told."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from service.ingest.stores import Ordering, Published, SinkOutcome
from service.runtime.errors import TransientError
from service.scoring.change import ScoreChange
from service.scoring.fold import UserKey

Outcome = SinkOutcome | TransientError


class MemorySink:
    """`Sink` in a dict. `values` is what it holds; a write takes effect when its call ends.

    Args:
        name: Metric label.
        max_batch: Most changes a call takes.
        delay_s: Duration of a call.
        decide: Outcome of each change; everything is published unless given. May raise.
        ordering: What it says of itself; it always keeps what comes last.
    """

    def __init__(
        self,
        name: str = "memory",
        *,
        max_batch: int = 100,
        delay_s: float = 0.05,
        decide: Callable[[ScoreChange], Outcome] | None = None,
        ordering: Ordering = Ordering.LAST_WRITE,
    ) -> None:
        self.name = name
        self.ordering = ordering
        self.max_batch = max_batch
        self.delay_s = delay_s
        self.decide = decide or (lambda _: Published())
        self.values: dict[UserKey, ScoreChange] = {}
        self.calls: list[list[ScoreChange]] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.flying = 0
        self.most_flying = 0

    async def publish(self, changes: Sequence[ScoreChange]) -> Sequence[Outcome]:
        assert 0 < len(changes) <= self.max_batch
        assert len({change.key for change in changes}) == len(changes)
        assert not any(change.is_removal for change in changes)
        self.calls.append(list(changes))
        self.flying += 1
        self.most_flying = max(self.most_flying, self.flying)
        try:
            await asyncio.sleep(self.delay_s)
            await self.gate.wait()
            outcomes = [self.decide(change) for change in changes]
        finally:
            self.flying -= 1
        for change, outcome in zip(changes, outcomes, strict=True):
            if isinstance(outcome, Published):
                self.values[change.key] = change
        return outcomes
