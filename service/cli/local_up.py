"""`scoring local up`: runs the whole embedded AWS."""

from __future__ import annotations

import os
import shlex
import signal
import threading
from collections.abc import Mapping, Sequence
from types import FrameType

import click

from service.cli.context import run_async, settings_for
from service.cli.failures import Failure
from service.cli.output import json_option, note, print_json, write
from service.cli.params import PROJECT
from service.cli.setup import set_up
from service.config.load import Purpose

AWS_PORT = 4566
PINPOINT_PORT = 9465
LOOK_EVERY_S = 0.25
"""Seconds between two checks that the servers still run."""


@click.command()
@click.option(
    "--port",
    type=click.IntRange(0, 65_535),
    default=AWS_PORT,
    show_default=True,
    help="Port of Kinesis and DynamoDB; 0 takes any free one.",
)
@click.option(
    "--pinpoint-port",
    type=click.IntRange(0, 65_535),
    default=PINPOINT_PORT,
    show_default=True,
    help="Port of the Pinpoint fake; 0 takes any free one.",
)
@click.option("--stream", default="engagement-events", show_default=True, help="Name of the stream.")
@click.option(
    "--project",
    "projects",
    metavar="ID",
    type=PROJECT,
    multiple=True,
    default=("demo",),
    show_default=True,
    help="A project that gets the default definitions; may be repeated.",
)
@json_option
def up(port: int, pinpoint_port: int, stream: str, projects: Sequence[str], *, as_json: bool) -> None:
    """Run Kinesis, DynamoDB and a fake of Pinpoint on 127.0.0.1, with stream, tables and definitions.

    Prints the variables that point `scoring` and any AWS SDK at them. To use them in this shell:

      scoring local up > aws.env &    and, once it is ready,    . ./aws.env

    Runs until SIGTERM or Ctrl-C. Everything is in memory and is gone then.
    """
    from service.local.emulator import Emulator, EmulatorMissingError  # noqa: PLC0415 # keeps `--help` quick
    from service.local.pinpoint_fake import PinpointProcess  # noqa: PLC0415 # likewise
    from service.local.processes import ChildFailedError  # noqa: PLC0415 # likewise

    ended = threading.Event()
    try:
        with Emulator(port=port) as aws, PinpointProcess(port=pinpoint_port, apps=projects) as pinpoint:
            variables = {
                **aws.environment(),
                **pinpoint.environment(),
                "SCORING_STREAM": stream,
                "SCORING_SINKS": "pinpoint",
                "SCORING_PROJECT_IDS": ",".join(projects),
            }
            foreign = [name for name in os.environ if name.startswith("AWS_") and name not in variables]
            _set_up(variables, foreign, projects)
            _end_on_signals(ended)
            _say(variables, foreign, as_json=as_json)
            while not ended.wait(LOOK_EVERY_S):
                aws.check()
                pinpoint.check()
    except EmulatorMissingError as error:
        raise Failure("the embedded AWS is not installed", str(error)) from error
    except ChildFailedError as error:
        raise Failure(
            "the embedded AWS cannot run",
            str(error),
            "if a port is in use, choose others with --port and --pinpoint-port; 0 takes any free one",
        ) from error
    note("stopped; its data is gone")


def _set_up(variables: Mapping[str, str], foreign: Sequence[str], projects: Sequence[str]) -> None:
    """Create the stream, the tables and the definitions like `scoring setup`.

    Args:
        variables: Variables that point at the embedded AWS; they are set in this process.
        foreign: Other AWS variables, such as AWS_PROFILE; they are removed, so that nothing is created elsewhere.
        projects: Projects that get the default definitions.
    """
    for name in foreign:
        del os.environ[name]
    os.environ.update(variables)
    made = run_async(set_up(settings_for(Purpose.TABLES), projects))
    note(f"created: {', '.join(action.resource for action in made if ': ' not in action.resource)}")


def _say(variables: Mapping[str, str], foreign: Sequence[str], *, as_json: bool) -> None:
    if as_json:
        print_json(variables)
    else:
        for name in foreign:
            write(f"unset {name}")
        for name, value in sorted(variables.items()):
            write(f"export {name}={shlex.quote(value)}")
    note(
        "ready until Ctrl-C. With these variables in another shell: scoring run, scoring send FILE, scoring scores get"
    )


def _end_on_signals(ended: threading.Event) -> None:
    def on_signal(_signal: int, _frame: FrameType | None) -> None:
        ended.set()

    for each in (signal.SIGTERM, signal.SIGINT):
        signal.signal(each, on_signal)
