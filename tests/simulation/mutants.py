"""Known-wrong variants of the service: the simulation must find each. Every one changes a single thing."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from functools import partial
from typing import Any
from unittest import mock

import msgspec

from service.ingest import commit, identity_plan, ingest, letters, prepared
from service.ingest.identity_rows import Row, RowKey, Write
from service.ingest.prepared import PreparedEvents
from service.ingest.stores import Committed, Found
from service.publish.follow import StreamFollower
from service.publish.pipeline import PipelineState
from service.runtime.errors import RecordsTrimmedError, ReleasedError
from service.scoring import fold as folding
from service.scoring.fold import Folded, Scorable, ScoreState
from service.scoring.marks import Marking
from service.stream import identity
from service.stream.leases import planner
from service.stream.leases.lease import Lease
from service.stream.position import TRIM_HORIZON
from service.stream.tail.phase import Phase
from service.stream.tail.reader import Reader
from service.stream.tail.tail import Tail
from tests.fakes.leases import FakeLeases
from tests.simulation import hands
from tests.simulation.publishing_mutants import (
    loss_kept_in_memory,
    lost_calls_forgotten,
    no_late_republishing,
    no_reconciliation,
    no_republishing,
    no_watch,
    one_sink_for_all,
    reconciliation_done_too_early,
    republished_too_soon,
    two_in_flight,
    unordered_publishing,
)
from tests.simulation.stores import SimScores

Mutant = Callable[[], AbstractContextManager[Any]]


def dedupe_by_batch() -> AbstractContextManager[Any]:
    """A batch is skipped where its last event is applied already, else applied whole."""

    def fold(state: ScoreState, marking: Marking, events: Sequence[Scorable]) -> Folded | None:
        mark = state.applied.get(marking.tag)
        if mark is not None and events[-1].sequence <= marking.applied_up_to(mark):
            return None
        others = {tag: other for tag, other in state.applied.items() if tag != marking.tag}
        folded = folding.fold(msgspec.structs.replace(state, applied=others), marking, events)
        return folded and msgspec.structs.replace(folded, before=state)

    return mock.patch.object(commit, "fold", fold)


def blind_increment() -> AbstractContextManager[Any]:
    """Points are added whatever is stored."""

    def write(self: SimScores, change: Any) -> Committed:  # noqa: ANN401 - a patch
        current = self.items.get(change.key)
        before = current.score if isinstance(current, ScoreState) else None
        applied = dict(current.applied) if isinstance(current, ScoreState) else {}
        applied.update(change.folded.after.applied)
        revision = current.revision + 1 if isinstance(current, ScoreState) else 1
        after = msgspec.structs.replace(change.folded.after, applied=applied, revision=revision)
        self._keep(change.key, after, (before or 0) + change.folded.points)
        return Committed()

    return mock.patch.object(SimScores, "_write", write)


def checkpoint_before_commit() -> AbstractContextManager[Any]:
    """A batch counts as durable as soon as its turn comes."""

    async def run(self: Any, hurrying: asyncio.Task[None]) -> None:  # noqa: ANN401 - a patch
        while (item := await self._prepared.get()) is not None and self._progress.phase is not Phase.CUT_SHORT:
            self._durable = item.last
            self._durable_moved.set()
            with suppress(ReleasedError):
                await self._insist("commit", partial(self._reading.consumer.commit, item.prepared))
            self._arrivals.popleft()
            self._reader.release(item.size)
            self._slots.release()
        if self._progress.phase is not Phase.CUT_SHORT:
            hurrying.cancel()
        self._progress.to(Phase.DRAINED)
        self._durable_moved.set()

    return mock.patch.object(Tail, "_commit", run)


def skip_failed_user() -> AbstractContextManager[Any]:
    """Whoever could not be written is not tried again."""
    original = commit.Committer._round

    async def once(self: Any, tag: str, groups: Any, *rest: Any) -> Any:  # noqa: ANN401 - a patch
        tried = await original(self, tag, groups, *rest)
        return msgspec.structs.replace(tried, settled=list(groups), throttled=False)

    return mock.patch.object(commit.Committer, "_round", once)


def scalar_watermark() -> AbstractContextManager[Any]:
    """One mark for a user, whatever shard an event comes from."""

    def fold(state: ScoreState, marking: Marking, events: Sequence[Scorable]) -> Folded | None:
        whole = msgspec.structs.replace(marking, starting=0)  # numbers of different shards are compared
        marks = {marking.tag: max(state.applied.values(), key=whole.applied_up_to)} if state.applied else {}
        folded = folding.fold(msgspec.structs.replace(state, applied=marks), whole, events)
        return folded and msgspec.structs.replace(folded, before=state)

    return mock.patch.object(commit, "fold", fold)


def child_before_parent() -> AbstractContextManager[Any]:
    """Shards are read as soon as they are known."""
    return mock.patch.object(planner, "may_start", return_value=True)


def unfenced_checkpoint() -> AbstractContextManager[Any]:
    """Lease rows are written without comparing owner and counter."""

    async def replace(self: FakeLeases, expected: Lease, new: Lease) -> None:
        del expected
        await self._call(lambda: self.table.put(new))

    return mock.patch.object(FakeLeases, "replace", replace)


def letters_not_asked() -> AbstractContextManager[Any]:
    """A record that was set aside is treated as new when it is read again."""

    async def nothing(*_: object) -> Mapping[str, None]:
        return {}

    return mock.patch.object(ingest.Ingest, "_lettered", nothing)


def tally_before_commit() -> AbstractContextManager[Any]:
    """A commit that failed half-way is taken for done when it is repeated (as it once was)."""
    original = ingest.Ingest.commit

    async def wrong(self: ingest.Ingest, prepared: ingest.PreparedEvents) -> None:
        tried = getattr(self, "_tried", None)
        if tried is prepared and prepared.tally is None:
            prepared.tally = commit.Tally()
        self._tried = prepared
        await original(self, prepared)

    return mock.patch.object(ingest.Ingest, "commit", wrong)


def letters_after_scores() -> AbstractContextManager[Any]:
    """Records are set aside only after the scores of their batch are written (as they once were)."""
    original = ingest.Ingest.commit

    async def wrong(self: ingest.Ingest, prepared: ingest.PreparedEvents) -> None:
        letters, prepared.letters = prepared.letters, []
        try:
            await original(self, prepared)
        finally:
            prepared.letters = letters + prepared.letters
        await self._dead_letters.put(prepared.letters)

    return mock.patch.object(ingest.Ingest, "commit", wrong)


def seizure_forgotten() -> AbstractContextManager[Any]:
    """Whoever gives a seized shard back does not say that it was seized a moment before."""
    original = Lease.released
    return mock.patch.object(Lease, "released", lambda self, **_: original(self))


def scores_overwritten() -> AbstractContextManager[Any]:
    """The score is set rather than added to, as if nobody else wrote there."""

    def keep(self: SimScores, key: Any, after: ScoreState, score: Any) -> None:  # noqa: ANN401 - a patch
        del score
        original(self, key, after, after.score)

    original = SimScores._keep
    return mock.patch.object(SimScores, "_keep", keep)


def loss_noticed_only_first() -> AbstractContextManager[Any]:
    """Lost changes are reported only where no other call failed just before (as they once were)."""
    original = Reader._recover

    async def recover(self: Any, error: Exception) -> float:  # noqa: ANN401 - a patch
        if isinstance(error, RecordsTrimmedError) and self._backoff.failures:
            self._position = TRIM_HORIZON
        return await original(self, error)

    return mock.patch.object(Reader, "_recover", recover)


def identity_unchecked() -> AbstractContextManager[Any]:
    """A stream is taken for the same whatever its shards start with (as it once was)."""
    return mock.patch.object(identity, "judge", return_value=identity.Verdict.SAME)


def iterators_unchecked() -> AbstractContextManager[Any]:
    """Only the leader checks that a stream is the same; whoever reads on with a new iterator does not."""

    async def start_of(self: identity.Identity, shard_id: str, known: str) -> str:
        del self, shard_id
        return known

    return mock.patch.object(identity.Identity, "start_of", start_of)


def first_stream_for_ever() -> AbstractContextManager[Any]:
    """Which stream the score table has is found out once (as it once was)."""

    async def look(self: StreamFollower) -> str:
        return self._arn

    return mock.patch.object(StreamFollower, "_look", look)


def switched_without_reconciliation() -> AbstractContextManager[Any]:
    """Another stream of the score table is read as if nothing had changed in between."""

    def reading(self: PipelineState, stream_arn: str, *, scores_exist: bool) -> PipelineState:
        owed = self.owed + (scores_exist and not self.stream_arn)
        return msgspec.structs.replace(self, counter=self.counter + 1, stream_arn=stream_arn, owed=owed)

    return mock.patch.object(PipelineState, "reading", reading)


def scores_of_before_unpublished() -> AbstractContextManager[Any]:
    """The first stream that workers read is taken to show every score of the table (as it once was)."""
    original = PipelineState.reading

    def reading(self: PipelineState, stream_arn: str, *, scores_exist: bool) -> PipelineState:
        del scores_exist
        return original(self, stream_arn, scores_exist=False)

    return mock.patch.object(PipelineState, "reading", reading)


def every_worker_for_itself() -> AbstractContextManager[Any]:
    """Each worker reads the table's newest stream, whatever the others read; nothing is owed."""

    async def opened(self: Any) -> None:  # noqa: ANN401 - a patch
        self._read(await self._streams.latest())

    async def look(self: Any) -> str:  # noqa: ANN401 - a patch
        latest: str = await self._streams.latest()
        return latest

    @contextmanager
    def both() -> Iterator[None]:
        with mock.patch.object(StreamFollower, "open", opened), mock.patch.object(StreamFollower, "_look", look):
            yield

    return both()


