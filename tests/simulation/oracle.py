"""Who watches: checks made while the simulation runs, and the comparison at its end.

Sound by this: nothing is asked of the service but what it wrote. The final score of a user is taken apart into
counts of events by type (`events.py`) and compared with what was sent; the marks in `Applied` are used only to
tell, while it runs, which events the service claims to have scored (for checkpoints), and the final comparison
checks that claim.
"""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict
from collections.abc import Collection, Mapping, Sequence
from decimal import Decimal

from service.ingest.marks import shard_tag
from service.ingest.stores import DeadLetter
from service.scoring.change import ScoreChange
from service.scoring.event import Rejected
from service.scoring.fold import ScoreState, UserKey
from service.scoring.marks import by_shard, marking
from service.stream.leases.lease import Lease
from service.stream.ports import StreamId
from service.stream.position import sequence_of
from tests.fakes.source import incarnation_of
from tests.simulation.events import PROJECT, Sent, count_in

SEQUENCE_WIDTH = 38
"""Characters of the sequence number in a letter's id."""

Pointer = tuple[str, str, int]
"""Which event: its shard, its record's sequence number, and its index in the record."""

Problems = Counter[str]
"""How often each promise was broken: `over`, `under`, `unpublished`, `order`, `checkpoint`, `accounting`,
`lettered_and_scored`, `siblings`, `fencing`, `two_in_flight`, `older_sent`, `stolen`, `undrained`, `crashed`."""


