"""Trying dead letters again: a plan first, then one letter after another, each claimed so that only one does it.

A letter of `ingest` or `commit` goes back on its stream as the record it was: it gets a new sequence number, and
counts once more if, against its reason, it had been counted. A letter of `publish` names a score that is stored
already: its item's `Revision` goes up by one, and the table's stream brings it to the sinks again.

A record is put in one request and no second: the SDK would repeat one whose answer was lost, and the event would
count twice. Such a letter is left half-way, for a person to look at.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Sequence
from enum import StrEnum
from typing import Any

import msgspec
from botocore.exceptions import ClientError

from service.aws.clients import AwsClient, Clients
from service.aws.errors import AwsSetupError, code_of, is_condition_failure, translated
from service.aws.streams.writer import KinesisWriter, Put
from service.aws.tables.dead_letters import NEW, REDRIVING, DeadLetterTable, StoredLetter
from service.config.settings import Settings
from service.ingest.stores import DeadLetter
from service.runtime.errors import RecordsTrimmedError, ShardGoneError, TransientError

MAX_LETTERS = 10_000
"""Letters that one command takes up."""
CONCURRENT = 8
"""Letters under way at once."""
_RECORD_PAGES = 10
"""Reads spent to find a record by its pointer: pages may be empty before it."""


class Outcome(StrEnum):
    """What became of a letter."""

    REDRIVEN = "redriven"
    TAKEN = "taken by another redrive"
    GONE = "payload not kept, and no longer on the stream"
    NO_SCORE = "its score is gone"
    UNREADABLE = "names no user and project"
    REFUSED = "refused for now"
    UNCERTAIN = "left half-way"
    """No answer came: the record may be on the stream or not."""


DONE = frozenset({Outcome.REDRIVEN, Outcome.TAKEN})
"""Outcomes that leave nothing to do."""


class Result(msgspec.Struct, frozen=True):
    """What became of one letter, and a word on where it went or why not."""

    letter_id: str
    outcome: Outcome
    detail: str = ""


class _Scored(msgspec.Struct):
    """What the payload of a `publish` letter names: user and project, or the item's keys where it was no score."""

    user: str = ""
    project: str = ""
    keys: dict[str, dict[str, str]] = {}


def by_fault(letters: Sequence[StoredLetter]) -> list[tuple[str, str, int]]:
    """Return stage, reason and number, the most frequent first."""
    counted = Counter((stored.letter.stage, stored.letter.reason.value) for stored in letters)
    return [(stage, reason, count) for (stage, reason), count in counted.most_common()]


def due(letters: Sequence[StoredLetter], *, stuck: bool) -> list[StoredLetter]:
    """Return the letters to take up: new ones, and where wanted those of a redrive that died; oldest first."""
    states = {NEW, REDRIVING} if stuck else {NEW}
    return sorted((stored for stored in letters if stored.state in states), key=lambda stored: stored.letter.at_ms)


