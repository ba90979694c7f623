"""Puts records on the stream when they are due, in a thread of its own that its owner watches and stops."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from types import TracebackType
from typing import Any, Self

import msgspec

from service.local.population import PROJECT_ID
from service.local.traffic import Meaning, Record

MAX_PER_CALL = 500
"""Records per PutRecords (https://docs.aws.amazon.com/kinesis/latest/APIReference/API_PutRecords.html)."""
BREATH_S = 0.2
"""Seconds of traffic per call: short enough for a live view to move, long enough to batch."""
MAX_RESENDS = 20
"""Times that the records a call could not place are sent again before it is a failure."""
RESEND_PAUSE_S = 0.2
STOP_TIMEOUT_S = 10.0


class PlaybackError(Exception):
    """Records could not be put on the stream."""


class _Entry(msgspec.Struct, frozen=True):
    data: bytes
    partition_key: str


class Playback:
    """Plays records to a stream; a context manager that leaves no thread behind.

    Args:
        kinesis: A boto3 `kinesis` client that does not retry by itself: a retried PutRecords whose response was
            lost puts its records twice, and the service must count both.
        stream: Name of the stream, or how PutRecords is to name it (`StreamARN`).
        records: What to put, in the order of their due times.
        told: Called with the meanings of what was put, from the thread.
        project_id: The project that the events come from.
    """

    def __init__(
        self,
        kinesis: Any,  # noqa: ANN401 - boto3 makes its clients at run time
        stream: str | Mapping[str, str],
        records: Iterable[Record],
        told: Callable[[Sequence[Meaning]], None],
        *,
        project_id: str = PROJECT_ID,
    ) -> None:
        self._project_id = project_id
        self._kinesis = kinesis
        self._stream = {"StreamName": stream} if isinstance(stream, str) else dict(stream)
        self._records = records
        self._told = told
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
            self._play()
        except Exception as error:  # noqa: BLE001 - the owner asks for it with `done`, and raises it there
            self._error = error

    def _play(self) -> None:
        start = time.monotonic()
        for breath in breaths(self._records):
            if self._stopping.wait(max(0.0, start + breath[-1].due_s - time.monotonic())):
                return
            now_ms = time.time_ns() // 1_000_000
            self._put([_Entry(record.data(now_ms, self._project_id), record.partition_key) for record in breath])
            self._told([record.meaning for record in breath])
            self.put += len(breath)

    def _put(self, entries: list[_Entry]) -> None:
        for _ in range(MAX_RESENDS):
            answer = self._kinesis.put_records(
                **self._stream,
                Records=[{"Data": entry.data, "PartitionKey": entry.partition_key} for entry in entries],
            )
            if not answer["FailedRecordCount"]:
                return
            entries = [
                entry
                for entry, placed in zip(entries, answer["Records"], strict=True)
                if placed.get("ErrorCode") is not None
            ]
            if self._stopping.wait(RESEND_PAUSE_S):
                return
        raise PlaybackError(
            f"the stream {next(iter(self._stream.values()))} refused {len(entries)} records {MAX_RESENDS} times"
        )


def breaths(records: Iterable[Record]) -> Iterator[list[Record]]:
    """Group records that are put together: up to `BREATH_S` seconds and `MAX_PER_CALL` records at a time."""
    breath: list[Record] = []
    for record in records:
        if breath and (len(breath) == MAX_PER_CALL or record.due_s - breath[0].due_s >= BREATH_S):
            yield breath
            breath = []
        breath.append(record)
    if breath:
        yield breath