class Witness:
    """Sees every fetch, lease row, score, letter and sink call of a run.

    Attributes:
        problems: Found while it runs.
        details: A line for each, the first few.
        finished: Shards that were read to their end, as (pipeline, shard id), and since which second.
        foreign: Increments made by somebody else, by user.
        lost: Records, as (shard id, sequence), that may or may not count: their stream was deleted before they did.
        trimmed: For each shard of the score stream that lost unread records: the last sequence number lost.
        seizures: Workers of whom somebody wants to know who seizes a score stream's shard from them, each with that.
    """

    def __init__(self, events: StreamId, sinks: Sequence[str]) -> None:
        self._events = events
        self._sinks = sinks
        self.problems: Problems = Counter()
        self.details: list[str] = []
        self.finished: dict[tuple[str, str], float] = {}
        self.sent: dict[str, list[Sent]] = defaultdict(list)
        self.letters: Mapping[str, DeadLetter] = {}
        self.operator_wrote: set[tuple[str, str, int]] = set()
        self.foreign: Counter[str] = Counter()
        self.lost: set[tuple[str, str]] = set()
        self.trimmed: dict[str, int] = {}
        self.seizures: dict[str, asyncio.Future[str]] = {}
        self._marks: dict[tuple[str, str], int] = {}
        self.starts: dict[str, int] = {}
        self._changes: dict[str, list[tuple[int, UserKey, int]]] = defaultdict(list)
        self._newest_told: dict[tuple[str, UserKey], int] = {}
        self._checked: Counter[tuple[str, str]] = Counter()
        self._known_letters = -1
        self._pointers: dict[Pointer, list[bytes]] = {}

    def problem(self, kind: str, detail: str) -> None:
        self.problems[kind] += 1
        if len(self.details) < 12:
            self.details.append(f"{kind}: {detail}")

    def fetched(self, pipeline: str, shard_id: str, parents: Collection[str]) -> None:
        """No record is read before all parents of its shard are finished."""
        for parent in parents:
            if (pipeline, parent) not in self.finished:
                self.problem("order", f"{pipeline} {shard_id} is read before {parent} is finished")

    def scored(self, key: UserKey, state: ScoreState) -> None:
        for tag, mark in by_shard(state.applied).items():
            value = int.from_bytes(marking(tag, starting=self.starts[tag]).applied_up_to(mark), "big")
            if value > self._marks.get((key.user_id, tag), -1):
                self._marks[key.user_id, tag] = value

    def changed(self, shard_id: str, sequence: str, key: UserKey, revision: int) -> None:
        self._changes[shard_id].append((int(sequence), key, revision))

    def published(self, sink: str, change: ScoreChange) -> None:
        name = sink, change.key
        self._newest_told[name] = max(change.revision, self._newest_told.get(name, 0))

    def sending(self, changes: Sequence[ScoreChange], flying: Collection[UserKey], told: Mapping[UserKey, int]) -> None:
        """A worker has one call in flight per user, and never sends an older score than it has sent before."""
        for change in changes:
            if change.key in flying:
                self.problem("two_in_flight", change.key.user_id)
            if change.revision < told.get(change.key, 0):
                self.problem("older_sent", f"{change.key.user_id} {change.revision} after {told[change.key]}")

    def lease_written(self, pipeline: str, shard_id: str, before: Lease | None, after: Lease) -> None:
        """A checkpoint passes nothing that is not durable, and moves only by the hand of who holds the lease."""
        if before is not None and (pipeline, shard_id, after.counter) not in self.operator_wrote:
            here, there = sequence_of(before.checkpoint), sequence_of(after.checkpoint)
            back = here is not None and there is not None and there < here
            if after.counter <= before.counter or back or (before.finished and not after.finished):
                self.problem("fencing", f"{pipeline} {shard_id}: {before} -> {after}")
        if before is not None and pipeline == "publish" and after.owner not in ("", before.owner):
            asked = self.seizures.pop(before.owner.split(".")[0], None)
            if asked is not None and not asked.done():
                asked.set_result(after.owner.split(".")[0])
        if after.finished:
            self._check_passed(pipeline, shard_id, None)
            self.finished.setdefault((pipeline, shard_id), asyncio.get_running_loop().time())
        elif (passed := sequence_of(after.checkpoint)) is not None:
            self._check_passed(pipeline, shard_id, passed)

    def deleted(self) -> None:
        """The event stream is deleted: what does not count yet may never do."""
        for records in self.sent.values():
            self.lost.update((record.shard_id, record.sequence) for record in records if not self._durable(record))

    def expired(self, shard_id: str, last: str) -> None:
        """The event stream has forgotten records: what does not count yet may never do."""
        self.lost.update(
            (record.shard_id, record.sequence)
            for record in self.sent[shard_id]
            if int(record.sequence) <= int(last) and not self._durable(record)
        )

    def _check_passed(self, pipeline: str, shard_id: str, passed: int | None) -> None:
        if pipeline == "ingest":
            records = self.sent[shard_id]
            start = self._checked[pipeline, shard_id]
            for at in range(start, len(records)):
                record = records[at]
                if passed is not None and int(record.sequence) > passed:
                    break
                if not self._durable(record) and (record.shard_id, record.sequence) not in self.lost:
                    self.problem("checkpoint", f"{pipeline} {shard_id} {record} is neither scored nor set aside")
                self._checked[pipeline, shard_id] = at + 1
            return
        changes = self._changes[shard_id]
        for at in range(self._checked[pipeline, shard_id], len(changes)):
            sequence, key, revision = changes[at]
            if passed is not None and sequence > passed:
                break
            told = min(self._newest_told.get((sink, key), -1) for sink in self._sinks)
            if key.user_id != "refused" and told < revision and sequence > self.trimmed.get(shard_id, -1):
                self.problem("checkpoint", f"{pipeline} {shard_id} {key.user_id} revision {revision} was not published")
            self._checked[pipeline, shard_id] = at + 1

    def _durable(self, record: Sent) -> bool:
        if record.leaves_no_trace or record.kind == "D" or _pointer(record) in self._lettered():
            return True
        tag = shard_tag(incarnation_of(self._events, record.incarnation), record.shard_id)
        return self._marks.get((record.user, tag), -1) >= int(record.sequence)

    def _lettered(self) -> dict[Pointer, list[bytes]]:
        """Return what the letters hold, by the event that they are of."""
        # Letters are few, and never removed.
        if len(self.letters) != self._known_letters:
            self._pointers = {}
            for letter_id, letter in self.letters.items():
                if letter.stage != "publish":
                    *_, before, last = letter_id.split(".")
                    # A sequence number is wide; behind it stand the index and the person of one event of several.
                    index = int(before) if len(last) < SEQUENCE_WIDTH else 0
                    self._pointers.setdefault((letter.shard_id, letter.sequence, index), []).append(letter.payload)
            self._known_letters = len(self.letters)
        return self._pointers

    def compare(
        self,
        items: Mapping[UserKey, ScoreState | Rejected],
        sinks: Mapping[str, Mapping[UserKey, tuple[int, Decimal | None]]],
        versions: int,
    ) -> list[tuple[str, str]]:
        """Return every difference between what was sent and what is there now, as (kind, detail)."""
        sent_to: dict[str, Counter[str]] = defaultdict(Counter)
        set_aside: Counter[str] = Counter()
        lost_of: dict[str, Counter[str]] = defaultdict(Counter)
        pointers = dict(self._lettered())
        found: list[tuple[str, str]] = []
        for record in (record for records in self.sent.values() for record in records):
            letters = pointers.pop(_pointer(record), [])
            lost = not letters and (record.shard_id, record.sequence) in self.lost
            found += [] if lost else _compare_letters(record, letters)
            if lost:
                lost_of[record.user][record.kind] += 1
            if record.user and record.user != "spoilt" and not record.leaves_no_trace:
                sent_to[record.user][record.kind] += 1
                set_aside[record.user] += bool(letters)
        found += [("accounting", f"a letter for no record: {pointer}") for pointer in pointers]
        for user in dict.fromkeys([*sent_to, *self.foreign]):
            state = items.get(UserKey(user, PROJECT))
            score = state.score if isinstance(state, ScoreState) else None
            sent = sent_to[user] + Counter(X=self.foreign[user])
            scored = count_in(score or Decimal(0))
            found += _compare_user(user, scored, sent, lost_of[user], set_aside[user], versions)
        for key, state in items.items():
            if isinstance(state, Rejected) or key.user_id == "refused":
                continue
            if key.user_id not in sent_to:
                found.append(("over", f"{key.user_id} has a score and no events"))
            for name, sink in sinks.items():
                if sink.get(key) != (state.revision, state.score):
                    what = f"{name}, {key.user_id}: {sink.get(key)} is not {state.revision}, {state.score}"
                    found.append(("unpublished", what))
        return found


