"""`scoring scores`: a user's scores in the score table."""

from __future__ import annotations

import click

from service.aws.clients import clients
from service.cli.context import aws_settings, run_async, settings_for
from service.cli.failures import FAILURE
from service.cli.output import json_option, note, print_json, print_table
from service.cli.params import PROJECT, Id
from service.config.load import Purpose
from service.config.settings import Settings
from service.queries.scores import StoredScore, scores_of
from service.runtime.text import iso


@click.group()
def scores() -> None:
    """Look up scores."""


@scores.command()
@click.argument("user", type=Id("user"))
@click.option("--project", metavar="ID", type=PROJECT, help="Only the score in this project.")
@json_option
@click.pass_context
def get(ctx: click.Context, user: str, project: str | None, *, as_json: bool) -> None:
    """Show the scores of USER, one per project.

    Exits with 1 if there is none.
    """
    settings = settings_for(Purpose.TABLES)
    found = run_async(_read(settings, user, project or ""))
    if as_json:
        print_json([_described(score) for score in found])
    elif found:
        rows = [
            (
                score.project_id,
                score.score,
                "not ours" if score.revision is None else score.revision,
                iso(score.updated_ms),
                score.fault,
            )
            for score in found
        ]
        columns = ("Project", "Score", "Revision", "Newest event", "Fault")
        faulty = any(score.fault for score in found)
        print_table(columns if faulty else columns[:-1], rows if faulty else [row[:-1] for row in rows], empty="")
    if not found:
        where = f" for project {project}" if project else ""
        note(f"this user has no score{where} in table {settings.scores_table}")
        ctx.exit(FAILURE)


async def _read(settings: Settings, user_id: str, project_id: str) -> list[StoredScore]:
    async with clients(aws_settings(settings)) as aws:
        return await scores_of(aws.dynamodb, settings.scores_table, user_id, project_id)


def _described(score: StoredScore) -> dict[str, object]:
    return {
        "user_id": score.user_id,
        "project_id": score.project_id,
        "score": score.score,
        "revision": score.revision,
        "updated_at": iso(score.updated_ms),
        "applied": score.applied,
        **({"fault": score.fault} if score.fault else {}),
    }
