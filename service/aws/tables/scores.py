"""The score table: `ScoreStore` by BatchGetItem and conditional PartiQL statements."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

import structlog

from service.aws.calls import MAX_ROUNDS, Item, ItemReader, pages
from service.aws.clients import AwsClient
from service.aws.fast.gather import Gatherer
from service.aws.schema import ATTRIBUTES, KEY_NAMES, key_item, restatement, state_of, statement, user_key_of
from service.aws.statements import Result, result_of
from service.aws.translation import AwsSetupError, translated
from service.ingest.stores import COMMITTED, MAX_COMMITS, Change, Conflict, Outcome, Throttled
from service.observability.metrics import Metrics
from service.runtime.errors import Trouble
from service.scoring.event import Reason, Rejected
from service.scoring.fold import ABSENT, ScoreState, UserKey

_REMEDY = "run `scoring setup`, or set SCORING_SCORES_TABLE"

_log = structlog.get_logger(__name__)


class ScoreTable:
    """`ScoreStore` on DynamoDB.

    Args:
        client: DynamoDB.
        table: Its name.
        metrics: Where the charged write units are counted.
    """

    def __init__(self, client: AwsClient, table: str, metrics: Metrics) -> None:
        self._client = client
        self._table = table
        self._what = f"table {table}"
        self._metrics = metrics
        self._reader = ItemReader(client, table, KEY_NAMES, ATTRIBUTES)
        self._cheap_reader = ItemReader(client, table, KEY_NAMES, ATTRIBUTES, consistent=False)
        self._writer: Gatherer[UserKey, Mapping[str, Any], Mapping[UserKey, Outcome]] = Gatherer(
            self._execute, MAX_COMMITS
        )

    async def load(
        self, keys: Sequence[UserKey], *, consistent: bool = True
    ) -> Mapping[UserKey, ScoreState | Rejected]:
        """Return what is stored for each of `keys`; see `ScoreStore.load`."""
        states: dict[UserKey, ScoreState | Rejected] = dict.fromkeys(keys, ABSENT)
        wanted = {(key.user_id, key.project_id): key for key in states}
        reader = self._reader if consistent else self._cheap_reader
        for names, item in (await reader.get(wanted)).items():
            states[wanted[names]] = state_of(item)
        return states

    async def commit(self, changes: Sequence[Change]) -> Sequence[Outcome]:
        """Write changes of different users; see `ScoreStore.commit`.

        Raises:
            ValueError: More than `MAX_COMMITS` changes, or two of one user; DynamoDB would refuse the whole call.
            AwsSetupError: The table does not exist, or writing it is not allowed.
        """
        statements = {change.key: statement(self._table, change) for change in changes}
        if len(statements) < len(changes):
            raise ValueError("two changes of one user in one commit")
        return await self._write(statements)

    async def restate(self, states: Mapping[UserKey, ScoreState]) -> Sequence[Outcome]:
        """Give items their next `Revision`; see `ScoreStore.restate`.

        Raises:
            ValueError: More than `MAX_COMMITS`.
            AwsSetupError: The table does not exist, or writing it is not allowed.
        """
        return await self._write({key: restatement(self._table, key, state) for key, state in states.items()})

    async def _write(self, statements: Mapping[UserKey, Mapping[str, Any]]) -> Sequence[Outcome]:
        if len(statements) > MAX_COMMITS:
            raise ValueError(f"{len(statements)} changes in one commit; at most {MAX_COMMITS}")
        if not statements:
            return []
        outcomes = await self._writer.ask(statements)
        return [outcomes[key] for key in statements]

    async def _execute(self, statements: Mapping[UserKey, Mapping[str, Any]]) -> Mapping[UserKey, Outcome]:
        with translated(self._what):
            answer = await self._client.batch_execute_statement(
                Statements=list(statements.values()), ReturnConsumedCapacity="TOTAL"
            )
            outcomes = {
                key: self._outcome(response) for key, response in zip(statements, answer["Responses"], strict=True)
            }
        self._metrics.write_units.inc(sum(each.get("CapacityUnits", 0) for each in answer.get("ConsumedCapacity", ())))
        return outcomes

    def _outcome(self, response: Mapping[str, Any]) -> Outcome:
        actions = "dynamodb:PartiQLInsert and dynamodb:PartiQLUpdate"
        match result_of(response, self._what, remedy=_REMEDY, actions=actions):
            case Result.DONE:
                return COMMITTED
            case Result.CONDITION:
                item = response["Error"].get("Item")
                state = state_of(item) if item else ABSENT
                return state if isinstance(state, Rejected) else Conflict(state)
            case Result.EXISTS:
                return Conflict(None)
            case Result.LATER:
                return Throttled()
            case Result.REFUSED:
                # The text may quote values, so it is not part of the detail, which listings show.
                code = response["Error"]["Code"]
                return Rejected(Reason.SCORE_REFUSED, f"DynamoDB refused the score's item: {code}")

    async def scan(self, after: UserKey | None = None) -> AsyncIterator[UserKey]:
        """Yield the key of every score; see `ScoreStore.scan` and `scan_states`.

        Raises:
            TransientError: A page did not come in `MAX_ROUNDS` attempts.
        """
        async for key, state in self.scan_states(after):
            if state.score is not None:
                yield key

    async def scan_states(self, after: UserKey | None = None) -> AsyncIterator[tuple[UserKey, ScoreState]]:
        """Yield every valid score; see `ScoreStore.scan_states`.

        Reads are eventually consistent, at half the price: a change that is too new to be seen is still in the stream.
        Invalid items are skipped, and their number is logged. A page that fails is retried, because a scan may take
        hours and starting over would cost as much again.

        Raises:
            TransientError: A page did not come in `MAX_ROUNDS` attempts.
        """
        start: dict[str, Any] = {}
        if after is not None:
            start = {"ExclusiveStartKey": key_item(KEY_NAMES, (after.user_id, after.project_id))}
        unusable = 0
        async for page in pages(self._client.scan, self._what, attempts=MAX_ROUNDS, TableName=self._table, **start):
            for item in page:
                state = state_of(item)
                if isinstance(state, Rejected):
                    unusable += 1
                else:
                    yield user_key_of(item), state
        if unusable:
            _log.warning("score_items.rejected", table=self._table, count=unusable)


async def item_of(client: AwsClient, table: str, key: UserKey) -> Item | None:
    """Return a score's item, read consistently; None if there is none.

    Raises:
        TransientError: AWS does not answer.
        AwsSetupError: There is no such table, or it may not be read.
    """
    with translated(f"table {table}", remedy=_REMEDY):
        answer = await client.get_item(
            TableName=table, Key=key_item(KEY_NAMES, (key.user_id, key.project_id)), ConsistentRead=True
        )
    item: Item | None = answer.get("Item")
    return item


async def target_of(client: AwsClient, table: str) -> str:
    """Return what identifies a score table: its name, and its id if reading it is permitted.

    A table that is restored, or deleted and created again, has another `TableId`
    (https://docs.aws.amazon.com/amazondynamodb/latest/APIReference/API_TableDescription.html).

    Raises:
        TransientError: AWS does not answer.
        AwsSetupError: There is no such table.
    """
    try:
        with translated(f"table {table}", remedy=_REMEDY):
            described = (await client.describe_table(TableName=table))["Table"]
    except AwsSetupError as error:
        if error.kind is Trouble.PERMISSION:
            return table
        raise
    return f"{table} {described.get('TableId', '')}".rstrip()
