"""`scoring scores`: what the score table says of a user."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import Any

import click

from service.cli.context import Aws, settings_for
from service.cli.failures import FAILURE
from service.cli.output import iso, json_option, note, print_json, print_table
from service.config.settings import Purpose


@click.group()
def scores() -> None:
    """Look scores up."""


@scores.command()
@click.argument("user")
@click.option("--project", metavar="ID", help="Only this project's score.")
@json_option
@click.pass_context
def get(ctx: click.Context, user: str, project: str | None, *, as_json: bool) -> None:
    """Show the score of USER, in every project it has one in.

    Exits with 1 where there is none.
    """
    settings = settings_for(Purpose.TABLES)
    names = {"#user": "UserId"}
    values = {":user": {"S": user}}
    condition = "#user = :user"
    if project:
        names["#project"] = "PinpointProjectId"
        values[":project"] = {"S": project}
        condition += " AND #project = :project"
    pages = (
        Aws(settings)
        .dynamodb.get_paginator("query")
        .paginate(
            TableName=settings.scores_table,
            KeyConditionExpression=condition,
            ExpressionAttributeNames=names,
            ExpressionAttributeValues=values,
            ConsistentRead=True,
        )
    )
    found = [_score(item) for page in pages for item in page["Items"]]
    if as_json:
        print_json(found)
    elif found:
        print_table(
            ("Project", "Score", "Revision", "Newest event"),
            [(row["project_id"], row["score"], row["revision"] or "not ours", row["updated_at"]) for row in found],
            empty="",
        )
    if not found:
        where = f" for project {project}" if project else ""
        note(f"no score of this user{where} in table {settings.scores_table}")
        ctx.exit(FAILURE)


def _score(item: Mapping[str, Mapping[str, Any]]) -> dict[str, object]:
    """Return an item of the score table for a person; `applied` is per shard the last sequence number counted."""
    marks: Mapping[str, Any] = item.get("Applied", {}).get("M", {})
    return {
        "user_id": item["UserId"]["S"],
        "project_id": item["PinpointProjectId"]["S"],
        "score": Decimal(item["Score"]["N"]) if "N" in item.get("Score", {}) else None,
        "revision": int(item.get("Revision", {}).get("N", 0)),
        "updated_at": iso(int(Decimal(item.get("UpdatedAt", {}).get("N", 0)))),
        "applied": {tag: str(int.from_bytes(mark.get("B", b""), "big")) for tag, mark in sorted(marks.items())},
    }
