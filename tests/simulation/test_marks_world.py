"""Marks by time, with each clock wrong as far as is allowed: right for any seed, and wrong rules are found."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any
from unittest import mock

import pytest

from service.ingest import marks as ingest_marks
from service.ingest.retention import Retention
from service.scoring.marks import HOUR_MS, Marking, marking
from tests.simulation.marks_world import World

RUNS = 150
MAX_SEEDS = 500


def an_hour_too_early() -> AbstractContextManager[Any]:
    """A mark is dropped an hour before the margin is over."""

    def early(tag: str, *, keep_ms: int | None, **others: Any) -> Marking:  # noqa: ANN401 - handed on
        return marking(tag, keep_ms=None if keep_ms is None else keep_ms - HOUR_MS, **others)

    return mock.patch.object(ingest_marks, "marking", early)


def at_the_checkpoint() -> AbstractContextManager[Any]:
    """A mark is dropped as if nothing were read again from behind a checkpoint."""
    return mock.patch.object(Marking, "kept", side_effect=lambda *_: {})


def by_a_workers_clock() -> AbstractContextManager[Any]:
    """The wall clock of whoever writes decides, though it is behind with reading: not the times of its records."""

    def by_clock(tag: str, *, oldest_ms: int, now_ms: int, **others: Any) -> Marking:  # noqa: ANN401 - handed on
        del oldest_ms
        return marking(tag, oldest_ms=now_ms, now_ms=now_ms, **others)

    return mock.patch.object(ingest_marks, "marking", by_clock)


def retention_read_once() -> AbstractContextManager[Any]:
    """A retention that is raised while a worker runs is not noticed."""
    original, first = Retention.saw, dict[int, float]()

    def saw(self: Retention, seconds: float, asked_at: float) -> None:
        if asked_at == first.setdefault(id(self), asked_at) or asked_at < first[id(self)]:
            first[-id(self)], first[id(self)] = seconds, asked_at
        original(self, first[-id(self)], asked_at)

    return mock.patch.object(Retention, "saw", saw)


def retention_trusted_for_ever() -> AbstractContextManager[Any]:
    """What was read of the retention counts until there is another answer, however late that comes."""

    def keep_ms(self: Retention, now: float) -> int | None:
        return original(self, min(now, self._read_at))

    original = Retention.keep_ms
    return mock.patch.object(Retention, "keep_ms", keep_ms)


def held_batches_trusted() -> AbstractContextManager[Any]:
    """A batch that was held for longer than the margin is applied where its mark may have been dropped."""
    return mock.patch.object(Marking, "check")


MUTANTS: list[Callable[[], AbstractContextManager[Any]]] = [
    an_hour_too_early,
    at_the_checkpoint,
    by_a_workers_clock,
    retention_read_once,
    retention_trusted_for_ever,
    held_batches_trusted,
]


def first_found(seeds: range, mutant: Callable[[], AbstractContextManager[Any]] = nullcontext) -> tuple[int, list[str]]:
    """Return the first seed that breaks something, and what; 0 where none does."""
    for seed in seeds:
        with mutant():
            problems = World(seed).run()
        if problems:
            return seed, problems
    return 0, []


def test_every_record_counts_once_whatever_clocks_and_retention_do():
    assert first_found(range(1, RUNS + 1)) == (0, [])


def test_seeds_that_never_ran_before_break_nothing_either():
    first = secrets.randbelow(2**40)
    assert first_found(range(first, first + RUNS)) == (0, [])


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.__name__)
def test_a_wrong_rule_is_found(mutant: Callable[[], AbstractContextManager[Any]]):
    seed, problems = first_found(range(1, MAX_SEEDS + 1), mutant)
    assert seed, f"{MAX_SEEDS} seeds do not show it"
    print(f"found by seed {seed}: {problems[0]}")  # noqa: T201 - pytest shows it with -rP
