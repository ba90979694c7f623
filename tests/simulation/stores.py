"""The world's streams, tables and sink, and one worker's way to each."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from decimal import Decimal
from typing import TypeVar

from service.ingest.ownership import Former
from service.ingest.stores import (
    MAX_COMMITS,
    AliasKey,
    Change,
    DeadLetter,
    Ordering,
    Outcome,
    Published,
    SinkOutcome,
    Throttled,
)
from service.runtime.errors import TransientError
from service.scoring.change import ScoreChange
from service.scoring.definitions import Definition, Malformed
from service.scoring.event import Reason, Rejected
from service.scoring.fold import ABSENT, ScoreState, UserKey
from service.scoring.marks import shown
from service.scoring.rules.stored import RulesRow
from service.stream.ports import StreamId
from tests.fakes.dead_letters import MemoryDeadLetters
from tests.fakes.images import stream_image
from tests.fakes.scores import MemoryScores, scored
from tests.simulation.network import Ether, Port, Wire
from tests.simulation.oracle import Witness
from tests.simulation.streams import SimStream

T = TypeVar("T")


def score_stream_arn(number: int) -> str:
    """Return the ARN of the score table's first, second, ... stream."""
    return f"arn:aws:dynamodb:eu-central-1:000000000000:table/scores/stream/{number}"


def score_stream(arn: str) -> StreamId:
    """Return the identity of a stream of the score table."""
    return StreamId(name="scores", arn=arn, tag=f"sc{arn.rpartition('/')[2]}")


STALE_SHARE = 0.2
"""Share of the reads of scores that need not be consistent, and are not."""

STALEST_S = 3.0
"""Seconds by which such a read may be behind."""


class SimScores(MemoryScores):
    """The score table: its changes go to the score stream, and the marks to the witness.

    Attributes:
        stream: None while it is switched off.
    """

    def __init__(self, stream: SimStream | None, ether: Ether, witness: Witness) -> None:
        super().__init__()
        self._past: dict[UserKey, deque[tuple[float, ScoreState | Rejected]]] = {}
        self.stream = stream
        self.ether = ether
        self._witness = witness

    def as_of(self, key: UserKey, then: float | None) -> ScoreState | Rejected:
        """Return what was stored at a second; None: what is stored now."""
        if then is None:
            return self.items.get(key, ABSENT)
        return next((state for since, state in reversed(self._past.get(key, ())) if since <= then), ABSENT)

    def _remember(self, key: UserKey) -> None:
        self._past.setdefault(key, deque(maxlen=20)).append((now(), self.items[key]))

    def add_foreign(self, key: UserKey, points: Decimal) -> None:
        """Add to a score as the system before did: whatever is stored, and without a `Revision`."""
        if isinstance(self.items.get(key), ScoreState):
            self.increment(key, points)
        else:
            self.put_foreign(key, points)
        self._remember(key)
        state = self.items[key]
        assert isinstance(state, ScoreState)
        self.ether.note("foreign", key.user_id, str(state.score))
        self._tell(key, state, state.score)

    def _keep(self, key: UserKey, after: ScoreState, score: Decimal | None) -> None:
        super()._keep(key, after, score)
        self._remember(key)
        self._witness.scored(key, after)
        self.ether.note(
            "score",
            key.user_id,
            str(score),
            after.revision,
            [f"{tag}:{shown(mark)}" for tag, mark in after.applied.items()],
        )
        self._tell(key, after, score)

    def _tell(self, key: UserKey, after: ScoreState, score: Decimal | None) -> None:
        """Put a change to the score stream."""
        if self.stream is None:
            return
        keys: dict[str, dict[str, object]] = {
            "UserId": {"S": key.user_id},
            "PinpointProjectId": {"S": key.project_id},
        }
        new = keys | {"Score": {"N": str(score)}}
        if after.revision:
            new |= {"Revision": {"N": str(after.revision)}, "UpdatedAt": {"N": str(after.updated_ms)}}
        image = stream_image(keys, new)
        shard_id = self.stream.shard_of(key.user_id)
        self._witness.changed(shard_id, self.stream.put(shard_id, image), key, after.revision)


class SimScoreStreams:
    """`ScoreStreams`."""

    def __init__(
        self, streams: Mapping[str, SimStream], latest: Callable[[], str], scores: MemoryScores, port: Port
    ) -> None:
        self._streams = streams
        self._latest = latest
        self._scores = scores
        self._port = port

    async def latest(self) -> str:
        found = await self._port.call(self._latest)
        if not found:
            raise TransientError("the table has no stream")
        return found

    async def exists(self, stream_arn: str) -> bool:
        return await self._port.call(lambda: not self._streams[stream_arn].gone)

    async def scores_exist(self) -> bool:
        # The item that cannot be used is in every table from the start. If it counted, every run would begin with a
        # reconciliation, which publishes whatever else was left unpublished until then.
        return await self._port.call(lambda: any(isinstance(each, ScoreState) for each in self._scores.items.values()))


