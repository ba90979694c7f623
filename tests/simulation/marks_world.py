"""Marks by time in a world of their own: days of a stream, in milliseconds, with the real fold and `Retention`.

`simulate.py` plays the whole service, in seconds; there it is rare that a record is read again in the very hour before
the stream forgets it, while another shard's clock is a day off. Here there is nothing but shards, scores and workers
that read, crash, hold batches and are held up, so that such hours come in every other run. One `run` is one seed.

What is wrong with clocks is what `deploy/decisions/0014-marks-by-time.md` allows: arrival times, or the clock of
whoever dates marks of version 0.1, are a day off; or half a day, where a change of the retention takes the other half.
"""

from __future__ import annotations

import copy
import random
from decimal import Decimal
from math import inf

import msgspec

from service.ingest.marks import marking_of
from service.ingest.retention import Retention
from service.scoring.fold import ABSENT, Scorable, ScoreState, fold, sequence_bytes
from service.scoring.marks import HOUR_MS, UncertainError, by_shard, marking, undated
from service.stream.ports import Batch, Record, StreamId

STREAM = StreamId("events", "arn", "AbCd-_12")
EPOCH_MS = 1_795_000_000_000
DAY_MS = 24 * HOUR_MS
LOOK_MS = 300_000
"""Between two looks of a worker at the retention, where it gets an answer."""

_POINT = Decimal(1)


class Sent(msgspec.Struct):
    """A record of the stream, and how often it has been counted."""

    sequence: int
    at_ms: int
    stamp_ms: int
    person: int
    counted: int = 0
    lost: bool = False


class Shard(msgspec.Struct):
    """A shard.

    Attributes:
        starting: Its first sequence number.
        error_ms: By how much its arrival times are wrong.
        reader: Who reads it.
        position: How many records were read.
        checkpoint: From where the next owner reads.
        expired: How many records cannot be read any more.
    """

    shard_id: str
    starting: int
    error_ms: int
    reader: Worker
    records: list[Sent] = msgspec.field(default_factory=list)
    position: int = 0
    checkpoint: int = 0
    expired: int = 0


class Worker(msgspec.Struct):
    """Whoever reads: what it knows of the retention, its wrong clock, and whether its look-ups are answered.

    Attributes:
        deaf_until_ms: Until when it gets no answer.
    """

    retention: Retention
    skew_ms: int
    looked_ms: int = -LOOK_MS
    deaf_until_ms: int = 0


