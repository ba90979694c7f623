"""`DeadLetters`: one suite for the fake and for DynamoDB; and the table's reading side."""

from __future__ import annotations

import random

import msgspec
import pytest

from service.aws.clients import Clients
from service.aws.tables.dead_letters import MAX_PAYLOAD_BYTES, NEW, REDRIVEN, REDRIVING, DeadLetterTable, StoredLetter
from service.aws.translation import AwsSetupError
from service.ingest.letters import publish_letter_id, record_letter_id, sortable
from service.ingest.stores import DeadLetter
from service.scoring.event import Reason
from tests.fakes.dead_letters import MemoryDeadLetters
from tests.fakes.embedded import MakeTable, Run

pytestmark = pytest.mark.usefixtures("fast_calls")


def an_id(number: int) -> str:
    return record_letter_id("tag-0", str(10**55 + number))


def letter(number: int = 0, payload: bytes = b'{"event_type": 7}', reason: Reason = Reason.WRONG_TYPE) -> DeadLetter:
    return DeadLetter(
        letter_id=an_id(number),
        stage="ingest",
        reason=reason,
        detail="event_type is a number",
        stream="events",
        shard_id="shardId-000000000000",
        sequence=str(10**55 + number),
        partition_key="schlüssel",
        at_ms=1_700_000_000_000,
        payload=payload,
        payload_size=len(payload),
    )


class Letters:
    def __init__(self, port: DeadLetterTable | MemoryDeadLetters, run: Run) -> None:
        self.port, self._run = port, run

    def read(self, letter_id: str) -> DeadLetter | None:
        if isinstance(self.port, MemoryDeadLetters):
            return self.port.letters.get(letter_id)
        stored = self._run(self.port.get(letter_id))
        return stored.letter if stored else None


@pytest.fixture(params=["memory", "dynamodb"])
def letters(request: pytest.FixtureRequest, run: Run) -> Letters:
    if request.param == "memory":
        return Letters(MemoryDeadLetters(), run)
    return Letters(request.getfixturevalue("table"), run)


@pytest.fixture
def table(make_table: MakeTable, aws_clients: Clients) -> DeadLetterTable:
    return DeadLetterTable(aws_clients.dynamodb, make_table("dead_letters"), ttl_days=14, wall_s=lambda: 1000.0)


@pytest.mark.parametrize("payload", [b"", b"\xff\x00not utf-8", b"{}" * 300_000])
def test_what_is_put_is_kept(letters: Letters, run: Run, payload: bytes):
    run(letters.port.put([letter(payload=payload)]))
    assert letters.read(an_id(0)) == letter(payload=payload)
    assert letters.read(an_id(1)) is None


def test_no_letters_are_no_call(letters: Letters, run: Run):
    run(letters.port.put([]))


def test_a_letter_that_is_there_stays_as_it_is(letters: Letters, run: Run):
    run(letters.port.put([letter()]))
    later = msgspec.structs.replace(letter(), at_ms=1_800_000_000_000)
    run(letters.port.put([later, letter(1)]))
    assert letters.read(an_id(0)) == letter()
    assert letters.read(an_id(1)) == letter(1)


def test_of_one_letter_twice_in_a_call_the_first_is_kept(letters: Letters, run: Run):
    run(letters.port.put([letter(), msgspec.structs.replace(letter(), at_ms=5)]))
    assert letters.read(an_id(0)) == letter()


def test_any_number_of_letters_is_kept(letters: Letters, run: Run):
    run(letters.port.put([letter(number) for number in range(230)]))
    assert all(letters.read(an_id(number)) == letter(number) for number in range(0, 230, 23))
    assert letters.read(an_id(229)) == letter(229)


def test_of_a_record_too_large_the_pointer_and_size_are_kept(table: DeadLetterTable, run: Run):
    noise = random.Random(7).randbytes(MAX_PAYLOAD_BYTES + 10_000)
    run(table.put([letter(0, noise), letter(1)]))
    stored = run(table.get(an_id(0)))
    assert stored.payload_kept is False
    assert stored.letter == msgspec.structs.replace(letter(0, noise), payload=b"")
    assert run(table.get(an_id(1))).payload_kept is True