class ScorePort:
    """`ScoreStore`."""

    def __init__(self, table: SimScores, wire: Wire) -> None:
        self._table = table
        self._wire = wire

    async def load(
        self, keys: Sequence[UserKey], *, consistent: bool = True
    ) -> Mapping[UserKey, ScoreState | Rejected]:
        if self._wire.chance(self._wire.ether.rates.unprocessed, "unprocessed keys"):
            await self._wire.sleep(0.1)
            raise TransientError("injected: unprocessed keys", throttled=True)
        old = not consistent and self._wire.chance(STALE_SHARE, "stale read")
        then = now() - self._wire.uniform(0, STALEST_S) if old else None
        return await self._wire.call("scores", lambda: {key: self._table.as_of(key, then) for key in keys})

    async def commit(self, changes: Sequence[Change]) -> Sequence[Outcome]:
        assert 0 < len({change.key for change in changes}) == len(changes) <= MAX_COMMITS
        rate = self._wire.ether.rates.statement

        def write() -> list[Outcome]:
            return [
                Throttled() if self._wire.chance(rate, "throttled statement") else self._table._write(change)
                for change in changes
            ]

        outcomes = await self._wire.call("scores", write)
        assert len(outcomes) == len(changes)
        return outcomes

    async def restate(self, states: Mapping[UserKey, ScoreState]) -> Sequence[Outcome]:
        assert 0 < len(states) <= MAX_COMMITS
        rate = self._wire.ether.rates.statement

        def write() -> list[Outcome]:
            return [
                Throttled() if self._wire.chance(rate, "throttled statement") else self._table._restate(key, state)
                for key, state in states.items()
            ]

        return await self._wire.call("scores", write)

    async def scan(self, after: UserKey | None = None) -> AsyncIterator[UserKey]:
        for key in await self._wire.call("scores", lambda: scored(self._table.items, after)):
            yield key


class LetterPort:
    """`DeadLetters`."""

    def __init__(self, table: MemoryDeadLetters, wire: Wire) -> None:
        self._table = table
        self._wire = wire

    async def put(self, letters: Sequence[DeadLetter]) -> None:
        def write() -> None:
            for letter in letters:
                if letter.letter_id not in self._table.letters:
                    self._wire.ether.note("letter", letter.letter_id, letter.stage, letter.reason.value)
                self._table.letters.setdefault(letter.letter_id, letter)

        await self._wire.call("letters", write)

    async def between(self, origin: str, first: str, last: str) -> Collection[str]:
        return await self._wire.call(
            "letters",
            lambda: [name for name in self._table.letters if f"{origin}.{first}" <= name <= f"{origin}.{last}"],
        )


class DefinitionPort:
    """`DefinitionSource`."""

    def __init__(self, rows: Callable[[], Sequence[Definition | RulesRow]], wire: Wire) -> None:
        self._rows = rows
        self._wire = wire

    async def load(self) -> Sequence[Definition | Malformed | RulesRow]:
        return await self._wire.call("definitions", self._rows)


class IdentityPort:
    """`Identities` and `EndpointLookup`."""

    def __init__(
        self,
        table: dict[AliasKey, str],
        owners: dict[AliasKey, tuple[str, float]],
        wire: Wire,
    ) -> None:
        self._table = table
        self._owners = owners
        self._wire = wire

    async def find(self, keys: Sequence[AliasKey]) -> Mapping[AliasKey, str]:
        return await self._wire.call(
            "identities", lambda: {key: self._table[key] for key in keys if key in self._table}
        )

    async def learn(self, users: Mapping[AliasKey, str]) -> None:
        await self._wire.call("identities", lambda: self._table.update(users))

    async def user_of(self, key: AliasKey) -> str | None:
        user, since = self._owners.get(key, (None, 0.0))
        return await self._wire.call("lookup", lambda: user if now() >= since else None)


class FormerPort:
    """`FormerUsers`."""

    def __init__(self, table: dict[AliasKey, Sequence[Former]], wire: Wire) -> None:
        self._table = table
        self._wire = wire

    async def find(self, keys: Sequence[AliasKey]) -> Mapping[AliasKey, Sequence[Former]]:
        return await self._wire.call(
            "identities", lambda: {key: self._table[key] for key in keys if key in self._table}
        )

    async def keep(self, former: Mapping[AliasKey, Sequence[Former]]) -> None:
        await self._wire.call("identities", lambda: self._table.update(former))


class SimSink:
    """A sink without compare-and-set: the last write wins."""

    def __init__(
        self, name: str, held: dict[UserKey, tuple[int, Decimal | None]], wire: Wire, witness: Witness, batch: int
    ) -> None:
        self.name = name
        self.ordering = Ordering.LAST_WRITE
        self.max_batch = batch
        self._held = held
        self._wire = wire
        self._witness = witness
        self.flying: set[UserKey] = set()
        self._told: dict[UserKey, int] = {}

    async def publish(self, changes: Sequence[ScoreChange]) -> Sequence[SinkOutcome | TransientError]:
        keys = [change.key for change in changes]
        self._witness.sending(changes, self.flying, self._told)
        self.flying.update(keys)
        if awaited := self._wire.ether.awaited:
            for user in awaited.keys() & {key.user_id for key in keys}:
                awaited[user].set()
        try:
            outcomes = await self._wire.call(self.name, lambda: [self._take(change) for change in changes])
        finally:
            self.flying.difference_update(keys)
        for change, outcome in zip(changes, outcomes, strict=True):
            if isinstance(outcome, Published):
                self._told[change.key] = max(change.revision, self._told.get(change.key, 0))
        return outcomes

    def _take(self, change: ScoreChange) -> SinkOutcome | TransientError:
        if change.key.user_id == "refused":
            return Rejected(Reason.SINK_REJECTED, "refused")
        if self._wire.chance(self._wire.ether.rates.statement, "sink item error"):
            return TransientError("injected: one item")
        self._held[change.key] = (change.revision, change.score)
        self._witness.published(self.name, change)
        self._wire.ether.note(self.name, change.key.user_id, change.revision)
        return Published()


def now() -> float:
    return asyncio.get_running_loop().time()
