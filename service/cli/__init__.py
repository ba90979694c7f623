"""The `scoring` command."""

from __future__ import annotations

import signal
from types import FrameType
from typing import NoReturn

TERMINATED = 128 + 15
"""Exit code after SIGTERM: 128 plus its number, as in shells."""


def main() -> NoReturn:
    """Run the command line of this process.

    Exits by `SystemExit` with 0 done, 1 failure, 2 usage error, 130 Ctrl-C, 143 SIGTERM, also during imports.
    """
    # As process 1 of a container, a process that has no handler yet ignores SIGTERM
    # (https://man7.org/linux/man-pages/man7/pid_namespaces.7.html). A worker replaces this handler.
    signal.signal(signal.SIGTERM, _terminate)
    try:
        from service.cli.root import scoring  # noqa: PLC0415 # keeps the import of the package cheap

        scoring.main(prog_name="scoring")
    except KeyboardInterrupt:
        raise SystemExit(130) from None


def _terminate(_number: int, _frame: FrameType | None) -> NoReturn:
    raise SystemExit(TERMINATED)
