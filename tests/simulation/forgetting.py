"""Time for marks: how long the event stream keeps records in a run, and which clocks are wrong.

An hour of `service/scoring/marks.py` is four seconds here, and so is the day's margin. In some runs the stream
keeps records for a few hours only, so that marks are dropped while it runs. Then one clock is wrong by up to a day: the
stream's own, or that of workers who date marks of version 0.1; or the retention is changed, and half a day is left for
clocks. That is what `deploy/decisions/0014-marks-by-time.md` promises.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING
from unittest import mock

import msgspec

from service.scoring import marks
from service.scoring.fold import ScoreState
from service.scoring.marks import by_shard, marking, undated
from tests.fakes.aio import EPOCH_MS

if TYPE_CHECKING:
    from tests.simulation.sim_world import SimWorld

HOUR_S = DAY_S = 4.0
STAMPS = ("stamps ahead", "stamps behind")
EVERY_S = 0.5
"""Seconds between two looks of a worker at the retention."""

SHARE = 0.4
"""Share of the runs whose stream keeps records for a short time."""

FOR_EVER_S = 100_000.0
RETENTIONS_S = (6.0, 10.0, 24.0)
SECONDS = 30.0
"""How long events come in such a run, at least."""


@contextmanager
def small_hours() -> Iterator[None]:
    """Make an hour of marks two seconds."""
    hour_ms = round(HOUR_S * 1000)
    with (
        mock.patch.object(marks, "HOUR_MS", hour_ms),
        mock.patch.object(marks, "MARGIN_MS", round(DAY_S * 1000)),
        mock.patch.object(marks, "LONGEST_MS", 30 * hour_ms),
        mock.patch.object(marks, "_EPOCH_HOUR", EPOCH_MS // hour_ms - 1000),
    ):
        yield


class Forgetting:
    """What a seed decides about it.

    Attributes:
        short: Whether the stream keeps records for a short time.
        retention_s: How long it keeps them now.
        changes: Seconds at which the retention is changed.
        old_marks: Seconds at which marks of scores are as version 0.1 wrote them.
        resets: Seconds at which everything is read again.
        rewinds: Seconds at which one shard is, while the others are read on.
        clocks_behind_s: How far the clocks of workers are behind, at most.
    """

    def __init__(self, seed: int, seconds: float, *, latest: bool) -> None:
        self._rng = rng = random.Random(f"{seed} forgetting")
        self.short = rng.random() < SHARE
        self.retention_s = rng.choice(RETENTIONS_S[:2]) if self.short else FOR_EVER_S
        changed = self.short and rng.random() < 0.4
        budget_s = DAY_S / 2 if changed else DAY_S
        wrong = rng.choice(["nothing", *STAMPS, *STAMPS, "clocks"]) if self.short else "nothing"
        if latest and wrong != "clocks":
            wrong = "nothing"  # the start is a time, and what arrives before it is not asked for
        self.feed_s = SECONDS if self.short else 0.0
        seconds = max(seconds, self.feed_s)
        self._stamps_s = {"stamps ahead": budget_s, "stamps behind": -budget_s}.get(wrong, 0.0)
        self.clocks_behind_s = budget_s if wrong == "clocks" else 0.0
        moments = sorted(rng.uniform(0.2, 0.8) * seconds for _ in range(3))
        # Raised early and for long, in most of them, so that what it saves is read again.
        self.changes = ([0.25 * seconds, *rng.choice([[], [], moments[2:]])]) if changed else []
        self.old_marks = moments[1:] if wrong in {"clocks", "nothing"} and self.short and rng.random() < 0.6 else []
        self.resets = [rng.uniform(0.4, 1.0) * seconds] if self.short else []
        self.rewinds = [rng.uniform(0.3, 1.0) * seconds for _ in range(4)] if self.short else []
        self.actions = [
            *((moment, "retention change") for moment in self.changes),
            *((moment, "marks of 0.1") for moment in self.old_marks),
            *((moment, "read all again") for moment in self.resets),
            *((moment, "rewind") for moment in self.rewinds),
        ]
        self._errors: dict[str, int] = {}

    def error_ms(self, shard_id: str) -> int:
        """Return by how much the arrival times of a shard's records are wrong."""
        if shard_id not in self._errors:
            self._errors[shard_id] = round(self._rng.choice([0.0, 1.0]) * self._stamps_s * 1000)
        return self._errors[shard_id]

    def change(self) -> None:
        """Raise or lower the retention."""
        longest = RETENTIONS_S[-1]
        self.retention_s = longest if self.retention_s < longest else self._rng.choice(RETENTIONS_S[:-1])


async def retention_change(world: SimWorld) -> None:
    """The event stream keeps records for a longer or shorter time from now on."""
    world.events.expire()
    world.forgetting.change()


async def old_marks(world: SimWorld) -> None:
    """Scores are as version 0.1 left them: it knew no hours, and kept whole sequence numbers."""
    for key, state in world.scores.items.items():
        if isinstance(state, ScoreState) and world.rng.random() < 0.5:
            applied = {
                tag: undated(marking(tag, starting=world.witness.starts[tag]).applied_up_to(mark))
                for tag, mark in by_shard(state.applied).items()
            }
            world.scores.items[key] = msgspec.structs.replace(state, applied=applied)