class Redriver:
    """Tries letters again.

    Args:
        clients: AWS.
        once: A Kinesis client that makes one attempt at a call.
        settings: Names the tables; a letter names its stream itself.
    """

    def __init__(self, clients: Clients, once: AwsClient, settings: Settings) -> None:
        self._kinesis = clients.kinesis
        self._once = once
        self._dynamodb = clients.dynamodb
        self._settings = settings
        self.table = DeadLetterTable(clients.dynamodb, settings.dead_letters_table)

    async def redrive(self, letters: Sequence[StoredLetter], report: Callable[[Result], None]) -> list[Result]:
        """Try every letter; `report` is called as each is done. Returns the results in the letters' order."""
        gate = asyncio.Semaphore(CONCURRENT)

        async def one(stored: StoredLetter) -> Result:
            async with gate:
                result = await self._one(stored)
            report(result)
            return result

        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(one(stored)) for stored in letters]
        return [task.result() for task in tasks]

    async def _one(self, stored: StoredLetter) -> Result:
        letter_id = stored.letter.letter_id
        if stored.state == REDRIVING:
            await self.table.release(letter_id)
        if not await self.table.claim(letter_id):
            return Result(letter_id, Outcome.TAKEN)
        try:
            result = await self._again(letter_id)
        except TransientError as error:
            if not error.throttled:
                return Result(letter_id, Outcome.UNCERTAIN, str(error))
            result = Result(letter_id, Outcome.REFUSED, str(error))
        except AwsSetupError as error:
            result = Result(letter_id, Outcome.REFUSED, str(error))
        if result.outcome is Outcome.REDRIVEN:
            await self.table.finish(letter_id, result.detail)
        else:
            await self.table.release(letter_id)
        return result

    async def _again(self, letter_id: str) -> Result:
        stored = await self.table.get(letter_id)
        if stored is None:
            return Result(letter_id, Outcome.GONE, "the letter itself has expired")
        if stored.letter.stage == "publish":
            return await self._publish(stored)
        letter = stored.letter
        stream = self._settings.stream if letter.stream == self._settings.stream_name else letter.stream
        payload = letter.payload if stored.payload_kept else await read_back(self._kinesis, stream, letter)
        if payload is None:
            pointer = f"{letter.stream}/{letter.shard_id}/{letter.sequence}"
            return Result(letter_id, Outcome.GONE, pointer)
        writer = KinesisWriter(self._once, stream)
        (landed,) = await writer.put([Put(letter.partition_key or letter_id, payload)])
        return Result(letter_id, Outcome.REDRIVEN, f"{letter.stream}/{landed.shard_id}/{landed.sequence}")

    async def _publish(self, stored: StoredLetter) -> Result:
        letter_id, table = stored.letter.letter_id, self._settings.scores_table
        key = score_key(stored.letter.payload)
        if key is None:
            return Result(letter_id, Outcome.UNREADABLE)
        with translated(f"table {table}"):
            try:
                answer = await self._dynamodb.update_item(
                    TableName=table,
                    Key=key,
                    UpdateExpression="ADD Revision :one",
                    ConditionExpression="attribute_exists(UserId)",
                    ExpressionAttributeValues={":one": {"N": "1"}},
                    ReturnValues="UPDATED_NEW",
                )
            except ClientError as error:
                if is_condition_failure(error):
                    return Result(letter_id, Outcome.NO_SCORE)
                raise
        return Result(letter_id, Outcome.REDRIVEN, f"revision {answer['Attributes']['Revision']['N']}")


def score_key(payload: bytes) -> dict[str, dict[str, str]] | None:
    """Return the key of the score item that a `publish` letter is about; None where it names none."""
    try:
        scored = msgspec.json.decode(payload, type=_Scored)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    user = scored.user or scored.keys.get("UserId", {}).get("S", "")
    project = scored.project or scored.keys.get("PinpointProjectId", {}).get("S", "")
    return {"UserId": {"S": user}, "PinpointProjectId": {"S": project}} if user and project else None


async def read_back(kinesis: AwsClient, stream: str, letter: DeadLetter) -> bytes | None:
    """Return the record a letter points at from the stream; None where it is there no longer."""
    named = {"StreamARN" if stream.startswith("arn:") else "StreamName": stream}
    try:
        with translated(f"stream {stream}", shard=letter.shard_id):
            answer = await kinesis.get_shard_iterator(
                ShardId=letter.shard_id,
                ShardIteratorType="AT_SEQUENCE_NUMBER",
                StartingSequenceNumber=letter.sequence,
                **named,
            )
            iterator: str | None = answer["ShardIterator"]
            for _ in range(_RECORD_PAGES):
                page: dict[str, Any] = await kinesis.get_records(ShardIterator=iterator, Limit=1)
                for record in page["Records"]:
                    data: bytes = record.data
                    return data if record.sequence_number == letter.sequence else None
                iterator = page.get("NextShardIterator")
                if not iterator:
                    return None
    except (ShardGoneError, RecordsTrimmedError):
        return None
    except ClientError as error:
        if code_of(error) in ("InvalidArgumentException", "ValidationException"):
            return None  # how Kinesis says that it does not know the sequence number
        raise
    return None
