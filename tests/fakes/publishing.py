"""A publisher in a setup in memory: its sinks, the scores, the dead letters, and which leases are lost."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections import deque
from collections.abc import AsyncIterator, Mapping, Sequence
from decimal import Decimal

from service.ingest.stores import COMMITTED, Change, DeadLetter, Outcome
from service.observability.metrics import Metrics
from service.publish.outbox import StillHeld
from service.publish.publisher import Publisher, PublishOptions
from service.runtime.clock import SystemClock
from service.scoring.change import StreamImage
from service.scoring.event import Rejected
from service.scoring.fold import ABSENT, Origin, ScoreState, UserKey
from service.stream.ports import Batch, Record, StreamId
from tests.fakes.images import stream_image
from tests.fakes.sinks import MemorySink

STREAM = StreamId("scores", "arn", "tag")


def key(user: str) -> UserKey:
    return UserKey(user, "p")


class Scores:
    """`ScoreStore` of users whose score is their revision; publishing commits nothing.

    Attributes:
        restated: Users whose items were written again, in order.
        answers: Instead of `Committed`, one by one.
    """

    def __init__(self, **revisions: int) -> None:
        self.revisions = dict(revisions)
        self.restated: list[str] = []
        self.answers: deque[Outcome] = deque()
        self.loads = 0

    async def load(
        self, keys: Sequence[UserKey], *, consistent: bool = True
    ) -> Mapping[UserKey, ScoreState | Rejected]:
        del consistent
        self.loads += 1
        await asyncio.sleep(0.01)
        return {k: self._state(self.revisions.get(k.user_id, 0)) for k in keys}

    async def commit(self, changes: Sequence[Change]) -> Sequence[Outcome]:
        raise NotImplementedError

    async def restate(self, states: Mapping[UserKey, ScoreState]) -> Sequence[Outcome]:
        await asyncio.sleep(0.01)
        outcomes: list[Outcome] = []
        for key in states:
            outcomes.append(self.answers.popleft() if self.answers else COMMITTED)
            if outcomes[-1] == COMMITTED:
                self.revisions[key.user_id] += 1
                self.restated.append(key.user_id)
        return outcomes

    def scan(self, after: UserKey | None = None) -> AsyncIterator[UserKey]:
        raise NotImplementedError

    def _state(self, revision: int) -> ScoreState:
        return ScoreState(Origin.OURS, Decimal(revision), revision, {}, 0) if revision else ABSENT


class Letters:
    def __init__(self) -> None:
        self.letters: dict[str, DeadLetter] = {}

    async def put(self, letters: Sequence[DeadLetter]) -> None:
        for letter in letters:
            self.letters.setdefault(letter.letter_id, letter)


class PublishSetup:
    def __init__(
        self,
        *sinks: MemorySink,
        scores: Scores | None = None,
        held: StillHeld | None = None,
        options: PublishOptions | None = None,
    ) -> None:
        self.lost: set[str] = set()
        self.letters = Letters()
        self.metrics = Metrics()
        self.sinks = sinks or (MemorySink(),)
        self.scores = scores or Scores()
        self.publisher = Publisher(
            self.sinks,
            self.scores,
            self.letters,
            held or (lambda shard: shard not in self.lost),
            SystemClock(),
            self.metrics,
            random.Random(1),
            options,
        )

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[Publisher]:
        task = asyncio.create_task(self.publisher.run())
        try:
            yield self.publisher
        finally:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task

    def count(self, name: str, **labels: str) -> float:
        return self.metrics.registry.get_sample_value(f"scoring_{name}", labels) or 0.0


def image(user: str, revision: int) -> StreamImage:
    keys = {"UserId": {"S": user}, "PinpointProjectId": {"S": "p"}}
    new = {**keys, "Score": {"N": str(revision)}, "Revision": {"N": str(revision)}, "UpdatedAt": {"N": "1000"}}
    return stream_image(keys, new if revision else None)


def batch(*images: StreamImage, shard: str = "s", unsettled_until: float = float("-inf")) -> Batch[StreamImage]:
    records = [Record(str(index), data, 0, "", 1) for index, data in enumerate(images, 1)]
    return Batch(STREAM, shard, records, float("inf"), unsettled_until)


async def publish(
    publisher: Publisher, *images: StreamImage, shard: str = "s", unsettled_until: float = float("-inf")
) -> None:
    await publisher.commit(await publisher.prepare(batch(*images, shard=shard, unsettled_until=unsettled_until)))
