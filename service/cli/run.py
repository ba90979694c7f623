"""`scoring run`: a worker."""

from __future__ import annotations

import click

from service.cli.context import settings_for
from service.cli.failures import FAILURE, explain, is_known, leaf
from service.cli.output import err_is_terminal
from service.config.settings import Purpose
from service.observability import logs


@click.command()
@click.option(
    "--role",
    type=click.Choice(["all", "ingest", "publish"]),
    help="Read the stream (ingest), write scores to sinks (publish), or both (all); SCORING_ROLE otherwise.",
)
@click.pass_context
def run(ctx: click.Context, role: str | None) -> None:
    """Run a worker until it is told to stop.

    SIGTERM or SIGINT: it finishes what it has in hand, releases its shards, and exits with 0. A second
    signal ends it at once.
    """
    settings = settings_for(Purpose.RUN, **({"role": role} if role else {}))
    logs.configure(settings.log_format, settings.log_level)
    import uvloop  # noqa: PLC0415 # a worker's imports; --help needs none of them

    from service.app.worker import serve  # noqa: PLC0415 # likewise

    try:
        code = uvloop.run(serve(settings))
    except Exception as error:
        import structlog  # noqa: PLC0415 # not before service.observability, which has it come without rich

        log = structlog.get_logger("service.cli.run")
        if not is_known(error):
            log.exception("worker.crashed", error=type(leaf(error)).__name__)
            ctx.exit(FAILURE)
        failure = explain(error)
        told = {"cause": getattr(failure, "why", ""), "remedy": getattr(failure, "remedy", "")}
        log.error("worker.failed", reason=failure.message, **{name: text for name, text in told.items() if text})  # noqa: TRY400
        if err_is_terminal():
            raise failure from error
        ctx.exit(failure.exit_code)
    ctx.exit(code)
