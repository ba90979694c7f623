"""The stream of a DynamoDB table: `ShardSource[StreamImage]`.

What differs from Kinesis: records are held for 24 hours, shards roll over every few hours without anyone asking,
a position older than the oldest record is an error, there is no start by time, and sequence numbers vary in
width (https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/Streams.html).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from service.aws.clients import AwsClient
from service.aws.fast.codec import StreamRecord
from service.aws.streams.kinesis import numbered, stream_tag
from service.aws.translation import AwsSetupError, translated
from service.runtime.errors import ShardGoneError
from service.scoring.change import StreamImage
from service.stream.ports import Page, Record, Shard, StreamId
from service.stream.position import LATEST, SHARD_END, TRIM_HORIZON, Position, timestamp_of

MAX_FETCH = 1000
"""Records per GetRecords
(https://docs.aws.amazon.com/amazondynamodb/latest/APIReference/API_streams_GetRecords.html)."""

RETENTION_S = 24 * 3600

_VIEWS = ("NEW_IMAGE", "NEW_AND_OLD_IMAGES")


class DynamoDbStreamSource:
    """`ShardSource[StreamImage]` of one stream of a table.

    Attributes:
        stream: The stream read; its name is the table's.
        retention_s: How long it keeps records.
    """

    retention_s = RETENTION_S

    def __init__(self, client: AwsClient, stream: StreamId) -> None:
        self._client = client
        self._stream = stream
        self._what = f"stream of table {stream.name}"

    @property
    def stream(self) -> StreamId:
        """The stream read."""
        return self._stream

    @property
    def replaceable(self) -> bool:
        """False: the ARN of a table's stream holds the time at which the stream was switched on."""
        return False

    async def is_current(self) -> bool:
        """Return True; see `ShardSource.is_current`. The ARN never comes to name another stream."""
        return True

    @classmethod
    async def open(cls, dynamodb: AwsClient, streams: AwsClient, table: str) -> DynamoDbStreamSource:
        """Resolve the stream that a table has now.

        Raises:
            TransientError: AWS does not answer.
            AwsSetupError: The table does not exist, has no stream, or has a stream without new images.
        """
        return cls(streams, stream_id(table, await ScoreTableStreams(dynamodb, streams, table).latest()))

    async def list_shards(self) -> Sequence[Shard]:
        """Return every shard the stream holds; see `ShardSource.list_shards`.

        Raises:
            TransientError: Also where the stream is gone, 24 hours after it was switched off: the table may have
                another by then (`StreamFollower`).
        """
        shards: list[Shard] = []
        start: dict[str, str] = {}
        while True:
            with translated(self._what):
                answer = await self._client.describe_stream(StreamArn=self._stream.arn, **start)
                page = answer["StreamDescription"]
                shards += [_shard(listed) for listed in page["Shards"]]
            if not page.get("LastEvaluatedShardId"):
                return shards
            start = {"ExclusiveStartShardId": page["LastEvaluatedShardId"]}

    async def iterator(self, shard_id: str, position: Position) -> str:
        """Return an iterator that starts right after `position`; see `ShardSource.iterator`.

        Raises:
            ValueError: `position` is a time, or the end of the shard.
        """
        kind = _iterator_type(position)
        with translated(self._what, shard=shard_id):
            answer = await self._client.get_shard_iterator(StreamArn=self._stream.arn, ShardId=shard_id, **kind)
            return str(answer["ShardIterator"])

    async def fetch(self, iterator: str, limit: int) -> Page[StreamImage]:
        """Return up to `limit` records (at most `MAX_FETCH`); see `ShardSource.fetch`.

        The stream does not say how far behind its tip a page is.
        """
        with translated(self._what, shard="of this iterator"):
            answer = await self._client.get_records(ShardIterator=iterator, Limit=min(limit, MAX_FETCH))
            records = [_record(record) for record in answer["Records"]]
        return Page(records, answer.get("NextShardIterator"), None)


class ScoreTableStreams:
    """`ScoreStreams` of one table.

    Args:
        dynamodb: DynamoDB.
        streams: DynamoDB Streams.
        table: The table's name.
    """

    def __init__(self, dynamodb: AwsClient, streams: AwsClient, table: str) -> None:
        self._table_client = dynamodb
        self._streams_client = streams
        self._table = table

    async def latest(self) -> str:
        """Return the ARN of the stream that the table has now; see `ScoreStreams.latest`.

        `LatestStreamArn` also names a stream that was switched off
        (https://docs.aws.amazon.com/amazondynamodb/latest/APIReference/API_TableDescription.html).

        Raises:
            TransientError: AWS does not answer.
            AwsSetupError: The table does not exist, has no stream, or has a stream without new images.
        """
        table = self._table
        with translated(f"table {table}", remedy="run `scoring setup`, or set SCORING_SCORES_TABLE"):
            described = (await self._table_client.describe_table(TableName=table))["Table"]
            specification = described.get("StreamSpecification", {})
        arn = described.get("LatestStreamArn")
        if not arn or not specification.get("StreamEnabled"):
            raise AwsSetupError(f"table {table} has no stream: run `scoring setup`, which turns it on")
        view = specification.get("StreamViewType")
        if view not in _VIEWS:
            raise AwsSetupError(
                f"the stream of table {table} shows {view} only: turn it off and on again as NEW_IMAGE "
                "(aws dynamodb update-table --stream-specification)"
            )
        return str(arn)

    async def exists(self, stream_arn: str) -> bool:
        """Return whether a stream can still be read; see `ScoreStreams.exists`."""
        try:
            with translated(f"stream of table {self._table}", shard="any"):
                await self._streams_client.describe_stream(StreamArn=stream_arn, Limit=1)
        except ShardGoneError:
            return False
        return True

    async def scores_exist(self) -> bool:
        """Return whether the table has any item; see `ScoreStreams.scores_exist`.

        One item is read. A page without an item may still have a `LastEvaluatedKey`
        (https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/Scan.html).
        """
        with translated(f"table {self._table}", remedy="run `scoring setup`, or set SCORING_SCORES_TABLE"):
            page = await self._table_client.scan(TableName=self._table, Limit=1, Select="COUNT", ConsistentRead=True)
            return bool(page["Count"] or page.get("LastEvaluatedKey"))


def stream_id(table: str, arn: str) -> StreamId:
    """Return the identity of a table's stream: its ARN ends with the time at which it was switched on."""
    return StreamId(table, arn, stream_tag(arn))


def _shard(listed: dict[str, Any]) -> Shard:
    parent = listed.get("ParentShardId")
    closed = "EndingSequenceNumber" in listed.get("SequenceNumberRange", {})
    return Shard(listed["ShardId"], (parent,) if parent else (), closed)


def _record(record: StreamRecord) -> Record[StreamImage]:
    change = record.dynamodb
    return Record(
        numbered(change.sequence_number),
        StreamImage(
            change.keys,
            None if record.event_name == "REMOVE" else change.new_image,
            change.old_image if bytes(change.old_image) else None,
        ),
        round(change.approximate_creation_date_time * 1000),
        "",
        change.size_bytes,
    )


def _iterator_type(position: Position) -> dict[str, str]:
    if position in {TRIM_HORIZON, LATEST}:
        return {"ShardIteratorType": position}
    if timestamp_of(position) is not None:
        raise ValueError(f"the stream of a table cannot be started by time ({position}): use TRIM_HORIZON or LATEST")
    if position == SHARD_END:
        raise ValueError("nothing follows the end of a shard")
    return {"ShardIteratorType": "AFTER_SEQUENCE_NUMBER", "SequenceNumber": position}
