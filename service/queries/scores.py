"""Queries of users' scores."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal

import msgspec

from service.aws.calls import Item, pages
from service.aws.clients import AwsClient
from service.aws.schema import KEY_NAMES, state_of, user_key_of
from service.scoring.event import Rejected
from service.scoring.fold import Origin
from service.scoring.marks import by_shard, shown
from service.scoring.rules.decay import DAY_MS
from service.scoring.rules.model import RuleSet
from service.scoring.rules.score import person_of
from service.scoring.rules.state import StateFormatError
from service.scoring.rules.view import score_of


class StoredScore(msgspec.Struct, frozen=True):
    """A user's score in one project.

    Attributes:
        user_id: The user.
        project_id: The project.
        score: The score as stored; None if the item has none.
        revision: The item's revision; None if another program wrote the item.
        updated_ms: Arrival of the newest event in it, epoch milliseconds; 0 if unknown.
        tier: The tier when the score was last written; empty if none.
        as_of_ms: The day that the stored score was computed for, epoch milliseconds; 0 if no rules computed it.
        now: What the rules show today; None if the project has no rules.
        tier_now: The tier today; empty if none.
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
    tier: str = ""
    as_of_ms: int = 0
    now: Decimal | None = None
    tier_now: str = ""


async def scores_of(
    client: AwsClient,
    table: str,
    user_id: str,
    project_id: str = "",
    rules: Mapping[str, RuleSet] | None = None,
    day: int = 0,
) -> list[StoredScore]:
    """Return a user's scores, read consistently.

    Args:
        client: DynamoDB.
        table: The score table.
        user_id: The user.
        project_id: Only this project's; empty: of every project.
        rules: By project, for projects that have any.
        day: Today, counted from 1970-01-01.

    Raises:
        TransientError: AWS does not answer.
        AwsSetupError: The table does not exist, or reading it is not permitted.
    """
    condition, values = f"{KEY_NAMES[0]} = :user", {":user": {"S": user_id}}
    if project_id:
        condition, values = f"{condition} AND {KEY_NAMES[1]} = :project", {**values, ":project": {"S": project_id}}
    read = pages(
        client.query,
        f"table {table}",
        TableName=table,
        KeyConditionExpression=condition,
        ExpressionAttributeValues=values,
        ConsistentRead=True,
    )
    return [stored_score(item, rules or {}, day) async for page in read for item in page]


def stored_score(item: Item, rules: Mapping[str, RuleSet], day: int) -> StoredScore:
    """Read an item of the score table, and look at it through the rules of its project on a day."""
    key = user_key_of(item)
    state = state_of(item)
    if isinstance(state, Rejected):
        return StoredScore(key.user_id, key.project_id, fault=state.detail)
    now, tier_now = None, ""
    if key.project_id in rules:
        try:
            person = person_of(state)
        except StateFormatError as error:
            return StoredScore(key.user_id, key.project_id, fault=f"State cannot be used: {error}")
        tier = state.by_rules.tier if state.by_rules is not None else ""
        now, tier_now = score_of(rules[key.project_id], person, tier, state.updated_ms, day)
    return StoredScore(
        key.user_id,
        key.project_id,
        state.score,
        state.revision if state.origin is Origin.OURS else None,
        state.updated_ms,
        {tag: shown(mark) for tag, mark in sorted(by_shard(state.applied).items())},
        tier=state.by_rules.tier if state.by_rules is not None else "",
        as_of_ms=state.by_rules.day * DAY_MS if state.by_rules is not None else 0,
        now=now,
        tier_now=tier_now,
    )