@contextmanager
def former_keeps_endpoint() -> Iterator[None]:
    """An event that gives an endpoint to another user does not end what is known of the former one."""
    with mock.patch.object(identity_plan, "formers", return_value=set()):
        yield


@contextmanager
def answers_outlive_events() -> Iterator[None]:
    """What Pinpoint said of a user is kept although an event has ended it meanwhile, or named another."""

    def overwrite(rows: dict[RowKey, Row], writes: Mapping[RowKey, Write]) -> list[RowKey]:
        rows.update((key, write.after) for key, write in writes.items())
        return []

    undisputed = mock.patch.object(identity_plan, "undisputed", lambda _, found: (found, {}))
    with undisputed, mock.patch.object(hands, "apply", overwrite):
        yield


def entries_never_read_again() -> AbstractContextManager[Any]:
    """A worker uses what it knows of a user's endpoint without looking at the table again."""
    return mock.patch.object(hands, "TRUSTED_FOR_S", 1e6)


def absence_outlives_events() -> AbstractContextManager[Any]:
    """It is believed that a user has no endpoint although an event has named one."""
    original = identity_plan.held

    def held(found: Found) -> Write | None:
        before = found.before and msgspec.structs.replace(found.before, named=False)
        return original(msgspec.structs.replace(found, before=before))

    return mock.patch.object(identity_plan, "held", held)


