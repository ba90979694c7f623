"""The identity table: which user a name belongs to, and which endpoint a user's score is written to.

`Identities` and `EndpointDirectory` over a `RowStore`. Both pipelines of a process share one, and what one of them
learns the other knows at once. Other workers learn it when they read the row: at the latest `CONFIRMED_FOR_S` after it
was written.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from sys import getsizeof

import msgspec
from msgspec.structs import replace

from service.ingest import identity_plan as plan
from service.ingest.identity_rows import Row, RowKey, RowStore, Write
from service.ingest.stores import AliasKey, DirectoryEntry, Disputes, Found, Fresh, Known
from service.runtime.cache import RecentCache
from service.runtime.errors import TransientError
from service.scoring.fold import UserKey

DEFAULT_TTL_DAYS = 400
"""How long a row outlives its last change: more than a year, so that a yearly campaign finds its people."""

RENEWED_BELOW = 0.5
"""Share of that time: with less left, a row that is mentioned is written again."""

CONFIRMED_FOR_S = 10.0
"""Seconds for which this worker uses a user's entry before it reads the row again. For so long it may go on writing to
an endpoint after another worker has read an event that says that it changed hands."""

TAKEN_SHARE = 0.5
"""Share of that time in which an entry is taken up for the next call. The rest is for the call's turn to come."""

CACHED = 40_000
"""Users whose entry is kept in memory: enough for those between the look-up of an event's user and the publishing."""

MAX_ROUNDS = 6
"""Attempts to change a row that others change at the same moment."""

_DAY_S = 86_400


class _Held(msgspec.Struct, frozen=True, gc=False):
    """An entry, and the monotonic second at which a read or a write of its row began."""

    entry: DirectoryEntry
    at: float


