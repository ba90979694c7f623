"""What every `ShardSource` promises: the streams in memory, Kinesis on both its emulators, and the stream of a table.

What an emulator cannot do is not asked of it: the embedded AWS does not reshard as AWS does, and says that every
record of a table's stream has 0 bytes; kinesis-local's iterators grow old in real time only, and it takes a sequence
number that it does not hold for an unknown shard.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import pytest

from service.aws.clients import AwsClient, clients
from service.runtime.errors import IteratorExpiredError, RecordsTrimmedError, ShardGoneError, TransientError
from service.stream.ports import Page, Shard
from service.stream.position import LATEST, SHARD_END, TRIM_HORIZON, at_timestamp
from tests.chaos.kinesis import KinesisLocal, NodeMissingError, install
from tests.fakes.aio import VirtualLoop
from tests.fakes.embedded import PATIENT, FreshName, MakeTable, Run
from tests.fakes.one_shard import MAX_PUTS, KinesisShard, MemoryShard, OneShard, Replaced, Resharding, TableShard

pytestmark = pytest.mark.usefixtures("fast_calls")


@pytest.fixture(scope="session")
def kinesis_local(runner: asyncio.Runner) -> Iterator[AwsClient]:
    """A Kinesis that reshards, started once for all tests."""
    try:
        install()
    except NodeMissingError as missing:
        pytest.skip(str(missing))
    at_once = dict.fromkeys(("CREATE_STREAM_DURATION", "SPLIT_SHARD_DURATION", "MERGE_SHARDS_DURATION"), "10ms")
    with KinesisLocal(environment=at_once) as running:
        with pytest.MonkeyPatch.context() as environment:
            for name, value in running.environment().items():
                environment.setenv(name, value)
            opened = clients(PATIENT)
            made = runner.run(opened.__aenter__())
            runner.run(made.kinesis.list_streams())  # credentials are found at the first call
        yield made.kinesis
        runner.run(opened.__aexit__(None, None, None))


ALL = ("memory", "memory-table", "ministack", "kinesis-local", "ministack-table")


def of(*worlds: str) -> pytest.MarkDecorator:
    """Ask something of these worlds only."""
    assert set(worlds) <= set(ALL)
    return pytest.mark.parametrize("subject", worlds, indirect=True)


@pytest.fixture(params=ALL)
def subject(request: pytest.FixtureRequest, run: Run, fresh_name: FreshName) -> Iterator[OneShard]:
    def given(fixture: str) -> Any:  # noqa: ANN401 - pytest does not know either
        return request.getfixturevalue(fixture)

    match request.param:
        case "ministack":
            yield KinesisShard(given("aws_clients").kinesis, fresh_name("events"), run)
        case "kinesis-local":
            yield KinesisShard(given("kinesis_local"), fresh_name("events"), run)
        case "ministack-table":
            make_table: MakeTable = given("make_table")
            yield TableShard(given("aws_clients"), make_table("scores"), run)
        case memory:
            with asyncio.Runner(loop_factory=VirtualLoop) as runner:
                yield MemoryShard(runner, dynamodb=memory == "memory-table")


def shard_of(subject: OneShard) -> str:
    (shard,) = subject.run(subject.source.list_shards())
    return str(shard.shard_id)


def read(subject: OneShard, position: str, limit: int = 100, shard_id: str = "") -> Page[Any]:
    """Return the first page from a position on."""
    iterator = subject.run(subject.source.iterator(shard_id or shard_of(subject), position))
    page: Page[Any] = subject.run(subject.source.fetch(iterator, limit))
    return page


def fetch(subject: OneShard, iterator: str | None, limit: int = 100) -> Page[Any]:
    assert iterator is not None
    page: Page[Any] = subject.run(subject.source.fetch(iterator, limit))
    return page


def texts(subject: OneShard, page: Page[Any]) -> list[str]:
    return [subject.text(record) for record in page.records]


def drained(subject: OneShard, shard_id: str, position: str = TRIM_HORIZON, limit: int = 100) -> list[Page[Any]]:
    """Return the pages of a closed shard to its end: the end may come with the last records, or after them."""
    pages = [read(subject, position, limit, shard_id)]
    while pages[-1].next_iterator is not None:
        assert len(pages) < 20
        pages.append(fetch(subject, pages[-1].next_iterator, limit))
    return pages


def all_texts(subject: OneShard, pages: list[Page[Any]]) -> list[str]:
    return [text for page in pages for text in texts(subject, page)]


def test_a_new_stream_lists_one_open_shard_without_parents(subject: OneShard):
    (shard,) = subject.run(subject.source.list_shards())
    assert shard.shard_id.startswith("shardId-")
    assert shard == Shard(shard.shard_id, starting=shard.starting)


def test_only_a_stream_that_can_be_replaced_tells_where_its_shards_start(subject: OneShard):
    (shard,) = subject.run(subject.source.list_shards())
    assert shard.starting.isdecimal() == subject.source.replaceable
    assert subject.run(subject.source.is_current())
    subject.put("1")
    (record,) = read(subject, TRIM_HORIZON).records
    assert not shard.starting or int(shard.starting) <= int(record.sequence)
    assert subject.run(subject.source.list_shards()) == [shard]


@of("memory", "ministack", "kinesis-local")
def test_a_recreated_stream_starts_elsewhere_and_is_not_current(subject: Replaced):
    (before,) = subject.run(subject.source.list_shards())
    subject.put("1")
    iterator = subject.run(subject.source.iterator(before.shard_id, TRIM_HORIZON))
    subject.recreate()
    (after,) = subject.run(subject.source.list_shards())
    assert after.shard_id == before.shard_id
    assert int(after.starting) > int(before.starting)
    assert not subject.run(subject.source.is_current())
    # What is asked with the old name is answered by the new stream: nothing else shows it.
    assert texts(subject, read(subject, TRIM_HORIZON)) == []
    subject.put("2")
    assert texts(subject, read(subject, TRIM_HORIZON)) == ["2"]
    with pytest.raises((IteratorExpiredError, ShardGoneError, TransientError)):
        fetch(subject, iterator)


def test_the_stream_has_a_name_and_a_tag_that_fits_a_key(subject: OneShard):
    stream = subject.source.stream
    assert stream.name in stream.arn
    assert stream.tag
    assert ":" not in stream.tag


def test_records_come_in_order_with_pointers_and_arrival(subject: OneShard):
    before = subject.now_ms()
    sent = subject.put("one", "two, which is longer", "three")
    page = read(subject, TRIM_HORIZON)
    assert texts(subject, page) == ["one", "two, which is longer", "three"]
    sequences = [record.sequence for record in page.records]
    assert all(sequence.isdecimal() for sequence in sequences)
    assert all(int(one) < int(next_one) for one, next_one in pairwise(sequences))
    assert all(put.sequence in {"", sequence} for put, sequence in zip(sent, sequences, strict=True))
    # Tables tell arrivals by the second.
    assert all(before - 1001 < record.arrival_ms <= subject.now_ms() + 1 for record in page.records)
    assert page.next_iterator is not None
    assert list(page.children) == []


@of("memory", "memory-table", "ministack", "kinesis-local")
def test_a_record_says_how_large_it_is(subject: OneShard):
    subject.put("one", "two, which is longer")
    one, two = read(subject, TRIM_HORIZON).records
    assert len("one") <= one.size < two.size
    assert two.size - one.size == len("two, which is longer") - len("one")


def test_a_limit_is_kept_and_the_next_page_goes_on(subject: OneShard):
    subject.put("1", "2", "3")
    first = read(subject, TRIM_HORIZON, limit=2)
    assert texts(subject, first) == ["1", "2"]
    rest = fetch(subject, first.next_iterator, limit=20_000)
    assert texts(subject, rest) == ["3"]


def test_an_iterator_may_be_used_again_as_after_a_lost_answer(subject: OneShard):
    subject.put("1", "2", "3")
    iterator = subject.run(subject.source.iterator(shard_of(subject), TRIM_HORIZON))
    pages = [fetch(subject, iterator, limit=2) for _ in range(2)]
    assert [texts(subject, page) for page in pages] == [["1", "2"], ["1", "2"]]
    assert texts(subject, fetch(subject, pages[0].next_iterator)) == ["3"]


def test_reading_goes_on_after_a_sequence_number(subject: OneShard):
    subject.put("1", "2", "3")
    sequences = [record.sequence for record in read(subject, TRIM_HORIZON).records]
    assert texts(subject, read(subject, sequences[0])) == ["2", "3"]
    tip = read(subject, sequences[2])
    assert texts(subject, tip) == []
    subject.put("4")
    assert texts(subject, fetch(subject, tip.next_iterator)) == ["4"]


def test_an_empty_page_with_an_iterator_is_not_the_end(subject: OneShard):
    page = read(subject, TRIM_HORIZON)
    for number in range(3):
        assert texts(subject, page) == []
        assert not page.behind_ms
        page = fetch(subject, page.next_iterator)
        assert page.next_iterator is not None, number
    subject.put("new")
    assert texts(subject, fetch(subject, page.next_iterator)) == ["new"]


def test_latest_leaves_out_what_was_there_and_tells_what_comes(subject: OneShard):
    subject.put("old")
    page = read(subject, LATEST)
    assert texts(subject, page) == []
    subject.put("new")
    assert texts(subject, fetch(subject, page.next_iterator)) == ["new"]


@of("memory", "ministack", "kinesis-local")
def test_a_start_by_time_tells_what_arrived_since(subject: OneShard):
    subject.put("first")
    (first,) = read(subject, TRIM_HORIZON).records
    puts = 0
    while (last := read(subject, TRIM_HORIZON, 20_000).records[-1]).arrival_ms < first.arrival_ms + 10:
        puts += 1
        assert puts < MAX_PUTS
        subject.put(f"last {puts}")
    assert texts(subject, read(subject, at_timestamp(first.arrival_ms - 60_000), 20_000))[0] == "first"
    since = texts(subject, read(subject, at_timestamp(last.arrival_ms - 5), 20_000))
    assert "first" not in since
    assert since[-1] == subject.text(last)


@of("memory-table", "ministack-table")
def test_a_stream_without_a_start_by_time_says_so(subject: OneShard):
    with pytest.raises(ValueError, match="AT_TIMESTAMP"):
        subject.run(subject.source.iterator(shard_of(subject), at_timestamp(1)))


def test_nothing_follows_the_end_of_a_shard(subject: OneShard):
    with pytest.raises(ValueError, match=r"end|END"):
        subject.run(subject.source.iterator(shard_of(subject), SHARD_END))


def test_an_unknown_shard_is_gone(subject: OneShard):
    unknown = shard_of(subject).replace("0", "9")
    with pytest.raises(ShardGoneError, match=unknown):
        subject.run(subject.source.iterator(unknown, TRIM_HORIZON))


@of("memory", "memory-table", "ministack", "ministack-table")
def test_an_old_iterator_has_expired_and_a_new_one_goes_on(subject: OneShard):
    subject.put("1", "2")
    first = read(subject, TRIM_HORIZON, limit=1)
    assert first.next_iterator is not None
    with pytest.raises(IteratorExpiredError):
        fetch(subject, subject.aged(first.next_iterator))
    assert texts(subject, read(subject, first.records[-1].sequence)) == ["2"]


def trimmed(subject: OneShard) -> str:
    """Put "1", "2" and "3"; return a sequence number that is held no longer, or is older than all that are."""
    subject.put("1", "2", "3")
    oldest: str = read(subject, TRIM_HORIZON).records[0].sequence
    if isinstance(subject, MemoryShard):
        subject.trim(1)
        return oldest
    return str(int(oldest) - 1).zfill(len(oldest))


@of("memory-table", "ministack-table")
def test_a_table_tells_that_a_sequence_number_is_held_no_longer(subject: OneShard):
    position = trimmed(subject)
    with pytest.raises(RecordsTrimmedError):
        read(subject, position)
    assert texts(subject, read(subject, TRIM_HORIZON))[-2:] == ["2", "3"]


@of("memory", "ministack")
def test_kinesis_silently_starts_at_the_oldest_record_held(subject: OneShard):
    position = trimmed(subject)
    page = read(subject, position)
    assert texts(subject, page) == texts(subject, read(subject, TRIM_HORIZON))
    assert texts(subject, page)[-2:] == ["2", "3"]


@of("memory", "memory-table", "kinesis-local", "ministack-table")
def test_a_closed_shard_is_listed_closed_and_drained_to_its_end(subject: OneShard):
    shard_id = shard_of(subject)
    subject.put("1", "2", "3")
    begun = read(subject, TRIM_HORIZON, limit=1)
    subject.close()
    listed = {shard.shard_id: shard for shard in subject.run(subject.source.list_shards())}
    assert listed[shard_id].closed
    assert all(shard.parents == (shard_id,) for shard in listed.values() if shard.shard_id != shard_id)
    pages = [fetch(subject, begun.next_iterator, limit=1)]
    while pages[-1].next_iterator is not None:
        pages.append(fetch(subject, pages[-1].next_iterator, limit=1))
    assert all_texts(subject, pages) == ["2", "3"]
    assert all_texts(subject, drained(subject, shard_id)) == ["1", "2", "3"]
    last = [record.sequence for page in pages for record in page.records][-1]
    assert all_texts(subject, drained(subject, shard_id, last)) == []


@of("memory", "kinesis-local")
def test_a_split_names_two_children_whose_records_start_after_the_parents(subject: Resharding):
    parent = shard_of(subject)
    subject.put("1", "2", "3")
    subject.split(parent)
    (landed,) = subject.put("4")
    pages = drained(subject, parent, limit=2)
    assert all_texts(subject, pages) == ["1", "2", "3"]
    assert [list(page.children) for page in pages[:-1]] == [[]] * (len(pages) - 1)
    children = sorted(pages[-1].children, key=lambda child: child.shard_id)
    assert len(children) == 2
    assert {child.parents for child in children} == {(parent,)}
    listed = subject.run(subject.source.list_shards())
    known = [Shard(shard.shard_id, shard.parents, shard.closed) for shard in listed]
    assert sorted(known, key=lambda shard: shard.shard_id) == [Shard(parent, closed=True), *children]
    assert landed.shard_id in {child.shard_id for child in children}
    (fourth,) = read(subject, TRIM_HORIZON, shard_id=landed.shard_id).records
    assert subject.text(fourth) == "4"
    assert int(fourth.sequence) > max(int(record.sequence) for page in pages for record in page.records)
    assert [read(subject, LATEST, shard_id=child.shard_id).next_iterator is None for child in children] == [
        False,
        False,
    ]
    assert drained(subject, parent, LATEST)[-1].next_iterator is None


@of("memory", "kinesis-local")
def test_a_merge_names_one_child_with_two_parents(subject: Resharding):
    first = shard_of(subject)
    subject.split(first)
    parents = sorted(shard.shard_id for shard in subject.run(subject.source.list_shards()) if not shard.closed)
    (landed,) = subject.put("1")
    subject.merge(*parents)
    (after,) = subject.put("2")
    ends = [drained(subject, parent) for parent in parents]
    assert [all_texts(subject, pages) for pages in ends] == [["1"] if one == landed.shard_id else [] for one in parents]
    (child,) = {child for pages in ends for child in pages[-1].children}
    assert [list(pages[-1].children) for pages in ends] == [[child], [child]]
    assert sorted(child.parents) == parents
    listed = {shard.shard_id: shard for shard in subject.run(subject.source.list_shards())}
    assert listed.pop(child.shard_id).parents == child.parents
    assert {shard.shard_id for shard in listed.values() if shard.closed} == {first, *parents}
    assert after.shard_id == child.shard_id
    (second,) = read(subject, TRIM_HORIZON, shard_id=child.shard_id).records
    assert subject.text(second) == "2"
    assert int(second.sequence) > int(landed.sequence)
