"""`scoring setup`: creates what the service needs in AWS."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from service.admin.definitions import in_force_s
from service.cli.context import aws_settings, run_async, settings_for
from service.cli.output import json_option, note, print_json, print_table
from service.cli.params import PROJECT
from service.config.load import Purpose
from service.config.settings import Settings
from service.sinks.registry import SINKS

if TYPE_CHECKING:
    from service.admin.setup_plan import Action, Names


@click.command()
@click.option(
    "--project",
    "projects",
    metavar="ID",
    type=PROJECT,
    multiple=True,
    help="Write the default definitions for this project if it has none; may be repeated. "
    "Default: SCORING_PROJECT_IDS.",
)
@click.option("--dry-run", is_flag=True, help="Only show what would be created.")
@json_option
def setup(projects: Sequence[str], *, dry_run: bool, as_json: bool) -> None:
    """Create the stream, the tables, the default definitions and what the sinks need, as far as they are missing.

    Safe to run at any time: nothing that exists is changed. Differences from the recommended settings are reported.
    """
    from service.admin.setup_plan import State  # noqa: PLC0415 # slow to import

    settings = settings_for(Purpose.TABLES)
    if not settings.stream:
        note("SCORING_STREAM is not set: the stream is skipped")
    actions = run_async(set_up(settings, projects or settings.project_ids, dry_run=dry_run))
    if as_json:
        print_json(actions)
    else:
        print_table(
            ("Resource", "State", "Detail"),
            [(action.resource, action.state.value, action.detail) for action in actions],
            "nothing to set up",
        )
    if any(action.state is State.CREATED and action.resource.startswith("definitions ") for action in actions):
        seconds = in_force_s(settings.definitions_refresh_s)
        note(f"running workers use the new definitions within {seconds:g} s")
    for action in actions:
        if action.state is State.DIFFERS and action.remedy:
            note(f"{action.resource} differs: {action.remedy}")
    if not projects and not settings.project_ids:
        note("no project given: --project ID writes the default definitions for it")


async def set_up(settings: Settings, projects: Sequence[str], *, dry_run: bool = False) -> list[Action]:
    """Create what is missing; see `Setup.run`."""
    from service.admin.setup import Setup  # noqa: PLC0415 # slow to import
    from service.aws.clients import clients  # noqa: PLC0415 # likewise

    async with clients(aws_settings(settings)) as aws:
        wanted = [each for name in settings.sinks for each in SINKS[name].setup(settings.options_of(name), projects)]
        made = Setup(names_of(settings), aws.dynamodb, aws.kinesis, client=aws.client, wanted=wanted)
        return await made.run(projects, dry_run=dry_run)


def names_of(settings: Settings) -> Names:
    """Return the names of all resources to create."""
    from service.admin.setup_plan import Names  # noqa: PLC0415 # slow to import

    return Names(
        stream=settings.stream,
        scores=settings.scores_table,
        definitions=settings.definitions_table,
        identities=settings.identities_table,
        leases=settings.leases_table,
        dead_letters=settings.dead_letters_table,
    )
