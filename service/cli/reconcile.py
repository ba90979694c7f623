"""`scoring reconcile`: every stored score to the sinks once more, from a scan, whether or not workers run."""

from __future__ import annotations

import asyncio
import random
import secrets
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any, TypeVar

import click
import msgspec

from service.app.publishing import make_publisher
from service.aws.clients import Clients, clients
from service.aws.tables.identities import IdentityTable
from service.aws.tables.scores import ScoreTable
from service.cli.context import aws_settings, run_async, settings_for
from service.cli.failures import FAILURE, Failure
from service.cli.interrupt import Interrupt
from service.cli.output import json_option, note, number_of, print_json, write_fields
from service.cli.params import PROJECT
from service.cli.root import INTERRUPTED
from service.config.settings import Purpose, Settings
from service.observability import logs
from service.observability.metrics import Metrics
from service.publish.publisher import Publisher
from service.publish.sender import OUTCOMES
from service.runtime.clock import SystemClock
from service.scoring.change import ScoreChange

T = TypeVar("T")

PER_S = 100.0
"""Users per second: half of what Pinpoint's default quota lets through, the other half is the workers'."""
PROGRESS_S = 5.0
"""Seconds between two reports."""
PATIENCE_S = 120.0
"""Seconds without a score that a sink takes or refuses, while some wait, after which it ends."""


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
    sinks' quotas with them: --per-s says how much of it. Exits with 1 where a sink refused scores: dead letters then;
    and where a sink takes nothing for two minutes. Ctrl-C finishes the scores on their way, and reports.
    """
    settings = settings_for(Purpose.TABLES)
    logs.configure("console", "warning")
    summary = Summary()
    with Interrupt("what is on its way") as interrupt:
        try:
            if dry_run:
                run_async(_count(settings, project or "", summary))
            else:
                run_async(_reconcile(settings, project or "", per_s, interrupt, summary))
        except KeyboardInterrupt:
            note("scores on their way may have been published or not")
        finally:
            _show(summary, as_json=as_json)
    if dry_run and not as_json:
        seconds = summary.scores / per_s
        note(f"would publish {number_of(summary.scores, 'score')} to {', '.join(settings.sinks)} in {seconds:,.0f} s")
    if interrupt.asked:
        note(f"interrupted after {number_of(summary.scores, 'score')}: the rest was not read")
        ctx.exit(INTERRUPTED)
    if summary.rejected or summary.nowhere:
        ctx.exit(FAILURE)


def _show(summary: Summary, *, as_json: bool) -> None:
    if as_json:
        print_json(summary)
        return
    for name, count in sorted(summary.projects.items()):
        write_fields(name, str(count))
    for sink, outcomes in summary.outcomes.items():
        said = ", ".join(f"{count:,} {name.replace('_', ' ')}" for name, count in outcomes.most_common())
        note(f"{sink}: {said or 'nothing published'}")
    if summary.rejected:
        note("what was rejected is set aside: `scoring dead-letters list --stage publish`")
    if summary.nowhere:
        note("no destination: the project does not exist in the sink; correct the project id, or create the project")


async def _count(settings: Settings, project: str, summary: Summary) -> None:
    async with clients(aws_settings(settings)) as aws:
        async for _ in _scores(aws, settings, Metrics(), project, summary):
            pass


async def _reconcile(settings: Settings, project: str, per_s: float, interrupt: Interrupt, summary: Summary) -> None:
    metrics = Metrics()
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
        scores = _scores(aws, settings, metrics, project, summary, lambda: interrupt.asked)
        try:
            await _beside(publisher.reconcile(scores), publisher.run(), _watch(summary, metrics, publisher))
        finally:
            summary.outcomes = {sink: _outcomes(metrics, sink) for sink in settings.sinks}


async def _scores(
    aws: Clients,
    settings: Settings,
    metrics: Metrics,
    project: str,
    summary: Summary,
    stopped: Callable[[], bool] = lambda: False,
) -> AsyncIterator[ScoreChange]:
    async for change in ScoreTable(aws.dynamodb, settings.scores_table, metrics).scan():
        if stopped():
            return
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


async def _watch(summary: Summary, metrics: Metrics, publisher: Publisher) -> None:
    """Report now and then; end it where a sink takes nothing."""
    settled = 0.0
    since = time.monotonic()
    while True:
        await asyncio.sleep(PROGRESS_S)
        waiting, before, settled = _sum(metrics, "scoring_sink_pending"), settled, _sum(metrics, _SETTLED)
        errors = "; ".join(f"{sink}: {error}" for sink, error in publisher.last_errors.items())
        note(
            f"{summary.scores:,} read, {waiting:,.0f} of them on their way"
            + (f"; last error of {errors}" if errors else "")
        )
        now = time.monotonic()
        if settled > before or not waiting:
            since = now
        elif now - since >= PATIENCE_S:
            raise Failure(
                f"no sink took a score for {PATIENCE_S:.0f} s: {settled:,.0f} were published or refused, "
                f"{waiting:,.0f} of the {summary.scores:,} read are not",
                errors,
                "run it again once the sink answers: what is published already does no harm",
            )


_SETTLED = "scoring_sink_updates_total"


def _sum(metrics: Metrics, name: str) -> float:
    return sum(
        sample.value for family in metrics.registry.collect() for sample in family.samples if sample.name == name
    )


def _outcomes(metrics: Metrics, sink: str) -> Counter[str]:
    value = metrics.registry.get_sample_value
    found = {name: value(_SETTLED, {"sink": sink, "outcome": name}) for name in OUTCOMES}
    return Counter({name: int(count) for name, count in found.items() if count})