def _pointer(record: Sent) -> Pointer:
    return record.shard_id, record.sequence, record.index


def _compare_letters(record: Sent, letters: Sequence[bytes]) -> list[tuple[str, str]]:
    found: list[tuple[str, str]] = []
    if len(letters) > 1:
        found.append(("accounting", f"{len(letters)} letters for {record}"))
    if any(held.strip() != record.body.strip() for held in letters):
        found.append(("siblings", f"the letter of {record} does not hold that event alone"))
    if letters and not record.may_be_lettered:
        found.append(("accounting", f"a letter for {record}"))
    if not letters and record.must_be_lettered:
        found.append(("under", f"no letter for {record}"))
    return found


def _compare_user(
    user: str, scored: Counter[str], sent: Counter[str], lost: Counter[str], set_aside: int, versions: int
) -> list[tuple[str, str]]:
    found = [
        ("over" if scored[kind] > sent[kind] else "under", _say(user, kind, scored, sent))
        for kind in ("A", "B", "C", "N", "X")
        if not sent[kind] - lost[kind] <= scored[kind] <= sent[kind]
    ]
    if scored["D"] > sent["D"]:
        found.append(("over", _say(user, "D", scored, sent)))
    if not 0 <= scored["V"] <= sent["C"] * versions:
        found.append(("over" if scored["V"] > 0 else "under", f"{user}: points of C: {scored['V']}"))
    if scored["E"] + set_aside < sent["E"] - lost["E"]:
        found.append(("under", _say(user, "E", scored, sent) + f", {set_aside} set aside"))
    if scored["E"] > sent["E"]:
        found.append(("over", _say(user, "E", scored, sent)))
    elif scored["E"] + set_aside > sent["E"]:
        found.append(("lettered_and_scored", _say(user, "E", scored, sent) + f", {set_aside} set aside"))
    return found


def _say(user: str, kind: str, scored: Counter[str], sent: Counter[str]) -> str:
    return f"{user}: {scored[kind]} events of {kind} in the score, {sent[kind]} sent"
