"""Scores by rules against an oracle that shares no code with them, over replays, shards, conflicts and others' points.

Known-wrong variants of the rules must be found by it.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from decimal import ROUND_HALF_EVEN, Decimal
from typing import Any
from unittest import mock

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.scoring.fold import ABSENT, Scorable, ScoreState, sequence_bytes
from service.scoring.marks import marking
from service.scoring.rules import fold as folding
from service.scoring.rules import score as scoring
from service.scoring.rules import view as viewing
from service.scoring.rules.decay import DAY_MS, epoch_of, weight
from service.scoring.rules.evaluate import Facts, evaluate, remembered
from service.scoring.rules.fold import Absorbed, RuleEvent
from service.scoring.rules.load import load_rules
from service.scoring.rules.model import RuleSet
from service.scoring.rules.plan import plan
from service.scoring.rules.state import PersonState
from tests.unit.scoring.rules import oracle
from tests.unit.scoring.rules.oracle import EPSILON, Given

DAY = 20_785
CENT = Decimal("0.01")
TEXT = """\
project: p
groups:
  email: {half_life: 30d, min: 0, max: 120}
  quick: {half_life: 1d}
  window: {expire: 7d}
score: {min: -50, max: 300}
rules:
  - {id: open, on: open, points: 10, group: email, once: message}
  - {id: click, on: [click, tap], points: 50, group: email, cap: {per: day, events: 2}}
  - {id: quick, on: open, points: 7, group: quick}
  - {id: window, on: [tap, open], points: 1.5, group: window}
  - {id: weekly, on: tap, points: 3, cap: {per: week, events: 2}}
  - {id: order, on: order, per: {path: v, factor: 0.1, max: 20}, group: email}
  - {id: spend, on: order, per: {path: v, factor: 0.01}, cap: {per: day, points: 5}}
  - {id: first, on: click, points: 4, once: life}
  - {id: bounce, on: bounce, points: -30}
  - {id: gone, on: gone, suppress: email}
  - {id: back, on: back, resume: email}
"""


def rules() -> RuleSet:
    file, problems = load_rules(TEXT, "rules.yml")
    assert file is not None, problems
    made = plan(None, file, retroactive=False).rules
    assert made is not None
    return msgspec.structs.replace(made, once_entries=60)


RULES = rules()


def scorable(number: int, event: Given) -> Scorable:
    at = event.day * DAY_MS + event.millisecond
    payload = {} if event.amount is None else {"v": float(event.amount)}
    hits = evaluate(RULES, Facts(event.event_type, at, payload, event.message)).hits
    digest = remembered("event", event.event_id) if event.event_id else b""
    return Scorable(sequence_bytes(str(number + 1)), Decimal(0), at, event.event_type, RuleEvent(at, hits, digest))


def play(events: Sequence[Given], rng: random.Random) -> tuple[ScoreState, Decimal]:
    """Return the state after events came through three shards, batches overlapping, and what others added meanwhile."""
    shards: list[list[Scorable]] = [[], [], []]
    for event in events:
        shard = rng.choice(shards)
        shard.append(scorable(len(shard), event))
    done = [0, 0, 0]
    state, stale, foreign = ABSENT, ABSENT, Decimal(0)
    while any(at < len(shard) for at, shard in zip(done, shards, strict=True)):
        index = rng.choice([index for index in range(3) if done[index] < len(shards[index])])
        start = max(0, done[index] - rng.randint(0, 4))
        end = min(len(shards[index]), done[index] + rng.randint(1, 4))
        batch, mark = shards[index][start:end], marking(f"s-{index}")
        if rng.random() < 0.3:  # a conflict: what was folded on an old state is thrown away
            scoring.fold_by_rules(stale, mark, batch, RULES, DAY)
        stale = state
        folded = scoring.fold_by_rules(state, mark, batch, RULES, DAY)
        state = state if folded is None else folded.after
        done[index] = end
        if rng.random() < 0.2 and state.score is not None:
            foreign += Decimal("2.25")
            state = msgspec.structs.replace(state, score=state.score + Decimal("2.25"))
    return state, foreign


def wrong(events: Sequence[Given], rng: random.Random) -> str:
    """Return how the score differs from the oracle's; empty: it does not."""
    if not events:
        return ""
    state, foreign = play(events, rng)
    assert state.score is not None
    extra = scorable(10_000, Given(DAY, "nothing"))  # what others added last is in the score with the next event
    folded = scoring.fold_by_rules(state, marking("s-9"), [extra], RULES, DAY)
    assert folded is not None
    found, expected = folded.after.score, oracle.score(TEXT, list(events), foreign, DAY)
    low, high = ((each).quantize(CENT, ROUND_HALF_EVEN) for each in (expected.low - EPSILON, expected.high + EPSILON))
    return "" if found is not None and low <= found <= high else f"{found} is not in {low} to {high}"


def message_of(day: int, number: int) -> str:
    """Return a message that is about one day only: which of its repeats counts is then no matter."""
    return f"{day} {number}" if number else ""


