"""`scoring leases`: taking over the checkpoints of another consumer.

A plan first; it acts only with `--execute`, while neither consumer runs.
"""

from __future__ import annotations

import click

from service.admin.take_over import Act, Import, take_over
from service.aws.clients import clients
from service.cli.context import aws_settings, run_async, settings_for
from service.cli.output import json_option, note, number_of, print_json, print_table
from service.cli.params import Id
from service.config.load import Purpose
from service.config.settings import Settings

CONSEQUENCES = (
    "events up to these checkpoints are not read again: what the old consumer made of them stays in the scores",
    "at most one event per shard, the one it was working on when it stopped, may count a second time",
    "`position reset` does not go back behind these checkpoints: no mark says what the old consumer counted",
)


@click.group()
def leases() -> None:
    """Take over the checkpoints of another consumer."""


@leases.command(name="import-kinesis-python")
@click.argument("table", type=Id("table", 255))
@click.option("--execute", is_flag=True, help="Do it; without this only the plan is shown.")
@click.option("--dry-run", is_flag=True, help="Only show the plan: what happens anyway without --execute.")
@json_option
def import_kinesis_python(table: str, *, execute: bool, dry_run: bool, as_json: bool) -> None:
    """Go on where kinesis-python stopped, whose state is in TABLE. Stop it, and the workers, first.

    Its checkpoint is the last record it has dealt with. A shard that this service has read already stays as it is.
    """
    if execute and dry_run:
        raise click.UsageError("--execute or --dry-run? Not both")
    settings = settings_for(Purpose.STREAM)
    imports = run_async(_take_over(settings, table, execute=execute))
    if as_json:
        print_json(imports)
    else:
        rows = [(each.shard, each.act.value, each.now or "new", each.then, each.remark) for each in imports]
        print_table(("Shard", "Act", "Now", "Then", "Remark"), rows, "no shards")
    acts = sum(each.act is not Act.KEEP for each in imports)
    if not acts:
        note("nothing to take over")
        return
    for consequence in CONSEQUENCES:
        note(consequence)
    note(f"took over {number_of(acts, 'shard')}" if execute else "this is the plan: --execute does it")


async def _take_over(settings: Settings, table: str, *, execute: bool) -> list[Import]:
    async with clients(aws_settings(settings)) as aws:
        return await take_over(aws, settings, table, note, execute=execute)
