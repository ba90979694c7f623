"""A table's stream: what is its own; what it shares with every `ShardSource` is in test_shard_source.py."""

from __future__ import annotations

from decimal import Decimal

import pytest

from service.admin.setup_plan import VIEWS_IN_USE
from service.aws.clients import Clients
from service.aws.streams.dynamodb_streams import DynamoDbStreamSource, ScoreTableStreams, stream_id
from service.aws.tables.scores import ScoreTable
from service.aws.translation import AwsSetupError
from service.ingest.stores import Change
from service.observability.metrics import Metrics
from service.runtime.errors import TransientError
from service.scoring.change import ScoreChange, StreamImage, change_of
from service.scoring.fold import ABSENT, Scorable, ScoreState, UserKey, fold, sequence_bytes
from service.scoring.marks import marking
from service.stream.ports import Page
from service.stream.position import TRIM_HORIZON
from tests.fakes.embedded import MakeTable, Run
from tests.fakes.images import key_item

ANN = UserKey("ann", "p1")


@pytest.fixture
def table(make_table: MakeTable) -> str:
    return make_table("scores")


@pytest.fixture
def source(aws_clients: Clients, run: Run, table: str) -> DynamoDbStreamSource:
    return run(DynamoDbStreamSource.open(aws_clients.dynamodb, aws_clients.streams, table))


def score(aws_clients: Clients, run: Run, table: str, *points: int) -> None:
    """Commit events as ingest does."""
    store = ScoreTable(aws_clients.dynamodb, table, Metrics())
    state: ScoreState = ABSENT
    for number, each in enumerate(points):
        outcome = fold(state, marking("tag:0"), [Scorable(sequence_bytes(str(number + 1)), Decimal(each), 5 + number)])
        assert outcome is not None
        run(store.commit([Change(ANN, outcome)]))
        state = outcome.after


def read(source: DynamoDbStreamSource, run: Run, position: str, limit: int = 100) -> Page[StreamImage]:
    (shard,) = run(source.list_shards())
    return run(source.fetch(run(source.iterator(shard.shard_id, position)), limit))


def changes(page: Page[StreamImage]) -> list[object]:
    return [change_of(record.data.keys, record.data.new) for record in page.records]


def test_the_stream_is_named_for_its_table(source: DynamoDbStreamSource, table: str):
    assert source.stream.name == table
    assert f"{table}/stream/" in source.stream.arn
    assert ":" not in source.stream.tag


@pytest.mark.parametrize("view", VIEWS_IN_USE)
def test_commits_come_as_absolute_scores_and_removals_as_tombstones(
    aws_clients: Clients, run: Run, table: str, view: str
):
    """A removal has keys only where the stream shows no old items."""
    for specification in ({"StreamEnabled": False}, {"StreamEnabled": True, "StreamViewType": view}):
        run(aws_clients.dynamodb.update_table(TableName=table, StreamSpecification=specification))
    source = run(DynamoDbStreamSource.open(aws_clients.dynamodb, aws_clients.streams, table))
    score(aws_clients, run, table, 10, -4)
    run(aws_clients.dynamodb.delete_item(TableName=table, Key=key_item(ANN)))
    page = read(source, run, TRIM_HORIZON)
    assert changes(page) == [
        ScoreChange(ANN, Decimal(10), 1, 5),
        ScoreChange(ANN, Decimal(6), 2, 6),
        ScoreChange(ANN, None, 0, 0),
    ]
    assert [record.data.new is None for record in page.records] == [False, False, True]
    sequences = [int(record.sequence) for record in page.records]
    assert sequences == sorted(set(sequences))
    assert page.next_iterator is not None


def test_what_the_replaced_system_writes_comes_too(
    source: DynamoDbStreamSource, aws_clients: Clients, run: Run, table: str
):
    run(aws_clients.dynamodb.put_item(TableName=table, Item={**key_item(ANN), "Score": {"N": "3"}}))
    assert changes(read(source, run, TRIM_HORIZON)) == [ScoreChange(ANN, Decimal(3), 0, 0)]


def test_a_refused_write_makes_no_record(source: DynamoDbStreamSource, aws_clients: Clients, run: Run, table: str):
    score(aws_clients, run, table, 10)
    score(aws_clients, run, table, 10)
    assert len(read(source, run, TRIM_HORIZON).records) == 1


def test_no_page_says_how_far_behind_it_is(source: DynamoDbStreamSource, aws_clients: Clients, run: Run, table: str):
    assert read(source, run, TRIM_HORIZON).behind_ms is None
    score(aws_clients, run, table, 1)
    assert read(source, run, TRIM_HORIZON).behind_ms is None


def test_a_table_without_a_stream_or_with_keys_only_says_what_to_do(
    aws_clients: Clients, run: Run, make_table: MakeTable
):
    silent = make_table("definitions")
    with pytest.raises(AwsSetupError, match="scoring setup"):
        run(DynamoDbStreamSource.open(aws_clients.dynamodb, aws_clients.streams, silent))
    view = {"StreamEnabled": True, "StreamViewType": "KEYS_ONLY"}
    run(aws_clients.dynamodb.update_table(TableName=silent, StreamSpecification=view))
    with pytest.raises(AwsSetupError, match="KEYS_ONLY"):
        run(DynamoDbStreamSource.open(aws_clients.dynamodb, aws_clients.streams, silent))
    with pytest.raises(AwsSetupError, match="no-such-table"):
        run(DynamoDbStreamSource.open(aws_clients.dynamodb, aws_clients.streams, "no-such-table"))


def test_a_stream_switched_off_and_on_is_another(aws_clients: Clients, run: Run, table: str):
    streams = ScoreTableStreams(aws_clients.dynamodb, aws_clients.streams, table)
    old = run(streams.latest())
    assert run(streams.exists(old))
    run(aws_clients.dynamodb.update_table(TableName=table, StreamSpecification={"StreamEnabled": False}))
    with pytest.raises(AwsSetupError, match="has no stream: run `scoring setup`"):
        run(streams.latest())
    on = {"StreamEnabled": True, "StreamViewType": "NEW_AND_OLD_IMAGES"}
    run(aws_clients.dynamodb.update_table(TableName=table, StreamSpecification=on))
    new = run(streams.latest())
    assert new != old
    assert stream_id(table, new).tag != stream_id(table, old).tag
    assert run(streams.exists(new))


def test_whether_a_table_has_scores_is_known_by_one_item(aws_clients: Clients, run: Run, table: str):
    streams = ScoreTableStreams(aws_clients.dynamodb, aws_clients.streams, table)
    assert not run(streams.scores_exist())
    for user in ("u1", "u2"):
        item = {"UserId": {"S": user}, "PinpointProjectId": {"S": "p"}}
        run(aws_clients.dynamodb.put_item(TableName=table, Item=item))
    assert run(streams.scores_exist())
    with pytest.raises(AwsSetupError, match="no-such-table"):
        run(ScoreTableStreams(aws_clients.dynamodb, aws_clients.streams, "no-such-table").scores_exist())


def test_listing_a_stream_that_is_gone_is_worth_another_try(aws_clients: Clients, run: Run, table: str):
    streams = ScoreTableStreams(aws_clients.dynamodb, aws_clients.streams, table)
    gone = run(streams.latest()).rpartition("/")[0] + "/2001-01-01T00:00:00.000"
    assert not run(streams.exists(gone))
    with pytest.raises(TransientError):
        run(DynamoDbStreamSource(aws_clients.streams, stream_id(table, gone)).list_shards())