days = st.sampled_from([DAY, DAY, DAY, DAY - 1, DAY - 1, DAY - 6, DAY - 7, DAY - 31, DAY - 64])
events_of_all_kinds = st.lists(
    st.builds(
        lambda day, kind, number, amount, ms: Given(day, kind, message_of(day, number), amount, "", ms),
        days,
        st.sampled_from(["open", "click", "tap", "order", "bounce", "gone", "back", "other"]),
        st.integers(0, 2),
        st.none() | st.decimals(-50, 900, places=2),
        st.integers(0, 1000),
    ),
    max_size=25,
).map(lambda found: [event for event in found if event.event_type != "other"])


@st.composite
def histories(draw: st.DrawFn) -> list[Given]:
    """Events, some of them delivered twice under one id."""
    found = draw(events_of_all_kinds)
    named = [event._replace(event_id=f"id {n}") if n % 3 == 0 else event for n, event in enumerate(found)]
    again = [event for n, event in enumerate(named) if n % 3 == 0 and draw(st.booleans())]
    return draw(st.permutations(named + again))


@settings(max_examples=300)
@given(histories(), st.integers(0, 2**32))
def test_scores_are_what_the_oracle_says(events: list[Given], seed: int):
    assert wrong(events, random.Random(seed)) == ""


def random_history(rng: random.Random) -> list[Given]:
    kinds = ["open", "open", "click", "click", "tap", "order", "bounce"]
    found = []
    for number in range(rng.randint(2, 20)):
        day = rng.choice([DAY, DAY, DAY - 1, DAY - 6, DAY - 31])
        event_id = f"id {number}" if number % 3 == 0 else ""
        amount = Decimal(rng.randint(0, 900))
        event = Given(day, rng.choice(kinds), message_of(day, rng.randint(0, 2)), amount, event_id, rng.randint(0, 999))
        found += [event, event] if event_id and rng.random() < 0.4 else [event]
    rng.shuffle(found)
    return found


def decay_since_last_update() -> AbstractContextManager[Any]:
    """What was counted before decays from the newest event on, not from its own day."""
    real = folding.add_decaying

    def add(sums: Any, day: int, half_life: int, value: int) -> Any:  # noqa: ANN401 - a patch
        epoch = epoch_of(day, half_life)
        if epoch in sums and value > 0:
            sums = {epoch: max(sums[epoch], weight(day, half_life, epoch))}
        return real(sums, day, half_life, value)

    return mock.patch.object(folding, "add_decaying", add)


def clamp_stored() -> AbstractContextManager[Any]:
    """What a bound cuts off is taken from the sums."""
    real = scoring.shown

    def shown(rules: RuleSet, person: PersonState, *rest: Any) -> Any:  # noqa: ANN401 - a patch
        made = real(rules, person, *rest)
        free = msgspec.structs.replace(rules, minimum=None, maximum=None)
        unbounded = viewing.score_of(free, person, "", rest[1], rest[2])[0]
        return real(rules, folding.adopt_foreign(person, made[1] - unbounded), *rest) if unbounded != made[1] else made

    return mock.patch.object(scoring, "shown", shown)


def replays_count() -> AbstractContextManager[Any]:
    """A batch that overlaps what is in the score is folded whole."""
    return mock.patch.object(scoring, "unapplied", lambda _state, _marking, events: events)


def once_forgotten() -> AbstractContextManager[Any]:
    """What was counted once is forgotten between two writes, as where a conflict brings a state without it."""
    real = scoring.absorb

    def absorb(person: PersonState, *rest: Any) -> Absorbed:  # noqa: ANN401 - a patch
        return real(msgspec.structs.replace(person, once=b""), *rest)

    return mock.patch.object(scoring, "absorb", absorb)


def caps_start_again() -> AbstractContextManager[Any]:
    """A cap counts from 0 in every batch."""
    real = folding.granted

    def granted(cap: Any, used: Any, *rest: Any) -> Any:  # noqa: ANN401 - a patch
        return real(cap, None if used is not None and used.current > 1 else used, *rest)

    return mock.patch.object(folding, "granted", granted)


def foreign_lost() -> AbstractContextManager[Any]:
    """What others added is overwritten."""
    return mock.patch.object(scoring, "adopt_foreign", lambda person, _: person)


def window_of_today() -> AbstractContextManager[Any]:
    """Caps and decay go by the day on which a worker sees the event, not by its arrival."""
    return mock.patch.object(folding, "day_of", return_value=DAY)


MUTANTS: dict[str, Callable[[], AbstractContextManager[Any]]] = {
    "decay since the last update": decay_since_last_update,
    "clamp stored": clamp_stored,
    "replays count": replays_count,
    "once forgotten at a conflict": once_forgotten,
    "caps start again": caps_start_again,
    "what others added is lost": foreign_lost,
    "windows and decay by the worker's day": window_of_today,
}


@pytest.mark.parametrize("name", MUTANTS)
def test_a_known_wrong_variant_is_found(name: str):
    with MUTANTS[name]():
        for seed in range(500):
            rng = random.Random(seed)
            if wrong(random_history(rng), rng):
                return
    pytest.fail(f"500 histories do not show that '{name}' is wrong")


def test_histories_that_find_wrong_variants_find_nothing_else():
    for seed in range(300):
        rng = random.Random(seed)
        assert wrong(random_history(rng), rng) == "", seed
