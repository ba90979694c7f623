"""The `scoring` command group: its commands, and how errors become messages and exit codes."""

from __future__ import annotations

from typing import Any

import click

from service.cli.lazy import LazyGroup
from service.runtime.text import printable

INTERRUPTED = 128 + 2
"""Exit code after Ctrl-C: 128 plus the number of SIGINT, as in shells."""

COMMANDS = {
    "run": ("service.cli.run:run", "Run a worker."),
    "setup": ("service.cli.setup:setup", "Create the stream, the tables and the default definitions."),
    "doctor": ("service.cli.doctor:doctor", "Check permissions, streams, tables, clock and quotas."),
    "send": ("service.cli.send:send", "Put events from a file on the stream."),
    "scores": ("service.cli.scores:scores", "Look up scores."),
    "definitions": ("service.cli.definitions:definitions", "Show and change what events are worth."),
    "sources": ("service.cli.sources:sources", "Check, try and apply sources: how events of your own are read."),
    "dry-run": ("service.cli.dry_run:dry_run", "Show what records would come to, without AWS."),
    "rules": ("service.cli.rules:rules", "Check, try and apply rules: decay, caps, tiers, suppression."),
    "dead-letters": ("service.cli.dead_letters:dead_letters", "Show events that were set aside, and retry them."),
    "lag": ("service.cli.lag:lag", "Show how far each shard is behind."),
    "position": ("service.cli.position:position", "Change where reading continues."),
    "leases": ("service.cli.leases:leases", "Take over the checkpoints of another consumer."),
    "reconcile": ("service.cli.reconcile:reconcile", "Publish every stored score again."),
    "sweep": ("service.cli.sweep:sweep", "Write scores that have faded since their last event."),
    "local": ("service.cli.local:local", "Run emulators and fakes without AWS."),
    "demo": ("service.cli.demo:demo", "Play a campaign on an embedded AWS and check every score."),
}


class Root(LazyGroup):
    """Turns every error into a message and an exit code: 1 failure, 2 usage or configuration error, 130 Ctrl-C."""

    def invoke(self, ctx: click.Context) -> Any:  # noqa: ANN401 # click's signature
        """Run the command."""
        try:
            return super().invoke(ctx)
        except click.ClickException as error:
            # The message may quote an argument that came from a file or an event.
            vars(error)["message"] = printable(error.message, lines=True)
            raise
        except (click.exceptions.Exit, BrokenPipeError, SystemExit):
            raise
        except (KeyboardInterrupt, click.Abort):
            click.echo("interrupted", err=True)
            ctx.exit(INTERRUPTED)
        except Exception as error:
            from service.cli.failures import explain, leaf  # noqa: PLC0415 # imports botocore, which is slow

            cause = leaf(error)
            if isinstance(cause, BrokenPipeError):
                raise cause from None
            raise explain(error) from error


def _version(ctx: click.Context, _param: click.Parameter, value: bool) -> None:  # noqa: FBT001 # click's signature
    if value and not ctx.resilient_parsing:
        from importlib.metadata import version  # noqa: PLC0415 # only needed here

        click.echo(f"scoring {version('engagement-scoring')}")
        ctx.exit()


@click.group(
    cls=Root,
    commands_in=COMMANDS,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Configuration comes from SCORING_ variables and the standard AWS variables; "
    "deploy/docs/configuration.md lists them. "
    "Exit codes: 0 done, 1 failure, 2 usage error, 130 Ctrl-C.",
)
@click.option(
    "--version", is_flag=True, expose_value=False, is_eager=True, callback=_version, help="Show the version and exit."
)
def scoring() -> None:
    """Turn events about people into one exact score per person."""