def test_many_large_letters_go_in_calls_of_bounded_size(table: DeadLetterTable, run: Run):
    noise = random.Random(7).randbytes(MAX_PAYLOAD_BYTES - 10_000)
    run(table.put([letter(number, noise) for number in range(26)]))
    assert run(table.get(an_id(25))).letter.payload == noise


def test_a_letter_expires(table: DeadLetterTable, run: Run):
    run(table.put([letter()]))
    stored = run(table.get(an_id(0)))
    assert (stored.state, stored.state_ms, stored.expires_s) == (NEW, 1_000_000, 1000 + 14 * 86_400)


def test_letters_are_listed_by_reason_and_stage_without_payloads(table: DeadLetterTable, run: Run):
    publish = msgspec.structs.replace(letter(9), letter_id=publish_letter_id("9"), stage="publish")
    run(table.put([letter(0), letter(1, reason=Reason.NOT_JSON), publish]))

    async def listed(**which: object) -> dict[str, StoredLetter]:
        return {stored.letter.letter_id: stored async for stored in table.letters(**which)}

    everything = run(listed())
    assert set(everything) == {an_id(0), an_id(1), publish_letter_id("9")}
    assert everything[an_id(0)].payload_kept
    assert everything[an_id(0)].letter == msgspec.structs.replace(letter(0), payload=b"")
    assert set(run(listed(reason=Reason.WRONG_TYPE))) == {an_id(0), publish_letter_id("9")}
    assert set(run(listed(stage="ingest"))) == {an_id(0), an_id(1)}
    assert set(run(listed(stage="ingest", reason=Reason.NOT_JSON))) == {an_id(1)}


def test_only_one_redrive_gets_a_letter(table: DeadLetterTable, run: Run):
    run(table.put([letter()]))
    assert run(table.claim(an_id(0))) is True
    assert run(table.claim(an_id(0))) is False
    assert run(table.get(an_id(0))).state == REDRIVING
    assert run(table.finish(an_id(0))) is True
    assert run(table.claim(an_id(0))) is False
    assert run(table.claim(an_id(7))) is False


def test_a_claim_can_be_given_back(table: DeadLetterTable, run: Run):
    run(table.put([letter()]))
    assert run(table.release(an_id(0))) is False
    run(table.claim(an_id(0)))
    assert run(table.release(an_id(0))) is True
    assert run(table.claim(an_id(0))) is True


def test_a_replay_does_not_bring_a_redriven_letter_back(table: DeadLetterTable, run: Run):
    run(table.put([letter()]))
    run(table.claim(an_id(0)))
    run(table.finish(an_id(0)))
    run(table.put([letter()]))
    assert run(table.get(an_id(0))).state == REDRIVEN


def test_a_letter_can_be_removed(table: DeadLetterTable, run: Run):
    run(table.put([letter()]))
    assert run(table.remove(an_id(0))) is True
    assert run(table.remove(an_id(0))) is False


def test_a_missing_table_is_named(aws_clients: Clients, run: Run):
    with pytest.raises(AwsSetupError, match=r"no-such-table.*SCORING_DEAD_LETTERS_TABLE"):
        run(DeadLetterTable(aws_clients.dynamodb, "no-such-table").put([letter()]))


def test_the_letters_of_a_stretch_of_a_shard_are_found(letters: Letters, run: Run):
    other_shard = msgspec.structs.replace(letter(3), letter_id=record_letter_id("tag-1", str(10**55 + 3)))
    run(letters.port.put([*(letter(number) for number in (1, 3, 5, 9)), other_shard]))

    def between(first: int, last: int) -> set[str]:
        found = letters.port.between("tag-0", sortable(str(10**55 + first)), sortable(str(10**55 + last)))
        return set(run(found))

    assert between(3, 5) == {an_id(3), an_id(5)}
    assert between(0, 100) == {an_id(1), an_id(3), an_id(5), an_id(9)}
    assert between(6, 8) == set()
    assert set(run(letters.port.between("tag-2", sortable("0"), sortable("9" * 56)))) == set()
