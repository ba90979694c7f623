"""The hot operations' JSON, written and read in one pass: what botocore does shape by shape, msgspec does in C. Pure.

The results are those of aiobotocore with `epoch_seconds` as its timestamp parser: dictionaries with the members that
botocore's service models name (`tests/contract/test_codec.py` compares both, and the declarations below with the
models). Records of streams, of which there are many, are structs of what is wanted of them, made in half the time of
dictionaries of everything; `Operation.narrow` makes aiobotocore's the same. Whatever these declarations do not cover
(a null, a number where a string belongs, Base64 that is none) raises, and aiobotocore's own parser has the last word.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from typing import Any, TypedDict, TypeVar

import msgspec
from botocore.utils import parse_timestamp

Params = Mapping[str, Any]
S = TypeVar("S", bound=msgspec.Struct)


def epoch_seconds(value: float | str) -> float:
    """Parse a timestamp of any AWS protocol into epoch seconds.

    Making a datetime of each costs half of what aiobotocore spends on a page of records, and nothing here wants one.
    """
    return float(value) if isinstance(value, int | float) else float(parse_timestamp(value).timestamp())


class AttributeValue(TypedDict, total=False):
    """https://docs.aws.amazon.com/amazondynamodb/latest/APIReference/API_AttributeValue.html."""

    S: str
    N: str
    B: bytes
    SS: list[str]
    NS: list[str]
    BS: list[bytes]
    M: dict[str, AttributeValue]
    L: list[AttributeValue]
    NULL: bool
    BOOL: bool


_Item = dict[str, AttributeValue]


class _HashKeyRange(TypedDict, total=False):
    StartingHashKey: str
    EndingHashKey: str


class _ChildShard(TypedDict, total=False):
    ShardId: str
    ParentShards: list[str]
    HashKeyRange: _HashKeyRange


class KinesisRecord(msgspec.Struct, gc=False, rename="pascal"):
    """https://docs.aws.amazon.com/kinesis/latest/APIReference/API_Record.html, what is wanted of it."""

    sequence_number: str = ""
    approximate_arrival_timestamp: float = 0.0
    data: bytes = b""
    partition_key: str = ""


class KinesisPage(TypedDict, total=False):
    """https://docs.aws.amazon.com/kinesis/latest/APIReference/API_GetRecords.html."""

    Records: list[KinesisRecord]
    NextShardIterator: str
    MillisBehindLatest: int
    ChildShards: list[_ChildShard]


class StreamChange(msgspec.Struct, gc=False, rename="pascal"):
    """https://docs.aws.amazon.com/amazondynamodb/latest/APIReference/API_streams_StreamRecord.html.

    Images stay text: their readers want a few of their attributes.
    """

    approximate_creation_date_time: float = 0.0
    keys: msgspec.Raw = msgspec.Raw()
    new_image: msgspec.Raw = msgspec.Raw()
    old_image: msgspec.Raw = msgspec.Raw()
    sequence_number: str = ""
    size_bytes: int = 0


class StreamRecord(msgspec.Struct, gc=False, rename="camel"):
    """https://docs.aws.amazon.com/amazondynamodb/latest/APIReference/API_streams_Record.html, what is wanted of it."""

    event_name: str = ""
    dynamodb: StreamChange = msgspec.field(default_factory=StreamChange)


class StreamPage(TypedDict, total=False):
    """https://docs.aws.amazon.com/amazondynamodb/latest/APIReference/API_streams_GetRecords.html."""

    Records: list[StreamRecord]
    NextShardIterator: str


class _Capacity(TypedDict, total=False):
    ReadCapacityUnits: float
    WriteCapacityUnits: float
    CapacityUnits: float


class _VectorCapacity(TypedDict, total=False):
    VectorSearchRequestBytes: float
    VectorWriteRequestBytes: float


class _ConsumedCapacity(TypedDict, total=False):
    TableName: str
    CapacityUnits: float
    ReadCapacityUnits: float
    WriteCapacityUnits: float
    Table: _Capacity
    LocalSecondaryIndexes: dict[str, _Capacity]
    GlobalSecondaryIndexes: dict[str, _Capacity]
    VectorIndexes: dict[str, _VectorCapacity]


class _StatementError(TypedDict, total=False):
    Code: str
    Message: str
    Item: _Item


class _StatementResponse(TypedDict, total=False):
    Error: _StatementError
    TableName: str
    Item: _Item


class StatementsAnswer(TypedDict, total=False):
    """https://docs.aws.amazon.com/amazondynamodb/latest/APIReference/API_BatchExecuteStatement.html."""

    Responses: list[_StatementResponse]
    ConsumedCapacity: list[_ConsumedCapacity]


class _KeysAndAttributes(TypedDict, total=False):
    Keys: list[_Item]
    AttributesToGet: list[str]
    ConsistentRead: bool
    ProjectionExpression: str
    ExpressionAttributeNames: dict[str, str]


class ItemsAnswer(TypedDict, total=False):
    """https://docs.aws.amazon.com/amazondynamodb/latest/APIReference/API_BatchGetItem.html."""

    Responses: dict[str, list[_Item]]
    UnprocessedKeys: dict[str, _KeysAndAttributes]
    ConsumedCapacity: list[_ConsumedCapacity]


