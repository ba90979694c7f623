"""Retrying dead letters: first a plan, then letter by letter; each is claimed, so that only one redrive retries it.

A letter of `ingest` or `commit` goes back on its stream as its original record. It gets a new sequence number, and
counts again if, contrary to its reason, it was counted before. If a record has several events, or an event concerns
several people, a letter is about one of them, and only that one is put on the stream. A letter of `publish` names a
stored score: its item's `Revision` is increased, and the table's stream brings it to the sinks again.

A record is put with a single attempt: an SDK would repeat a request whose answer was lost, and the event would count
twice. Such a letter stays unfinished, for a person to look at.

However a redrive ends, what is in flight is finished first; a letter that is cut off stays unfinished.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from enum import StrEnum

import msgspec

from service.aws.clients import AwsClient
from service.aws.schema import KEY_NAMES
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
"""Most letters per command."""
CONCURRENT = 8
"""Letters in progress at once."""

CONFLICTS = 5
"""Times that a score is written again while somebody else writes it first."""


class Outcome(StrEnum):
    """The outcome of a letter."""

    REDRIVEN = "redriven"
    TAKEN = "taken by another redrive"
    GONE = "payload not kept, and no longer on the stream"
    NOT_DIVIDED = "payload not kept, and the record no longer divides into the same events"
    NO_SCORE = "its score is gone"
    UNREADABLE = "names no user and project"
    REFUSED = "refused for now"
    UNCERTAIN = "unfinished"
    """No answer came: the record may or may not be on the stream."""


DONE = frozenset({Outcome.REDRIVEN, Outcome.TAKEN})
"""Outcomes that need no further action."""


class Result(msgspec.Struct, frozen=True):
    """The outcome of one letter, with a detail."""

    letter_id: str
    outcome: Outcome
    detail: str = ""


class _Scored(msgspec.Struct):
    """What the payload of a `publish` letter names: user and project, or the item's keys if it was not a score."""

    user: str = ""
    project: str = ""
    keys: dict[str, dict[str, str]] = {}


def due(letters: Sequence[StoredLetter], *, stuck: bool) -> list[StoredLetter]:
    """Return the letters to retry, oldest first: new ones and, if wanted, those of a redrive that died."""
    states = {NEW, REDRIVING} if stuck else {NEW}
    return sorted((stored for stored in letters if stored.state in states), key=lambda stored: stored.letter.at_ms)


class Account:
    """The outcomes so far, complete even if the redrive is cut off.

    Attributes:
        results: Results of finished letters, in the order they finished.
        claimed: Ids of letters in progress.
    """

    def __init__(self) -> None:
        self.results: list[Result] = []
        self.claimed: set[str] = set()

    def cut_off(self) -> None:
        """Record the letters in progress as unfinished."""
        self.results += [Result(letter_id, Outcome.UNCERTAIN, "not finished") for letter_id in sorted(self.claimed)]
        self.claimed.clear()


class Redriver:
    """Retries letters.

    Args:
        letters: The dead-letter table.
        scores: The score table.
        kinesis: A client that reads.
        once: A Kinesis client with a single attempt per call.
        registry: The sources in force, for splitting a record whose letter has no payload.
        stream_of: Returns the stream name for calls from the name in a letter.
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
        """Retry every letter, `CONCURRENT` at a time, in order.

        Args:
            letters: The letters.
            account: Receives the outcomes.
            report: Called for each finished letter.
            stopped: Whether to start no more; letters in progress are finished.

        Raises:
            Exception: What a letter or `report` raised; no more are started, and those in progress are finished first.
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
        for _ in range(CONFLICTS):
            state = (await self._scores.load([key]))[key]
            if isinstance(state, Rejected):
                return Result(letter_id, Outcome.REFUSED, state.detail)
            if state.score is None:
                return Result(letter_id, Outcome.NO_SCORE)
            match (await self._scores.restate({key: state}))[0]:
                case Committed():
                    return Result(letter_id, Outcome.REDRIVEN, f"revision {state.revision + 1}")
                case Conflict():
                    continue  # that change may be too small to be published (SCORING_PUBLISH_MIN_CHANGE)
                case Throttled():
                    return Result(letter_id, Outcome.REFUSED, "the score table throttles")
                case Rejected() as refused:
                    return Result(letter_id, Outcome.REFUSED, refused.detail)
        return Result(letter_id, Outcome.REFUSED, "the score keeps changing: try again")


def score_key(payload: bytes) -> UserKey | None:
    """Return the user of a `publish` letter's score; None if it names none."""
    try:
        scored = msgspec.json.decode(payload, type=_Scored)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    user = scored.user or scored.keys.get(KEY_NAMES[0], {}).get("S", "")
    project = scored.project or scored.keys.get(KEY_NAMES[1], {}).get("S", "")
    return UserKey(user, project) if user and project else None
