"""Which user an endpoint or another name belongs to, from the cheapest source that knows it.

What events themselves say is remembered, in memory and in a table; the system that owns the endpoints is asked only
about those that no event ever named. With its default quota of 10 calls a second it could not keep up with more
(https://docs.aws.amazon.com/pinpoint/latest/developerguide/quotas.html), so the wait for it is bounded.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping, Sequence
from sys import getsizeof

import msgspec

from service.ingest.ownership import NOBODY, Former, Ownership
from service.ingest.stores import AliasKey, EndpointLookup, FormerUsers, Identities
from service.observability.metrics import Metrics
from service.runtime.cache import RecentCache
from service.runtime.clock import Clock
from service.runtime.concurrency import first_of, together
from service.runtime.errors import TransientError

RETRY_S = 0.5
"""Seconds between a failed look-up and the next try."""

_FORMER_BYTES = 300
"""What a former user takes in memory beside the id: two structs, a sequence number and a shard's tag."""


class IdentitySettings(msgspec.Struct, frozen=True):
    """Limits of the resolver.

    Attributes:
        cache_entries: Endpoints whose user is kept in memory, in `cache.ENTRY_BYTES` each on average.
        max_age_s: Seconds until an entry is read again: another worker may have read that the endpoint changed hands.
        unknown_entries: Endpoints remembered as without a user, or as absent, likewise.
        unknown_ttl_s: Seconds until such an endpoint is asked about again.
        lookups_at_once: Calls of the fallback in flight.
        lookup_wait_s: Longest wait for the fallback, per batch; what it has not answered by then is overdue.
    """

    cache_entries: int = 50_000
    max_age_s: float = 600.0
    unknown_entries: int = 10_000
    unknown_ttl_s: float = 300.0
    lookups_at_once: int = 8
    lookup_wait_s: float = 5.0


class Answers(msgspec.Struct, frozen=True):
    """What the fallback answered.

    Attributes:
        users: The users of endpoints that exist; empty: it has none.
        overdue: Endpoints it has not answered for in time.
    """

    users: Mapping[AliasKey, str]
    overdue: Collection[AliasKey] = ()


class _Denial(msgspec.Struct, frozen=True, gc=False):
    """The fallback's answer that an endpoint has no user, or does not exist, until a monotonic second."""

    exists: bool
    until: float


class _Read(msgspec.Struct, frozen=True, gc=False):
    """The user of an endpoint at a monotonic second; `written` if this worker stored it."""

    ownership: Ownership
    at: float
    written: bool


