"""`scoring reconcile`: every stored score to the sinks once more, from a scan, whether or not workers run."""

from __future__ import annotations

import asyncio
import random
import secrets
from collections import Counter
from collections.abc import AsyncIterator, Coroutine
from typing import Any, TypeVar

import click
import msgspec

from service.app.publishing import make_publisher
from service.aws.clients import Clients, clients
from service.aws.tables.identities import IdentityTable
from service.aws.tables.scores import ScoreTable
from service.cli.context import aws_settings, run_async, settings_for
from service.cli.failures import FAILURE
from service.cli.output import json_option, note, number_of, print_json, write_fields
from service.cli.params import PROJECT
from service.config.settings import Purpose, Settings
from service.observability import logs
from service.observability.metrics import Metrics
from service.publish.sender import OUTCOMES
from service.runtime.clock import SystemClock
from service.scoring.change import ScoreChange

T = TypeVar("T")

PER_S = 100.0
"""Users per second: half of what Pinpoint's default quota lets through, the other half is the workers'."""
PROGRESS_S = 5.0
"""Seconds between two reports."""


class Summary(msgspec.Struct):
    """What became of the scores.

    Attributes:
        scores: How many there are.
        projects: The same by project.
        outcomes: By sink, how many were `published`, had `no_target`, had `no_destination` (their project does not
            exist there), or were `rejected` (and set aside).
    """

    scores: int = 0
    projects: Counter[str] = msgspec.field(default_factory=Counter)
    outcomes: dict[str, Counter[str]] = msgspec.field(default_factory=dict)

    @property
    def rejected(self) -> int:
        """Scores that a sink refused for good."""
        return sum(outcomes["rejected"] for outcomes in self.outcomes.values())

    @property
    def nowhere(self) -> int:
        """Scores whose project does not exist in a sink."""
        return sum(outcomes["no_destination"] for outcomes in self.outcomes.values())


@click.command()
@click.option(
    "--per-s",
    type=click.FloatRange(min=0, min_open=True, max=100_000),
    default=PER_S,
    show_default=True,
    help="Users per second.",
)
@click.option("--project", metavar="ID", type=PROJECT, help="Only this project's scores.")
@click.option("--dry-run", is_flag=True, help="Only count them.")
@json_option
@click.pass_context
def reconcile(ctx: click.Context, per_s: float, project: str | None, *, dry_run: bool, as_json: bool) -> None:
    """Publish every stored score, from a scan of the table.

    For after a loss: a worker does so by itself when the table's stream has lost changes. Scores are absolute, and
    read again after they were published: those that changed meanwhile are written anew, the same but for Revision, for
    the workers to publish. So this may run beside workers, and more than once; let it come to its end. It shares the
    sinks' quotas with them: --per-s says how much of it. Exits with 1 where a sink refused scores: dead letters then.
    """
    settings = settings_for(Purpose.TABLES)
    logs.configure("console", "warning")
    summary = run_async(_count(settings, project or "") if dry_run else _reconcile(settings, project or "", per_s))
    if as_json:
        print_json(summary)
        ctx.exit(FAILURE if summary.rejected or summary.nowhere else 0)
    for name, count in sorted(summary.projects.items()):
        write_fields(name, str(count))
    if dry_run:
        seconds = summary.scores / per_s
        note(f"would publish {number_of(summary.scores, 'score')} to {', '.join(settings.sinks)} in {seconds:,.0f} s")
    for sink, outcomes in summary.outcomes.items():
        told = ", ".join(f"{count:,} {name.replace('_', ' ')}" for name, count in outcomes.most_common())
        note(f"{sink}: {told or 'nothing to publish'}")
    if summary.rejected:
        note("what was rejected is set aside: `scoring dead-letters list --stage publish`")
    if summary.nowhere:
        note("no destination: the project does not exist in the sink; correct the project id, or create the project")
    if summary.rejected or summary.nowhere:
        ctx.exit(FAILURE)


async def _count(settings: Settings, project: str) -> Summary:
    summary = Summary()
    async with clients(aws_settings(settings)) as aws:
        async for _ in _scores(aws, settings, Metrics(), project, summary):
            pass
    return summary


async def _reconcile(settings: Settings, project: str, per_s: float) -> Summary:
    summary, metrics = Summary(), Metrics()
    rng = random.Random(secrets.randbits(64))  # noqa: S311 # jitter, not cryptography
    async with clients(aws_settings(settings), metrics) as aws:
        publisher = make_publisher(
            settings,
            aws,
            IdentityTable(aws.dynamodb, settings.identities_table),
            lambda _shard: True,
            SystemClock(),
            metrics,
            rng,
            reconcile_per_s=per_s,
        )
        scores = _scores(aws, settings, metrics, project, summary)
        await _beside(publisher.reconcile(scores), publisher.run(), _report(summary, metrics))
    summary.outcomes = {sink: _outcomes(metrics, sink) for sink in settings.sinks}
    return summary


async def _scores(
    aws: Clients, settings: Settings, metrics: Metrics, project: str, summary: Summary
) -> AsyncIterator[ScoreChange]:
    async for change in ScoreTable(aws.dynamodb, settings.scores_table, metrics).scan():
        if project in ("", change.key.project_id):
            summary.scores += 1
            summary.projects[change.key.project_id] += 1
            yield change


async def _beside(work: Coroutine[Any, Any, T], *loops: Coroutine[Any, Any, None]) -> T:
    """Return what `work` returns, while the loops run beside it."""
    async with asyncio.TaskGroup() as group:
        running = [group.create_task(loop) for loop in loops]
        done = await work
        for task in running:
            task.cancel()
    return done


async def _report(summary: Summary, metrics: Metrics) -> None:
    while True:
        await asyncio.sleep(PROGRESS_S)
        waiting = sum(
            sample.value
            for family in metrics.registry.collect()
            for sample in family.samples
            if sample.name == "scoring_sink_pending"
        )
        note(f"{summary.scores:,} read, {waiting:,.0f} of them on their way")


def _outcomes(metrics: Metrics, sink: str) -> Counter[str]:
    value = metrics.registry.get_sample_value
    found = {name: value("scoring_sink_updates_total", {"sink": sink, "outcome": name}) for name in OUTCOMES}
    return Counter({name: int(count) for name, count in found.items() if count})
