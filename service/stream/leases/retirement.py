"""Which shards are gone for good, so that marks left for them in data may be dropped.

Bookkeeping only: no I/O. Times are monotonic seconds of this process.
"""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Set as AbstractSet

QUARANTINE_S = 600.0
"""Seconds for which every reading must miss a shard. Lists may be wrong for a while, and a row removed by mistake comes
back; a mark dropped too soon is a mistake that nothing mends. Nobody is in a hurry here."""

MAX_SUSPECTS = 10_000
"""Shards under suspicion, and shards retired, remembered at most; the oldest is forgotten first."""


class Retirement:
    """Answers whether a shard met in data may be forgotten.

    A shard is retired once no full reading, of the stream's list and of the lease rows, has known it in either for
    `quarantine_s`, and the first of them *began after* the shard was first met in data: nothing can be read from it
    again. Only the leader's process makes such readings; in the others nothing retires, which is safe.
    """

    def __init__(
        self, monotonic: Callable[[], float], *, quarantine_s: float = QUARANTINE_S, limit: int = MAX_SUSPECTS
    ) -> None:
        self._monotonic = monotonic
        self._quarantine_s = quarantine_s
        self._limit = limit
        self._suspects: dict[str, float] = {}
        self._missed: dict[str, float] = {}
        self._retired: dict[str, None] = {}

    def suspect(self, shard_id: str) -> None:
        """Ask about a shard; the answer comes, if ever, in `retired`. Cheap: call it whenever one is met."""
        if shard_id in self._suspects or shard_id in self._retired:
            return
        if len(self._suspects) >= self._limit:
            self._forget(next(iter(self._suspects)))
        self._suspects[shard_id] = self._monotonic()

    def synced(self, began_at: float, known: AbstractSet[str]) -> None:
        """Take in a full reading that began at `began_at` and knew the shards `known`, listed or with a row."""
        for shard_id, met_at in list(self._suspects.items()):
            if shard_id in known:
                # Alive; whoever meets it again asks again.
                self._forget(shard_id)
            elif met_at < began_at and began_at - self._missed.setdefault(shard_id, began_at) >= self._quarantine_s:
                self._forget(shard_id)
                self._retired[shard_id] = None
        for shard_id in [shard_id for shard_id in self._retired if shard_id in known]:
            del self._retired[shard_id]
        while len(self._retired) > self._limit:
            del self._retired[next(iter(self._retired))]

    def _forget(self, shard_id: str) -> None:
        del self._suspects[shard_id]
        self._missed.pop(shard_id, None)

    def retired(self) -> frozenset[str]:
        """Return the shards that are gone for good, among those asked about."""
        return frozenset(self._retired)
