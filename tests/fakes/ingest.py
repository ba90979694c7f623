"""An `Ingest` with everything around it in memory, and the records that tests give it."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from decimal import Decimal

from service.ingest.commit import Committer
from service.ingest.definition_book import CurrentDefinitions
from service.ingest.identify import IdentityResolver, IdentitySettings
from service.ingest.ingest import Ingest
from service.ingest.source_book import CurrentSources
from service.ingest.undefined import UndefinedTypes
from service.observability.metrics import Metrics
from service.runtime.adaptive_limit import AdaptiveLimit
from service.scoring.definitions import Definition
from service.scoring.event import Reason
from service.scoring.fold import ScoreState, UserKey
from service.stream.ports import Batch, Record, StreamId
from tests.fakes.aio import EPOCH_MS, VirtualClock, run
from tests.fakes.dead_letters import MemoryDeadLetters
from tests.fakes.definitions import MemoryDefinitions
from tests.fakes.former import MemoryFormer
from tests.fakes.identities import MemoryIdentities, MemoryLookup
from tests.fakes.scores import MemoryScores
from tests.fakes.undefined import MemoryUndefined

P = "project"
STREAM = StreamId("events", "arn", "tag")


def body(event_type: str, endpoint: str = "", user: str = "", project: str = P, **attributes: str) -> bytes:
    record: dict[str, object] = {
        "event_type": event_type,
        "arrival_timestamp": 5,
        "application": {"app_id": project},
        "client": {"client_id": endpoint},
        "attributes": attributes,
    }
    if user:
        record["client_context"] = {"custom": {"endpoint": json.dumps({"User": {"UserId": user}})}}
    return json.dumps(record).encode()


class IngestSetup:
    def __init__(
        self, *, project_ids: Sequence[str] = (), lookup: MemoryLookup | None = None, ask_transactional: bool = False
    ) -> None:
        self.metrics = Metrics()
        self.scores = MemoryScores()
        self.letters = MemoryDeadLetters()
        self.identities = MemoryIdentities()
        self.former = MemoryFormer()
        self.definitions = MemoryDefinitions(
            [
                Definition("open", P, Decimal(10)),
                Definition("_campaign.send", P, Decimal(2)),
                Definition("_email.open", P, Decimal(5)),
            ]
        )
        clock = VirtualClock()
        self.undefined = UndefinedTypes(MemoryUndefined(), clock, self.metrics)
        self.book = CurrentDefinitions(self.definitions, clock, self.metrics)
        self.restart = lambda: Ingest(
            CurrentSources(),
            self.book,
            IdentityResolver(self.identities, self.former, lookup, IdentitySettings(), clock, self.metrics),
            Committer(self.scores, clock, self.metrics, AdaptiveLimit(), cache_entries=10, rng=random.Random(1)),
            self.letters,
            clock,
            self.metrics,
            project_ids=project_ids,
            ask_transactional=ask_transactional,
            undefined=self.undefined,
        )

    def play(self, *batches: Batch[bytes], definitions: bool = True) -> None:
        async def main() -> None:
            if definitions:
                await self.book.refresh()
            ingest = self.restart()
            for each in batches:
                await ingest.commit(await ingest.prepare(each))

        run(main())

    def score(self, user: str) -> Decimal | None:
        state = self.scores.items.get(UserKey(user, P))
        return state.score if isinstance(state, ScoreState) else None

    def counted(self, outcome: str) -> float:
        return self.metrics.registry.get_sample_value("scoring_records_total", {"outcome": outcome}) or 0

    def reasons(self) -> list[Reason]:
        return [letter.reason for letter in self.letters.letters.values()]


def batch(*bodies: bytes, first: int = 1, shard: str = "shardId-000000000000", replayed: bool = True) -> Batch[bytes]:
    records = [Record(str(first + n), data, EPOCH_MS, f"key-{n}", len(data)) for n, data in enumerate(bodies)]
    return Batch(STREAM, shard, records, float("inf"), replayed=replayed)
