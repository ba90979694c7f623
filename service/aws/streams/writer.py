"""Putting records on a Kinesis data stream: the one loop around PutRecords."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

import msgspec
from botocore.exceptions import ClientError

from service.aws.calls import MAX_ROUNDS, pause
from service.aws.clients import AwsClient
from service.aws.streams.kinesis import named
from service.aws.translation import translated
from service.runtime.errors import TransientError, TroubleError

MAX_PUT_RECORDS = 500
MAX_PUT_BYTES = 700 * 1024
"""Per PutRecords call, partition keys included. AWS allows 500 records and at least 5 MiB
(https://docs.aws.amazon.com/kinesis/latest/APIReference/API_PutRecords.html); in Base64 this stays below the 1 MiB
from which aiohttp warns that sending a body holds up the event loop. A larger record goes alone."""

MAX_RECORD_BYTES = 10 * 1024 * 1024
"""Largest record that a stream can be set to accept (same page); most streams accept 1 MiB."""

MAX_KEY_CHARACTERS = 256
"""Longest partition key (same page)."""

T = TypeVar("T")


_INVALID = frozenset({"InvalidArgumentException", "SerializationException", "ValidationException"})
"""Codes that say that something in the request cannot be."""


class InvalidRecordError(Exception):
    """Kinesis refused a whole call because of something in it, such as a record that is too large. Nothing was put."""


class Put(msgspec.Struct, frozen=True):
    """A record to put: `data` on the shard that `partition_key` hashes to."""

    partition_key: str
    data: bytes

    @property
    def size(self) -> int:
        """Bytes that count against the limits."""
        return len(self.data) + len(self.partition_key.encode())


class Landed(msgspec.Struct, frozen=True):
    """Where a record was put."""

    shard_id: str
    sequence: str


class PutBatch:
    """The records of one PutRecords call, and what became of each so far.

    Args:
        records: At most `MAX_PUT_RECORDS`.

    Attributes:
        landed: Where each record was put; None where it was not, or where no answer says so.
        calls: Calls made.
        resent: Records that were part of a call again.
        codes: How often each error code came.
    """

    def __init__(self, records: Sequence[Put]) -> None:
        self.records = records
        self.landed: list[Landed | None] = [None] * len(records)
        self.calls = 0
        self.resent = 0
        self.codes: Counter[str] = Counter()

    @property
    def pending(self) -> list[int]:
        """Indexes of the records that are not known to be on the stream."""
        return [index for index, landed in enumerate(self.landed) if landed is None]

    def answered(self, pending: Sequence[int], results: Sequence[Mapping[str, Any]]) -> None:
        """Note what a call says of the records it was made for."""
        for index, result in zip(pending, results, strict=True):
            if result.get("ErrorCode"):
                self.codes[str(result["ErrorCode"])] += 1
            else:
                self.landed[index] = Landed(result["ShardId"], result["SequenceNumber"])


class KinesisWriter:
    """Puts records on a stream, those refused in a call again.

    Args:
        client: Kinesis. A client that repeats calls by itself puts records twice where an answer was lost.
        name_or_arn: The stream.
        rounds: Most calls that one record is part of.
    """

    def __init__(self, client: AwsClient, name_or_arn: str, *, rounds: int = MAX_ROUNDS) -> None:
        self._client = client
        self._named = named(name_or_arn)
        self._what = f"stream {name_or_arn}"
        self._rounds = rounds

    async def put(self, records: Sequence[Put]) -> list[Landed]:
        """Put records (any number) in calls of bounded size; return where each landed, in their order.

        A refused record goes in behind those that were taken, so order holds only while nothing is refused.

        Raises:
            TransientError: Records were still refused after the last round, or an answer was lost; those of the calls
                before it are put.
        """
        landed: list[Landed] = []
        for some in put_batches(records, lambda record: record.size):
            batch = PutBatch(some)
            await self.put_batch(batch)
            if batch.pending:
                codes = ", ".join(batch.codes)
                raise TransientError(
                    f"{self._what}: {len(batch.pending)} records stay refused: {codes}", throttled=True
                )
            landed += [each for each in batch.landed if each is not None]
        return landed

    async def put_batch(self, batch: PutBatch, stopped: Callable[[], bool] = lambda: False) -> None:
        """Put one call's records, those refused again; `batch` says what became of each, also after an error.

        Args:
            batch: The records, which fit one call.
            stopped: Whether to make no further call.

        Raises:
            TransientError: No answer came: what is still pending may be on the stream or not, unless it is `undone`.
            InvalidRecordError: Something in one of the records cannot be; nothing that is pending was put.
            AwsSetupError: There is no such stream, or it may not be written.
        """
        error: TransientError | None = None
        for attempt in range(1, self._rounds + 1):
            pending = batch.pending
            if not pending or (attempt > 1 and stopped()):
                return
            batch.calls += 1
            batch.resent += len(pending) if attempt > 1 else 0
            error = None
            try:
                with translated(self._what, remedy="run `scoring setup`, or set SCORING_STREAM", expected=_INVALID):
                    answer = await self._client.put_records(
                        Records=[self._request(batch.records[index]) for index in pending], **self._named
                    )
                    batch.answered(pending, answer["Records"])
            except TransientError as refused:
                if not refused.undone or isinstance(refused, TroubleError):
                    raise
                error = refused  # the whole call was refused: as if each of its records had been
            except ClientError as refused:
                raise InvalidRecordError(f"{self._what}: {refused}") from refused
            if batch.pending and attempt < self._rounds:
                await pause(attempt)
        if error is not None:
            raise error

    @staticmethod
    def _request(record: Put) -> dict[str, Any]:
        return {"Data": record.data, "PartitionKey": record.partition_key}


def put_batches(records: Iterable[T], size: Callable[[T], int]) -> Iterator[list[T]]:
    """Yield records in order, as many at a time as one call takes; one that is larger than a call goes alone."""
    batch: list[T] = []
    total = 0
    for record in records:
        here = size(record)
        if batch and (len(batch) == MAX_PUT_RECORDS or total + here > MAX_PUT_BYTES):
            yield batch
            batch, total = [], 0
        batch.append(record)
        total += here
    if batch:
        yield batch
