"""Records of several events: variants that set more aside than the event at fault, or less."""

from __future__ import annotations

import pytest

from tests.simulation.mutants import MUTANTS
from tests.simulation.schedule import Options
from tests.simulation.sim_world import simulate
from tests.simulation.simulate import prepare

MAX_SEEDS = 100


@pytest.mark.parametrize("name", ["a letter holds the whole record", "the events of a record share a letter"])
def test_a_variant_that_mixes_events_of_a_record_is_found(name: str):
    for seed in range(1, MAX_SEEDS + 1):
        with MUTANTS[name]():
            result = simulate(seed, prepare(), Options())
        if result.problems:
            assert {"siblings", "accounting", "under"} & set(result.problems)
            assert "crashed" not in result.problems
            return
    pytest.fail(f"{MAX_SEEDS} seeds do not show that '{name}' is wrong")
