"""Puts records on the stream when they are due, in a thread of its own that its owner watches and stops."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from types import TracebackType
from typing import Any, Self

from service.aws.streams.writer import MAX_PUT_RECORDS, KinesisWriter, Put, PutBatch
from service.local.population import PROJECT_ID
from service.local.traffic import Meaning, Record

BREATH_S = 0.2
"""Seconds of traffic per call: short enough for a live view to move, long enough to batch."""
MAX_ROUNDS = 20
"""Calls that one record is part of before it is a failure."""
STOP_TIMEOUT_S = 10.0


class PlaybackError(Exception):
    """Records could not be put on the stream."""


class _Blocking:
    """A boto3 client whose PutRecords can be awaited. It blocks the event loop, which has nothing else to do."""

    def __init__(self, kinesis: Any) -> None:  # noqa: ANN401 - boto3 makes its clients at run time
        self._kinesis = kinesis

    async def put_records(self, **call: object) -> dict[str, Any]:
        answer: dict[str, Any] = self._kinesis.put_records(**call)
        return answer


class Playback:
    """Plays records to a stream; a context manager that leaves no thread behind.

    Args:
        kinesis: A boto3 `kinesis` client that does not retry by itself: a retried PutRecords whose response was
            lost puts its records twice, and the service must count both.
        stream: Name or ARN of the stream.
        records: What to put, in the order of their due times.
        on_put: Called with the meanings of what was put, from the thread.
        project_id: The project that the events come from.
    """

    def __init__(
        self,
        kinesis: Any,  # noqa: ANN401 - boto3 makes its clients at run time
        stream: str,
        records: Iterable[Record],
        on_put: Callable[[Sequence[Meaning]], None],
        *,
        project_id: str = PROJECT_ID,
    ) -> None:
        self._project_id = project_id
        self._writer = KinesisWriter(_Blocking(kinesis), stream, rounds=MAX_ROUNDS)
        self._stream = stream
        self._records = records
        self._on_put = on_put
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="playback", daemon=True)
        self._error: Exception | None = None
        self.put = 0

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stopping.set()
        self._thread.join(STOP_TIMEOUT_S)

    @property
    def done(self) -> bool:
        """Whether all is put. Raises `PlaybackError` where that failed."""
        if self._error is not None:
            raise PlaybackError(f"{type(self._error).__name__}: {self._error}") from self._error
        return not self._thread.is_alive()

    def _run(self) -> None:
        try:
            asyncio.run(self._play())
        except Exception as error:  # noqa: BLE001 - the owner asks for it with `done`, and raises it there
            self._error = error

    async def _play(self) -> None:
        start = time.monotonic()
        for breath in breaths(self._records):
            if self._stopping.wait(max(0.0, start + breath[-1].due_s - time.monotonic())):
                return
            now_ms = time.time_ns() // 1_000_000
            batch = PutBatch([Put(record.partition_key, record.data(now_ms, self._project_id)) for record in breath])
            await self._writer.put_batch(batch, self._stopping.is_set)
            if batch.pending:
                if self._stopping.is_set():
                    return
                raise PlaybackError(f"the stream {self._stream} refused {len(batch.pending)} records to the end")
            self._on_put([record.meaning for record in breath])
            self.put += len(breath)


def breaths(records: Iterable[Record]) -> Iterator[list[Record]]:
    """Group records that are put together: up to `BREATH_S` seconds and `MAX_PUT_RECORDS` records at a time."""
    breath: list[Record] = []
    for record in records:
        if breath and (len(breath) == MAX_PUT_RECORDS or record.due_s - breath[0].due_s >= BREATH_S):
            yield breath
            breath = []
        breath.append(record)
    if breath:
        yield breath
