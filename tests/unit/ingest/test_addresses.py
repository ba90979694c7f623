"""Whose an event is that names an address or an anonymous id: what events have taught, else the address itself."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from decimal import Decimal

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from service.ingest.commit import Committer
from service.ingest.definition_book import CurrentDefinitions
from service.ingest.identify import IdentityResolver, IdentitySettings
from service.ingest.identity_plan import alias_row
from service.ingest.identity_store import IdentityStore
from service.ingest.ingest import Ingest
from service.ingest.source_book import CurrentSources
from service.ingest.stores import AliasKey
from service.observability.metrics import Metrics
from service.runtime.adaptive_limit import AdaptiveLimit
from service.scoring.definitions import Definition
from service.scoring.event import Reason
from service.scoring.fold import ScoreState
from service.stream.ports import Batch, Record, StreamId
from tests.fakes.aio import EPOCH_MS, VirtualClock, run
from tests.fakes.dead_letters import MemoryDeadLetters
from tests.fakes.definitions import MemoryDefinitions
from tests.fakes.former import MemoryFormer
from tests.fakes.identities import MemoryIdentities, MemoryLookup, MemoryRows
from tests.fakes.scores import MemoryScores

P = "project"
STREAM = StreamId("events", "arn", "tag")
ADA, BEN = "ada@example.org", "ben@example.org"


class Step(msgspec.Struct, frozen=True):
    """A call of Segment's: `view` is worth 1 point, `buy` 1,000; `identify` scores nothing."""

    kind: str
    user: str = ""
    email: str = ""
    anonymous: str = ""

    def body(self) -> bytes:
        call: dict[str, object] = {
            "type": "identify" if self.kind == "identify" else "track",
            "event": self.kind,
            "messageId": "m",
            "context": {"project_id": P, "traits": {"email": self.email} if self.email else {}},
        }
        if self.user:
            call["userId"] = self.user
        if self.anonymous:
            call["anonymousId"] = self.anonymous
        return json.dumps(call).encode()


class World:
    def __init__(self, *, unknown_is_address: bool = True) -> None:
        self.identities = MemoryIdentities()
        self.former = MemoryFormer()
        self.lookup = MemoryLookup({})
        self.scores = MemoryScores()
        self.letters = MemoryDeadLetters()
        self.clock = VirtualClock()
        self.metrics = Metrics()
        self.unknown_is_address = unknown_is_address

    async def worker(self) -> Ingest:
        definitions = MemoryDefinitions([Definition("view", P, Decimal(1)), Definition("buy", P, Decimal(1000))])
        book = CurrentDefinitions(definitions, self.clock, self.metrics)
        await book.refresh()
        return Ingest(
            CurrentSources(),
            book,
            IdentityResolver(self.identities, self.former, self.lookup, IdentitySettings(), self.clock, self.metrics),
            Committer(self.scores, self.clock, self.metrics, AdaptiveLimit(), cache_entries=50, rng=random.Random(1)),
            self.letters,
            self.clock,
            self.metrics,
            unknown_is_address=self.unknown_is_address,
        )

    async def play(self, steps: Sequence[Step], cuts: Sequence[int] = ()) -> None:
        ingest = await self.worker()
        for batch in batches(steps, cuts):
            await ingest.commit(await ingest.prepare(batch))

    def totals(self) -> dict[str, int]:
        return {
            key.user_id: int(state.score or 0)
            for key, state in self.scores.items.items()
            if isinstance(state, ScoreState)
        }


def batches(steps: Sequence[Step], cuts: Sequence[int]) -> list[Batch[bytes]]:
    records = [Record(str(100 + n), step.body(), EPOCH_MS + n, "k", 1) for n, step in enumerate(steps)]
    ends = [*sorted({cut for cut in cuts if 0 < cut < len(records)}), len(records)]
    return [
        Batch(STREAM, "shardId-000000000000", records[start:end], float("inf"))
        for start, end in zip([0, *ends], ends, strict=False)
    ]


def expected(steps: Sequence[Step]) -> dict[str, int]:
    """The rule, said once more and without batches."""
    owners: dict[str, str] = {}
    totals: dict[str, int] = {}
    for step in steps:
        names = [name for name in (step.email, step.anonymous) if name]
        if step.user:
            owners |= dict.fromkeys(names, step.user)
        user = step.user or next((owners[name] for name in names if name in owners), step.email)
        points = {"view": 1, "buy": 1000}.get(step.kind, 0)
        if user and points:
            totals[user] = totals.get(user, 0) + points
    return totals


def test_an_address_without_a_user_is_a_user_itself_in_lower_case():
    world = World()
    run(world.play([Step("view", email="Ada <ADA@Example.org>"), Step("buy", email=ADA)]))
    assert world.totals() == {ADA: 1001}


