"""`scoring leases`: taking over the checkpoints of another consumer.

Prints a plan; changes something only with `--execute`, and only while neither consumer runs.
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
    "events up to these checkpoints are not read again: what the old consumer added stays in the scores",
    "at most one event per shard (the one it was processing when it stopped) may count twice",
    "`position reset` does not go back before these checkpoints: scores do not record what the old consumer counted",
)


@click.group()
def leases() -> None:
    """Take over the checkpoints of another consumer."""


@leases.command(name="import-kinesis-python")
@click.argument("table", type=Id("table", 255))
@click.option("--execute", is_flag=True, help="Apply the plan; without this it is only shown.")
@click.option("--dry-run", is_flag=True, help="Only show the plan (the default without --execute).")
@json_option
def import_kinesis_python(table: str, *, execute: bool, dry_run: bool, as_json: bool) -> None:
    """Continue where kinesis-python stopped; TABLE has its state. Stop it and the workers first.

    Its checkpoint is the last record that it processed. Shards that this service has already read are not changed.
    """
    if execute and dry_run:
        raise click.UsageError("give either --execute or --dry-run, not both")
    settings = settings_for(Purpose.STREAM)
    imports = run_async(_take_over(settings, table, execute=execute))
    if as_json:
        print_json(imports)
    else:
        rows = [(each.shard, each.act.value, each.now or "new", each.then, each.remark) for each in imports]
        print_table(("Shard", "Act", "Now", "Then", "Remark"), rows, "no shards")
    acts = sum(each.act is not Act.KEEP for each in imports)
    if not acts:
        note("there is nothing to take over")
        return
    for consequence in CONSEQUENCES:
        note(consequence)
    note(f"took over {number_of(acts, 'shard')}" if execute else "this is only the plan; --execute applies it")


async def _take_over(settings: Settings, table: str, *, execute: bool) -> list[Import]:
    async with clients(aws_settings(settings)) as aws:
        return await take_over(aws, settings, table, note, execute=execute)
