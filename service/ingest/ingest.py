"""Records to committed scores: read, match, identify, group by user, commit, set aside what cannot be scored.

`prepare` does what may happen while the batch before is still being committed; `commit` runs in the shard's order. What
a later step needs travels in `PreparedEvents`; nothing reaches back.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Collection, Mapping
from decimal import Decimal

from service.ingest.attribution import Attribution, Waiting
from service.ingest.by_rules import UNMET, match
from service.ingest.commit import Committer, Refusal, Tally
from service.ingest.definition_book import CurrentDefinitions
from service.ingest.identify import IdentityResolver
from service.ingest.letters import is_lettered, stretch
from service.ingest.marks import marking_of, shard_tag
from service.ingest.names import NO_PERSON, OVERDUE, UNKNOWN_ADDRESS, UNRESOLVED, name_aliases, names_of
from service.ingest.ownership import Ownership
from service.ingest.prepared import PreparedEvents
from service.ingest.retention import Retention
from service.ingest.source_book import CurrentSources
from service.ingest.stores import AliasKey, DeadLetters
from service.ingest.undefined import UndefinedTypes
from service.observability.metrics import Metrics
from service.runtime.clock import Clock
from service.runtime.concurrency import Interruptible
from service.runtime.errors import ReleasedError
from service.scoring.definitions import DefinitionBook
from service.scoring.event import Event, Skipped, address_of
from service.scoring.fold import Scorable, UserKey, sequence_bytes
from service.scoring.rules.model import ADJUSTMENT
from service.sources.outcomes import Ambiguous, Anonymous, Outcome, RejectedEvent, Teaches
from service.sources.registry import PINPOINT
from service.stream.ports import Batch, Record

PIPELINE = "ingest"

SLICE = 500
"""Events read before others get their turn: a few milliseconds; heartbeats and sinks must not wait for more."""


class Ingest:
    """The consumer of the event stream's batches.

    Args:
        sources: What reads the records.
        project_ids: Projects to score; empty for all.
        retention: How long the stream keeps records, and marks are needed; None: all marks are kept.
        ask_transactional: Whether the owner of the endpoints is asked about messages without campaign or journey too.
        unknown_is_address: Whether an address that belongs to no known user is a user itself; otherwise its events are
            set aside.
        undefined: Receives the events without a definition.
    """

    def __init__(
        self,
        sources: CurrentSources,
        definitions: CurrentDefinitions,
        identities: IdentityResolver,
        committer: Committer,
        dead_letters: DeadLetters,
        clock: Clock,
        metrics: Metrics,
        *,
        project_ids: Collection[str] = (),
        retention: Retention | None = None,
        ask_transactional: bool = False,
        unknown_is_address: bool = True,
        undefined: UndefinedTypes | None = None,
    ) -> None:
        self._sources = sources
        self._definitions = definitions
        self._identities = identities
        self._committer = committer
        self._dead_letters = dead_letters
        self._clock = clock
        self._metrics = metrics
        self._project_ids = frozenset(project_ids)
        self._retention = retention
        self._ask_transactional = ask_transactional
        self._unknown_is_address = unknown_is_address
        self._undefined = undefined
        self._released: set[str] = set()
        self._writing: dict[str, Interruptible] = {}

    async def prepare(self, batch: Batch[bytes]) -> PreparedEvents:
        """Read the records' events and find whose they are.

        Raises:
            TransientError: Users cannot be found now; the call can be repeated.
        """
        started = self._clock.monotonic()
        self._released.discard(batch.shard_id)
        book = self._definitions.book  # the same for the whole batch
        prepared = PreparedEvents(batch, self._sources.reading(book.detailed), rules=book.rules)
        tag = shard_tag(batch.stream, batch.shard_id)
        lettered = await self._lettered(batch, tag)
        attribution = Attribution(tag)
        prepared.waiting = attribution.waiting
        at = 0
        while at < len(batch.records):
            at = self._sort(at, book, prepared, tag, lettered, attribution)
            await asyncio.sleep(0)
        started = self._took("decode", started)
        if attribution.waiting or attribution.endpoints:
            await self._identify(attribution, prepared)
            self._took("identify", started)
        return prepared

    async def commit(self, prepared: PreparedEvents) -> None:
        """Return once every record of the batch is in its user's score or in the dead letters.

        Raises:
            TransientError: A table cannot be reached now; the call can be repeated.
            ReleasedError: `release` came first: some scores are written; the next reader of the batch finds them.
        """
        started = self._clock.monotonic()
        if prepared.tally is None:
            # Before the scores: a mark set by a later event of the same user would hide from the next reader of
            # the batch, who may know the user by then, that this event is not in the score.
            if prepared.letters:
                await self._dead_letters.put(prepared.letters)
                started = self._took("dead_letter", started)
            tally = Tally()
            if prepared.groups:
                tally = await self._write(prepared)
            # Only now: a call that failed half-way is repeated, and must commit the rest.
            prepared.tally = tally
            for refusal in prepared.tally.refused.values():
                self._refuse(prepared, refusal)
            started = self._took("commit", started)
        if prepared.tally.refused:
            await self._dead_letters.put(prepared.letters)
            self._took("dead_letter", started)
        self._count(prepared, prepared.tally)

    async def release(self, shard_id: str) -> None:
        """Write no more scores: a call cut off is fenced by `Revision`, whenever it lands.

        Letters are waited for: one that lands late would set an event aside that the next owner has scored.
        """
        self._released.add(shard_id)
        writing = self._writing.get(shard_id)
        if writing is not None:
            writing.interrupt()

    async def _write(self, prepared: PreparedEvents) -> Tally:
        batch = prepared.batch
        clock = self._clock
        marking = marking_of(batch, self._retention, now_ms=clock.wall_ms(), now=clock.monotonic())
        if batch.shard_id in self._released:
            raise ReleasedError
        try:
            async with Interruptible() as self._writing[batch.shard_id]:
                return await self._committer.commit(marking, prepared.groups, prepared.rules)
        except TimeoutError:
            raise ReleasedError from None
        finally:
            self._writing.pop(batch.shard_id, None)

    async def _lettered(self, batch: Batch[bytes], tag: str) -> Collection[str]:
        """Return the ids of the batch's letters that an earlier reader of the shard wrote.

        What was set aside stays set aside when it is read again, even where its user is known by now:
        somebody may redrive the letter, and the event would count twice.
        """
        if not batch.replayed:
            return ()
        first, last = batch.records[0], batch.records[-1]
        return await self._dead_letters.between(tag, *stretch(first.sequence, last.sequence))

    def _sort(  # noqa: C901, PLR0912 - the hot path: a further call per event costs 2 % of it
        self,
        at: int,
        book: DefinitionBook,
        prepared: PreparedEvents,
        tag: str,
        lettered: Collection[str],
        attribution: Attribution,
    ) -> int:
        """Put the events of some records where they belong; return the index of the record to go on with.

        Even an event that names its user waits: a user's events must stay in the shard's order.
        """
        read, points_of, project_ids = prepared.registry.read, book.points, self._project_ids
        rules_of = prepared.rules
        records, waiting = prepared.batch.records, attribution.waiting
        foreign = events = from_pinpoint = 0
        for at_record in range(at, len(records)):
            if events >= SLICE:
                break
            at = at_record + 1
            record = records[at_record]
            for event in read(record.data):
                events += 1
                if lettered and is_lettered(lettered, tag, record.sequence, event.index, event.part):
                    prepared.counts["replayed"] += 1
                    continue
                if type(event) is not Event:
                    self._no_event(event, record, prepared, attribution)
                    continue
                if event.source is PINPOINT:
                    from_pinpoint += 1
                else:
                    prepared.sources[event.source, "event"] += 1
                project_id = event.project_id
                if project_ids and project_id not in project_ids:
                    foreign += 1
                    continue
                user_id, endpoint_id = event.user_id, event.endpoint_id
                # What the sender of one message says of its recipient says nothing of an endpoint made up for it.
                if endpoint_id and (user_id or event.anonymous) and not event.transactional:
                    attribution.name(AliasKey(endpoint_id, project_id), user_id, record)
                if event.aliases and user_id:
                    name_aliases(event, record, attribution)
                points = points_of(event.event_type, project_id)
                if points is None or project_id in rules_of:
                    scorable = self._matched(points, event, record, prepared)
                    if scorable is None:
                        continue
                else:
                    arrival_ms = event.arrival_ms or record.arrival_ms
                    scorable = Scorable(sequence_bytes(record.sequence), points, arrival_ms, event.event_type)
                if user_id:
                    waiting.append((record, event, scorable))
                else:
                    self._nameless((record, event, scorable), prepared, attribution)
        prepared.counts["foreign"] += foreign
        prepared.sources[PINPOINT, "event"] += from_pinpoint
        return at

    @staticmethod
    def _matched(
        points: Decimal | None, event: Event, record: Record[bytes], prepared: PreparedEvents
    ) -> Scorable | None:
        """Return what rules make of an event, or an adjustment by hand; None, and counted, where it does not count."""
        rules = prepared.rules.get(event.project_id)
        found = None
        if rules is not None or event.event_type == ADJUSTMENT:
            found = match(rules, points, event, record, prepared.matching)
        if found is None:
            prepared.counts["ignored"] += 1
            kind = event.project_id, event.event_type
            prepared.undefined[kind] = prepared.undefined.get(kind, 0) + 1
        elif found is UNMET:
            prepared.counts["unmet"] += 1
            return None
        return found

    def _no_event(
        self, outcome: Outcome, record: Record[bytes], prepared: PreparedEvents, attribution: Attribution
    ) -> None:
        """Put what is not an event to score where it belongs."""
        match outcome:
            case RejectedEvent():
                name = "rejected"
                prepared.set_aside(record, outcome, outcome, self._clock.wall_ms(), payload=outcome.payload)
            case Skipped():
                name = "skipped"
                prepared.counts[name] += 1
            case Ambiguous():
                name = "ambiguous"
                prepared.counts[name] += 1
            case Anonymous():
                name = "anonymous"
                prepared.counts[name] += 1
            case Teaches():
                name = "taught"
                prepared.counts[name] += 1
                if not self._project_ids or outcome.project_id in self._project_ids:
                    name_aliases(outcome, record, attribution)
                    if outcome.endpoint_id:
                        attribution.name(AliasKey(outcome.endpoint_id, outcome.project_id), outcome.user_id, record)
            case _:
                raise AssertionError(type(outcome))
        prepared.sources[outcome.source, name] += 1

    def _nameless(self, waiting: Waiting, prepared: PreparedEvents, attribution: Attribution) -> None:
        """Put an event that names no user where it belongs."""
        record, event, _ = waiting
        if event.anonymous:
            prepared.counts["anonymous"] += 1
        elif event.endpoint_id or event.aliases:
            worth_asking = event.attributed or self._worth_asking(event)
            attribution.seek(names_of(event), waiting, worth_asking=worth_asking)
        elif event.transactional:
            prepared.counts["anonymous"] += 1
        else:
            prepared.set_aside(record, event, NO_PERSON, self._clock.wall_ms())

    def _worth_asking(self, event: Event) -> bool:
        return not event.unnamed and (self._ask_transactional or not event.transactional)

    async def _identify(self, attribution: Attribution, prepared: PreparedEvents) -> None:
        """Find out whose the events are, and tell the others whose the endpoints are."""
        before = await self._identities.owners(attribution.endpoints, attribution.sought)
        followed = attribution.follow(before)
        # Before anybody is asked: that takes long, and what is learned here spares other shards from asking.
        await self._identities.learn(followed.owners)
        overdue: Collection[AliasKey] = ()
        if ask := attribution.to_ask(before):
            answers = await self._identities.ask(ask)
            overdue = answers.overdue
            if answers.users:
                followed = attribution.follow(
                    before | {key: Ownership(user_id) for key, user_id in answers.users.items()}
                )
                await self._identities.learn(
                    {key: owner for key, owner in followed.owners.items() if key in answers.users}
                )
        self._group(attribution, followed.users, overdue, prepared)

    def _group(
        self,
        attribution: Attribution,
        users: Mapping[int, str],
        overdue: Collection[AliasKey],
        prepared: PreparedEvents,
    ) -> None:
        """Group what is worth points by user; set aside, or count as anonymous, what has none."""
        groups = prepared.groups
        named = addresses = 0
        nobodys: set[AliasKey] = set()
        for index, (record, event, scorable) in enumerate(attribution.waiting):
            user_id: str | None = event.user_id
            if user_id:
                named += 1
            else:
                user_id = users.get(index)
                if not user_id and event.aliases and self._unknown_is_address:
                    user_id = address_of(event)
                    addresses += bool(user_id)
            if user_id:
                key = UserKey(user_id, event.project_id)
                same = groups.get(key)
                if same is None:
                    groups[key] = [scorable]
                else:
                    same.append(scorable)
                continue
            endpoint = AliasKey(event.endpoint_id, event.project_id)
            nobodys.add(endpoint if event.endpoint_id else names_of(event)[0])
            if event.aliases and address_of(event):
                prepared.set_aside(record, event, UNKNOWN_ADDRESS, self._clock.wall_ms())
            elif user_id is None and endpoint in overdue:
                prepared.set_aside(record, event, OVERDUE, self._clock.wall_ms())
            elif user_id is None and event.attributed and event.endpoint_id:
                prepared.set_aside(record, event, UNRESOLVED, self._clock.wall_ms())
            else:
                prepared.counts["anonymous"] += 1
        self._metrics.identities.labels("event").inc(named)
        self._metrics.identities.labels("address").inc(addresses)
        self._metrics.identities.labels("none").inc(len(nobodys))

    def _refuse(self, prepared: PreparedEvents, refusal: Refusal) -> None:
        """Set the events of a user aside whose item the table refuses."""
        refused = {id(event) for event in refusal.events}
        for record, event, scorable in prepared.waiting:
            if id(scorable) in refused:
                prepared.set_aside(record, event, refusal.why, self._clock.wall_ms(), stage="commit")

    def _took(self, stage: str, started: float) -> float:
        now = self._clock.monotonic()
        self._metrics.stage_seconds.labels(PIPELINE, stage).observe(now - started)
        return now

    def _count(self, prepared: PreparedEvents, tally: Tally) -> None:
        """Count events and latencies: once a batch, not once an event."""
        metrics = self._metrics
        counts = prepared.counts + Counter(
            scored=tally.scored, replayed=tally.replayed, dead_lettered=len(prepared.letters)
        )
        for outcome, count in counts.items():
            metrics.records.labels(outcome).inc(count)
        for (source, outcome), count in prepared.sources.items():
            metrics.source_events.labels(source or "none", outcome).inc(count)
        for outcome, count in prepared.matching.items():
            metrics.rule_outcomes.labels(outcome).inc(count)
        if self._undefined is not None and prepared.undefined:
            self._undefined.note(prepared.undefined)
        for letter in prepared.letters:
            metrics.dead_letters.labels(letter.stage, letter.reason.value).inc()
        if prepared.groups:
            metrics.batch_users.observe(len(prepared.groups))
            # The oldest record stands for its batch: what is shown is never better than what was.
            age_ms = self._clock.wall_ms() - prepared.batch.records[0].arrival_ms
            metrics.event_to_score.observe(max(age_ms, 0) / 1000)
