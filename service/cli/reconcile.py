"""`scoring reconcile`: publishes every stored score again."""

from __future__ import annotations

import random
import secrets
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable

import click
import msgspec

from service.aws.clients import clients
from service.aws.tables.identities import IdentityTable
from service.aws.tables.scores import ScoreTable
from service.cli.context import aws_settings, run_async, settings_for
from service.cli.interrupt import Interrupt
from service.cli.output import json_option, note, number_of, print_json, write_fields
from service.cli.params import PROJECT
from service.cli.root import INTERRUPTED
from service.config.load import Purpose
from service.config.settings import Settings
from service.ingest.identity_store import CONFIRMED_FOR_S
from service.observability import logs
from service.observability.metrics import Metrics
from service.publish.forget import forgotten
from service.publish.reconcile import restated
from service.runtime.clock import SystemClock
from service.scoring.fold import UserKey
from service.sinks.registry import SINKS

PER_S = 100.0
"""Scores per second: half of what Pinpoint's default quota allows, so that new events have the other half."""
PROGRESS_S = 5.0
"""Seconds between two reports."""


class Summary(msgspec.Struct):
    """What the command has done.

    Attributes:
        scores: How many scores were counted, or written again.
        projects: The same per project.
    """

    scores: int = 0
    projects: Counter[str] = msgspec.field(default_factory=Counter)


@click.command()
@click.option(
    "--per-s",
    type=click.FloatRange(min=0, min_open=True, max=100_000),
    default=PER_S,
    show_default=True,
    help="Scores per second.",
)
@click.option("--project", metavar="ID", type=PROJECT, help="Only scores of this project.")
@click.option("--dry-run", is_flag=True, help="Only count the scores.")
@json_option
@click.pass_context
def reconcile(ctx: click.Context, per_s: float, project: str | None, *, dry_run: bool, as_json: bool) -> None:
    """Publish every stored score again.

    Scans the score table and gives each item the next Revision. This costs one write unit per person and changes
    nothing else. The table's stream then brings each score to the workers, which publish it to the sinks like any
    change. This command needs no access to a sink, may run while workers run, and may be repeated. With a sink that
    remembers where scores go (`pinpoint`), it waits ten seconds first, so that the workers look that up again.

    If no worker runs, the scores wait in the table's stream for 24 hours. A worker that starts within that time
    publishes them. A worker that starts later detects that changes were lost, and publishes every score again by
    itself.

    Workers count scores that a sink refuses, and set them aside as dead letters. At a rate above what the sinks accept,
    new events wait behind the repeated scores. Ctrl-C finishes the call in flight and reports.
    """
    settings = settings_for(Purpose.TABLES)
    logs.configure("console", "warning")
    summary = Summary()
    with Interrupt("the call in flight") as interrupt:
        try:
            if dry_run:
                run_async(_count(settings, project or "", lambda: interrupt.asked, summary))
            else:
                run_async(_reconcile(settings, project or "", per_s, lambda: interrupt.asked, summary))
        finally:
            _show(summary, as_json=as_json)
    scores = number_of(summary.scores, "score")
    if interrupt.asked:
        note(f"interrupted after {scores}; the rest was not read")
        ctx.exit(INTERRUPTED)
    if dry_run:
        note(f"would write {scores} again in {summary.scores / per_s:,.0f} s")
    else:
        note(f"wrote {scores} again; workers publish them from the table's stream, which keeps them for 24 hours")


def _show(summary: Summary, *, as_json: bool) -> None:
    if as_json:
        print_json(summary)
        return
    for name, count in sorted(summary.projects.items()):
        write_fields(name, str(count))


async def _count(settings: Settings, project: str, stopped: Callable[[], bool], summary: Summary) -> None:
    async with clients(aws_settings(settings)) as aws:
        async for key in _keys(ScoreTable(aws.dynamodb, settings.scores_table, Metrics()), project, stopped):
            summary.scores += 1
            summary.projects[key.project_id] += 1


async def _reconcile(
    settings: Settings, project: str, per_s: float, stopped: Callable[[], bool], summary: Summary
) -> None:
    metrics = Metrics()
    rng = random.Random(secrets.randbits(64))  # noqa: S311 # jitter, not cryptography
    reported_at = time.monotonic()
    async with clients(aws_settings(settings), metrics) as aws:
        table = ScoreTable(aws.dynamodb, settings.scores_table, metrics)
        keys, clock = _keys(table, project, stopped), SystemClock()
        if any(SINKS[name].uses_directory for name in settings.sinks):
            directory = IdentityTable(aws.dynamodb, settings.identities_table)
            keys = _unless(stopped, forgotten(keys, directory, clock, wait_s=CONFIRMED_FOR_S, per_s=per_s))
        insists = settings.publish_min_change is not None
        async for done in restated(keys, table, clock, metrics, rng, per_s, insists=insists):
            summary.scores += len(done)
            summary.projects.update(key.project_id for key in done)
            if time.monotonic() >= reported_at + PROGRESS_S:
                reported_at = time.monotonic()
                note(f"{summary.scores:,} written")


async def _keys(table: ScoreTable, project: str, stopped: Callable[[], bool]) -> AsyncIterator[UserKey]:
    async for key in _unless(stopped, table.scan()):
        if project in ("", key.project_id):
            yield key


async def _unless(stopped: Callable[[], bool], keys: AsyncIterator[UserKey]) -> AsyncIterator[UserKey]:
    async for key in keys:
        if stopped():
            return
        yield key
