"""Trying dead letters again: a plan first, then one letter after another, each claimed so that only one does it.

A letter of `ingest` or `commit` goes back on its stream as the record it was: it gets a new sequence number, and
counts once more if, against its reason, it had been counted. The letter of one event of several in a record, or of one
person of an event that concerns several, puts that alone on the stream: its siblings have been counted. A letter of
`publish` names a score that is stored already: its item's `Revision` goes up by one, and the table's stream brings it
to the sinks again.

A record is put in one request and no second: the SDK would repeat one whose answer was lost, and the event would
count twice. Such a letter stays unfinished, for a person to look at.

However a redrive ends, what is in flight is finished first; a letter that is cut off stays unfinished.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from enum import StrEnum

import msgspec

from service.aws.clients import AwsClient
from service.aws.streams.kinesis import record_at
from service.aws.streams.writer import InvalidRecordError, KinesisWriter, Put
from service.aws.tables.dead_letters import NEW, REDRIVING, DeadLetterTable, StoredLetter
from service.aws.tables.scores import ScoreTable
from service.aws.translation import AwsSetupError
from service.ingest.letters import place_of
from service.ingest.stores import Committed, Conflict, Throttled
from service.runtime.errors import TransientError
from service.scoring.event import Rejected
from service.scoring.fold import UserKey
from service.sources.registry import Registry

MAX_LETTERS = 10_000
"""Letters that one command takes up."""
CONCURRENT = 8
"""Letters under way at once."""


class Outcome(StrEnum):
    """What became of a letter."""

    REDRIVEN = "redriven"
    TAKEN = "taken by another redrive"
    GONE = "payload not kept, and no longer on the stream"
    NOT_DIVIDED = "payload not kept, and the record no longer divides into the same events"
    NO_SCORE = "its score is gone"
    UNREADABLE = "names no user and project"
    REFUSED = "refused for now"
    UNCERTAIN = "unfinished"
    """No answer came: the record may be on the stream or not."""


DONE = frozenset({Outcome.REDRIVEN, Outcome.TAKEN})
"""Outcomes that leave nothing to do."""


class Result(msgspec.Struct, frozen=True):
    """What became of one letter, and a word on where it went or why not."""

    letter_id: str
    outcome: Outcome
    detail: str = ""


class _Scored(msgspec.Struct):
    """What the payload of a `publish` letter names: user and project, or the item's keys if it was not a score."""

    user: str = ""
    project: str = ""
    keys: dict[str, dict[str, str]] = {}


def due(letters: Sequence[StoredLetter], *, stuck: bool) -> list[StoredLetter]:
    """Return the letters to take up: new ones, and where wanted those of a redrive that died; oldest first."""
    states = {NEW, REDRIVING} if stuck else {NEW}
    return sorted((stored for stored in letters if stored.state in states), key=lambda stored: stored.letter.at_ms)


class Account:
    """What became of the letters so far, also where the redrive is cut off.

    Attributes:
        results: Of the letters that are done with, in that order.
        claimed: Ids of those under way.
    """

    def __init__(self) -> None:
        self.results: list[Result] = []
        self.claimed: set[str] = set()

    def cut_off(self) -> None:
        """Record the letters in progress as unfinished."""
        self.results += [Result(letter_id, Outcome.UNCERTAIN, "not finished") for letter_id in sorted(self.claimed)]
        self.claimed.clear()


