"""`make bench`: every contender, every workload, interleaved, several rounds, medians.

    python -m tests.benchmarks.bench [--quick] [--rounds N] [--only WORKLOAD] [--save]

Writes `build/bench.json`; with `--save` also what deploy/docs/benchmarks.md shows, in `tests/benchmarks/results/`.
"""

from __future__ import annotations

import argparse
import math
import platform
import shutil
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from tests.benchmarks import results
from tests.benchmarks.contest import ROOT, Played, play
from tests.benchmarks.contestants import ABSENT, CONTENDERS, FLOOR, KINESIS_PYTHON, LAMBDA, Contender, command
from tests.benchmarks.contestants import extra as environment_of
from tests.benchmarks.workload import Workload

BLAST, ENGAGED, CATCH_UP, TRICKLE, STEADY = "a", "b", "c", "d", "steady"
COLD, AGAIN = "a cold", "a twice"
PARTS = {
    "throughput": (BLAST, ENGAGED),
    "warmth": (COLD, AGAIN),
    "catch_up": (CATCH_UP,),
    "trickle": (TRICKLE,),
    "steady": (STEADY,),
}
"""What can be played by itself, and the workloads in it."""

SAVED = Path(__file__).parent / "results"
LOGS = ROOT / "build" / "bench" / "logs"


class Sizes(msgspec.Struct, frozen=True):
    """How much is played; the full size takes about ten minutes on two cores."""

    blast: int = 60_000
    engaged: int = 150_000
    backlog: int = 1_000_000
    backlog_users: int = 100_000
    trickle_s: float = 20.0
    steady_s: float = 20.0
    rounds: int = 3


QUICK = Sizes(
    blast=20_000, engaged=50_000, backlog=100_000, backlog_users=20_000, trickle_s=8.0, steady_s=8.0, rounds=1
)


