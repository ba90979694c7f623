"""Events whose type has no definition: seen in metrics, log and table, whatever the types are called."""

from __future__ import annotations

import asyncio

import pytest
from structlog.testing import capture_logs

from service.ingest.stores import Undefined
from service.ingest.undefined import LOG_EVERY_S, MAX_STORED, STORE_EVERY_S, UndefinedTypes, merged
from service.observability.metrics import MAX_EVENT_TYPES, OTHER_TYPE, Metrics
from service.runtime.errors import TransientError
from tests.fakes.aio import EPOCH_MS, VirtualClock, in_virtual_time, run
from tests.fakes.clock import ManualClock
from tests.fakes.undefined import MemoryUndefined

CART = ("shop", "cart.abandoned")


class UndefinedSetup:
    def __init__(self) -> None:
        self.metrics, self.clock, self.table = Metrics(), ManualClock(), MemoryUndefined()
        self.types = UndefinedTypes(self.table, self.clock, self.metrics)

    def counted(self, label: str) -> float:
        name = "scoring_events_without_definition_total"
        return self.metrics.registry.get_sample_value(name, {"event_type": label}) or 0


def test_a_type_is_logged_once_an_hour_with_what_came_since():
    setup = UndefinedSetup()
    with capture_logs() as lines:
        for seconds in (0.0, 10.0, LOG_EVERY_S - 20, 10.0):
            setup.clock.now += seconds
            setup.types.note({CART: 3})
    assert [(line["event_type"], line["project"], line["events"]) for line in lines] == [
        ("cart.abandoned", "shop", 3),
        ("cart.abandoned", "shop", 9),
    ]
    assert {line["log_level"] for line in lines} == {"info"}


def test_the_same_type_of_another_project_has_a_line_of_its_own():
    setup = UndefinedSetup()
    with capture_logs() as lines:
        setup.types.note({CART: 1, ("shop2", "cart.abandoned"): 1})
    assert [line["project"] for line in lines] == ["shop", "shop2"]
    assert setup.counted("cart.abandoned") == 2


@pytest.mark.parametrize(
    "kind",
    [
        ("shop", "ben@example.com"),
        ("shop", "\x1b[31mred"),
        ("shop", "two words"),
        ("shop", "x" * 101),
        ("shop", ""),
        ("ben@example.com", "open"),
        ("\x1b]0;title\x07", "open"),
        ("shop", "tíldé"),
    ],
)
def test_foreign_text_is_in_no_label_and_in_no_line(kind: tuple[str, str]):
    setup = UndefinedSetup()
    with capture_logs() as lines:
        setup.types.note({kind: 2})
    assert setup.counted(OTHER_TYPE) == 2
    assert (lines[0]["event_type"], lines[0]["project"]) == (OTHER_TYPE, "")


def test_a_flood_of_types_takes_no_label_from_what_is_scored():
    setup = UndefinedSetup()
    with capture_logs() as lines:
        setup.types.note({("shop", f"type-{number}"): 1 for number in range(10_000)})
    assert setup.counted("type-0") == 1
    assert setup.counted(OTHER_TYPE) == 10_000 - MAX_EVENT_TYPES
    assert len(lines) == MAX_EVENT_TYPES + 1
    assert setup.metrics.event_type_label("_email.open") == "_email.open"
    assert setup.metrics.event_type_label("not a label") == OTHER_TYPE
    run(setup.types.store())
    assert len(setup.table.types) == MAX_EVENT_TYPES + 1


@in_virtual_time
async def test_what_is_counted_is_stored_and_a_failed_write_loses_nothing():
    setup = UndefinedSetup()

    setup.types.note({CART: 2})
    setup.table.faults.append(TransientError("throttled"))
    with pytest.raises(TransientError):
        await setup.types.store()
    setup.clock.now += 5
    setup.types.note({CART: 3})
    await setup.types.store()
    await setup.types.store()
    assert setup.table.types == [Undefined(*CART, 5, 5000)]


def test_it_is_stored_by_itself_also_after_a_failure():
    async def main() -> MemoryUndefined:
        table, clock = MemoryUndefined(), VirtualClock()
        types = UndefinedTypes(table, clock, Metrics())
        storing = asyncio.create_task(types.run())
        types.note({CART: 1})
        table.faults.append(TransientError("throttled"))
        await clock.sleep(2.5 * STORE_EVERY_S)
        storing.cancel()
        return table

    assert run(main()).types == [Undefined(*CART, 1, EPOCH_MS)]


def test_sums_are_bounded_sorted_and_forget_what_is_old():
    stored = [Undefined("p", f"t{number}", 1, number) for number in range(MAX_STORED + 50)]
    sums = merged(stored, [Undefined("p", "t7", 5, 10_000), Undefined("p", "t9", 1, 3)], oldest_ms=9)
    assert sums[0] == Undefined("p", "t7", 6, 10_000)
    assert len(sums) == MAX_STORED
    assert min(each.last_ms for each in sums) == MAX_STORED + 50 - MAX_STORED + 1
    assert [each.event_type for each in merged(stored[:12], [], oldest_ms=9)] == ["t10", "t11", "t9"]
