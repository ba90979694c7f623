"""Every built-in source, from its samples to scores, with the definitions that `scoring setup` writes."""

from __future__ import annotations

import random
from decimal import Decimal
from pathlib import Path

import pytest

from service.ingest.commit import Committer
from service.ingest.definition_book import CurrentDefinitions
from service.ingest.identify import IdentityResolver, IdentitySettings
from service.ingest.ingest import Ingest
from service.ingest.source_book import CurrentSources
from service.observability.metrics import Metrics
from service.runtime.adaptive_limit import AdaptiveLimit
from service.scoring.definitions import DEFAULT_POINTS, Definition
from service.scoring.fold import ScoreState
from tests.fakes.aio import VirtualClock, run
from tests.fakes.dead_letters import MemoryDeadLetters
from tests.fakes.definitions import MemoryDefinitions
from tests.fakes.former import MemoryFormer
from tests.fakes.identities import MemoryIdentities
from tests.fakes.ingest import batch
from tests.fakes.scores import MemoryScores

SAMPLES = Path(__file__).parents[2] / "samples"
PROJECT = "shop"
OTHERS = {"Product Viewed": 1, "Order Completed": 100, "shop.order.placed": 30, "_whatsapp.read": 3}
WHATSAPP = (
    b'{"source":"aws.social-messaging","detail-type":"WhatsApp Message Read","time":"2026-11-20T10:00:00Z",'
    b'"detail":{"messageId":"m","eventTimestamp":"1795168800","context":{"user_id":"u-1"}}}'
)

EXPECTED: dict[str, tuple[dict[str, int], dict[str, int]]] = {
    # Delivered 2, opens 10 + 10, click 50, hard bounce -1000, complaint -1000, unsubscribed -500, open 10, a delivery
    # to an address that the first event has named with the user 2.
    "ses": ({"u-1": -2416}, {"ambiguous": 1, "ignored": 3}),
    # Delivered 2, and 2 to a number that the first event has named with the user.
    "sms": ({"u-1": 4}, {"ignored": 4}),
    # Delivered 2, open 10, click 50; nobody has named a user of the address.
    "connect-campaigns": ({"ada@example.org": 62}, {"ignored": 1, "skipped": 2}),
    "cloudevents": ({"u-2": 30}, {"ignored": 2}),
    # The order names only the anonymous id that `identify` has named with the user.
    "segment": ({"u-1": 101}, {"taught": 1, "ignored": 1}),
    "whatsapp": ({"u-1": 3}, {}),
}


@pytest.mark.parametrize("name", EXPECTED)
def test_samples_come_to_the_scores_worked_out_by_hand(name: str):
    scores, letters, clock, metrics = MemoryScores(), MemoryDeadLetters(), VirtualClock(), Metrics()
    points = {**DEFAULT_POINTS, **{kind: Decimal(worth) for kind, worth in OTHERS.items()}}
    book = CurrentDefinitions(
        MemoryDefinitions([Definition(kind, PROJECT, worth) for kind, worth in points.items()]), clock, metrics
    )
    lines = [WHATSAPP] if name == "whatsapp" else (SAMPLES / f"{name}.jsonl").read_bytes().splitlines()

    async def main() -> None:
        await book.refresh()
        ingest = Ingest(
            CurrentSources(default_project=PROJECT),
            book,
            IdentityResolver(MemoryIdentities(), MemoryFormer(), None, IdentitySettings(), clock, metrics),
            Committer(scores, clock, metrics, AdaptiveLimit(), cache_entries=10, rng=random.Random(1)),
            letters,
            clock,
            metrics,
        )
        await ingest.commit(await ingest.prepare(batch(*lines)))

    run(main())
    totals = {
        key.user_id: int(state.score or 0) for key, state in scores.items.items() if isinstance(state, ScoreState)
    }
    counted = {
        outcome: metrics.registry.get_sample_value("scoring_records_total", {"outcome": outcome}) or 0
        for outcome in ("ambiguous", "ignored", "skipped", "taught", "anonymous", "dead_lettered")
    }
    assert (totals, {outcome: count for outcome, count in counted.items() if count}) == EXPECTED[name]
    assert letters.letters == {}