class Bench:
    """The runs, and what came of them."""

    def __init__(self, sizes: Sizes, say: Callable[[str], None]) -> None:
        self.sizes = sizes
        self._say = say
        self.runs: dict[tuple[str, str], list[dict[str, Any]]] = {}
        self.absent = dict(ABSENT)
        self.commands: dict[str, list[str]] = {}

    def prepare(self) -> None:
        """Make everybody's environment; who cannot have one is absent."""
        LOGS.mkdir(parents=True, exist_ok=True)
        for contender in CONTENDERS:
            try:
                self.commands[contender.name] = command(contender)
            except OSError as error:
                self.absent[contender.name] = f"its environment could not be made: {error}"

    def go(self, name: str, contender: Contender, workload: Workload, **options: Any) -> dict[str, Any] | None:  # noqa: ANN401
        """Play once, keep the row, say it in a line."""
        if contender.name not in self.commands:
            return None
        log = LOGS / f"{name}-{contender.name}.log".replace(" ", "-")
        try:
            played = play(workload, self.commands[contender.name], environment_of(contender), log=log, **options)
        except (OSError, msgspec.DecodeError) as error:
            self._say(f"{name:8} {contender.name:22} failed: {error}")
            return None
        row = _row(workload, played)
        self.runs.setdefault((name, contender.name), []).append(row)
        requests = "" if trickle(workload) else f"{row['requests']:>8.1f} requests/1,000"
        self._say(
            f"{name:8} {contender.name:22} {row['cpu_us']:>9.1f} us/event  {requests:24}"
            f"{row['peak_mib']:>6.0f} MiB  {'exact' if row['exact'] else 'NOT EXACT: ' + row['why']}"
        )
        return row

    def throughput(self) -> None:
        """(a) and (b), interleaved."""
        for _ in range(self.sizes.rounds):
            for contender in CONTENDERS:
                events = max(200, int(self.sizes.blast * contender.share) // 100 * 100)
                self.go(BLAST, contender, Workload(BLAST, events, events, publishes=contender.publishes))
            for contender in CONTENDERS:
                events = max(200, int(self.sizes.engaged * contender.share * 0.4) // 100 * 100)
                if contender.share == 1.0:
                    events = self.sizes.engaged
                workload = Workload(ENGAGED, events, events // 5, per_user=5, publishes=contender.publishes)
                self.go(ENGAGED, contender, workload)

    def warmth(self) -> None:
        """The blast where nothing is known, and once more to the same users in the same process."""
        service, blast = CONTENDERS[0], self.sizes.blast
        cold = min(3000, blast)
        self.go(COLD, service, Workload(COLD, cold, cold, warm=False))
        # Few enough users for the caches' default sizes.
        users = min(15_000, blast)
        self.go(AGAIN, service, Workload(AGAIN, 2 * users, users))

    def catch_up(self) -> None:
        """(c)."""
        for contender in CONTENDERS[:2]:
            self.go(
                CATCH_UP, contender, Workload(CATCH_UP, self.sizes.backlog, self.sizes.backlog_users), timeout_s=600.0
            )

    def trickle(self) -> None:
        """(d)."""
        events = int(10 * (self.sizes.trickle_s + 60))
        for contender in CONTENDERS:
            if contender.name in {FLOOR, LAMBDA, KINESIS_PYTHON}:
                continue  # a loop without pause, and a process per shard: their idle cost is no question
            workload = Workload(TRICKLE, events, events, shards=50, rate=10.0, publishes=contender.publishes)
            self.go(TRICKLE, contender, workload, settle_s=self.sizes.trickle_s, timeout_s=60.0)

    def steady(self) -> None:
        """Latencies at half of what one core carries in the blast."""
        for contender in CONTENDERS:
            if contender.name == FLOOR:
                continue
            capacity = 1e6 / self.median(BLAST, contender.name, "cpu_us")
            if math.isnan(capacity):
                continue
            rate = round(capacity / 2)
            events = int(rate * self.sizes.steady_s)
            self.go(STEADY, contender, Workload(STEADY, events, events, rate=rate, publishes=contender.publishes))

    def keep(self, path: Path, parts: list[str]) -> None:
        """Take over saved runs of the parts that are not played now."""
        again = {name for part in parts for name in PARTS[part]}
        if path.exists():
            for row in msgspec.json.decode(path.read_bytes())["rows"]:
                if row["workload"] not in again:
                    self.runs[row["workload"], row["contender"]] = row["runs"]

    def median(self, workload: str, contender: str, column: str) -> float:
        """Return a column's median over the rounds; not a number where there are none."""
        values = [row[column] for row in self.runs.get((workload, contender), []) if row[column] is not None]
        return statistics.median(values) if values else math.nan

    def report(self) -> dict[str, Any]:
        """Return everything as data."""
        columns = next(iter(self.runs.values()))[0].keys() - {"why", "date", "exact"}
        rows = [
            {
                "workload": workload,
                "contender": contender,
                "rounds": len(runs),
                **{column: _plain(self.median(workload, contender, column)) for column in columns},
                "exact": all(run["exact"] for run in runs),
                "runs": runs,
            }
            for (workload, contender), runs in self.runs.items()
        ]
        return {
            "date": time.strftime("%Y-%m-%d"),
            "machine": results.machine(),
            "python": platform.python_version(),
            "sizes": msgspec.to_builtins(self.sizes),
            "absent": self.absent,
            "rows": rows,
            "aims": results.aims(self.median),
        }


def _plain(value: float) -> float | None:
    return None if math.isnan(value) else round(value, 4)


def trickle(workload: Workload) -> bool:
    """Return whether it measures what it costs to have little to do."""
    return workload.name == TRICKLE


def _row(workload: Workload, played: Played) -> dict[str, Any]:
    report = played.report
    at_end = report["at_done"] or report
    # Of a trickle only part is played: what was written is what counts.
    trickles = trickle(workload)
    events = max(1, round(workload.rate * played.wall_s)) if trickles else workload.events
    requests = sum(at_end["requests"].values())
    score, sink = report["score_latency_s"] or {}, report["sink_latency_s"] or {}
    wrong, unpublished = report["wrong_scores"], report["wrong_published"]
    exact = played.done and (trickles or (wrong == 0 and not unpublished))
    return {
        "date": time.strftime("%Y-%m-%d"),
        "events": events,
        "cpu_us": played.cpu_s / events * 1e6,
        "per_core": events / played.cpu_s if played.cpu_s > 0 else None,
        "idle_percent": played.cpu_s / played.wall_s * 100 if trickles else None,
        # A trickle's are dominated by its start, and by time: they say nothing per event.
        "requests": None if trickles else requests / workload.events * 1000,
        "write_units": None if trickles else at_end["write_units"] / workload.events * 1000,
        "peak_mib": played.peak_mib,
        "start_s": None if math.isnan(played.start_s) else played.start_s,
        "wall_s": played.wall_s,
        "rate": workload.rate or None,
        "score_p50_s": score.get("p50"),
        "score_p99_s": score.get("p99"),
        "sink_p50_s": sink.get("p50"),
        "sink_p99_s": sink.get("p99"),
        "exact": exact,
        "why": "" if exact else f"{wrong} scores wrong, {unpublished} not published",
    }


def main() -> None:
    """Run what the arguments say."""
    parser = argparse.ArgumentParser(prog="bench", description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a minute or two instead of ten")
    parser.add_argument("--rounds", type=int, help="rounds of (a) and (b)")
    parser.add_argument("--only", choices=list(PARTS), action="append", help="only this part")
    parser.add_argument("--save", action="store_true", help="keep the results that deploy/docs/benchmarks.md shows")
    arguments = parser.parse_args()
    sizes = QUICK if arguments.quick else Sizes()
    if arguments.rounds:
        sizes = msgspec.structs.replace(sizes, rounds=arguments.rounds)
    if not Path("/proc/self/stat").exists():
        sys.exit("the benchmark reads CPU and memory from /proc: it needs Linux")
    bench = Bench(sizes, _say)
    bench.prepare()
    parts = arguments.only or list(PARTS)
    if arguments.save:
        bench.keep(SAVED / "bench.json", parts)
    for part in parts:
        getattr(bench, part)()
    report = bench.report()
    out = ROOT / "build" / "bench.json"
    results.write(report, out)
    if arguments.save:
        results.write(report, SAVED / "bench.json")
        (SAVED / "bench.svg").write_text(results.picture(report))
    for line in results.lines(report, shutil.get_terminal_size().columns):
        _say(line)
    _say(f"written to {out.relative_to(ROOT)}")


def _say(line: str) -> None:
    print(line, flush=True)  # noqa: T201 # a program's output


if __name__ == "__main__":
    main()
