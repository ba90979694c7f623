import pytest

from tests.simulation.mutants import MUTANTS
from tests.simulation.schedule import Options
from tests.simulation.sim_world import simulate
from tests.simulation.simulate import prepare

MAX_SEEDS = 500

SHOWN_BY = {
    "dedupe by the batch's last sequence": {"over"},
    "blind increment": {"over"},
    "checkpoint before commit": {"checkpoint", "under"},
    "skip a failed user": {"under", "checkpoint"},
    "one watermark per user": {"under"},
    "child before parent": {"order"},
    "unfenced checkpoint": {"fencing"},
    "publish without comparing revisions": {"older_sent", "unpublished"},
    "nothing published again": {"unpublished"},
    "letters not asked for": {"lettered_and_scored"},
    "failed commit taken for done": {"under", "checkpoint"},
    "letters after scores": {"under"},
    "two publishes in flight": {"two_in_flight", "undrained"},
    "no publishing again by the late worker": {"unpublished"},
    "no publishing again by the successor": {"unpublished"},
    "published again too soon": {"unpublished"},
    "lost calls forgotten": {"unpublished"},
    "seizure forgotten": {"unpublished"},
    "marks dropped at the checkpoint": {"over"},
    "absence trusted": {"under"},
    "scores overwritten": {"under"},
    "one sink for all": {"checkpoint"},
    "no reconciliation": {"unpublished"},
    "a loss after a failure goes unnoticed": {"unpublished"},
    "a loss is known to one worker only": {"unpublished"},
    "a reconciliation counts as done too early": {"unpublished"},
    "a replaced stream goes unnoticed": {"over", "under", "order"},
    "a replaced stream goes unnoticed by readers": {"over"},
    "the first stream for ever": {"unpublished", "undrained"},
    "another stream and nothing reconciled": {"unpublished"},
    "the first stream shows every score": {"unpublished"},
    "every worker reads the newest stream": {"unpublished"},
    "the former user keeps the endpoint": {"stolen"},
    "answers outlive events": {"stolen", "unpublished"},
    "entries are never read again": {"stolen"},
    "absence outlives events": {"unpublished"},
}
"""The promise that each variant breaks first; any one of them will do."""


ALSO = {
    "no reconciliation": "trimmed changes",
    "a loss after a failure goes unnoticed": "trimmed changes",
    "a loss is known to one worker only": "trimmed changes",
    "a reconciliation counts as done too early": "trimmed changes",
}
"""What happens in every run that looks for a variant: it takes that, and it is rare."""


@pytest.mark.parametrize("name", SHOWN_BY)
def test_a_known_wrong_variant_is_found(name: str):
    options = Options(also=ALSO.get(name, ""))
    for seed in range(1, MAX_SEEDS + 1):
        with MUTANTS[name]():
            result = simulate(seed, prepare(), options)
        if result.problems:
            print(f"{name}: found by seed {seed}: {result.problems}")  # noqa: T201 - pytest shows it with -rP
            assert SHOWN_BY[name] & set(result.problems)
            # One that no longer fits the code it patches would be found for that alone.
            assert "crashed" not in result.problems or name == "two publishes in flight"
            return
    pytest.fail(f"{MAX_SEEDS} seeds do not show that '{name}' is wrong")
