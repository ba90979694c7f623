"""The score table in memory: `ScoreStore`, with faults to order."""

from __future__ import annotations

import zlib
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from decimal import Decimal

import msgspec

from service.ingest.stores import MAX_COMMITS, Change, Committed, Conflict, Outcome, Throttled
from service.runtime.errors import TransientError
from service.scoring.event import Reason, Rejected
from service.scoring.fold import ABSENT, Origin, ScoreState, UserKey


def scored(items: Mapping[UserKey, ScoreState | Rejected], after: UserKey | None) -> list[UserKey]:
    """Return the keys of all scores behind `after`, in the order of a table's scan: that of a hash of the key."""
    keys = sorted(
        (key for key, state in items.items() if isinstance(state, ScoreState) and state.score is not None), key=_place
    )
    return keys if after is None else [key for key in keys if _place(key) > _place(after)]


def _place(key: UserKey) -> tuple[int, UserKey]:
    return zlib.crc32(key.user_id.encode()), key


class MemoryScores:
    """`ScoreStore` in a dict.

    Attributes:
        items: What is stored; `Rejected` stands for an item that cannot be a score.
        faults: Raised one by one, in order, by the next calls, which then do nothing.
        lost_responses: So many next commits are done and then raise, as when an answer does not arrive.
        throttled: So many next writes are not made, but answered `Throttled`.
        before_commit: Called with the changes before they are written: the place for a rival to write first.
        stale: What reads find that need not be consistent; None: the same as all others.
        loads, commits: Calls so far. `written`: changes written so far.
    """

    def __init__(self, items: Mapping[UserKey, ScoreState | Rejected] | None = None) -> None:
        self.items: dict[UserKey, ScoreState | Rejected] = dict(items or {})
        self.faults: deque[Exception] = deque()
        self.lost_responses = 0
        self.throttled = 0
        self.before_commit: Callable[[Sequence[Change]], None] | None = None
        self.stale: Mapping[UserKey, ScoreState | Rejected] | None = None
        self.loads = 0
        self.commits = 0
        self.written = 0

    async def load(
        self, keys: Sequence[UserKey], *, consistent: bool = True
    ) -> Mapping[UserKey, ScoreState | Rejected]:
        self.loads += 1
        if self.faults:
            raise self.faults.popleft()
        items = self.items if consistent or self.stale is None else self.stale
        return {key: items.get(key, ABSENT) for key in keys}

    async def commit(self, changes: Sequence[Change]) -> Sequence[Outcome]:
        self.commits += 1
        if len(changes) > MAX_COMMITS:
            raise ValueError(f"{len(changes)} changes in one commit; at most {MAX_COMMITS}")
        if len({change.key for change in changes}) < len(changes):
            raise ValueError("two changes of one user in one commit")
        if self.faults:
            raise self.faults.popleft()
        if self.before_commit is not None:
            self.before_commit(changes)
        outcomes = [self._write(change) for change in changes]
        if self.lost_responses:
            self.lost_responses -= 1
            raise TransientError("the answer was lost")
        return outcomes

    def _write(self, change: Change) -> Outcome:
        if self.throttled:
            self.throttled -= 1
            return Throttled()
        before, after = change.folded.before, change.folded.after
        current = self.items.get(change.key, ABSENT)
        if before.origin is Origin.ABSENT:
            if current is not ABSENT:
                return Conflict(None)
            self._keep(change.key, after, after.score)
            return Committed()
        if isinstance(current, Rejected):
            return current
        same = current.origin is before.origin and current.revision == before.revision
        if not same or (before.score is None and current.score is not None):
            return Conflict(current)
        if change.folded.absorbed is not None:
            if current.score != before.score:
                return Conflict(current)
            self._keep(change.key, after, after.score)
            return Committed()
        self._keep(change.key, after, (current.score or Decimal(0)) + change.folded.points)
        return Committed()

    async def restate(self, states: Mapping[UserKey, ScoreState]) -> Sequence[Outcome]:
        if len(states) > MAX_COMMITS:
            raise ValueError(f"{len(states)} changes in one commit; at most {MAX_COMMITS}")
        if self.faults:
            raise self.faults.popleft()
        return [self._restate(key, state) for key, state in states.items()]

    def _restate(self, key: UserKey, state: ScoreState) -> Outcome:
        if self.throttled:
            self.throttled -= 1
            return Throttled()
        current = self.items.get(key, ABSENT)
        if isinstance(current, Rejected):
            return current
        if current.origin is not state.origin or current.revision != state.revision:
            return Conflict(current)
        self._keep(
            key, msgspec.structs.replace(current, origin=Origin.OURS, revision=current.revision + 1), current.score
        )
        return Committed()

    def _keep(self, key: UserKey, after: ScoreState, score: Decimal | None) -> None:
        self.written += 1
        self.items[key] = msgspec.structs.replace(after, score=score)

    async def scan(self, after: UserKey | None = None) -> AsyncIterator[UserKey]:
        async for key, _ in self.scan_states(after):
            yield key

    async def scan_states(self, after: UserKey | None = None) -> AsyncIterator[tuple[UserKey, ScoreState]]:
        if self.faults:
            raise self.faults.popleft()
        for key in scored(self.items, after):
            state = self.items.get(key)
            if isinstance(state, ScoreState):
                yield key, state

    def put_foreign(self, key: UserKey, score: Decimal | None) -> None:
        """Write an item as the system this one replaces did: without `Revision`."""
        self.items[key] = ScoreState(Origin.FOREIGN, score, 0, {}, 0)

    def increment(self, key: UserKey, points: Decimal) -> None:
        """Add to a score as something else does that still writes there."""
        state = self.items[key]
        assert isinstance(state, ScoreState)
        self.items[key] = msgspec.structs.replace(state, score=(state.score or Decimal(0)) + points)

    def spoil(self, key: UserKey) -> None:
        """Make the item one that cannot be a score."""
        self.items[key] = Rejected(Reason.BAD_SCORE_ITEM, "Score is not a number")

    def remove(self, key: UserKey) -> None:
        """Remove an item."""
        del self.items[key]
