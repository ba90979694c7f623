"""`python -m tests.chaos`: what `make chaos` runs.

Exit codes: 0 exact, 1 something differs or failed, 2 what it needs is not there.
"""

from __future__ import annotations

import argparse
import sys
import time

from service.local.processes import ChildFailedError
from tests.chaos.chaos import Run
from tests.chaos.kinesis import NodeMissingError, install
from tests.chaos.options import Options
from tests.chaos.report import text


def main() -> int:
    """Read the arguments, play, print; return the exit code."""
    defaults = Options()
    parser = argparse.ArgumentParser(
        prog="make chaos", description="Three workers under attack, every score compared with the truth"
    )
    parser.add_argument("--events", type=int, default=defaults.events)
    parser.add_argument("--seed", type=int, default=defaults.seed)
    parser.add_argument("--seconds", type=float, default=defaults.seconds, help="over which the events are put")
    parser.add_argument("--lease", type=float, default=defaults.lease_s, help="lease duration, seconds")
    parser.add_argument("--storm", type=float, default=defaults.storm, help="factor on all faults; 0: attacks only")
    parser.add_argument("--keep-logs", action="store_true", help="also where all is exact")
    given = parser.parse_args()
    try:
        install()
    except NodeMissingError as missing:
        print(f"make chaos cannot run: {missing}", file=sys.stderr)  # noqa: T201 - it is a command
        return 2
    began = time.monotonic()

    def say(news: str) -> None:
        print(f"{time.monotonic() - began:6.1f} s  {news}", file=sys.stderr, flush=True)  # noqa: T201

    options = Options(given.events, given.seed, given.seconds, given.lease, given.storm, given.keep_logs)
    with Run(options, say) as run:
        try:
            report = run.play()
        except ChildFailedError as error:
            print(f"FAILED: {error}\nlogs: {run.logs}", file=sys.stderr)  # noqa: T201
            return 1
        print(text(report))  # noqa: T201
        if report.differences or given.keep_logs:
            print(f"logs: {run.logs}", file=sys.stderr)  # noqa: T201
    return 1 if report.differences else 0


if __name__ == "__main__":
    sys.exit(main())
