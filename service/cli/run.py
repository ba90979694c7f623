"""`scoring run`: a worker."""

from __future__ import annotations

import click

from service.cli.context import settings_for
from service.cli.failures import FAILURE, explain, is_known, leaf
from service.cli.output import err_is_terminal
from service.config.load import Purpose
from service.config.settings import Settings
from service.observability import logs
from service.observability.lines import LinePump, pumped

LAST_LINES_S = 0.2
"""Longest wait for pending log lines after a second signal."""


@click.command()
@click.option(
    "--role",
    type=click.Choice(["all", "ingest", "publish"]),
    help="Read the stream (ingest), publish scores to sinks (publish), or both (all). Default: SCORING_ROLE.",
)
@click.pass_context
def run(ctx: click.Context, role: str | None) -> None:
    """Run a worker until it is stopped.

    On SIGTERM or SIGINT, the worker finishes what it has begun, releases its shards and exits with 0. A second signal
    ends it at once.
    """
    settings = settings_for(Purpose.RUN, **({"role": role} if role else {}))
    with pumped(2) as errors, pumped(1) as lines:
        logs.configure(settings.log_format, settings.log_level, errors)
        ctx.exit(_served(settings, lines, errors))


def _served(settings: Settings, lines: LinePump, errors: LinePump) -> int:
    """Run the worker; return the exit code."""
    import uvloop  # noqa: PLC0415 # a worker's imports; --help needs none of them

    from service.app.serve import serve  # noqa: PLC0415 # likewise
    from service.observability.metrics import Metrics  # noqa: PLC0415 # likewise

    metrics = Metrics(max_shards=settings.metrics_max_shards, process=True)
    lines.on_dropped = errors.on_dropped = metrics.log_lines_dropped.inc
    try:
        return uvloop.run(serve(settings, lines, metrics, lambda: errors.close(LAST_LINES_S)))
    except Exception as error:
        import structlog  # noqa: PLC0415 # only after service.observability, which keeps it from importing rich

        log = structlog.get_logger("service.cli.run")
        if not is_known(error):
            log.exception("worker.crashed", error=type(leaf(error)).__name__)
            return FAILURE
        failure = explain(error)
        details = {"cause": getattr(failure, "why", ""), "remedy": getattr(failure, "remedy", "")}
        log.error("worker.failed", reason=failure.message, **{name: text for name, text in details.items() if text})  # noqa: TRY400
        if err_is_terminal():
            raise failure from error
        return failure.exit_code
