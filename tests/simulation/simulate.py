"""Many seeded runs of the whole service in a world in memory, in virtual time, against an oracle.

    python -m tests.simulation.simulate --runs 20000 [--seed 1] [--processes 2] [--harsh] [--mutant NAME] [--verbose]

Real: coordinators, tails, both pipelines, the commit, the fold, the outbox. In memory: the two streams, the tables, the
sink, the clock (`world.py`). What goes wrong is drawn from the seed (`schedule.py`); what must hold nevertheless
is in `oracle.py` and `events.py`. Same seed, same run. Without `--seed` a start seed is drawn and printed: schedules
that never ran before find what the fixed ones do not. Exit code 1 when any promise was broken.
"""

from __future__ import annotations

import argparse
import contextlib
import multiprocessing
import os
import secrets
import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator

import msgspec
import structlog

from service.observability.metrics import Metrics
from tests.simulation import mutants
from tests.simulation.actions import ACTIONS
from tests.simulation.schedule import Options
from tests.simulation.sim_world import Result, simulate

PROMISES = {
    "over": "over-counted",
    "under": "under-counted",
    "unpublished": "unpublished",
    "lettered_and_scored": "dead-lettered and scored",
    "accounting": "accounting errors",
    "siblings": "letters that hold other events too",
    "order": "order violations",
    "checkpoint": "checkpoint violations",
    "fencing": "unfenced lease writes",
    "two_in_flight": "two publishes of a user in flight",
    "older_sent": "older score sent by one worker",
    "stolen": "endpoints of others written",
    "undrained": "not drained in time",
    "crashed": "workers ended by a bug",
}


FRESH_SEEDS = 2**40
"""Start seeds are drawn from so many: no two calls have runs in common but by a rare chance."""

PROGRESS = 1000
"""Runs between two lines that say how far it is."""


class Summary(msgspec.Struct):
    """All runs of a call; `broken` counts runs, by promise."""

    runs: int = 0
    events: int = 0
    seconds: float = 0.0
    broken: Counter[str] = msgspec.field(default_factory=Counter)
    faults: Counter[str] = msgspec.field(default_factory=Counter)
    failures: list[tuple[int, list[str]]] = msgspec.field(default_factory=list)
    longest_drain_s: float = 0.0

    def add(self, result: Result) -> None:
        self.runs += 1
        self.events += result.events
        self.broken.update(result.problems.keys())
        self.faults.update(result.faults)
        self.longest_drain_s = max(self.longest_drain_s, result.drained_s)
        if result.problems:
            self.failures.append((result.seed, result.details))


def fresh_seed() -> int:
    """Return a start seed that was most probably never used."""
    return secrets.randbelow(FRESH_SEEDS)


_metrics: Metrics | None = None


def prepare() -> Metrics:
    """Silence the logs; return the metrics that all runs of this process share."""
    global _metrics  # noqa: PLW0603 - prometheus_client's objects are too many to be made for every run
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(50))
    if _metrics is None:
        _metrics = Metrics(max_shards=50)
    return _metrics


def _one(job: tuple[int, Options, str]) -> Result:
    seed, options, mutant = job
    with mutants.MUTANTS[mutant]() if mutant else contextlib.nullcontext():
        return simulate(seed, prepare(), options)


def results(seeds: Iterable[int], options: Options, *, processes: int = 1, mutant: str = "") -> Iterator[Result]:
    """Yield the results of `seeds`, in order."""
    jobs = ((seed, options, mutant) for seed in seeds)
    if processes == 1:
        yield from map(_one, jobs)
        return
    with multiprocessing.get_context("spawn").Pool(processes) as pool:
        yield from pool.imap(_one, jobs, chunksize=10)


def summarise(found: Iterable[Result]) -> Summary:
    started = time.perf_counter()
    summary = Summary()
    for result in found:
        summary.add(result)
        if summary.runs % PROGRESS == 0:
            rate = summary.runs / (time.perf_counter() - started)
            broken = f"{len(summary.failures)} failed {[seed for seed, _ in summary.failures[-5:]]}"
            print(f"{summary.runs:,} runs, {rate:.1f}/s, {broken}", file=sys.stderr, flush=True)  # noqa: T201
    summary.seconds = time.perf_counter() - started
    return summary


def report(summary: Summary, options: Options, mutant: str) -> str:
    """Return what a person wants to read."""
    rate = summary.runs / max(summary.seconds, 1e-9)
    lines = [
        f"runs                {summary.runs:>12,}   {summary.events:,} events, {rate:.1f} runs/s",
        f"seconds             {summary.seconds:>12.1f}",
        f"longest drain       {summary.longest_drain_s:>12.1f}   virtual seconds after the last fault",
        "",
        "faults injected",
        *(f"  {name:<32} {count:>10,}" for name, count in sorted(summary.faults.items())),
        "",
        "runs in which a promise was broken",
        *(f"  {text:<32} {summary.broken[kind]:>10,}" for kind, text in PROMISES.items()),
    ]
    flags = (
        (f" --also '{options.also}'" if options.also else "")
        + (" --harsh" if options.harsh else "")
        + (f" --mutant '{mutant}'" if mutant else "")
    )
    for seed, details in summary.failures[:20]:
        lines += ["", f"seed {seed}: python -m tests.simulation.simulate --runs 1 --seed {seed} --verbose{flags}"]
        lines += [f"  {detail}" for detail in details]
    if len(summary.failures) > 20:
        lines += ["", f"failing seeds: {' '.join(str(seed) for seed, _ in summary.failures)}"]
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation.simulate", description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=500)
    parser.add_argument("--seed", type=int, help="of the first run, the others follow; without it, a fresh one")
    parser.add_argument("--processes", type=int, default=min(2, os.cpu_count() or 1))
    parser.add_argument("--harsh", action="store_true", help="also what nothing is promised against")
    parser.add_argument("--mutant", default="", choices=["", *mutants.MUTANTS], help="put a known-wrong variant in")
    parser.add_argument("--also", default="", choices=["", *ACTIONS], help="what happens in every run, too")
    parser.add_argument("--verbose", action="store_true", help="print the event log of every run, and its digest")
    args = parser.parse_args()
    options = Options(also=args.also, harsh=args.harsh)
    first = fresh_seed() if args.seed is None else args.seed
    print(f"start seed {first}", flush=True)  # noqa: T201
    seeds = range(first, first + args.runs)
    if args.verbose:
        found = []
        with mutants.MUTANTS[args.mutant]() if args.mutant else contextlib.nullcontext():
            for seed in seeds:
                result = simulate(seed, prepare(), options, verbose=True)
                print(*(result.log or ()), f"seed {seed}: digest {result.digest:08x}", sep="\n")  # noqa: T201
                found.append(result)
        summary = summarise(found)
    else:
        processes = 1 if args.runs < 20 else args.processes
        summary = summarise(results(seeds, options, processes=processes, mutant=args.mutant))
    print(report(summary, options, args.mutant))  # noqa: T201
    return 1 if summary.failures else 0


if __name__ == "__main__":
    sys.exit(main())
