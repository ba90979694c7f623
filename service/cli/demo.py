"""`scoring demo`: a campaign on an embedded AWS, and whether every score is right."""

from __future__ import annotations

import signal
import sys
from types import FrameType

import click

from service.cli.context import print_json
from service.cli.failures import FAILURE, Failure

_TERMINATED = 128 + signal.SIGTERM
_INTERRUPTED = 128 + signal.SIGINT


@click.command()
@click.option("--users", type=click.IntRange(10, 50_000), default=1_000, show_default=True, help="People.")
@click.option("--events", type=click.IntRange(100, 10_000_000), default=24_000, show_default=True, help="Records.")
@click.option("--seed", type=int, default=1, show_default=True, help="Another seed, another campaign.")
@click.option("--shards", type=click.IntRange(1, 16), default=2, show_default=True, help="Shards of the stream.")
@click.option("--rate", type=click.FloatRange(10, 10_000), default=1_000, show_default=True, help="Records per second.")
@click.option("--keep", is_flag=True, help="Leave everything running until Ctrl-C, and say where it is.")
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

    Needs no account and no network: Kinesis and DynamoDB run in a child process, and so does a stand-in for
    Pinpoint. Half-way the worker is killed with SIGKILL and started again. The exit code is 0 only if every
    score of every user is right, in the table and on each endpoint.
    """
    from rich.console import Console  # noqa: PLC0415 # a demo's imports; --help needs none of them

    from service.local.demo import Demo, DemoError, Options  # noqa: PLC0415 # likewise
    from service.local.emulator import EmulatorMissingError  # noqa: PLC0415 # likewise
    from service.local.live import View  # noqa: PLC0415 # likewise
    from service.local.report import as_document, print_report, verdict  # noqa: PLC0415 # likewise

    signal.signal(signal.SIGTERM, _terminated)
    options = Options(users, events, seed, shards, rate, corrupt_one_score)
    progress = Console(stderr=True)
    exact: bool | None = None
    try:
        with View(progress) as view, Demo(options, view) as play:
            report = play.play(keep=keep)
            view.close()
            exact = report.exact
            if as_json:
                print_json(as_document(report))
            else:
                out = Console() if sys.stdout.isatty() else Console(width=100)
                print_report(report, out)
                click.echo(verdict(report))
            sys.stdout.flush()
            if not exact:
                click.echo(f"the logs are in {play.logs}; the worker's is {play.worker_log}", err=True)
            if keep:
                _say_where(play.urls(), play.environment())
                play.hold()
    except EmulatorMissingError as error:
        raise Failure("the demo needs an embedded AWS", str(error)) from error
    except DemoError as error:
        raise Failure(error.what, error.why, error.remedy) from error
    except KeyboardInterrupt:
        click.echo("everything is stopped" if exact is not None else "interrupted; everything is stopped", err=True)
        if exact is None:
            ctx.exit(_INTERRUPTED)
    ctx.exit(0 if exact else FAILURE)


def _terminated(_signal: int, _frame: FrameType | None) -> None:
    # SystemExit unwinds through every `with`, which stops the children.
    raise SystemExit(_TERMINATED)


def _say_where(urls: dict[str, str], environment: dict[str, str]) -> None:
    click.echo("\nleft running until Ctrl-C:", err=True)
    for name, url in urls.items():
        click.echo(f"  {name:<16} {url}", err=True)
    click.echo("to talk to it from another shell:", err=True)
    for name, value in sorted(environment.items()):
        click.echo(f"  export {name}={value}", err=True)