def test_an_address_counts_for_the_user_once_an_event_names_both():
    steps = [Step("view", email=ADA), Step("identify", "u-1", ADA), Step("buy", email=ADA)]
    world = World()
    run(world.play(steps))
    assert world.totals() == {ADA: 1, "u-1": 1000}
    assert world.lookup.asked == []


def test_an_address_credited_once_is_not_credited_again_as_its_user():
    """The naming is durable when the events before it are read again, and must not reach back to them."""
    steps = [Step("view", email=ADA), Step("identify", "u-1", ADA), Step("buy", email=ADA)]
    world = World()
    run(world.play(steps))
    run(world.play(steps))
    assert world.totals() == {ADA: 1, "u-1": 1000}


def test_a_later_naming_keeps_the_position_of_the_first():
    """It took its own naming for the first. What came between the two, read again, counted for the address too."""
    steps = [Step("identify", "u-1", ADA), Step("view", email=ADA), Step("identify", "u-1", ADA)]
    world = World()
    run(world.play(steps[:2]))

    async def go_on(after: int) -> None:
        ingest = await world.worker()
        await ingest.commit(await ingest.prepare(batches(steps, [after])[1]))

    run(go_on(2))
    run(go_on(1))
    assert world.totals() == {"u-1": 1}


def test_set_aside_makes_a_dead_letter_of_an_unknown_address():
    world = World(unknown_is_address=False)
    run(world.play([Step("view", email=ADA)]))
    (letter,) = world.letters.letters.values()
    assert (letter.reason, world.totals()) == (Reason.UNRESOLVED_USER, {})
    steps = [Step("view", email=ADA), Step("identify", "u-1", ADA), Step("buy", email=ADA)]
    run(world.play(steps))
    assert (world.totals(), len(world.letters.letters)) == ({"u-1": 1000}, 1)


def test_an_anonymous_id_without_a_user_is_nobodys_and_no_letter():
    for policy in (True, False):
        world = World(unknown_is_address=policy)
        run(world.play([Step("view", anonymous="a-1")]))
        assert (world.totals(), world.letters.letters) == ({}, {})
        assert world.metrics.registry.get_sample_value("scoring_records_total", {"outcome": "anonymous"}) == 1


def test_of_several_names_the_first_that_leads_to_a_user_decides():
    world = World()
    run(
        world.play(
            [
                Step("identify", "u-1", anonymous="a-1"),
                Step("view", email=ADA, anonymous="a-1"),
                Step("identify", "u-2", email=BEN),
                Step("view", email=BEN, anonymous="a-1"),
            ]
        )
    )
    assert world.totals() == {"u-1": 1, "u-2": 1}


mails = st.sampled_from(["", ADA, BEN])
ids = st.sampled_from(["", "a-1", "a-2"])
users = st.sampled_from(["u1", "u2"])
steps_of = st.lists(
    st.builds(Step, st.sampled_from(["view", "buy"]), st.sampled_from(["", "", "u1", "u2"]), mails, ids)
    | st.builds(Step, st.just("identify"), users, mails, ids),
    min_size=1,
    max_size=16,
).map(lambda steps: [step for step in steps if step.user or step.email or step.anonymous])
cuts_of = st.lists(st.integers(1, 16), max_size=6)


@settings(max_examples=200, deadline=None)
@given(steps_of, cuts_of, st.lists(st.integers(0, 16), max_size=3), cuts_of)
def test_any_split_and_any_crash_gives_the_same_owners(
    steps: list[Step], cuts: list[int], crashes: list[int], other_cuts: list[int]
):
    """Each crash comes between `prepare` and `commit`, and everything is read again by a worker that knows nothing."""
    if not steps:
        return

    async def main() -> dict[str, int]:
        world = World()
        for commits in crashes:
            ingest = await world.worker()
            for number, batch in enumerate(batches(steps, cuts)[: commits + 1]):
                prepared = await ingest.prepare(batch)
                if number < commits:
                    await ingest.commit(prepared)
            cuts[:], other_cuts[:] = other_cuts, cuts
        await world.play(steps, cuts)
        return world.totals()

    assert run(main()) == expected(steps)


def test_the_row_of_an_address_touches_no_users_row():
    async def main() -> None:
        rows = MemoryRows()
        store = IdentityStore(rows, ttl_days=0)
        address, endpoint = AliasKey(ADA, P, "email"), AliasKey("TAB-1", P)
        await store.learn({address: "u-1"})
        assert list(rows.rows) == [("email#ada@example.org", P)]
        await store.learn({endpoint: "u-1"})
        assert set(rows.rows) == {("email#ada@example.org", P), ("endpoint#tab-1", P), ("user#u-1", P)}
        assert await store.find([address, endpoint, AliasKey(ADA, P)]) == {address: "u-1", endpoint: "u-1"}
        writes = rows.writes
        await store.learn({address: "u-1"})
        assert rows.writes == writes
        await store.learn({address: "u-2"})
        assert rows.rows[alias_row(address)].user_id == "u-2"

    run(main())