class PageAnswer(TypedDict, total=False):
    """https://docs.aws.amazon.com/amazondynamodb/latest/APIReference/API_Scan.html, and Query's."""

    Items: list[_Item]
    Count: int
    ScannedCount: int
    LastEvaluatedKey: _Item
    ConsumedCapacity: _ConsumedCapacity


class ItemAnswer(TypedDict, total=False):
    """https://docs.aws.amazon.com/amazondynamodb/latest/APIReference/API_GetItem.html."""

    Item: _Item
    ConsumedCapacity: _ConsumedCapacity


class _CollectionMetrics(TypedDict, total=False):
    ItemCollectionKey: _Item
    SizeEstimateRangeGB: list[float]


class WriteAnswer(TypedDict, total=False):
    """https://docs.aws.amazon.com/amazondynamodb/latest/APIReference/API_PutItem.html, and UpdateItem's."""

    Attributes: _Item
    ConsumedCapacity: _ConsumedCapacity
    ItemCollectionMetrics: _CollectionMetrics


class _MessageBody(TypedDict, total=False):
    Message: str
    RequestID: str


class Operation(msgspec.Struct, frozen=True):
    """How one operation is said, and its answer understood.

    Attributes:
        service: botocore's name of the service.
        name: The API's name of the operation.
        method: aiobotocore's.
        route: The part of the parameters that may change the request's URL.
        encode: The parameters as the request's body.
        decode: The answer's body as aiobotocore's result, less `ResponseMetadata`.
        status: HTTP status of success.
        narrow: aiobotocore's result as the same that `decode` gives.
    """

    service: str
    name: str
    method: str
    route: Callable[[Params], Hashable]
    encode: Callable[[Params], bytes]
    decode: Callable[[bytes | bytearray], dict[str, Any]]
    status: int = 200
    narrow: Callable[[dict[str, Any]], dict[str, Any]] = lambda result: result


_encode = msgspec.json.Encoder().encode
_message = msgspec.json.Decoder(_MessageBody).decode


def _decoder(answer: Any) -> Callable[[bytes | bytearray], dict[str, Any]]:  # noqa: ANN401 # a type of results
    decode = msgspec.json.Decoder(answer).decode
    return decode  # noqa: RET504 # named for mypy, which knows it as the TypedDict


def _struct(kind: type[S], members: Mapping[str, Any]) -> S:
    """Return those of the members that `kind` has."""
    names = zip(kind.__struct_fields__, kind.__struct_encode_fields__, strict=True)
    return kind(**{field: members[name] for field, name in names if name in members})


def _records(made: Callable[[dict[str, Any]], msgspec.Struct]) -> Callable[[dict[str, Any]], dict[str, Any]]:
    def narrow(page: dict[str, Any]) -> dict[str, Any]:
        if "Records" in page:
            page["Records"] = [made(record) for record in page["Records"]]
        return page

    return narrow


def _stream_struct(record: dict[str, Any]) -> StreamRecord:
    change = record.get("dynamodb", {})
    texts = {name: msgspec.Raw(_encode(change[name])) for name in {"Keys", "NewImage", "OldImage"} & change.keys()}
    return _struct(StreamRecord, {**record, "dynamodb": _struct(StreamChange, {**change, **texts})})


OPERATIONS = (
    Operation(
        "kinesis",
        "GetRecords",
        "get_records",
        lambda p: p.get("StreamARN"),
        _encode,
        _decoder(KinesisPage),
        narrow=_records(lambda record: _struct(KinesisRecord, record)),
    ),
    Operation(
        "dynamodbstreams",
        "GetRecords",
        "get_records",
        lambda _: None,
        _encode,
        _decoder(StreamPage),
        narrow=_records(_stream_struct),
    ),
    Operation(
        "dynamodb",
        "BatchExecuteStatement",
        "batch_execute_statement",
        lambda _: None,
        _encode,
        _decoder(StatementsAnswer),
    ),
    Operation(
        "dynamodb",
        "BatchGetItem",
        "batch_get_item",
        # A table may be named by its ARN, which may choose the endpoint.
        lambda p: tuple(p["RequestItems"]),
        _encode,
        _decoder(ItemsAnswer),
    ),
    *(
        Operation("dynamodb", name, method, lambda p: p["TableName"], _encode, _decoder(answer))
        for name, method, answer in (
            ("GetItem", "get_item", ItemAnswer),
            ("PutItem", "put_item", WriteAnswer),
            ("Query", "query", PageAnswer),
            ("Scan", "scan", PageAnswer),
            ("UpdateItem", "update_item", WriteAnswer),
        )
    ),
    Operation(
        "pinpoint",
        "UpdateEndpointsBatch",
        "update_endpoints_batch",
        lambda p: p["ApplicationId"],
        lambda p: _encode(p["EndpointBatchRequest"]),
        lambda body: {"MessageBody": _message(body)},
        status=202,
    ),
)
"""The operations whose number grows with the events, or with time (leases and heartbeats); all others are few."""
