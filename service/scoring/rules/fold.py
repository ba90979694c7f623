"""How events change a person's state. The result depends on the events alone, not on their order or batches.

Where order matters all the same, and what holds then:

- A cap over more than a day, together with decay: which of the capped events counted decides how old the count is.
- More once entries than are kept: the oldest are forgotten, and a repeat of them counts again (`evictions`).
- An event of a window older than the one before the newest seen is not counted (`late`).
- A person with more than `MAX_BUCKETS` active days in an expiring group: days are merged (`decay`).
"""

from __future__ import annotations

from collections.abc import Iterable
from decimal import Decimal

import msgspec

from service.scoring.rules.decay import add_decaying, add_expiring, day_of
from service.scoring.rules.evaluate import Hit
from service.scoring.rules.model import FOREIGN_SLOT, MICRO, Cap, Rule, Window
from service.scoring.rules.state import (
    DECAYING,
    EXACT,
    EXPIRING,
    LAST_BYTES,
    LAST_EVENTS,
    MAX_STATE_BYTES,
    ONCE_BYTES,
    PLAIN,
    STAMP,
    PersonState,
    Slot,
    Used,
    found_at,
    last_entry,
    once_entry,
    pack,
    with_entry,
)

_GROWTH = 8
"""Bytes by which the number of evictions may grow."""


class RuleEvent(msgspec.Struct, frozen=True, gc=False):
    """One event of a person as the rules see it.

    Attributes:
        arrival_ms: When it arrived, epoch milliseconds.
        hits: The rules it meets.
        event_hash: Hash of its sender's id, to drop duplicates of at-least-once senders; empty: no such id.
    """

    arrival_ms: int
    hits: tuple[Hit, ...]
    event_hash: bytes = b""


class Absorbed(msgspec.Struct, frozen=True, gc=False):
    """What became of a person's events.

    Attributes:
        state: The state after them.
        duplicates: Events whose sender's id had been seen.
        repeats: Hits not counted, as `once` had seen their message or campaign.
        capped: Hits not counted, or in part, as a cap was reached.
        late: Hits not counted, as their cap's window is too old.
        evicted: Once entries dropped.
    """

    state: PersonState
    duplicates: int = 0
    repeats: int = 0
    capped: int = 0
    late: int = 0
    evicted: int = 0


def window_of(window: Window, day: int) -> int:
    """Return the index of the calendar window that a day belongs to; weeks begin on Monday."""
    match window:
        case Window.DAY:
            return day
        case Window.WEEK:
            return (day + 3) // 7
        case Window.MONTH:
            return _month(day)
        case Window.LIFE:
            return 0


