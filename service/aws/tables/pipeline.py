"""The row of the lease table that all workers of a pipeline share: `PipelineStore` by conditional writes.

Its key is `<pipeline>:state:<score table>`. It starts as no row of `leases.py` does: stream tags have eight characters.
"""

from __future__ import annotations

from typing import Any

from botocore.exceptions import ClientError

from service.aws.calls import Item
from service.aws.clients import AwsClient
from service.aws.schema import LEASE_KEYS, key_item
from service.aws.translation import is_condition_failure, translated
from service.publish.pipeline import PipelineState
from service.scoring.fold import UserKey


class PipelineTable:
    """`PipelineStore` on DynamoDB.

    Args:
        client: DynamoDB.
        table: The lease table.
        pipeline: Whose row.
        scores_table: The table whose streams are read: another one has a row of its own.
    """

    def __init__(self, client: AwsClient, table: str, pipeline: str, scores_table: str) -> None:
        self._client = client
        self._table = table
        self._key = key_item(LEASE_KEYS, (f"{pipeline}:state:{scores_table}",))
        self._what = f"table {table}"

    async def load(self) -> PipelineState | None:
        """Return the row; see `PipelineStore.load`."""
        with translated(self._what):
            answer = await self._client.get_item(TableName=self._table, Key=self._key, ConsistentRead=True)
        return _state(answer["Item"]) if "Item" in answer else None

    async def replace(self, expected: PipelineState | None, new: PipelineState) -> bool:
        """Write the row where its counter still stands; see `PipelineStore.replace`."""
        request: dict[str, Any] = {"ConditionExpression": "attribute_not_exists(leaseKey)"}
        if expected is not None:
            values = {":counter": {"N": str(expected.counter)}}
            request = {"ConditionExpression": "leaseCounter = :counter", "ExpressionAttributeValues": values}
        with translated(self._what):
            try:
                await self._client.put_item(TableName=self._table, Item={**self._key, **_item(new)}, **request)
            except ClientError as error:
                if is_condition_failure(error):
                    return False
                raise
        return True


def _item(state: PipelineState) -> dict[str, dict[str, str]]:
    item = {
        "leaseCounter": {"N": str(state.counter)},
        "streamArn": {"S": state.stream_arn},
        "reconcileOwed": {"N": str(state.owed)},
        "reconcileDone": {"N": str(state.done)},
        "reconcileRunning": {"N": str(state.running)},
    }
    if state.cursor is not None:
        item |= {"cursorUser": {"S": state.cursor.user_id}, "cursorProject": {"S": state.cursor.project_id}}
    return item


def _state(item: Item) -> PipelineState:
    cursor = UserKey(item["cursorUser"]["S"], item["cursorProject"]["S"]) if "cursorUser" in item else None
    return PipelineState(
        counter=int(item["leaseCounter"]["N"]),
        stream_arn=item["streamArn"]["S"],
        owed=int(item["reconcileOwed"]["N"]),
        done=int(item["reconcileDone"]["N"]),
        running=int(item["reconcileRunning"]["N"]),
        cursor=cursor,
    )