def record_lettered_whole() -> AbstractContextManager[Any]:
    """A dead letter holds the record that its event came in, siblings and all."""
    original = PreparedEvents.set_aside

    def set_aside(self: Any, record: Any, event: Any, why: Any, now_ms: int, **options: Any) -> None:  # noqa: ANN401 - a patch
        whole = msgspec.structs.replace(event, index=0, part=0)
        original(self, record, whole, why, now_ms, **options | {"payload": record.data})

    return mock.patch.object(PreparedEvents, "set_aside", set_aside)


def letters_share_an_id() -> AbstractContextManager[Any]:
    """The events of a record share one letter: the second one that is set aside is lost."""

    def letter_id(tag: str, sequence: str, *_: int) -> str:
        return letters.record_letter_id(tag, sequence)

    return mock.patch.object(prepared, "record_letter_id", letter_id)


def absence_trusted() -> AbstractContextManager[Any]:
    """A score that was not found is written as a new one, whatever is there by now: reads may be stale."""
    original = SimScores._write

    def write(self: SimScores, change: Any) -> Any:  # noqa: ANN401 - a patch
        if change.folded.before.origin is folding.Origin.ABSENT:
            self._keep(change.key, change.folded.after, change.folded.after.score)
            return Committed()
        return original(self, change)

    return mock.patch.object(SimScores, "_write", write)


def marks_dropped_at_the_checkpoint() -> AbstractContextManager[Any]:
    """Marks of other shards are dropped, as if nothing were read again from behind a checkpoint."""
    return mock.patch.object(Marking, "kept", side_effect=lambda *_: {})


MUTANTS: dict[str, Mutant] = {
    "dedupe by the batch's last sequence": dedupe_by_batch,
    "blind increment": blind_increment,
    "checkpoint before commit": checkpoint_before_commit,
    "skip a failed user": skip_failed_user,
    "one watermark per user": scalar_watermark,
    "child before parent": child_before_parent,
    "unfenced checkpoint": unfenced_checkpoint,
    "publish without comparing revisions": unordered_publishing,
    "nothing published again": no_republishing,
    "letters not asked for": letters_not_asked,
    "failed commit taken for done": tally_before_commit,
    "letters after scores": letters_after_scores,
    "two publishes in flight": two_in_flight,
    "no publishing again by the late worker": no_late_republishing,
    "no publishing again by the successor": no_watch,
    "published again too soon": republished_too_soon,
    "lost calls forgotten": lost_calls_forgotten,
    "seizure forgotten": seizure_forgotten,
    "marks dropped at the checkpoint": marks_dropped_at_the_checkpoint,
    "absence trusted": absence_trusted,
    "scores overwritten": scores_overwritten,
    "one sink for all": one_sink_for_all,
    "no reconciliation": no_reconciliation,
    "a loss after a failure goes unnoticed": loss_noticed_only_first,
    "a loss is known to one worker only": loss_kept_in_memory,
    "a reconciliation counts as done too early": reconciliation_done_too_early,
    "a replaced stream goes unnoticed": identity_unchecked,
    "a replaced stream goes unnoticed by readers": iterators_unchecked,
    "the first stream for ever": first_stream_for_ever,
    "another stream and nothing reconciled": switched_without_reconciliation,
    "the first stream shows every score": scores_of_before_unpublished,
    "every worker reads the newest stream": every_worker_for_itself,
    "the former user keeps the endpoint": former_keeps_endpoint,
    "answers outlive events": answers_outlive_events,
    "entries are never read again": entries_never_read_again,
    "absence outlives events": absence_outlives_events,
    "a letter holds the whole record": record_lettered_whole,
    "the events of a record share a letter": letters_share_an_id,
}
