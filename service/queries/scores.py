"""Queries of users' scores."""

from __future__ import annotations

from decimal import Decimal

import msgspec

from service.aws.calls import Item, pages
from service.aws.clients import AwsClient
from service.aws.schema import state_of
from service.scoring.event import Rejected
from service.scoring.fold import Origin
from service.scoring.marks import shown


class StoredScore(msgspec.Struct, frozen=True):
    """A user's score in one project.

    Attributes:
        user_id: The user.
        project_id: The project.
        score: The total; None if the item has none.
        revision: The item's revision; None if another program wrote the item.
        updated_ms: Arrival of the newest event in it, epoch milliseconds; 0 if unknown.
        applied: By shard tag, the last sequence number counted; with a `+`, counted from the shard's first one.
        fault: Why the item is not a score; all other fields are then empty.
    """

    user_id: str
    project_id: str
    score: Decimal | None = None
    revision: int | None = None
    updated_ms: int = 0
    applied: dict[str, str] = {}
    fault: str = ""


async def scores_of(client: AwsClient, table: str, user_id: str, project_id: str = "") -> list[StoredScore]:
    """Return a user's scores, read consistently.

    Args:
        client: DynamoDB.
        table: The score table.
        user_id: The user.
        project_id: Only this project's; empty: of every project.

    Raises:
        TransientError: AWS does not answer.
        AwsSetupError: The table does not exist, or reading it is not permitted.
    """
    condition, values = "UserId = :user", {":user": {"S": user_id}}
    if project_id:
        condition, values = f"{condition} AND PinpointProjectId = :project", {**values, ":project": {"S": project_id}}
    read = pages(
        client.query,
        f"table {table}",
        TableName=table,
        KeyConditionExpression=condition,
        ExpressionAttributeValues=values,
        ConsistentRead=True,
    )
    return [stored_score(item) async for page in read for item in page]


def stored_score(item: Item) -> StoredScore:
    """Read an item of the score table."""
    user_id, project_id = item["UserId"]["S"], item["PinpointProjectId"]["S"]
    state = state_of(item)
    if isinstance(state, Rejected):
        return StoredScore(user_id, project_id, fault=state.detail)
    return StoredScore(
        user_id,
        project_id,
        state.score,
        state.revision if state.origin is Origin.OURS else None,
        state.updated_ms,
        {tag: shown(mark) for tag, mark in sorted(state.applied.items())},
    )