class IdentityResolver:
    """Learns which user an endpoint belongs to, and answers for endpoints.

    Args:
        table: What was learned, durably.
        former: Whose endpoints were before they changed hands, likewise.
        lookup: The fallback; None switches it off.
    """

    def __init__(
        self,
        table: Identities,
        former: FormerUsers,
        lookup: EndpointLookup | None,
        settings: IdentitySettings,
        clock: Clock,
        metrics: Metrics,
    ) -> None:
        self._table = table
        self._former = former
        self._lookup = lookup
        self._clock = clock
        self._metrics = metrics
        self._settings = settings
        self._known: RecentCache[AliasKey, _Read] = RecentCache(settings.cache_entries, _bytes_of)
        self._denied: RecentCache[AliasKey, _Denial] = RecentCache(
            settings.unknown_entries, lambda key, _: getsizeof(key.value)
        )
        self._asking = asyncio.Semaphore(settings.lookups_at_once)

    async def owners(self, keys: Collection[AliasKey], sought: Collection[AliasKey]) -> dict[AliasKey, Ownership]:
        """Return whose each endpoint is, from memory or the table; unknown endpoints are absent.

        Args:
            keys: The endpoints, each once.
            sought: Those of them that have events without a user. The others are not in the statistics, and are not
                read from the table for the first time if they are endpoints: an event of theirs that this worker might
                read again would have brought them into memory. Of other names the first naming is kept with its
                position (`ownership.py`), so it must be known whether there was one.

        Raises:
            TransientError: The table cannot be read now.
        """
        found: dict[AliasKey, Ownership] = {}
        missing: list[AliasKey] = []
        oldest = self._clock.monotonic() - self._settings.max_age_s
        for key in keys:
            known = self._known.get(key)
            if known is not None and known.at >= oldest:
                found[key] = known.ownership
            elif known is not None or key in sought or not key.is_endpoint:
                missing.append(key)
        self._metrics.identities.labels("cache").inc(sum(key in found for key in sought))
        if missing:
            read = await self._from_table(missing)
            found.update(read)
            self._metrics.identities.labels("table").inc(sum(key in read for key in sought))
        return found

    async def learn(self, owners: Mapping[AliasKey, Ownership]) -> None:
        """Keep, durably, whose each endpoint is; costs nothing for what this worker has written before.

        What it has only read is written once, so that its time to live starts again.

        Raises:
            TransientError: The table cannot be written now; the call can be repeated.
        """
        news: dict[AliasKey, Ownership] = {}
        former: dict[AliasKey, Sequence[Former]] = {}
        for key, ownership in owners.items():
            known = self._known.get(key)
            if known is None or not known.written or known.ownership != ownership:
                news[key] = ownership
            if ownership.former and (known is None or known.ownership.former != ownership.former):
                former[key] = ownership.former
        if former:
            # First: a new user without the former one would own what is read again from before.
            await self._former.keep(former)
        if news:
            await self._table.learn({key: ownership.user_id for key, ownership in news.items()})
            self._metrics.identities_learned.inc(len(news))
            self._keep(news, written=True)

    async def ask(self, keys: Collection[AliasKey]) -> Answers:
        """Return what the fallback says of endpoints that nothing else knows, within `lookup_wait_s`.

        Args:
            keys: The endpoints, each once; the first ones are asked for first.
        """
        if self._lookup is None:
            return Answers({})
        now = self._clock.monotonic()
        users: dict[AliasKey, str] = {}
        due: list[AliasKey] = []
        for key in keys:
            denied = self._denied.get(key)
            if denied is None or denied.until <= now:
                due.append(key)
            elif denied.exists:
                users[key] = NOBODY
        answers = await self._within_the_wait(self._lookup, due) if due else {}
        learned: dict[AliasKey, Ownership] = {}
        until = self._clock.monotonic() + self._settings.unknown_ttl_s
        for key, user in answers.items():
            if user:
                learned[key] = Ownership(user)
            else:
                self._denied.put(key, _Denial(exists=user is not None, until=until))
            if user is not None:
                users[key] = user
        self._metrics.identities.labels("lookup").inc(len(learned))
        self._keep(learned, written=False)
        await self._learn_at_last(learned)
        return Answers(users, frozenset(due) - answers.keys())

    async def _learn_at_last(self, owners: Mapping[AliasKey, Ownership]) -> None:
        """Write down what the fallback answered, however long the table refuses it.

        An event that counts by such an answer may be read again, by another worker and while the fallback is silent:
        without the row it would be set aside although it is in the score, and count twice when redriven.
        """
        while True:
            try:
                await self.learn(owners)
            except TransientError:
                await self._clock.sleep(RETRY_S)
            else:
                return

    async def _within_the_wait(self, lookup: EndpointLookup, keys: Sequence[AliasKey]) -> dict[AliasKey, str | None]:
        answers: dict[AliasKey, str | None] = {}

        async def ask(key: AliasKey) -> None:
            async with self._asking:
                while key not in answers:
                    try:
                        answers[key] = await lookup.user_of(key)
                    except TransientError:
                        self._metrics.identity_lookups.labels("error").inc()
                        await self._clock.sleep(RETRY_S)
            outcome = "unknown" if answers[key] is None else "found" if answers[key] else "nobody"
            self._metrics.identity_lookups.labels(outcome).inc()

        await first_of(together(ask(key) for key in keys), self._clock.sleep(self._settings.lookup_wait_s))
        if len(answers) < len(keys):
            self._metrics.identity_lookups.labels("overdue").inc(len(keys) - len(answers))
        return answers

    async def _from_table(self, keys: Sequence[AliasKey]) -> dict[AliasKey, Ownership]:
        users = await self._table.find(keys)
        former = await self._former.find(list(users)) if users else {}
        read = {key: Ownership(user, tuple(former.get(key, ()))) for key, user in users.items()}
        self._keep(read, written=False)
        return read

    def _keep(self, owners: Mapping[AliasKey, Ownership], *, written: bool) -> None:
        now = self._clock.monotonic()
        for key, ownership in owners.items():
            before = self._known.get(key)
            same = before is not None and before.written and before.ownership == ownership
            self._known.put(key, _Read(ownership, now, written or same))


def _bytes_of(key: AliasKey, read: _Read) -> int:
    ownership = read.ownership
    size = getsizeof(key.value) + getsizeof(ownership.user_id)
    return size + sum(_FORMER_BYTES + getsizeof(former.user_id) for former in ownership.former)
