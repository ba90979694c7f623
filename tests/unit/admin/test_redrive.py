"""Redriving when something breaks off: what is under way is finished, and every letter is accounted for."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import msgspec
import pytest

from service.admin.redrive import CONCURRENT, Account, Outcome, Redriver, Result, score_key
from service.aws.tables.dead_letters import StoredLetter
from service.ingest.stores import COMMITTED, Conflict, DeadLetter
from service.scoring.event import Reason
from service.scoring.fold import Origin, ScoreState, UserKey
from service.sources.registry import Registry

COUNT = 3 * CONCURRENT


def stored(number: int) -> StoredLetter:
    letter = DeadLetter(f"l.{number:02}", "ingest", Reason.NOT_JSON, "", "events", "s", "1", "k", number, b"{}", 2)
    return StoredLetter(letter, payload_kept=True, state="new", state_ms=0, expires_s=0)


LETTERS = [stored(number) for number in range(COUNT)]


class Table:
    """The states of letters."""

    def __init__(self) -> None:
        self.states = {each.letter.letter_id: "new" for each in LETTERS}

    async def get(self, letter_id: str) -> StoredLetter:
        return next(each for each in LETTERS if each.letter.letter_id == letter_id)

    async def _set(self, letter_id: str, state: str) -> bool:
        await asyncio.sleep(0)
        self.states[letter_id] = state
        return True

    async def claim(self, letter_id: str) -> bool:
        return await self._set(letter_id, "redriving")

    async def finish(self, letter_id: str, _where: str) -> bool:
        return await self._set(letter_id, "redriven")

    async def release(self, letter_id: str) -> bool:
        return await self._set(letter_id, "new")


class Kinesis:
    """PutRecords that does what it is told to with the n-th call."""

    def __init__(self, on_call: Callable[[int], None] = lambda _: None) -> None:
        self.calls = 0
        self._on_call = on_call

    async def put_records(self, **_: object) -> dict[str, Any]:
        self.calls += 1
        call = self.calls
        await asyncio.sleep(0)
        self._on_call(call)
        return {"Records": [{"ShardId": "s", "SequenceNumber": "1"}]}


def redrive(
    table: Table,
    kinesis: Kinesis,
    report: Callable[[Result], None] = lambda _: None,
    stopped: Callable[[], bool] = lambda: False,
) -> Account:
    account = Account()
    redriver = Redriver(table, None, kinesis, kinesis, Registry())  # as much of a table as is needed
    try:
        asyncio.run(redriver.redrive(LETTERS, account, report, stopped))
    except AssertionError as error:
        assert str(error) == "bug"  # noqa: PT017 # the account is looked at after it
    return account


def test_every_letter_is_redriven_once():
    table, kinesis = Table(), Kinesis()
    account = redrive(table, kinesis)
    assert {result.outcome for result in account.results} == {Outcome.REDRIVEN}
    assert kinesis.calls == COUNT
    assert set(table.states.values()) == {"redriven"}


def test_one_letter_that_fails_cuts_no_other_off():
    def bug(call: int) -> None:
        if call == 3:
            raise AssertionError("bug")

    table = Table()
    account = redrive(table, Kinesis(bug))
    states = list(table.states.values())
    assert states.count("redriving") == len(account.claimed) == 1
    assert states.count("redriven") == len(account.results) >= CONCURRENT - 1
    assert "new" in states
    account.cut_off()
    assert [result.letter_id for result in account.results if result.outcome is Outcome.UNCERTAIN] == ["l.02"]


def test_a_reader_that_goes_away_cuts_no_letter_off():
    def gone(_: Result) -> None:
        raise AssertionError("bug")

    table = Table()
    account = redrive(table, Kinesis(), gone)
    assert "redriving" not in table.states.values()
    assert list(table.states.values()).count("redriven") == len(account.results) < COUNT


def test_stopping_takes_up_no_more_letters():
    table, asked = Table(), list[bool]()
    account = redrive(table, Kinesis(lambda _: asked.append(True)), stopped=lambda: bool(asked))
    assert len(account.results) == CONCURRENT
    assert list(table.states.values()).count("new") == COUNT - CONCURRENT


@pytest.mark.parametrize(
    ("payload", "key"),
    [
        (b'{"user":"u","project":"p"}', UserKey("u", "p")),
        (b'{"keys":{"UserId":{"S":"u"},"PinpointProjectId":{"S":"p"}}}', UserKey("u", "p")),
        (b'{"user":"u"}', None),
        (b"not json", None),
        (b"\xff", None),
    ],
)
def test_a_publish_letter_names_a_score(payload: bytes, key: UserKey | None):
    assert score_key(payload) == key


class BusyScores:
    """A score that somebody else writes first, a few times."""

    def __init__(self, conflicts: int) -> None:
        self.conflicts = conflicts

    async def load(self, keys: list[UserKey]) -> dict[UserKey, ScoreState]:
        return {key: ScoreState(Origin.OURS, Decimal(5), 7 - self.conflicts, {}, 0) for key in keys}

    async def restate(self, _: dict[UserKey, ScoreState]) -> list[object]:
        self.conflicts -= 1
        return [COMMITTED if self.conflicts < 0 else Conflict(None)]


@pytest.mark.parametrize(("conflicts", "outcome"), [(0, Outcome.REDRIVEN), (4, Outcome.REDRIVEN), (9, Outcome.REFUSED)])
def test_a_score_is_written_again_though_somebody_else_is_first(conflicts: int, outcome: Outcome):
    redriver = Redriver.__new__(Redriver)
    redriver._scores = BusyScores(conflicts)
    payload = b'{"user": "ann", "project": "p", "score": "5", "revision": 1}'
    letter = msgspec.structs.replace(stored(1), letter=msgspec.structs.replace(stored(1).letter, payload=payload))
    assert asyncio.run(redriver._publish(letter)).outcome is outcome
