"""Sources that change while a worker runs."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from structlog.testing import capture_logs

from service.ingest.source_book import CurrentSources, SourceBook
from service.observability.metrics import Metrics
from service.scoring.event import Event
from service.sources.stored import SourceRow
from tests.fakes.aio import VirtualClock, run

SHOP = SourceRow("shop", "sources: [{name: shop, when: {type: order}, event_type: =order, user: u}]")
ORDER = b'{"type":"order","u":"ann"}'


class Store:
    def __init__(self) -> None:
        self.rows: list[SourceRow] = []

    def sources(self) -> Sequence[SourceRow]:
        return self.rows


def test_a_source_is_in_force_at_the_next_look():
    async def main() -> None:
        store, current, clock, metrics = Store(), CurrentSources(default_project="p"), VirtualClock(), Metrics()
        book = SourceBook(store, current, clock, metrics)
        book.refresh()
        assert not isinstance(current.registry.read(ORDER)[0], Event)
        store.rows.append(SHOP)
        running = asyncio.create_task(book.run())
        await clock.sleep(6)
        (event,) = current.registry.read(ORDER)
        assert isinstance(event, Event)
        assert (event.source, event.user_id, event.project_id) == ("shop", "ann", "p")
        registry = current.registry
        await clock.sleep(6)
        running.cancel()
        assert current.registry is registry  # nothing has changed, so nothing is made again

    run(main())


def test_a_faulty_source_is_reported_once_and_counted():
    async def main() -> list[dict[str, object]]:
        store, current, metrics = Store(), CurrentSources(), Metrics()
        book = SourceBook(store, current, VirtualClock(), metrics)
        store.rows = [SHOP, SourceRow("worse", "sources: 5")]
        with capture_logs() as logs:
            book.refresh()
            book.refresh()
        value = metrics.registry.get_sample_value
        assert (value("scoring_sources"), value("scoring_sources_malformed")) == (1, 1)
        return [dict(line) for line in logs]

    (line,) = run(main())
    assert (line["event"], line["source"], line["consequence"]) == ("source.malformed", "worse", "it is not in force")
    assert "scoring sources apply" in str(line["remedy"])
