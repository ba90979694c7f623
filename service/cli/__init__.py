"""Floor 3: the `scoring` command."""

from __future__ import annotations

from typing import NoReturn


def main() -> NoReturn:
    """Run the command line of this process; exits by `SystemExit` with 0 done, 1 failure, 2 usage."""
    from service.cli.root import scoring  # noqa: PLC0415 # importing the package must cost nothing

    scoring.main(prog_name="scoring")
