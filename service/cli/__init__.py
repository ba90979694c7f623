"""Floor 3: the `scoring` command."""

from __future__ import annotations

from typing import NoReturn


def main() -> NoReturn:
    """Run the command line of this process.

    Exits by `SystemExit` with 0 done, 1 failure, 2 usage, 130 Ctrl-C, also while it still imports.
    """
    try:
        from service.cli.root import scoring  # noqa: PLC0415 # importing the package must cost nothing

        scoring.main(prog_name="scoring")
    except KeyboardInterrupt:
        raise SystemExit(130) from None
