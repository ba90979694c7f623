"""What a write costs: one write unit per person and batch, at any number of shards."""

from __future__ import annotations

import random
from decimal import Decimal
from typing import Any

import pytest

from service.aws.schema import statement
from service.ingest.stores import Change
from service.scoring.fold import ABSENT, Folded, Scorable, ScoreState, UserKey, fold, sequence_bytes
from service.scoring.marks import HOUR_MS, marking

NOW = 1_795_000_000_000
WEEK_MS = 7 * 24 * HOUR_MS
EVENTS_A_WEEK = 20
PERSON = UserKey("3f2b8c1e-9d47-4a65-8f10-27c5be9ad034", "5f0c2d9e8b7a4c61a3d2e1f0b9c8a7d6")
START = 49590338271490256608559692538361571095921575989136588898


def item_bytes(state: ScoreState) -> int:
    """Return the size of an item as DynamoDB counts it.

    https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/CapacityUnitCalculations.html
    """
    names = ("UserId", "PinpointProjectId", "Score", "Revision", "Applied", "UpdatedAt")
    made = statement("scores", Change(PERSON, Folded(ABSENT, state, Decimal(1), 1)))
    return sum(map(len, names)) + sum(map(_value_bytes, made["Parameters"]))


def _value_bytes(value: dict[str, Any]) -> int:
    ((kind, content),) = value.items()
    match kind:
        case "S":
            return len(content.encode())
        case "B":
            return len(content)
        case "N":
            digits = len(content.lstrip("-").replace(".", ""))
            return (digits + 1) // 2 + 2
    raise AssertionError(kind)


def play(shards: int, weeks: int = 4, seed: int = 1, events_a_week: int = EVENTS_A_WEEK) -> list[int]:
    """Return the item's size after each of one person's events, which come at random times to random shards."""
    rng = random.Random(seed)
    state, sizes = ABSENT, []
    for number, at_ms in enumerate(sorted(rng.randrange(weeks * WEEK_MS) for _ in range(weeks * events_a_week))):
        shard, arrived_ms = rng.randrange(shards), NOW + at_ms
        batch = marking(
            f"AbCd-_12-{shard}",
            starting=START + shard * 2**66,
            oldest_ms=arrived_ms,
            newest_ms=arrived_ms,
            now_ms=arrived_ms,
            keep_ms=WEEK_MS,
        )
        sequence = START + shard * 2**66 + at_ms * 2**80 + number
        event = Scorable(sequence_bytes(str(sequence)), Decimal("12.5"), arrived_ms)
        folded = fold(state, batch, [event])
        assert folded is not None
        state = folded.after
        sizes.append(item_bytes(state))
    return sizes


@pytest.mark.parametrize("shards", [1, 64, 256, 1000])
def test_a_write_costs_one_unit_however_many_shards_a_person_has(shards: int):
    sizes = [size for seed in range(20) for size in play(shards, seed=seed)]
    print(f"{shards} shards: mean {sum(sizes) / len(sizes):.0f} bytes, largest {max(sizes)}")  # noqa: T201
    assert max(sizes) <= 1024


@pytest.mark.parametrize("shards", [64, 256, 1000])
def test_a_person_with_many_events_keeps_those_of_the_retention(shards: int):
    """Without an end to marks it was one for each shard that ever held an event of the person."""
    sizes = play(shards, weeks=30)
    assert max(sizes) < 1024 < 39 * min(shards, 300)