class Redriver:
    """Tries letters again.

    Args:
        letters: The dead-letter table.
        scores: The score table.
        kinesis: A client that reads.
        once: A Kinesis client that makes one attempt at a call.
        registry: The sources in force: they divide a record whose letter has no payload.
        stream_of: How calls name the stream of a letter.
    """

    def __init__(
        self,
        letters: DeadLetterTable,
        scores: ScoreTable,
        kinesis: AwsClient,
        once: AwsClient,
        registry: Registry,
        stream_of: Callable[[str], str] = str,
    ) -> None:
        self._letters = letters
        self._scores = scores
        self._kinesis = kinesis
        self._once = once
        self._registry = registry
        self._stream_of = stream_of

    async def redrive(
        self,
        letters: Sequence[StoredLetter],
        account: Account,
        report: Callable[[Result], None] = lambda _: None,
        stopped: Callable[[], bool] = lambda: False,
    ) -> None:
        """Try every letter, `CONCURRENT` at a time, in order.

        Args:
            letters: What to try.
            account: What becomes of them.
            report: Called as each is done.
            stopped: Whether to take up no more; what is under way is finished.

        Raises:
            Exception: What one of them, or `report`, raised; no more are taken up, what is under way is finished first.
        """
        left = iter(letters)
        errors: list[Exception] = []

        async def lane() -> None:
            for stored in left:
                if stopped() or errors:
                    return
                account.claimed.add(stored.letter.letter_id)
                try:
                    result = await self._one(stored)
                    account.claimed.discard(result.letter_id)
                    account.results.append(result)
                    report(result)
                except Exception as error:  # noqa: BLE001 # raised below
                    errors.append(error)

        async with asyncio.TaskGroup() as group:
            for _ in range(min(CONCURRENT, len(letters))):
                group.create_task(lane())
        if errors:
            raise errors[0]

    async def _one(self, stored: StoredLetter) -> Result:
        letter_id = stored.letter.letter_id
        if stored.state == REDRIVING:
            await self._letters.release(letter_id)
        if not await self._letters.claim(letter_id):
            return Result(letter_id, Outcome.TAKEN)
        try:
            result = await self._again(letter_id)
        except TransientError as error:
            if not error.undone:
                return Result(letter_id, Outcome.UNCERTAIN, str(error))
            result = Result(letter_id, Outcome.REFUSED, str(error))
        except (AwsSetupError, InvalidRecordError) as error:
            result = Result(letter_id, Outcome.REFUSED, str(error))
        if result.outcome is Outcome.REDRIVEN:
            await self._letters.finish(letter_id, result.detail)
        else:
            await self._letters.release(letter_id)
        return result

    async def _again(self, letter_id: str) -> Result:
        stored = await self._letters.get(letter_id)
        if stored is None:
            return Result(letter_id, Outcome.GONE, "the letter itself has expired")
        if stored.letter.stage == "publish":
            return await self._publish(stored)
        letter = stored.letter
        stream = self._stream_of(letter.stream)
        payload = letter.payload
        if not stored.payload_kept:
            found = await record_at(self._kinesis, stream, letter.shard_id, letter.sequence)
            if found is None:
                return Result(letter_id, Outcome.GONE, f"{letter.stream}/{letter.shard_id}/{letter.sequence}")
            alone = self._registry.payload(found, *place_of(letter_id))
            if alone is None:
                return Result(letter_id, Outcome.NOT_DIVIDED, "change the sources back, or put the event by hand")
            payload = alone
        (landed,) = await KinesisWriter(self._once, stream).put([Put(letter.partition_key or letter_id, payload)])
        return Result(letter_id, Outcome.REDRIVEN, f"{letter.stream}/{landed.shard_id}/{landed.sequence}")

    async def _publish(self, stored: StoredLetter) -> Result:
        letter_id, key = stored.letter.letter_id, score_key(stored.letter.payload)
        if key is None:
            return Result(letter_id, Outcome.UNREADABLE)
        state = (await self._scores.load([key]))[key]
        if isinstance(state, Rejected):
            return Result(letter_id, Outcome.REFUSED, state.detail)
        if state.score is None:
            return Result(letter_id, Outcome.NO_SCORE)
        match (await self._scores.restate({key: state}))[0]:
            case Committed():
                return Result(letter_id, Outcome.REDRIVEN, f"revision {state.revision + 1}")
            case Conflict():
                return Result(letter_id, Outcome.REDRIVEN, "the score has changed meanwhile, which publishes it too")
            case Throttled():
                return Result(letter_id, Outcome.REFUSED, "the score table throttles")
            case Rejected() as refused:
                return Result(letter_id, Outcome.REFUSED, refused.detail)


def score_key(payload: bytes) -> UserKey | None:
    """Return whose score a `publish` letter is about; None where it names nobody."""
    try:
        scored = msgspec.json.decode(payload, type=_Scored)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    user = scored.user or scored.keys.get("UserId", {}).get("S", "")
    project = scored.project or scored.keys.get("PinpointProjectId", {}).get("S", "")
    return UserKey(user, project) if user and project else None
