"""Reading the stream that a score table has: the one that the pipeline's row names, until the row names another.

open ──► serve ──the row names another──► serve ──► ...
│  leader: old stream at its end, or gone, and the table has another ──► the row names that one
└──stop──► done
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from typing import Protocol

import msgspec
import structlog

from service.publish.pipeline import PipelineState, PipelineStore
from service.runtime.backoff import Backoff
from service.runtime.clock import Clock
from service.runtime.errors import TransientError

log = structlog.get_logger(__name__)


NAGGING = 20
"""Of consecutive failures to read the table, the first and then every one of this many is logged."""


class ScoreStreams(Protocol):
    """The streams of the score table. Every method may raise `TransientError`."""

    async def latest(self) -> str:
        """Return the ARN of the stream that the table has now.

        Raises:
            SetupError: It has none that can be used.
        """
        ...

    async def exists(self, stream_arn: str) -> bool:
        """Return whether a stream can still be read: one that was switched off can, for 24 hours."""
        ...

    async def scores_exist(self) -> bool:
        """Return whether the table has any item, read consistently."""
        ...


class StreamReader(Protocol):
    """What reads one stream: a coordinator."""

    @property
    def first_sync_done(self) -> bool:
        """Whether the lease table was reached, and there is a leader."""
        ...

    @property
    def last_beat(self) -> float:
        """Monotonic second of the last successful heartbeat."""
        ...

    @property
    def leading(self) -> bool:
        """Whether this process plans for all."""
        ...

    @property
    def ended(self) -> bool:
        """Whether the stream was read to its end; only a leader knows."""
        ...

    def holds(self, shard_id: str) -> bool:
        """Return whether the shard's lease is ours."""
        ...

    def stop(self) -> None:
        """Ask `run` to return."""
        ...

    async def run(self) -> None:
        """Read until `stop`."""
        ...


class FollowOptions(msgspec.Struct, frozen=True):
    """Intervals.

    Attributes:
        look_s: Seconds between two looks at the row.
        check_s: Seconds between two looks of the leader at the table, while the stream is not at its end.
    """

    look_s: float = 15.0
    check_s: float = 300.0


class StreamFollower:
    """Reads the score table's stream, and its successors. `open` comes first, then `run`, once.

    Args:
        streams: The table's.
        store: The row.
        make: Makes what reads a stream, by its ARN.
        switched: Called before another stream is read.
        clock: Time.
        rng: For jitter.
        options: Intervals.
    """

    def __init__(
        self,
        streams: ScoreStreams,
        store: PipelineStore,
        make: Callable[[str], StreamReader],
        switched: Callable[[], None],
        clock: Clock,
        rng: random.Random,
        options: FollowOptions,
    ) -> None:
        self._streams = streams
        self._store = store
        self._make = make
        self._switched = switched
        self._clock = clock
        self._rng = rng
        self._options = options
        self._reading: StreamReader | None = None
        self._arn = ""
        self._stopped = False
        self._beaten = float("-inf")
        self._checked_at = float("-inf")

    async def open(self) -> None:
        """Find out which stream to read: the one that the row names, also where the table has another by now.

        Raises:
            TransientError: To be repeated.
            SetupError: No stream was ever read, and the table has none.
        """
        state = await self._store.load()
        while state is None or not state.stream_arn:
            # In this order: what is written after the first call, that stream shows.
            latest, exist = await self._streams.latest(), await self._streams.scores_exist()
            named = (state or PipelineState()).reading(latest, scores_exist=exist)
            if not await self._store.replace(state, named):
                state = await self._store.load()
            else:
                state = named
                if named.owes:
                    log.warning("reconcile.owed", why="the table has scores, and no worker has read its stream before")
        self._read(state.stream_arn)

    @property
    def first_sync_done(self) -> bool:
        """See `StreamReader`."""
        return self._now.first_sync_done

    @property
    def last_beat(self) -> float:
        """See `StreamReader`; of whatever was read before, until this one has beaten."""
        return max(self._beaten, self._now.last_beat)

    @property
    def leading(self) -> bool:
        """See `StreamReader`."""
        return self._now.leading

    @property
    def ended(self) -> bool:
        """See `StreamReader`; of the stream that is read now."""
        return self._now.ended

    def holds(self, shard_id: str) -> bool:
        """See `StreamReader`."""
        return self._now.holds(shard_id)

    def stop(self) -> None:
        """Ask `run` to finish what is in hand and return."""
        self._stopped = True
        self._now.stop()

    async def run(self) -> None:
        """Read until `stop`.

        Raises:
            ExceptionGroup: What ended a reading.
        """
        while True:
            async with asyncio.TaskGroup() as group:
                reading = group.create_task(self._now.run())
                watching = group.create_task(self._until_another())
                await asyncio.wait((reading, watching), return_when=asyncio.FIRST_COMPLETED)
                watching.cancel()
                self._now.stop()
            if self._stopped or watching.cancelled():
                return
            log.warning("publish.stream_switched", stream=watching.result(), before=self._arn)
            self._switched()
            self._read(watching.result())

    @property
    def _now(self) -> StreamReader:
        if self._reading is None:
            raise RuntimeError("not open")
        return self._reading

    def _read(self, arn: str) -> None:
        if self._reading is not None:
            self._beaten = self.last_beat
        self._arn = arn
        self._checked_at = float("-inf")
        self._reading = self._make(arn)

    async def _until_another(self) -> str:
        """Return the stream to read instead, once there is one."""
        backoff = Backoff(self._rng, last=self._options.look_s)
        wait = self._options.look_s
        while True:
            await self._clock.sleep(wait)
            try:
                arn = await self._look()
            except TransientError as error:
                if backoff.failures % NAGGING == 0:
                    log.warning("publish.stream_not_found", failures=backoff.failures + 1, error=str(error))
                wait = backoff.failed()
                continue
            backoff.succeeded()
            wait = self._options.look_s
            if arn != self._arn:
                return arn

    async def _look(self) -> str:
        """Return the stream that the row names; as the leader, have it name another where that is due."""
        state = await self._store.load()
        if state is None or state.stream_arn != self._arn or not self._now.leading:
            return state.stream_arn if state is not None else self._arn
        ended, now = self._now.ended, self._clock.monotonic()
        if not ended and now < self._checked_at + self._options.check_s:
            return self._arn
        self._checked_at = now
        latest = await self._streams.latest()
        if latest == self._arn or (not ended and await self._streams.exists(self._arn)):
            return self._arn
        switched = state.reading(latest, scores_exist=True)
        return latest if await self._store.replace(state, switched) else self._arn
