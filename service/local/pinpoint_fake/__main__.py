"""`python -m service.local.pinpoint_fake`: the fake alone in a process."""

from __future__ import annotations

import argparse
import json
import sys

from service.local.pinpoint_fake.quotas import parse_quotas
from service.local.pinpoint_fake.server import PinpointFake
from service.local.pinpoint_fake.standalone import run
from service.local.processes import exit_with_parent


def _announce(fake: PinpointFake) -> None:
    sys.stdout.write(json.dumps({"port": fake.port}) + "\n")
    sys.stdout.flush()


def main() -> None:
    """Read the arguments and serve."""
    parser = argparse.ArgumentParser(prog="pinpoint_fake", description="A fake of Amazon Pinpoint, in memory")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0, help="0: any free port")
    parser.add_argument("--quotas", default="none", help="none, aws, or Operation=requests_per_second,...")
    parser.add_argument("--app", action="append", default=[], help="id of an application that exists from the start")
    parser.add_argument("--exit-with-owner", action="store_true", help="end when standard input closes")
    options = parser.parse_args()
    try:
        quotas = parse_quotas(options.quotas)
    except ValueError as error:
        parser.error(str(error))
    if options.exit_with_owner:
        exit_with_parent()
    try:
        run(host=options.host, port=options.port, quotas=quotas, apps=options.app, on_ready=_announce)
    except OSError as error:
        raise SystemExit(f"{options.host}:{options.port} cannot be listened on: {error.strerror or error}") from None


if __name__ == "__main__":
    main()
