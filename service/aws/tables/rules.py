"""Rows of the definition table that hold a project's rules, one row per project.

| attribute | |
|---|---|
| `EventType` (HASH, S) | `#rules` |
| `PinpointProjectId` (RANGE, S) | the project |
| `Rules` (S) | the rules as JSON (`service/scoring/rules/stored.py`) |
| `Version` (N) | grows by 1 with every `scoring rules apply` |
| `History` (B) | the versions with their files, compressed |
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from botocore.exceptions import ClientError

from service.aws.calls import pages
from service.aws.clients import AwsClient
from service.aws.schema import DEFINITION_KEYS, key_item
from service.aws.tables.definitions import REMEDY, is_rules, rules_of
from service.aws.translation import is_condition_failure, translated
from service.scoring.definitions import RULES_TYPE, Malformed
from service.scoring.rules.stored import RulesRow


class RulesTable:
    """Rules in the definition table, for the command line."""

    def __init__(self, client: AwsClient, table: str) -> None:
        self._client = client
        self._table = table
        self._what = f"table {table}"

    async def load(self) -> Sequence[RulesRow | Malformed]:
        """Return the rules of every project that has some, as just written.

        Raises:
            AwsSetupError: There is no such table, or it may not be read.
            TransientError: Not now.
        """
        read = pages(self._client.scan, self._what, remedy=REMEDY, TableName=self._table, ConsistentRead=True)
        return [rules_of(item) async for page in read for item in page if is_rules(item)]

    async def replace(self, row: RulesRow) -> bool:
        """Write a row over the version before its own; return whether that was still the version stored.

        Raises:
            AwsSetupError: There is no such table, or it may not be written.
            TransientError: Not now; it may have been written.
        """
        request: dict[str, Any] = {
            "ConditionExpression": f"attribute_not_exists({DEFINITION_KEYS[0]})"
            if row.version == 1
            else "#version = :before OR (#version = :this AND #rules = :rules)"
        }
        if row.version > 1:
            # The second half: our own write, repeated because its answer was lost.
            request["ExpressionAttributeNames"] = {"#version": "Version", "#rules": "Rules"}  # may be reserved words
            request["ExpressionAttributeValues"] = {
                ":before": {"N": str(row.version - 1)},
                ":this": {"N": str(row.version)},
                ":rules": {"S": row.text},
            }
        with translated(self._what, remedy=REMEDY):
            try:
                await self._client.put_item(TableName=self._table, Item=rules_item(row), **request)
            except ClientError as error:
                if is_condition_failure(error):
                    return False
                raise
        return True


def rules_item(row: RulesRow) -> dict[str, dict[str, Any]]:
    """Return rules as their row."""
    return {
        **key_item(DEFINITION_KEYS, (RULES_TYPE, row.project_id)),
        "Rules": {"S": row.text},
        "Version": {"N": str(row.version)},
        "History": {"B": row.history},
    }
