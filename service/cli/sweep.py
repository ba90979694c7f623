"""`scoring sweep`: what the leader does once a day, by hand."""

from __future__ import annotations

import random
import secrets
import time

import click

from service.aws.clients import clients
from service.aws.tables.scores import ScoreTable
from service.cli.context import aws_settings, run_async, settings_for
from service.cli.interrupt import Interrupt
from service.cli.output import json_option, note, print_json
from service.cli.params import PROJECT
from service.cli.root import INTERRUPTED
from service.config.load import Purpose
from service.config.settings import Settings
from service.observability.metrics import Metrics
from service.publish.sweep import SweepOptions, Swept
from service.publish.sweep import sweep as swept_by
from service.queries.explain import rules_in_force
from service.runtime.clock import SystemClock
from service.scoring.rules.decay import DAY_MS


@click.command()
@click.option(
    "--per-s",
    type=click.FloatRange(min=0, min_open=True, max=100_000),
    default=SweepOptions().per_s,
    show_default=True,
    help="Scores looked at per second.",
)
@click.option("--project", metavar="ID", type=PROJECT, help="Only this project's scores.")
@click.option("--dry-run", is_flag=True, help="Only count what would be written.")
@json_option
@click.pass_context
def sweep(ctx: click.Context, per_s: float, project: str | None, *, dry_run: bool, as_json: bool) -> None:
    """Write every score by rules that has faded, or whose tier has ended, since it was written last.

    The workers' leader does this once a day by itself; after `scoring rules apply` it can be done at once. A score is
    written where its tier is another one, or where it has moved by a point and a tenth. May run beside workers.
    """
    settings = settings_for(Purpose.TABLES)
    with Interrupt("the call in flight") as interrupt:
        found = run_async(_sweep(settings, project or "", per_s, interrupt, dry_run=dry_run))
    counts = {name: found.counts[name] for name in ("seen", "written", "conflict", "unusable")}
    if as_json:
        print_json(counts)
    would = "would write" if dry_run else "wrote"
    note(f"looked at {counts['seen']:,} scores, {would} {counts['written']:,}")
    if counts["conflict"]:
        note(f"{counts['conflict']:,} were written by a worker at the same time")
    if counts["unusable"]:
        note(f"{counts['unusable']:,} items hold a state that cannot be read")
    if interrupt.asked:
        ctx.exit(INTERRUPTED)


async def _sweep(settings: Settings, project: str, per_s: float, interrupt: Interrupt, *, dry_run: bool) -> Swept:
    rng = random.Random(secrets.randbits(64))  # noqa: S311 # jitter, not cryptography
    found = Swept()
    async with clients(aws_settings(settings)) as aws:
        rules = await rules_in_force(aws, settings)
        if project:
            rules = {name: each for name, each in rules.items() if name == project}
        table, today = ScoreTable(aws.dynamodb, settings.scores_table, Metrics()), time.time_ns() // 1_000_000 // DAY_MS
        async for swept in swept_by(table, lambda: rules, today, SystemClock(), rng, per_s, dry_run=dry_run):
            found = swept
            if interrupt.asked:
                break
    return found
