"""A Kinesis data stream: reading its shards (`ShardSource[bytes]`).

Limits, for those who call: 5 GetRecords, 2 MB and 5 GetShardIterator per shard and second, 1,000 ListShards per
stream and second (https://docs.aws.amazon.com/streams/latest/dev/service-sizes-and-limits.html).
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from botocore.exceptions import ClientError

from service.aws.clients import AwsClient
from service.aws.fast.codec import KinesisRecord
from service.aws.translation import AwsSetupError, translated
from service.runtime.errors import RecordsTrimmedError, ShardGoneError, TransientError, Trouble
from service.stream.ports import Page, Record, Shard, StreamId
from service.stream.position import LATEST, SHARD_END, TRIM_HORIZON, Position, timestamp_of

MAX_FETCH = 10_000
"""Records per GetRecords (https://docs.aws.amazon.com/kinesis/latest/APIReference/API_GetRecords.html)."""

_RECORD_PAGES = 10
"""Reads spent to find a record by its pointer: pages may be empty before it."""

_REMEDY = "run `scoring setup`, or set SCORING_STREAM"

_TAG_BYTES = 6
"""48 bits: two streams of one table meet by chance once in 10**14, and every score item carries the tag."""


def stream_tag(incarnation: str) -> str:
    """Return a short URL-safe hash of what tells one incarnation of a stream from all others."""
    digest = hashlib.blake2b(incarnation.encode(), digest_size=_TAG_BYTES).digest()
    return base64.urlsafe_b64encode(digest).decode()


_UNKNOWN_SEQUENCE = frozenset({"InvalidArgumentException", "ValidationException"})
"""How Kinesis says that it does not know a sequence number."""


class KinesisSource:
    """`ShardSource[bytes]` of one stream; made by `open`.

    Kinesis says nothing when a sequence number has left the retention period: the iterator silently starts
    at the oldest record held. A reader that resumes can only compare times.

    Attributes:
        stream: The stream read.
        retention_s: How long it kept records when it was opened.
    """

    def __init__(self, client: AwsClient, stream: StreamId, retention_s: int) -> None:
        self._client = client
        self._stream = stream
        self.retention_s = retention_s
        self._what = f"stream {stream.name}"

    @property
    def stream(self) -> StreamId:
        """The stream read."""
        return self._stream

    @property
    def replaceable(self) -> bool:
        """True: the ARN of a stream that was deleted and created again is the same."""
        return True

    @classmethod
    async def open(cls, client: AwsClient, name_or_arn: str) -> KinesisSource:
        """Resolve a stream by name or ARN.

        Raises:
            TransientError: It is being created, or AWS does not answer.
            AwsSetupError: There is no such stream, it is being deleted, or reading it is not allowed.
        """
        with translated(f"stream {name_or_arn}", remedy=_REMEDY):
            summary = await _summary(client, name_or_arn)
            match summary["StreamStatus"]:
                case "CREATING":
                    raise TransientError(f"stream {name_or_arn} is being created")
                case "DELETING":
                    raise AwsSetupError(f"stream {name_or_arn} is being deleted: {_REMEDY}", Trouble.MISSING)
            stream = StreamId(summary["StreamName"], summary["StreamARN"], tag_of(summary))
            return cls(client, stream, summary["RetentionPeriodHours"] * 3600)

    async def is_current(self) -> bool:
        """Return whether the ARN still names the stream that was opened; see `ShardSource.is_current`."""
        with translated(self._what, remedy=_REMEDY):
            return tag_of(await _summary(self._client, self._stream.arn)) == self._stream.tag

    async def list_shards(self) -> Sequence[Shard]:
        """Return every shard within retention; see `ShardSource.list_shards`.

        A continued listing may not name the stream again
        (https://docs.aws.amazon.com/kinesis/latest/APIReference/API_ListShards.html).
        """
        shards: list[Shard] = []
        request: dict[str, Any] = {"StreamARN": self._stream.arn}
        while request:
            with translated(self._what):
                answer = await self._client.list_shards(**request)
                shards += [_shard(listed) for listed in answer["Shards"]]
            request = {"NextToken": answer["NextToken"]} if answer.get("NextToken") else {}
        return shards

    async def iterator(self, shard_id: str, position: Position) -> str:
        """Return an iterator that starts right after `position`; see `ShardSource.iterator`.

        A time that Kinesis's clock has not reached, as where ours is ahead, is refused as an invalid argument: that
        passes (https://github.com/harlow/kinesis-consumer/issues/116).
        """
        kind = _iterator_type(position)
        expected = () if timestamp_of(position) is None else ("InvalidArgumentException",)
        try:
            with translated(self._what, shard=shard_id, expected=expected):
                answer = await self._client.get_shard_iterator(StreamARN=self._stream.arn, ShardId=shard_id, **kind)
                return str(answer["ShardIterator"])
        except ClientError as error:
            raise TransientError(f"{self._what}: {error}") from error

    async def fetch(self, iterator: str, limit: int) -> Page[bytes]:
        """Return up to `limit` records (at most `MAX_FETCH`); see `ShardSource.fetch`."""
        with translated(self._what, shard="of this iterator"):
            answer = await self._client.get_records(
                StreamARN=self._stream.arn, ShardIterator=iterator, Limit=min(limit, MAX_FETCH)
            )
            return Page(
                records=[_record(record) for record in answer["Records"]],
                next_iterator=answer.get("NextShardIterator"),
                behind_ms=answer.get("MillisBehindLatest"),
                children=[
                    Shard(child["ShardId"], tuple(child["ParentShards"])) for child in answer.get("ChildShards", ())
                ],
            )


async def _summary(client: AwsClient, name_or_arn: str) -> dict[str, Any]:
    answer = await client.describe_stream_summary(**named(name_or_arn))
    summary: dict[str, Any] = answer["StreamDescriptionSummary"]
    return summary


def tag_of(summary: Mapping[str, Any]) -> str:
    """Return the tag of a stream by its description (creation time: epoch seconds)."""
    return stream_tag(f"{summary['StreamARN']}@{int(summary['StreamCreationTimestamp'])}")


def named(name_or_arn: str) -> dict[str, str]:
    """Return how calls name a stream."""
    return {"StreamARN" if name_or_arn.startswith("arn:") else "StreamName": name_or_arn}


async def record_at(client: AwsClient, name_or_arn: str, shard_id: str, sequence: str) -> bytes | None:
    """Return the data of one record by its pointer; None where the stream does not hold it any more.

    Raises:
        TransientError: AWS does not answer.
        AwsSetupError: There is no such stream, or reading it is not allowed.
    """
    try:
        with translated(f"stream {name_or_arn}", shard=shard_id, expected=_UNKNOWN_SEQUENCE):
            answer = await client.get_shard_iterator(
                ShardId=shard_id,
                ShardIteratorType="AT_SEQUENCE_NUMBER",
                StartingSequenceNumber=sequence,
                **named(name_or_arn),
            )
            iterator: str | None = answer["ShardIterator"]
            for _ in range(_RECORD_PAGES):
                page = await client.get_records(ShardIterator=iterator, Limit=1)
                for record in page["Records"]:
                    data: bytes = record.data
                    return data if record.sequence_number == sequence else None
                iterator = page.get("NextShardIterator")
                if not iterator:
                    return None
    except (ShardGoneError, RecordsTrimmedError):
        return None
    except ClientError:
        return None
    return None


def _shard(listed: dict[str, Any]) -> Shard:
    parents = (listed.get("ParentShardId"), listed.get("AdjacentParentShardId"))
    numbers = listed["SequenceNumberRange"]
    return Shard(
        listed["ShardId"],
        tuple(parent for parent in parents if parent),
        "EndingSequenceNumber" in numbers,
        numbers.get("StartingSequenceNumber", ""),
    )


def _record(record: KinesisRecord) -> Record[bytes]:
    data, partition_key = record.data, record.partition_key
    return Record(
        numbered(record.sequence_number),
        data,
        round(record.approximate_arrival_timestamp * 1000),
        partition_key,
        len(data) + len(partition_key),
    )


def numbered(sequence: str) -> str:
    """Return a record's sequence number: a checkpoint and a mark will be made of it.

    Raises:
        ValueError: It is not a number.
    """
    if not sequence.isdecimal():
        raise ValueError("a record without a sequence number")
    return sequence


def _iterator_type(position: Position) -> dict[str, Any]:
    if position in {TRIM_HORIZON, LATEST}:
        return {"ShardIteratorType": position}
    since = timestamp_of(position)
    if since is not None:
        return {"ShardIteratorType": "AT_TIMESTAMP", "Timestamp": datetime.fromtimestamp(since / 1000, UTC)}
    if position == SHARD_END:
        raise ValueError("nothing follows the end of a shard")
    return {"ShardIteratorType": "AFTER_SEQUENCE_NUMBER", "StartingSequenceNumber": position}
