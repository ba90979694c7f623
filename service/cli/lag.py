"""`scoring lag`: how far each shard is behind."""

from __future__ import annotations

import click

from service.aws.clients import clients
from service.cli.context import aws_settings, run_async, settings_for
from service.cli.output import json_option, note, print_json, print_table
from service.config.load import Purpose
from service.config.settings import Settings
from service.queries.lag import Line, lines
from service.queries.undefined import remark


@click.command()
@click.option("--all", "everything", is_flag=True, help="Show finished shards too.")
@json_option
def lag(*, everything: bool, as_json: bool) -> None:
    """Show the owner and the checkpoint of each shard, and the age of its oldest unprocessed record."""
    settings = settings_for(Purpose.TABLES)
    if not settings.stream:
        note("SCORING_STREAM is not set: only the stream of the score table is shown")
    every, undefined = run_async(_read(settings))
    found = [line for line in every if everything or line.state != "finished"]
    if as_json:
        print_json(found)
        return
    rows = [
        (
            line.pipeline,
            line.stream,
            line.shard,
            line.state,
            line.owner,
            line.checkpoint,
            line.remark if line.behind_s is None else f"{line.behind_s:.1f}",
            line.records,
        )
        for line in found
    ]
    columns = ("Pipeline", "Stream", "Shard", "State", "Owner", "Checkpoint", "Behind s", "Records")
    optional = ("Checkpoint", "Stream", "Owner")
    print_table(columns, rows, "no shards", optional=optional, right=("Behind s", "Records"))
    if undefined:
        note(undefined)


async def _read(settings: Settings) -> tuple[list[Line], str]:
    """Return a line for every shard, and a note about events without a definition."""
    async with clients(aws_settings(settings)) as aws:
        return await lines(aws, settings), await remark(aws, settings) if settings.stream else ""