class World:
    """One run."""

    def __init__(self, seed: int) -> None:
        self.rng = rng = random.Random(f"marks {seed}")
        self.now_ms = EPOCH_MS
        self.retention_ms = rng.choice([1, 1, 2]) * DAY_MS
        self.changes = rng.random() < 0.4
        self.kind = rng.choice(["ahead", "behind", "clocks", "nothing"])
        self.budget_ms = DAY_MS // 2 if self.changes else DAY_MS
        self.workers = [self._worker() for _ in range(2)]
        error = {"ahead": self.budget_ms, "behind": -self.budget_ms}.get(self.kind, 0)
        self.shards = [
            Shard(f"shardId-{number:012d}", 1000 * number, error * (number % 2), rng.choice(self.workers))
            for number in range(rng.choice([2, 3]))
        ]
        self.people = rng.choice([10, 30, 60])
        self.scores: dict[int, ScoreState] = {}
        self.held: list[tuple[Worker, Shard, list[Sent]]] = []
        self.problems: list[str] = []
        self.sequence = 10**55
        self.days = 6 if self.changes else 4

    def _worker(self) -> Worker:
        rng = self.rng
        # Ahead by any time: no worker's clock may make a mark go too early. Behind: as far as it may date old marks.
        behind = -self.budget_ms if self.kind == "clocks" else -60_000
        return Worker(Retention(), rng.choice([behind, behind, 0, 10 * DAY_MS]))

    def run(self) -> list[str]:
        """Play; return what was broken."""
        rng, end_ms = self.rng, EPOCH_MS + self.days * DAY_MS
        change_ms = EPOCH_MS + rng.randint(12, 30) * HOUR_MS if self.changes else inf
        back_ms = change_ms + rng.choice([inf, 40 * HOUR_MS])
        old_ms = EPOCH_MS + rng.randint(20, 60) * HOUR_MS if self.kind in {"clocks", "nothing"} else inf
        while self.now_ms < end_ms and not self.problems:
            self.now_ms += rng.randint(1, 20) * 60_000
            self._look()
            if self.now_ms >= change_ms:
                self._change(4 * DAY_MS)
                change_ms = inf
            if self.now_ms >= back_ms:
                self._change(DAY_MS)
                back_ms = inf
            if self.now_ms >= old_ms:
                self._old_marks()
                old_ms = inf
            self._put()
            shard = rng.choice(self.shards)
            dice = rng.random()
            if dice < 0.06:
                shard.position = 0  # an operator rewinds it
            elif dice < 0.12:
                shard.position, shard.reader = shard.checkpoint, rng.choice(self.workers)
            elif dice < 0.14:
                self._hold(shard)
            elif dice < 0.15:
                # A shard that nobody reads for hours: whoever reads it then is behind.
                shard.position = min(shard.position, shard.checkpoint)
                continue
            for each in self.shards if rng.random() < 0.9 else ():
                self._read(each)
            self._land()
        return self.problems

    def _now_s(self) -> float:
        return (self.now_ms - EPOCH_MS) / 1000

    def _look(self) -> None:
        for worker in self.workers:
            if self.rng.random() < 0.002 and not worker.deaf_until_ms:
                worker.deaf_until_ms = self.now_ms + self.rng.randint(6, 60) * HOUR_MS
            if self.now_ms >= max(worker.deaf_until_ms, worker.looked_ms + LOOK_MS):
                worker.deaf_until_ms, worker.looked_ms = 0, self.now_ms
                worker.retention.saw(self.retention_ms / 1000, self._now_s())

    def _change(self, retention_ms: int) -> None:
        self._expire()
        self.retention_ms = retention_ms
        if self.rng.random() < 0.5:
            deaf = self.rng.choice(self.workers)
            deaf.deaf_until_ms = self.now_ms + 60 * HOUR_MS

    def _expire(self) -> None:
        """What is older than the retention cannot be read again, whatever the retention is later."""
        for shard in self.shards:
            while shard.expired < len(shard.records) and (
                shard.records[shard.expired].at_ms < self.now_ms - self.retention_ms
            ):
                shard.expired += 1

    def _old_marks(self) -> None:
        """Everything is as version 0.1 left it."""
        starts = {f"{STREAM.tag}-{number}": shard.starting for number, shard in enumerate(self.shards)}
        for person, state in self.scores.items():
            applied = {
                tag: undated(marking(tag, starting=starts[tag]).applied_up_to(mark))
                for tag, mark in by_shard(state.applied).items()
            }
            self.scores[person] = msgspec.structs.replace(state, applied=applied)

    def _put(self) -> None:
        for _ in range(self.rng.choice([0, 1, 2])):
            shard = self.rng.choice(self.shards)
            self.sequence += 7
            stamp_ms = self.now_ms + shard.error_ms
            shard.records.append(Sent(self.sequence, self.now_ms, stamp_ms, self.rng.randrange(self.people)))

    def _batch(self, shard: Shard) -> list[Sent]:
        self._expire()
        start = max(shard.position, shard.expired)
        found = shard.records[start : start + self.rng.choice([1, 5, 50])]
        shard.position = start + len(found)
        return found

    def _read(self, shard: Shard) -> None:
        """Read to the tip, or not quite; note how far it is done, or not yet."""
        for _ in range(self.rng.choice([1, 30])):
            found = self._batch(shard)
            if not found:
                return
            if not self._commit(shard.reader, shard, found):
                shard.position = shard.checkpoint
                return
            if self.rng.random() < 0.5:
                shard.checkpoint = shard.position

    def _hold(self, shard: Shard) -> None:
        """Whoever reads the shard is stopped with a batch in hand; another goes on from the checkpoint."""
        found = self._batch(shard)
        if found:
            # It looks nothing up while it is stopped.
            self.held.append((copy.deepcopy(shard.reader), shard, found))
            shard.position, shard.reader = shard.checkpoint, self.rng.choice(self.workers)

    def _land(self) -> None:
        """A worker that was stopped goes on, for a moment, as if it still held the lease."""
        for each in [each for each in self.held if self.rng.random() < 0.004]:
            self.held.remove(each)
            self._commit(*each, late=True)

    def _commit(self, worker: Worker, shard: Shard, found: list[Sent], *, late: bool = False) -> bool:
        records = [Record(str(sent.sequence), b"", sent.stamp_ms, "", 1) for sent in found]
        batch = Batch(STREAM, shard.shard_id, records, inf, starting=str(shard.starting or ""))
        made = marking_of(batch, worker.retention, now_ms=self.now_ms + worker.skew_ms, now=self._now_s())
        for person in {sent.person: None for sent in found}:
            theirs = [sent for sent in found if sent.person == person]
            events = [Scorable(sequence_bytes(str(sent.sequence)), _POINT, 0) for sent in theirs]
            try:
                folded = fold(self.scores.get(person, ABSENT), made, events)
            except UncertainError:
                if not late:
                    self.problems.append(f"what can be read is not trusted, and holds its shard up: {found[0]}")
                return False
            if folded is not None:
                self.scores[person] = folded.after
                for sent in theirs[-folded.counted :]:
                    sent.counted += 1
            for sent in theirs:
                if sent.counted != 1:
                    self.problems.append(f"counted {sent.counted} times: {sent}, {self.now_ms - sent.at_ms} ms old")
        return True
