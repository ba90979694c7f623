"""`scoring doctor`: checks whether the service can work with this configuration and these permissions."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from service.cli.context import run_async, settings_for
from service.cli.failures import FAILURE
from service.cli.output import json_option, note, print_json, print_table
from service.cli.setup import names_of
from service.config.load import Purpose
from service.sinks.trials import Finding, Verdict

if TYPE_CHECKING:
    from service.admin.doctor_plan import Wanted
    from service.aws.clients import AwsSettings


@click.command()
@json_option
@click.pass_context
def doctor(ctx: click.Context, *, as_json: bool) -> None:
    """Check permissions, streams, tables, clock and quotas; nothing is changed.

    Makes the same calls as a worker: with its credentials, region, endpoints, timeouts and fast calls. Run it with the
    role of the service, for example as a one-off ECS task of its task definition. Exit code 0: the service can work
    (notes are advice). Exit code 1: something is broken.
    """
    from service.admin.doctor_plan import Wanted  # noqa: PLC0415 # slow to import
    from service.app.aws import worker_calls  # noqa: PLC0415 # likewise

    settings = settings_for(Purpose.RUN)
    wanted = Wanted(
        names=names_of(settings),
        ingests=settings.ingests,
        publishes=settings.publishes,
        projects=settings.project_ids,
        sinks=tuple((name, settings.options_of(name)) for name in settings.sinks),
        lookups=settings.identity_lookup,
        compares_images=settings.publish_min_change is not None,
        lookups_per_s=settings.identity_lookup_per_s,
    )
    findings = run_async(_examined(wanted, worker_calls(settings)))
    if as_json:
        print_json(findings)
    else:
        rows = [(each.verdict.value, each.subject, each.detail) for each in findings]
        print_table(("Result", "What", "Found"), rows, "nothing was checked")
        for each in findings:
            if each.remedy:
                note(f"{each.subject}: {each.remedy}")
    broken = sum(each.verdict is Verdict.BROKEN for each in findings)
    note(
        f"{broken} broken of {len(findings)}"
        if broken
        else f"all {len(findings)} checks passed, were skipped or are notes"
    )
    ctx.exit(FAILURE if broken else 0)


async def _examined(wanted: Wanted, aws: AwsSettings) -> list[Finding]:
    from service.admin.doctor import Doctor  # noqa: PLC0415 # slow to import
    from service.aws.clients import clients  # noqa: PLC0415 # likewise

    async with clients(aws) as made:
        return [finding async for finding in Doctor(wanted, made).examine()]
