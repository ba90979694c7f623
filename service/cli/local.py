"""`scoring local`: emulators and fakes for trying the service without AWS."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from service.cli.failures import Failure
from service.cli.local_up import PINPOINT_PORT, up
from service.cli.output import json_option, note, print_json, write
from service.cli.params import PROJECT
from service.cli.traffic import traffic

if TYPE_CHECKING:
    from service.local.pinpoint_fake.server import PinpointFake


@click.group()
def local() -> None:
    """Run emulators and fakes without AWS."""


local.add_command(traffic)
local.add_command(up)


@local.command()
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option(
    "--port",
    type=click.IntRange(0, 65_535),
    default=PINPOINT_PORT,
    show_default=True,
    help="Port to listen on; 0 takes any free one.",
)
@click.option(
    "--quotas",
    default="none",
    show_default=True,
    help="Requests per second before it answers 429: none, aws (the default quotas), or Operation=number,...",
)
@click.option(
    "--project", "projects", metavar="ID", type=PROJECT, multiple=True, help="A project that exists from the start."
)
@json_option
def pinpoint(host: str, port: int, quotas: str, projects: tuple[str, ...], *, as_json: bool) -> None:
    """Run a fake of Pinpoint that keeps everything in memory, until SIGTERM or SIGINT.

    It has what the service uses: projects, endpoints, users. Point AWS_ENDPOINT_URL_PINPOINT at it.
    """
    from service.local.pinpoint_fake.quotas import parse_quotas  # noqa: PLC0415 # keeps `--help` quick
    from service.local.pinpoint_fake.standalone import run  # noqa: PLC0415 # likewise

    try:
        limits = parse_quotas(quotas)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--quotas") from None

    def ready(fake: PinpointFake) -> None:
        url = f"http://{host}:{fake.port}"
        if as_json:
            print_json({"url": url, "port": fake.port})
        else:
            write(f"AWS_ENDPOINT_URL_PINPOINT={url}")
        note("serving until SIGTERM or Ctrl-C")

    try:
        run(host=host, port=port, quotas=limits, apps=projects, on_ready=ready)
    except OSError as error:
        raise Failure(
            f"cannot listen on {host}:{port}",
            error.strerror or str(error),
            "choose another with --port and --host",
        ) from error