class IdentityStore:
    """`Identities` and `EndpointDirectory`.

    A name or project that is empty cannot be a key: nothing is found for it, and nothing learned.

    Args:
        rows: The table.
        ttl_days: How long a row outlives its last change; 0: for ever.
        wall_s: Epoch seconds.
        monotonic: Seconds that never go back.
        cached: Users whose entry is kept in memory, in `cache.ENTRY_BYTES` each on average.
        confirmed_for_s: See `CONFIRMED_FOR_S`.
        rng: For the stamps of rows.
    """

    def __init__(
        self,
        rows: RowStore,
        *,
        ttl_days: float = DEFAULT_TTL_DAYS,
        wall_s: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
        cached: int = CACHED,
        confirmed_for_s: float = CONFIRMED_FOR_S,
        rng: random.Random | None = None,
    ) -> None:
        self._rows = rows
        self._ttl_s = ttl_days * _DAY_S
        self._wall_s = wall_s
        self._monotonic = monotonic
        self._held: RecentCache[UserKey, _Held] = RecentCache(cached, _bytes_of)
        self._confirmed_for_s = confirmed_for_s
        self._rng = rng or random.Random()  # noqa: S311 - stamps tell writes apart, and protect nothing

    async def find(self, keys: Sequence[AliasKey]) -> Mapping[AliasKey, str]:
        """Return the users known; see `Identities.find`."""
        wanted = {key: plan.alias_row(key) for key in keys if key.value and key.project_id}
        started = self._monotonic()
        rows = await self._read(wanted.values())
        users: dict[AliasKey, str] = {}
        for key, row_key in wanted.items():
            row = rows.get(row_key)
            if row is not None:
                users[key] = row.user_id
                if row.user_id and row.checked_ms:
                    self._meet(UserKey(row.user_id, key.project_id), plan.entry_of(row, key.value), started)
        return users

    async def learn(self, users: Mapping[AliasKey, str]) -> None:
        """Keep which user each name belongs to; see `Identities.learn`."""
        left = {key.stored(): user for key, user in users.items() if key.value and key.project_id}
        for _ in range(MAX_ROUNDS):
            if not left:
                return
            rows = await self._rows_of(left)
            left = plan.unsettled(rows, left, self._renew_before_s())
            if left:
                rows |= await self._read(plan.formers(rows, left) - rows.keys())
                lost = await self._learn(rows, left)
                left = {key: user for key, user in left.items() if not lost.isdisjoint(plan.touched(rows, key, user))}
        if left:
            raise TransientError(f"the rows of {len(left)} endpoints are changed by others all the time")

    async def _rows_of(self, users: Mapping[AliasKey, str]) -> dict[RowKey, Row]:
        """Return the rows of endpoints and of users; what the latter say of targets is kept for the publishing."""
        started = self._monotonic()
        users_rows = plan.users_rows(users)
        rows = dict(await self._read([*map(plan.alias_row, users), *users_rows]))
        for row_key, key in users_rows.items():
            row = rows.get(row_key)
            if row is not None and row.checked_ms:
                self._keep(key, plan.entry_of(row), started)
        return rows

    async def _learn(self, rows: plan.Rows, users: Mapping[AliasKey, str]) -> set[RowKey]:
        """Write what is new, as far as no row has changed since it was read; return the keys of those that have."""
        endings = plan.endings(rows, users)
        lost = await self._end(endings) if endings else set()
        if lost:
            users = {key: user for key, user in users.items() if lost.isdisjoint(plan.touched(rows, key, user))}
        marks = plan.marks(rows, users, self._renew_before_s())
        writes = {key: write for key, write in marks.items() if key not in endings} | plan.claims(rows, users)
        return lost | await self._write(writes)

    async def get(
        self, keys: Sequence[UserKey], fresh: Fresh, again: Collection[UserKey] = ()
    ) -> Mapping[UserKey, Known]:
        """Return what is known of users; see `EndpointDirectory.get`."""
        found: dict[UserKey, Known] = {}
        wanted: dict[RowKey, UserKey] = {}
        for key in keys:
            entry = None if key in again else self._taken(key, self._confirmed_for_s * TAKEN_SHARE)
            if entry is not None and fresh(entry):
                found[key] = Known(entry, None)
            else:
                wanted[plan.user_row(key)] = key
        started = self._monotonic()
        rows = await self._read(wanted)
        for row_key, key in wanted.items():
            row = rows.get(row_key)
            entry = plan.entry_of(row) if row is not None and row.checked_ms else None
            found[key] = Known(entry, row)
            self._keep(key, entry, started)
        return found

    async def put(self, found: Mapping[UserKey, Found]) -> Mapping[UserKey, Disputes]:
        """Keep what the owner of the endpoints said; see `EndpointDirectory.put`."""
        endpoints = {key: plan.endpoints(key, each) for key, each in found.items()}
        rows = dict(await self._read(plan.alias_row(one) for each in endpoints.values() for one in each))
        due, refused = plan.undisputed(rows, found)
        formers = {key: plan.formers(rows, endpoints[key]) for key in due}
        every_former = {row_key for each in formers.values() for row_key in each}
        rows |= await self._read(every_former)
        lost = await self._end(plan.ended(rows, every_former))
        holdings = {
            key: plan.holdings(rows, key, each, self._renew_before_s())
            for key, each in due.items()
            if lost.isdisjoint(formers[key])
        }
        lost |= await self._write({row_key: write for each in holdings.values() for row_key, write in each.items()})
        kept = {key: found[key] for key, each in holdings.items() if lost.isdisjoint(each)}
        started = self._monotonic()
        lost |= await self._write(
            {plan.user_row(key): write for key, each in kept.items() if (write := plan.held(each)) is not None}
        )
        for key, each in due.items():
            if key in kept and plan.user_row(key) not in lost:
                self._keep(key, each.entry, started)
            else:
                refused[key] = each.disputed
        return refused

    def confirmed(self, key: UserKey) -> DirectoryEntry | None:
        """Return the entry read or kept a moment ago; see `EndpointDirectory.confirmed`."""
        return self._taken(key, self._confirmed_for_s)

    def _taken(self, key: UserKey, age_s: float) -> DirectoryEntry | None:
        held = self._held.get(key)
        return held.entry if held is not None and held.at >= self._monotonic() - age_s else None

    async def forget(self, keys: Sequence[UserKey]) -> None:
        """End what is known of users; see `EndpointDirectory.forget`."""
        left = {plan.user_row(key) for key in keys}
        for _ in range(MAX_ROUNDS):
            rows = await self._read(left)
            left = await self._end(plan.ended(rows, rows.keys()))
            if not left:
                return
        raise TransientError(f"the rows of {len(left)} users are changed by others all the time")

    async def _end(self, writes: Mapping[RowKey, Write]) -> set[RowKey]:
        """Make the changes of `plan.endings` or `plan.ended`; return the keys of the rows that were not as expected."""
        self._drop(writes)
        behind = plan.left_behind(writes)
        await self._write(plan.stripped(await self._read(behind), behind))
        lost = await self._write(writes)
        self._drop(writes)  # what was read meanwhile may be from before
        return lost

    def _drop(self, writes: Mapping[RowKey, Write]) -> None:
        for row_key in writes:
            user = plan.user_of(row_key)
            if user is not None:
                self._held.drop(user)

    def _keep(self, key: UserKey, entry: DirectoryEntry | None, at: float) -> None:
        """Keep an entry in memory. That a user has no endpoint is read each time: an event may have named one."""
        if entry is not None and entry.endpoint_id:
            self._held.put(key, _Held(entry, at))
        else:
            self._held.drop(key)

    def _meet(self, key: UserKey, entry: DirectoryEntry, at: float) -> None:
        """Keep an entry found in an endpoint's row, unless a younger one says that the score goes elsewhere by now."""
        known = self._held.get(key)
        if known is None or known.entry.checked_ms < entry.checked_ms or known.entry == entry:
            self._held.put(key, _Held(entry, at))

    async def _read(self, keys: Iterable[RowKey]) -> Mapping[RowKey, Row]:
        wanted = dict.fromkeys(keys)  # in order: a simulation must be repeatable
        return await self._rows.read(wanted) if wanted else {}

    async def _write(self, writes: Mapping[RowKey, Write]) -> set[RowKey]:
        if not writes:
            return set()
        expires_s = int(self._wall_s() + self._ttl_s) if self._ttl_s else 0
        due = {
            key: Write(write.before, replace(write.after, stamp=self._stamp(), expires_s=expires_s))
            for key, write in writes.items()
        }
        return set(await self._rows.write(due))

    def _stamp(self) -> str:
        return f"{self._rng.getrandbits(64):016x}"

    def _renew_before_s(self) -> float:
        return self._wall_s() + self._ttl_s * RENEWED_BELOW


def _bytes_of(key: UserKey, held: _Held) -> int:
    entry = held.entry
    size = getsizeof(key.user_id) + getsizeof(entry.endpoint_id)
    return size + sum(getsizeof(endpoint_id) for endpoint_id, _ in entry.others)
