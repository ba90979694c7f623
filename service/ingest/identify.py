"""Who is it: from endpoints to users, cheapest source first.

What events themselves say is remembered, in memory and in a table; the system that owns the endpoints is
asked only about those no event ever named. At its default quota of 10 calls a second it could not keep up
with more than that (https://docs.aws.amazon.com/pinpoint/latest/developerguide/quotas.html).
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping
from sys import getsizeof

import msgspec

from service.ingest.stores import EndpointKey, EndpointLookup, Identities
from service.observability.metrics import Metrics
from service.runtime.cache import RecentCache
from service.runtime.clock import Clock
from service.runtime.concurrency import together
from service.runtime.errors import TransientError


class IdentitySettings(msgspec.Struct, frozen=True):
    """Limits of the resolver.

    Attributes:
        cache_entries: Endpoints whose user is kept in memory, in `cache.ENTRY_BYTES` each on average.
        max_age_s: Seconds that they are believed: another worker may have read since that an endpoint changed hands.
        unknown_entries: Endpoints remembered as having no user, likewise.
        unknown_ttl_s: Seconds until an endpoint without user is asked about again.
        lookups_at_once: Calls of the fallback in flight.
    """

    cache_entries: int = 50_000
    max_age_s: float = 600.0
    unknown_entries: int = 10_000
    unknown_ttl_s: float = 300.0
    lookups_at_once: int = 8


class _Read(msgspec.Struct, frozen=True, gc=False):
    """Whose an endpoint was, at a monotonic second."""

    user_id: str
    at: float


class IdentityResolver:
    """Learns which user an endpoint belongs to, and answers for endpoints.

    Args:
        table: What was learned, durably.
        lookup: The fallback; None switches it off.
    """

    def __init__(
        self,
        table: Identities,
        lookup: EndpointLookup | None,
        settings: IdentitySettings,
        clock: Clock,
        metrics: Metrics,
    ) -> None:
        self._table = table
        self._lookup = lookup
        self._clock = clock
        self._metrics = metrics
        self._settings = settings
        self._known: RecentCache[EndpointKey, _Read] = RecentCache(settings.cache_entries, _bytes_of_user)
        self._unknown: RecentCache[EndpointKey, float] = RecentCache(
            settings.unknown_entries, lambda key, _: getsizeof(key.endpoint_id)
        )
        self._asking = asyncio.Semaphore(settings.lookups_at_once)

    def _keep(self, users: Mapping[EndpointKey, str]) -> None:
        now = self._clock.monotonic()
        for key, user_id in users.items():
            self._known.put(key, _Read(user_id, now))

    async def learn(self, users: Mapping[EndpointKey, str]) -> None:
        """Keep, durably, which user each endpoint belongs to; costs nothing for what is known already."""
        news = {
            key: user for key, user in users.items() if (known := self._known.get(key)) is None or known.user_id != user
        }
        if not news:
            return
        await self._table.learn(news)
        self._metrics.identities_learned.inc(len(news))
        self._keep(news)

    async def resolve(self, keys: Collection[EndpointKey], askable: Collection[EndpointKey]) -> dict[EndpointKey, str]:
        """Return the user of each endpoint; endpoints of nobody are absent.

        Args:
            keys: The endpoints, each once.
            askable: Those of them worth a call of the fallback when nothing else knows them.

        Raises:
            TransientError: The table or the fallback cannot be asked now.
        """
        found: dict[EndpointKey, str] = {}
        missing: list[EndpointKey] = []
        oldest = self._clock.monotonic() - self._settings.max_age_s
        for key in keys:
            known = self._known.get(key)
            if known is None or known.at < oldest:
                missing.append(key)
            else:
                found[key] = known.user_id
        self._metrics.identities.labels("cache").inc(len(found))
        if missing:
            await self._from_table(missing, askable, found)
        return found

    async def _from_table(
        self, keys: list[EndpointKey], askable: Collection[EndpointKey], found: dict[EndpointKey, str]
    ) -> None:
        learned = await self._table.find(keys)
        self._keep(learned)
        found.update(learned)
        self._metrics.identities.labels("table").inc(len(learned))
        strangers = [key for key in keys if key not in learned]
        before = len(found)
        if self._lookup is not None:
            await self._ask(self._lookup, [key for key in strangers if key in askable], found)
        self._metrics.identities.labels("lookup").inc(len(found) - before)
        self._metrics.identities.labels("none").inc(len(strangers) - (len(found) - before))

    async def _ask(self, lookup: EndpointLookup, keys: list[EndpointKey], found: dict[EndpointKey, str]) -> None:
        now = self._clock.monotonic()
        due = [key for key in keys if (self._unknown.get(key) or 0.0) <= now]
        if not due:
            return
        answers: dict[EndpointKey, str] = {}

        async def ask(key: EndpointKey) -> None:
            async with self._asking:
                try:
                    answers[key] = await lookup.user_of(key)
                except TransientError:
                    self._metrics.identity_lookups.labels("error").inc()
                    raise
                self._metrics.identity_lookups.labels("found" if answers[key] else "unknown").inc()

        failure: TransientError | None = None
        try:
            await together(ask(key) for key in due)
        except TransientError as error:
            failure = error
        # Answers paid for are kept even where a sibling call failed and the batch will be tried again.
        users = {key: user for key, user in answers.items() if user}
        if users:
            await self._table.learn(users)
            self._metrics.identities_learned.inc(len(users))
        self._keep(users)
        found.update(users)
        for key, user in answers.items():
            if not user:
                self._unknown.put(key, self._clock.monotonic() + self._settings.unknown_ttl_s)
        if failure is not None:
            raise failure


def _bytes_of_user(key: EndpointKey, read: _Read) -> int:
    return getsizeof(key.endpoint_id) + getsizeof(read.user_id)
