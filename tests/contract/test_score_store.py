"""`ScoreStore`: one suite for the fake and for DynamoDB."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import msgspec
import pytest

from service.aws.clients import AwsClient, Clients
from service.aws.tables.scores import ScoreTable
from service.aws.translation import AwsSetupError
from service.ingest.stores import MAX_COMMITS, Change, Committed, Conflict, ScoreStore
from service.observability.metrics import Metrics
from service.scoring.event import Reason, Rejected
from service.scoring.fold import ABSENT, Folded, Origin, Scorable, ScoreState, UserKey, fold, sequence_bytes
from service.scoring.marks import marking, pack_marks, shown
from tests.fakes.embedded import MakeTable, Run
from tests.fakes.images import key_item
from tests.fakes.scores import MemoryScores

pytestmark = pytest.mark.usefixtures("fast_calls")

ANN = UserKey("ann", "p1")
TAG = "tag:0"
SEQUENCE = 49590338271490256608559692538361571095921575989136588898  # 56 digits, as Kinesis makes them


class DynamoStore:
    """The table, and the hands of others in it."""

    def __init__(self, dynamodb: AwsClient, table: str, run: Run) -> None:
        self.metrics = Metrics()
        self.store: ScoreStore = ScoreTable(dynamodb, table, self.metrics)
        self._dynamodb, self._table, self._run = dynamodb, table, run

    def _update(self, key: UserKey, expression: str, value: dict[str, str]) -> None:
        self._run(
            self._dynamodb.update_item(
                TableName=self._table,
                Key=key_item(key),
                UpdateExpression=expression,
                ExpressionAttributeValues={":v": value},
            )
        )

    def put_foreign(self, key: UserKey, score: Decimal | None) -> None:
        value = {} if score is None else {"Score": {"N": str(score)}}
        self._run(self._dynamodb.put_item(TableName=self._table, Item={**key_item(key), **value, "Name": {"S": "x"}}))

    def increment(self, key: UserKey, points: Decimal) -> None:
        self._update(key, "ADD Score :v", {"N": str(points)})

    def spoil(self, key: UserKey) -> None:
        self._update(key, "SET Score = :v", {"S": "many"})

    def put(self, item: dict[str, Any]) -> None:
        self._run(self._dynamodb.put_item(TableName=self._table, Item=item))

    def remove(self, key: UserKey) -> None:
        self._run(self._dynamodb.delete_item(TableName=self._table, Key=key_item(key)))

    def raw(self, key: UserKey) -> dict[str, Any]:
        return self._run(self._dynamodb.get_item(TableName=self._table, Key=key_item(key)))["Item"]


class MemoryStore:
    def __init__(self) -> None:
        self.store = memory = MemoryScores()
        self.put_foreign, self.increment = memory.put_foreign, memory.increment
        self.spoil, self.remove = memory.spoil, memory.remove


Store = DynamoStore | MemoryStore


@pytest.fixture(params=["memory", "dynamodb"])
def subject(request: pytest.FixtureRequest, run: Run) -> Store:
    if request.param == "memory":
        return MemoryStore()
    table = request.getfixturevalue("make_table")("scores")
    return DynamoStore(request.getfixturevalue("aws_clients").dynamodb, table, run)


def folded(
    state: ScoreState, points: str = "10", sequence: int = SEQUENCE, tag: str = TAG, arrival_ms: int = 5
) -> Folded:
    outcome = fold(state, marking(tag), [Scorable(sequence_bytes(str(sequence)), Decimal(points), arrival_ms)])
    assert outcome is not None
    return outcome


def mark(sequence: int) -> bytes:
    return marking(TAG).set_at(sequence_bytes(str(sequence)))


def stored(subject: Store, run: Run, key: UserKey = ANN) -> ScoreState:
    return run(subject.store.load([key]))[key]


def commit(subject: Store, run: Run, *changes: Change) -> list[Any]:
    return list(run(subject.store.commit(changes)))


def test_an_unknown_user_is_absent(subject: Store, run: Run):
    assert run(subject.store.load([ANN])) == {ANN: ABSENT}


def test_nothing_asked_is_nothing_answered(subject: Store, run: Run):
    assert run(subject.store.load([])) == {}
    assert commit(subject, run) == []


@pytest.mark.parametrize("points", ["10", "-1000", "0", "0.000000001", "-2.5", "123456789012345.123456789"])
def test_what_is_written_is_read_back(subject: Store, run: Run, points: str):
    first = folded(ABSENT, points)
    assert commit(subject, run, Change(ANN, first)) == [Committed()]
    assert stored(subject, run) == first.after
    assert first.after.applied == {TAG: mark(SEQUENCE)}


@pytest.mark.parametrize("user_id", ["Zoë", "ユーザー", "a#b:c/d'e\"f", "😀" * 100, " "])
def test_any_user_id_is_a_key(subject: Store, run: Run, user_id: str):
    key = UserKey(user_id, "prøject")
    assert commit(subject, run, Change(key, folded(ABSENT))) == [Committed()]
    assert stored(subject, run, key).score == 10


def test_a_user_has_a_score_for_each_project(subject: Store, run: Run):
    other = UserKey(ANN.user_id, "p2")
    commit(subject, run, Change(ANN, folded(ABSENT, "1")), Change(other, folded(ABSENT, "2")))
    states = run(subject.store.load([ANN, other]))
    assert (states[ANN].score, states[other].score) == (1, 2)


def test_revisions_and_shards_add_up(subject: Store, run: Run):
    state = ABSENT
    for step, tag in enumerate([TAG, "tag:1", TAG]):
        outcome = folded(state, "1.5", SEQUENCE + step, tag, arrival_ms=100 - step)
        assert commit(subject, run, Change(ANN, outcome)) == [Committed()]
        state = stored(subject, run)
        assert state == outcome.after
    assert (state.score, state.revision, state.updated_ms) == (Decimal("4.5"), 3, 100)
    assert state.applied == {TAG: mark(SEQUENCE + 2), "tag:1": mark(SEQUENCE + 1)}


def test_a_stale_write_conflicts_and_shows_what_is_stored(subject: Store, run: Run):
    first = folded(ABSENT)
    rival = folded(first.after, "7", SEQUENCE, "tag:1")
    commit(subject, run, Change(ANN, first))
    commit(subject, run, Change(ANN, rival))
    late = folded(first.after, "3", SEQUENCE + 1)
    assert commit(subject, run, Change(ANN, late)) == [Conflict(rival.after)]
    assert stored(subject, run) == rival.after


def test_an_insert_that_lost_a_race_must_be_loaded(subject: Store, run: Run):
    commit(subject, run, Change(ANN, folded(ABSENT)))
    assert commit(subject, run, Change(ANN, folded(ABSENT, "3", SEQUENCE, "tag:1"))) == [Conflict(None)]
    assert stored(subject, run).score == 10


def test_a_write_repeated_after_a_lost_answer_conflicts_with_itself(subject: Store, run: Run):
    first = folded(ABSENT)
    second = folded(first.after, "5", SEQUENCE + 1)
    for change in (Change(ANN, first), Change(ANN, second)):
        assert commit(subject, run, change) == [Committed()]
        (repeated,) = commit(subject, run, change)
        current = repeated.current or stored(subject, run)
        assert current == change.folded.after
        applied = marking(TAG).applied_up_to(change.folded.after.applied[TAG])
        event = Scorable(applied, change.folded.points, 5)
        assert fold(current, marking(TAG), [event]) is None


def test_an_update_of_a_removed_item_conflicts_with_absence(subject: Store, run: Run):
    first = folded(ABSENT)
    commit(subject, run, Change(ANN, first))
    subject.remove(ANN)
    assert commit(subject, run, Change(ANN, folded(first.after, "1", SEQUENCE + 1))) == [Conflict(ABSENT)]
    assert stored(subject, run) == ABSENT


def test_a_score_told_again_keeps_its_points_marks_and_time(subject: Store, run: Run):
    commit(subject, run, Change(ANN, folded(ABSENT)))
    before = stored(subject, run)
    assert run(subject.store.restate({ANN: before})) == [Committed()]
    assert stored(subject, run) == msgspec.structs.replace(before, revision=before.revision + 1)
    assert run(subject.store.restate({ANN: before})) == [Conflict(stored(subject, run))]


def test_restating_a_score_of_the_replaced_system_adds_only_a_revision(subject: Store, run: Run):
    subject.put_foreign(ANN, Decimal(7))
    found = stored(subject, run)
    assert run(subject.store.restate({ANN: found})) == [Committed()]
    assert stored(subject, run) == msgspec.structs.replace(found, origin=Origin.OURS, revision=1)
    if isinstance(subject, DynamoStore):
        assert subject.raw(ANN).keys() == {"UserId", "PinpointProjectId", "Name", "Score", "Revision"}


@pytest.mark.parametrize("foreign", [False, True])
def test_what_is_gone_is_not_told_again(subject: Store, run: Run, foreign: bool):  # noqa: FBT001 - a parameter
    if foreign:
        subject.put_foreign(ANN, Decimal(7))
    else:
        commit(subject, run, Change(ANN, folded(ABSENT)))
    found = stored(subject, run)
    subject.remove(ANN)
    assert run(subject.store.restate({ANN: found})) == [Conflict(ABSENT)]
    assert stored(subject, run) == ABSENT


@pytest.mark.parametrize("score", [Decimal("41.5"), Decimal(-7), None])
def test_an_item_of_the_replaced_system_is_adopted(subject: Store, run: Run, score: Decimal | None):
    subject.put_foreign(ANN, score)
    found = stored(subject, run)
    assert found == ScoreState(Origin.FOREIGN, score, 0, {}, 0)
    adoption = folded(found)
    assert commit(subject, run, Change(ANN, adoption)) == [Committed()]
    state = stored(subject, run)
    assert (state.origin, state.revision, state.score) == (Origin.OURS, 1, (score or 0) + 10)
    assert commit(subject, run, Change(ANN, adoption)) == [Conflict(state)]


def test_adopting_an_item_that_has_got_a_score_meanwhile_conflicts(subject: Store, run: Run):
    subject.put_foreign(ANN, None)
    found = stored(subject, run)
    subject.increment(ANN, Decimal(4))
    (outcome,) = commit(subject, run, Change(ANN, folded(found)))
    assert outcome == Conflict(ScoreState(Origin.FOREIGN, Decimal(4), 0, {}, 0))


def test_adopting_an_item_that_was_removed_conflicts_with_absence(subject: Store, run: Run):
    subject.put_foreign(ANN, Decimal(1))
    found = stored(subject, run)
    subject.remove(ANN)
    assert commit(subject, run, Change(ANN, folded(found))) == [Conflict(ABSENT)]


def test_inserting_over_a_foreign_item_conflicts(subject: Store, run: Run):
    subject.put_foreign(ANN, Decimal(1))
    assert commit(subject, run, Change(ANN, folded(ABSENT))) == [Conflict(None)]


def test_increments_of_others_survive(subject: Store, run: Run):
    first = folded(ABSENT)
    commit(subject, run, Change(ANN, first))
    subject.increment(ANN, Decimal("0.5"))
    assert commit(subject, run, Change(ANN, folded(first.after, "1", SEQUENCE + 1))) == [Committed()]
    assert stored(subject, run).score == Decimal("11.5")


def test_an_item_that_is_no_score_is_rejected_alone(subject: Store, run: Run):
    bob = UserKey("bob", "p1")
    first = folded(ABSENT)
    commit(subject, run, Change(ANN, first), Change(bob, first))
    subject.spoil(ANN)
    states = run(subject.store.load([ANN, bob]))
    assert isinstance(states[ANN], Rejected)
    assert states[ANN].reason is Reason.BAD_SCORE_ITEM
    assert states[bob] == first.after
    refused, written = commit(
        subject, run, *(Change(key, folded(first.after, "1", SEQUENCE + 1)) for key in (ANN, bob))
    )
    assert isinstance(refused, Rejected)
    assert written == Committed()


def test_each_change_of_a_commit_stands_for_itself(subject: Store, run: Run):
    keys = [UserKey(f"user-{number}", "p1") for number in range(MAX_COMMITS)]
    commit(subject, run, *(Change(key, folded(ABSENT, "1")) for key in keys[::2]))
    outcomes = commit(subject, run, *(Change(key, folded(ABSENT, "2")) for key in keys))
    assert outcomes == [Conflict(None) if number % 2 == 0 else Committed() for number in range(MAX_COMMITS)]
    states = run(subject.store.load(keys))
    assert [states[key].score for key in keys] == [1 if number % 2 == 0 else 2 for number in range(MAX_COMMITS)]


def test_one_change_too_many_is_a_bug(subject: Store, run: Run):
    changes = [Change(UserKey(f"user-{number}", "p1"), folded(ABSENT)) for number in range(MAX_COMMITS + 1)]
    with pytest.raises(ValueError, match="at most 25"):
        commit(subject, run, *changes)


def test_two_changes_of_one_user_are_a_bug(subject: Store, run: Run):
    with pytest.raises(ValueError, match="one user"):
        commit(subject, run, Change(ANN, folded(ABSENT)), Change(ANN, folded(ABSENT)))


def test_any_number_of_users_is_loaded_repeats_included(subject: Store, run: Run):
    keys = [UserKey(f"user-{number}", "p1") for number in range(230)]
    for start in range(0, 230, MAX_COMMITS):
        commit(subject, run, *(Change(key, folded(ABSENT)) for key in keys[start : start + MAX_COMMITS]))
    missing = [UserKey("nobody", "p1")]
    states = run(subject.store.load([*keys, *missing, *keys[:10]]))
    assert len(states) == 231
    assert all(states[key].score == 10 for key in keys)
    assert states[missing[0]] == ABSENT


def test_a_scan_yields_every_score_and_goes_on_behind_any(subject: Store, run: Run):
    foreign, empty, bad = (UserKey(name, "p1") for name in ("foreign", "empty", "bad"))
    first = folded(ABSENT, "-3", arrival_ms=77)
    commit(subject, run, Change(ANN, first), Change(bad, first))
    subject.put_foreign(foreign, Decimal(9))
    subject.put_foreign(empty, None)
    subject.spoil(bad)

    async def scanned(after: UserKey | None = None) -> list[UserKey]:
        return [key async for key in subject.store.scan(after)]

    found = run(scanned())
    assert sorted(found) == [ANN, foreign]
    assert run(scanned(found[0])) == [found[1]]
    assert run(scanned(found[1])) == []


@pytest.fixture
def dynamo(make_table: MakeTable, aws_clients: Clients, run: Run) -> DynamoStore:
    return DynamoStore(aws_clients.dynamodb, make_table("scores"), run)


def test_the_item_keeps_the_form_that_consumers_of_the_old_table_read(dynamo: DynamoStore, run: Run):
    commit(dynamo, run, Change(ANN, folded(ABSENT, "12.5")))
    assert dynamo.raw(ANN) == {
        "UserId": {"S": "ann"},
        "PinpointProjectId": {"S": "p1"},
        "Score": {"N": "12.5"},
        "Revision": {"N": "1"},
        "Applied": {"B": pack_marks({TAG: mark(SEQUENCE)})},
        "UpdatedAt": {"N": "5"},
    }


def test_an_item_of_version_0_1_becomes_a_binary_when_written(dynamo: DynamoStore, run: Run):
    old = {"M": {"tag-7": {"B": SEQUENCE.to_bytes(24, "big")}, "tag-8": {"B": bytes(24)}}}
    dynamo.put({**key_item(ANN), "Score": {"N": "4"}, "Revision": {"N": "9"}, "Applied": old, "UpdatedAt": {"N": "5"}})
    found = stored(dynamo, run)
    assert {tag: shown(mark) for tag, mark in found.applied.items()} == {"tag-7": str(SEQUENCE), "tag-8": "0"}
    assert fold(found, marking("tag-7"), [Scorable(sequence_bytes(str(SEQUENCE)), Decimal(1), 5)]) is None
    outcome = folded(found, "3", SEQUENCE + 1, "tag-7")
    assert commit(dynamo, run, Change(ANN, outcome)) == [Committed()]
    assert dynamo.raw(ANN)["Applied"].keys() == {"B"}
    again = stored(dynamo, run)
    assert (again, again.score, again.revision) == (outcome.after, 7, 10)
    assert {tag: shown(mark) for tag, mark in again.applied.items()} == {"tag-7": str(SEQUENCE + 1), "tag-8": "0"}


def test_adoption_leaves_foreign_attributes(dynamo: DynamoStore, run: Run):
    dynamo.put_foreign(ANN, Decimal(1))
    commit(dynamo, run, Change(ANN, folded(stored(dynamo, run))))
    assert dynamo.raw(ANN)["Name"] == {"S": "x"}


def test_write_units_are_counted(dynamo: DynamoStore, run: Run):
    commit(dynamo, run, *(Change(UserKey(f"user-{number}", "p1"), folded(ABSENT)) for number in range(5)))
    assert dynamo.metrics.registry.get_sample_value("scoring_write_units_total") == 5


def test_a_missing_table_is_named_with_its_remedy(aws_clients: Clients, run: Run):
    store = ScoreTable(aws_clients.dynamodb, "no-such-table", Metrics())
    with pytest.raises(AwsSetupError, match=r"no-such-table.*scoring setup"):
        run(store.commit([Change(ANN, folded(ABSENT))]))
    with pytest.raises(AwsSetupError, match=r"no-such-table.*scoring setup"):
        run(store.load([ANN]))
