"""`scoring demo`: plays a campaign on an embedded AWS, and checks every score."""

from __future__ import annotations

import signal
from types import FrameType

import click

from service.cli.failures import FAILURE, Failure
from service.cli.output import console, heading, note, out_is_terminal, print_json, terminal_width, write, write_styled

_TERMINATED = 128 + signal.SIGTERM
_INTERRUPTED = 128 + signal.SIGINT
LINE_WIDTH = 100
"""Width of a report that does not go to a terminal."""


@click.command()
@click.option("--users", type=click.IntRange(10, 50_000), default=1_000, show_default=True, help="People.")
@click.option("--events", type=click.IntRange(100, 10_000_000), default=24_000, show_default=True, help="Records.")
@click.option("--seed", type=int, default=1, show_default=True, help="Decides the campaign.")
@click.option("--shards", type=click.IntRange(1, 16), default=2, show_default=True, help="Shards of the stream.")
@click.option("--rate", type=click.FloatRange(10, 10_000), default=1_000, show_default=True, help="Records per second.")
@click.option("--keep", is_flag=True, help="Leave everything running until Ctrl-C, and print the addresses.")
@click.option("--json", "as_json", is_flag=True, help="Write the report as JSON to standard output.")
@click.option("--corrupt-one-score", is_flag=True, hidden=True, help="Spoil a score before judging.")
@click.pass_context
def demo(
    ctx: click.Context,
    users: int,
    events: int,
    seed: int,
    shards: int,
    rate: float,
    *,
    keep: bool,
    as_json: bool,
    corrupt_one_score: bool,
) -> None:
    """Play a campaign on an embedded AWS and check every score.

    Needs no account and no network: Kinesis, DynamoDB and a fake of Pinpoint run in child processes. Half-way the
    worker is killed with SIGKILL and started again. The exit code is 0 only if every score of every user is right, in
    the table and on each endpoint.
    """
    from service.local.demo import Demo, DemoError, Options  # noqa: PLC0415 # a demo's imports; --help needs none
    from service.local.emulator import EmulatorMissingError  # noqa: PLC0415 # likewise
    from service.local.live import View  # noqa: PLC0415 # likewise
    from service.local.report import as_document, report_lines, verdict  # noqa: PLC0415 # likewise

    signal.signal(signal.SIGTERM, _terminated)
    options = Options(users, events, seed, shards, rate, corrupt_one_score)
    exact: bool | None = None
    try:
        with View(console(stderr=True)) as view, Demo(options, view) as play:
            report = play.play(keep=keep)
            view.close()
            exact = report.exact
            if as_json:
                print_json(as_document(report))
            else:
                width = terminal_width() if out_is_terminal() else LINE_WIDTH
                write_styled(report_lines(report, width, heading()))
                write(verdict(report))
            if not exact:
                note(f"logs: {play.logs}; the worker's: {play.worker_log}")
            if keep:
                _say_where(play.urls(), play.environment())
                play.hold()
    except EmulatorMissingError as error:
        raise Failure("the demo needs an embedded AWS", str(error)) from error
    except DemoError as error:
        raise Failure(error.what, error.why, error.remedy) from error
    except KeyboardInterrupt:
        note("everything is stopped" if exact is not None else "interrupted; everything is stopped")
        if exact is None:
            ctx.exit(_INTERRUPTED)
    ctx.exit(0 if exact else FAILURE)


def _terminated(_signal: int, _frame: FrameType | None) -> None:
    # SystemExit unwinds through every `with`, which stops the children.
    raise SystemExit(_TERMINATED)


def _say_where(urls: dict[str, str], environment: dict[str, str]) -> None:
    note("\nleft running until Ctrl-C:")
    for name, url in urls.items():
        note(f"  {name:<16} {url}")
    note("to use it from another shell:")
    for name, value in sorted(environment.items()):
        note(f"  export {name}={value}")