def _month(day: int) -> int:
    """Return months since year 0 of a day counted from 1970-01-01, by the proleptic Gregorian calendar.

    Howard Hinnant's `civil_from_days` (https://howardhinnant.github.io/date_algorithms.html): no clock, no year limit.
    """
    era, of_era = divmod(day + 719_468, 146_097)
    year_of_era = (of_era - of_era // 1460 + of_era // 36_524 - of_era // 146_096) // 365
    of_year = of_era - (365 * year_of_era + year_of_era // 4 - year_of_era // 100)
    shifted = (5 * of_year + 2) // 153
    month = shifted + 3 if shifted < 10 else shifted - 9  # noqa: PLR2004 - March is month 0 of the shifted year
    return (year_of_era + era * 400 + (month <= 2)) * 12 + month  # noqa: PLR2004 - January and February


def granted(cap: Cap, used: Used | None, day: int, value: int) -> tuple[int, Used, bool]:
    """Return how much of `value` a cap lets through, what is used then, and whether the window is too old."""
    window = window_of(cap.window, day)
    if used is None:
        used = Used(window, 0)
    if window > used.window:
        used = Used(window, 0, used.current if window == used.window + 1 else 0)
    if window < used.window - 1:
        return 0, used, True
    size = abs(value) if cap.in_points else 1
    before = used.current if window == used.window else used.previous
    free = max(0, cap.limit - before)
    taken = min(size, free)
    after = before + taken
    used = Used(window, after, used.previous) if window == used.window else Used(used.window, used.current, after)
    if not cap.in_points:
        return (value if taken else 0), used, False
    return (taken if value >= 0 else -taken), used, False


def absorb(state: PersonState, events: Iterable[RuleEvent], once_entries: int) -> Absorbed:
    """Return the state after `events`, none of which is in it yet."""
    work = _Work(state)
    for event in events:
        work.take(event)
    return work.finish(once_entries)


def adopt_foreign(state: PersonState, points: Decimal) -> PersonState:
    """Return the state after something else added `points` to `Score`: they count undecayed, in the group `main`."""
    if not points:
        return state
    nano = int(EXACT.scaleb(points, 9))
    slot = state.slots.get(FOREIGN_SLOT)
    total = nano + (slot.sums.get(0, 0) if slot is not None else 0)
    return msgspec.structs.replace(state, slots={**state.slots, FOREIGN_SLOT: Slot(PLAIN, {0: total})})


class _Work:
    """A state while events are added to it."""

    def __init__(self, state: PersonState) -> None:
        self._before = state
        self._slots = dict(state.slots)
        self._once = state.once
        self._last = state.last
        self._duplicates = self._repeats = self._capped = self._late = 0

    def take(self, event: RuleEvent) -> None:
        day = day_of(event.arrival_ms)
        if event.event_hash and self._seen(event.event_hash, day):
            self._duplicates += 1
            return
        second = event.arrival_ms // 1000
        for hit in event.hits:
            # Before anything is dropped: which of several repeats is counted depends on their order.
            self._last = with_entry(self._last, last_entry(second, hit.rule.slot))[-LAST_EVENTS * LAST_BYTES :]
            if hit.once and self._seen(hit.once, day):
                self._repeats += 1
            else:
                self._count(hit.rule, hit.value, event.arrival_ms, day)

    def _seen(self, digest: bytes, day: int) -> bool:
        at = found_at(self._once, digest)
        entry = once_entry(digest, day)
        if at < 0:
            self._once = with_entry(self._once, entry)
        elif entry > self._once[at : at + ONCE_BYTES]:
            self._once = with_entry(self._once[:at] + self._once[at + ONCE_BYTES :], entry)
        return at >= 0

    def _count(self, rule: Rule, value: int, arrival_ms: int, day: int) -> None:
        slot = self._slots.get(rule.slot)
        if rule.is_stamp:
            newest = arrival_ms if slot is None else max(slot.sums.get(0, 0), arrival_ms)
            self._slots[rule.slot] = Slot(STAMP, {0: newest})
            return
        used = None if slot is None else slot.used
        if rule.cap is not None:
            given, used, late = granted(rule.cap, used, day, self._points(rule, value))
            self._late += late
            self._capped += not late and given != self._points(rule, value)
            value = self._share(rule, value, given)
        sums = {} if slot is None else slot.sums
        if not value:
            kind = slot.kind if slot is not None else _kind(rule)
            self._slots[rule.slot] = Slot(kind, sums, used)
        elif rule.half_life:
            self._slots[rule.slot] = Slot(DECAYING, add_decaying(sums, day, rule.half_life, value), used)
        elif rule.expire:
            self._slots[rule.slot] = Slot(EXPIRING, add_expiring(sums, day, rule.expire, value), used)
        else:
            self._slots[rule.slot] = Slot(PLAIN, {0: sums.get(0, 0) + value}, used)

    @staticmethod
    def _points(rule: Rule, value: int) -> int:
        """Return what a cap counts: events, or millionths of points."""
        if rule.cap is None or not rule.cap.in_points or rule.points is None:
            return value
        return int(rule.points * MICRO)

    @staticmethod
    def _share(rule: Rule, value: int, given: int) -> int:
        """Return what is added to the sum where a cap gave `given`: of fixed points, a share of one event."""
        if rule.cap is None or not rule.cap.in_points or rule.points is None:
            return given
        whole = abs(int(rule.points * MICRO))
        return value * abs(given) // whole if whole else 0

    def finish(self, once_entries: int) -> Absorbed:
        before, once = self._before, self._once
        evicted = max(0, len(once) // ONCE_BYTES - once_entries)
        state = PersonState(
            self._slots,
            once[evicted * ONCE_BYTES :],
            self._last,
            before.published,
            before.tier_day,
            before.evictions + evicted,
        )
        return Absorbed(state, self._duplicates, self._repeats, self._capped, self._late, evicted)


def _kind(rule: Rule) -> int:
    return DECAYING if rule.half_life else EXPIRING if rule.expire else PLAIN


def packed(state: PersonState) -> tuple[PersonState, bytes, int]:
    """Return a state within its bound, its bytes, and how many once entries were dropped for that."""
    data = pack(state)
    if len(data) <= MAX_STATE_BYTES:
        return state, data, 0
    over = len(data) - MAX_STATE_BYTES
    drop_last = min(len(state.last), -(-over // LAST_BYTES) * LAST_BYTES)
    over -= drop_last
    drop_once = min(len(state.once) // ONCE_BYTES, -(-(over + _GROWTH) // ONCE_BYTES)) if over > 0 else 0
    state = msgspec.structs.replace(
        state,
        last=state.last[drop_last:],
        once=state.once[drop_once * ONCE_BYTES :],
        evictions=state.evictions + drop_once,
    )
    return state, pack(state), drop_once
