"""To whom the events of a shard belong: a function of the stream, not of how it is cut into batches."""

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
from service.ingest.ingest import Ingest
from service.ingest.source_book import CurrentSources
from service.ingest.stores import AliasKey
from service.observability.metrics import Metrics
from service.runtime.adaptive_limit import AdaptiveLimit
from service.scoring.definitions import Definition
from service.scoring.fold import ScoreState, UserKey
from service.stream.ports import Batch, Record, StreamId
from tests.fakes.aio import EPOCH_MS, VirtualClock, run
from tests.fakes.dead_letters import MemoryDeadLetters
from tests.fakes.definitions import MemoryDefinitions
from tests.fakes.former import MemoryFormer
from tests.fakes.identities import MemoryIdentities, MemoryLookup
from tests.fakes.scores import MemoryScores

P = "project"
STREAM = StreamId("events", "arn", "tag")
SHARD = "shardId-000000000000"


class Step(msgspec.Struct, frozen=True):
    """An event: a session that names `user`, a sign-out that states there is none, or a click that says nothing."""

    endpoint: str
    kind: str
    user: str = ""

    def body(self) -> bytes:
        record: dict[str, object] = {
            "event_type": self.kind,
            "application": {"app_id": P},
            "client": {"client_id": self.endpoint},
        }
        if self.kind != "click":
            record["endpoint"] = {"User": {"UserId": self.user} if self.user else {}}
        return json.dumps(record).encode()


class AttributionSetup:
    """One worker after the other on one shard; `lookups` is what the owner of the endpoints would answer."""

    def __init__(self, known: dict[str, str], lookups: dict[str, str]) -> None:
        self.identities = MemoryIdentities({AliasKey(name, P): user for name, user in known.items()})
        self.former = MemoryFormer()
        self.lookup = MemoryLookup({AliasKey(name, P): user for name, user in lookups.items()})
        self.scores = MemoryScores()
        self.letters = MemoryDeadLetters()
        self.clock = VirtualClock()
        self.metrics = Metrics()

    async def worker(self) -> Ingest:
        definitions = MemoryDefinitions([Definition("click", P, Decimal(1)), Definition("session", P, Decimal(1000))])
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
        )

    def totals(self) -> dict[str, int]:
        return {
            key.user_id: int(state.score or 0)
            for key, state in self.scores.items.items()
            if isinstance(state, ScoreState)
        }


def batches(steps: Sequence[Step], cuts: Sequence[int]) -> list[Batch[bytes]]:
    records = [Record(str(100 + n), step.body(), EPOCH_MS + n, "k", 1) for n, step in enumerate(steps)]
    ends = [*sorted({cut for cut in cuts if 0 < cut < len(records)}), len(records)]
    found, start = [], 0
    for end in ends:
        found.append(Batch(STREAM, SHARD, records[start:end], float("inf")))
        start = end
    return [batch for batch in found if batch.records]


def expected(steps: Sequence[Step], known: dict[str, str], lookups: dict[str, str]) -> dict[str, int]:
    """The rule, said once more and without batches."""
    owners: dict[str, str] = dict(known)
    totals: dict[str, int] = {}
    for step in steps:
        if step.kind != "click":
            owners[step.endpoint] = step.user
        elif step.endpoint not in owners and lookups.get(step.endpoint):
            owners[step.endpoint] = lookups[step.endpoint]
        user = owners.get(step.endpoint, "")
        points = {"click": 1, "session": 1000}.get(step.kind, 0)
        if user and points:
            totals[user] = totals.get(user, 0) + points
    return totals


KIOSK = [*[Step("kiosk", "click")] * 20, Step("kiosk", "session", "u2"), Step("kiosk", "click")]


def test_clicks_before_a_change_of_hands_belong_to_the_former_user():
    """They went to whoever owned the endpoint at the end of the batch: u1 2, u2 1,020."""

    async def main() -> dict[str, int]:
        setup = AttributionSetup({"kiosk": "u1"}, {})
        ingest = await setup.worker()
        for batch in batches(KIOSK, []):
            await ingest.commit(await ingest.prepare(batch))
        return setup.totals()

    assert run(main()) == {"u1": 20, "u2": 1001}


def test_a_crash_after_a_change_of_hands_counts_no_click_for_both():
    """The change is known when the clicks before it are read again, and must not reach back to them."""

    async def main() -> dict[str, int]:
        setup = AttributionSetup({"kiosk": "u1"}, {})
        (batch,) = batches(KIOSK, [])
        first = await setup.worker()
        await first.commit(await first.prepare(batch))  # and dies before its checkpoint
        del setup.scores.items[UserKey("u2", P)]  # or before it wrote this score
        second = await setup.worker()
        await second.commit(await second.prepare(batch))
        return setup.totals()

    assert run(main()) == {"u1": 20, "u2": 1001}


def test_what_a_device_did_before_its_first_sign_in_stays_anonymous():
    steps = [*[Step("phone", "click")] * 3, Step("phone", "session", "ann"), Step("phone", "click")]

    async def main(cuts: Sequence[int]) -> dict[str, int]:
        setup = AttributionSetup({}, {})
        ingest = await setup.worker()
        for batch in batches(steps, cuts):
            await ingest.commit(await ingest.prepare(batch))
        return setup.totals()

    assert run(main([])) == run(main([3])) == run(main([1, 2, 3, 4])) == {"ann": 1001}


names = st.sampled_from(["kiosk", "phone", "tablet"])
users = st.sampled_from(["u1", "u2", "u3"])
steps_of = st.lists(
    st.builds(Step, names, st.just("click"))
    | st.builds(Step, names, st.just("session"), users)
    | st.builds(Step, names, st.just("sign-out")),
    min_size=1,
    max_size=24,
)
maps = st.dictionaries(names, users)
lookups_of = st.dictionaries(names, users | st.just(""))
cuts_of = st.lists(st.integers(1, 24), max_size=8)


@settings(max_examples=300, deadline=None)
@given(steps_of, cuts_of, maps, lookups_of)
def test_any_split_into_batches_gives_the_same_owners(
    steps: list[Step], cuts: list[int], known: dict[str, str], lookups: dict[str, str]
):
    async def main() -> dict[str, int]:
        setup = AttributionSetup(known, lookups)
        ingest = await setup.worker()
        for batch in batches(steps, cuts):
            await ingest.commit(await ingest.prepare(batch))
        assert not setup.letters.letters
        return setup.totals()

    assert run(main()) == expected(steps, known, lookups)


@settings(max_examples=300, deadline=None)
@given(steps_of, cuts_of, st.dictionaries(names, users, min_size=3), st.lists(st.integers(0, 24), max_size=3), cuts_of)
def test_any_crash_and_any_other_split_afterwards_gives_the_same_owners(
    steps: list[Step], cuts: list[int], known: dict[str, str], crashes: list[int], other_cuts: list[int]
):
    """Of endpoints that are known: each crash comes between `prepare` and `commit`, and everything is read again."""

    async def main() -> dict[str, int]:
        setup = AttributionSetup(known, {})
        for commits in crashes:
            ingest = await setup.worker()
            for number, batch in enumerate(batches(steps, cuts)[: commits + 1]):
                prepared = await ingest.prepare(batch)
                if number < commits:
                    await ingest.commit(prepared)
            cuts[:], other_cuts[:] = other_cuts, cuts
        ingest = await setup.worker()
        for batch in batches(steps, cuts):
            await ingest.commit(await ingest.prepare(batch))
        return setup.totals()

    assert run(main()) == expected(steps, known, {})
