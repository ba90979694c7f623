"""What the pipelines need from outside: one narrow Protocol per effect. All may raise `TransientError`."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from enum import StrEnum
from typing import Protocol

import msgspec

from service.ingest.identity_rows import Row, RowKey
from service.ingest.ownership import Former
from service.runtime.errors import TransientError
from service.scoring.change import ScoreChange
from service.scoring.definitions import Definition, Malformed
from service.scoring.event import AliasKind, Reason, Rejected
from service.scoring.fold import Folded, ScoreState, UserKey
from service.scoring.rules.stored import RulesRow
from service.sources.stored import SourceRow

MAX_COMMITS = 25
"""Statements per BatchExecuteStatement
(https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/ql-reference.multiplestatements.batching.html)."""


class Change(msgspec.Struct, frozen=True, gc=False):
    """One user's write: it is made only where the stored state is still `folded.before`."""

    key: UserKey
    folded: Folded


class Committed(msgspec.Struct, frozen=True):
    """Written, durably."""


COMMITTED = Committed()


class Conflict(msgspec.Struct, frozen=True):
    """Somebody else wrote first, or our own write's response was lost.

    Attributes:
        current: The state now stored, to fold on again; None when it must be loaded to be known.
    """

    current: ScoreState | None


class Throttled(msgspec.Struct, frozen=True):
    """Not written: try this one again, later and slower."""


Outcome = Committed | Conflict | Throttled | Rejected


class ScoreStore(Protocol):
    """The score table."""

    async def load(
        self, keys: Sequence[UserKey], *, consistent: bool = True
    ) -> Mapping[UserKey, ScoreState | Rejected]:
        """Return what is stored for each of `keys` (any number); `ABSENT` where nothing is.

        An item that cannot be a score, such as one with a string in `Score`, is `Rejected`.

        Args:
            keys: Different users.
            consistent: Whether everything written before counts; else what is returned may be older.
        """
        ...

    async def commit(self, changes: Sequence[Change]) -> Sequence[Outcome]:
        """Write up to `MAX_COMMITS` changes of different users, each by itself; return one outcome for each."""
        ...

    async def restate(self, states: Mapping[UserKey, ScoreState]) -> Sequence[Outcome]:
        """Give up to `MAX_COMMITS` items, stored as `states`, their next `Revision` and change nothing else.

        So the table's stream brings them to the sinks again. Returns one outcome for each.
        """
        ...

    def scan_states(self, after: UserKey | None = None) -> AsyncIterator[tuple[UserKey, ScoreState]]:
        """Return every item that can be a score, in the table's own order; one just written may be read as before.

        Args:
            after: Go on behind this one, which need not be there any more; None: from the start.
        """
        ...

    def scan(self, after: UserKey | None = None) -> AsyncIterator[UserKey]:
        """Return the key of every item that has a score, in the table's own order.

        Args:
            after: Go on behind this one, which need not be there any more; None: from the start.
        """
        ...


ENDPOINT = AliasKind.ENDPOINT.value


class AliasKey(msgspec.Struct, frozen=True, gc=False, order=True, cache_hash=True):
    """A name that a person of a project has beside the user id: an endpoint, unless `kind` says otherwise.

    Attributes:
        value: The name, normalised by its source.
        project_id: Of the project.
        kind: Value of an `AliasKind`, as plain text: its hash is asked for at every event.
    """

    value: str
    project_id: str
    kind: str = ENDPOINT

    @property
    def is_endpoint(self) -> bool:
        """Whether it is an endpoint: only those have an owner that can be asked, and get scores written to them."""
        return self.kind == ENDPOINT

    def stored(self) -> AliasKey:
        """Return the form under which it is stored: endpoint ids that differ in case only are one endpoint."""
        return AliasKey(self.value.lower(), self.project_id) if self.kind == ENDPOINT else self


class Identities(Protocol):
    """The table of what was learned: which user a name belongs to."""

    async def find(self, keys: Sequence[AliasKey]) -> Mapping[AliasKey, str]:
        """Return the user ids known (any number of keys); empty: it has no user. Unknown names are absent."""
        ...

    async def learn(self, users: Mapping[AliasKey, str]) -> None:
        """Keep which user each name belongs to (empty: none), durably; the last one wins.

        Where a score was written to such an endpoint for another user, or where nothing was known of the user's
        endpoints, the owner of the endpoints is asked before the next score of either is written.
        """
        ...


class FormerUsers(Protocol):
    """The users that names had before they changed hands."""

    async def find(self, keys: Sequence[AliasKey]) -> Mapping[AliasKey, Sequence[Former]]:
        """Return the former users (any number of keys), oldest first; names that have none are absent."""
        ...

    async def keep(self, former: Mapping[AliasKey, Sequence[Former]]) -> None:
        """Keep the former users of each name (any number), durably; the last write wins."""
        ...


class EndpointLookup(Protocol):
    """The identity fallback: asks the system that owns the endpoints."""

    async def user_of(self, key: AliasKey) -> str | None:
        """Return the user of an endpoint; empty where it has none, None where there is no such endpoint."""
        ...


class DirectoryEntry(msgspec.Struct, frozen=True, gc=False):
    """Where a user's score is written to, as a sink last found it.

    Attributes:
        endpoint_id: The one endpoint of the user that is updated; empty: the user has none.
        endpoint_status: Its status as the owner of the endpoints says it, such as `ACTIVE`; empty with no endpoint.
        channel: Its channel type, such as `EMAIL`; empty with no endpoint.
        checked_ms: When that was asked, epoch milliseconds.
        others: The user's other endpoints, each with its status, where the sink writes to all of them.
    """

    endpoint_id: str
    endpoint_status: str
    channel: str
    checked_ms: int
    others: tuple[tuple[str, str], ...] = ()


Fresh = Callable[[DirectoryEntry], bool]
"""Whether an entry is young enough to be believed."""


Disputes = frozenset[tuple[RowKey, str]]
"""Endpoints' rows that name another user, each with the stamp that it had when it was read."""


class Known(msgspec.Struct, frozen=True):
    """What the directory says of a user.

    Attributes:
        entry: The entry; None: there is none.
        row: The user's row as it was read; None: there was none, or `entry` is fresh and no row was read.
    """

    entry: DirectoryEntry | None
    row: Row | None


class Found(msgspec.Struct, frozen=True):
    """What the owner of the endpoints said of a user.

    Attributes:
        entry: Where the score goes.
        endpoints: Ids of all endpoints of the user, in lower case.
        before: `Known.row`, from before the owner was asked.
        disputed: What `put` returned for the user, before the owner was asked.
    """

    entry: DirectoryEntry
    endpoints: Sequence[str]
    before: Row | None
    disputed: Disputes = frozenset()


class EndpointDirectory(Protocol):
    """What a sink remembers of its targets across workers and restarts, until an event says otherwise."""

    async def get(
        self, keys: Sequence[UserKey], fresh: Fresh, again: Collection[UserKey] = ()
    ) -> Mapping[UserKey, Known]:
        """Return what is known of each user (any number of keys).

        A fresh entry that this worker has confirmed a moment ago is not read again.

        Args:
            keys: Different users.
            fresh: Whether an entry will do.
            again: Those of `keys` whose row is read whatever this worker knows: their endpoint will be asked for.
        """
        ...

    async def put(self, found: Mapping[UserKey, Found]) -> Mapping[UserKey, Disputes]:
        """Keep what was found (any number of users), durably, unless an event has said otherwise meanwhile.

        From then on `Identities` on the same table know whose the endpoints are.

        Returns:
            The users of whom nothing was kept, to be read and asked for again, each with `Found.disputed` for then.
        """
        ...

    def confirmed(self, key: UserKey) -> DirectoryEntry | None:
        """Return the entry that this worker has read or kept a moment ago; None where that is longer ago."""
        ...

    async def forget(self, keys: Sequence[UserKey]) -> None:
        """End what is known of users (any number of keys), durably: their endpoints are asked for at the next score."""
        ...


class DefinitionSource(Protocol):
    """The table of definitions and rules."""

    async def load(self) -> Sequence[Definition | Malformed | RulesRow]:
        """Return every row."""
        ...


class SourceRows(Protocol):
    """The rows of a user's own sources, read together with the definitions."""

    def sources(self) -> Sequence[SourceRow]:
        """Return every row that the last reading found, in no order."""
        ...


ProjectType = tuple[str, str]
"""A project id and an event type."""


class Undefined(msgspec.Struct, frozen=True):
    """Events of one type, of one project, that no definition covers.

    Attributes:
        project_id: Empty where `event_type` is `metrics.OTHER_TYPE`.
        event_type: As its sender names it, or `metrics.OTHER_TYPE`.
        events: How many came.
        last_ms: When the last one was counted, epoch milliseconds.
    """

    project_id: str
    event_type: str
    events: int
    last_ms: int


class UndefinedStore(Protocol):
    """Where all workers add up the events that no definition covers."""

    async def add(self, types: Mapping[ProjectType, Undefined]) -> None:
        """Add counts. Of two workers that do so at once, one's may be lost: these are statistics."""
        ...


class DeadLetter(msgspec.Struct, frozen=True):
    """Something set aside for a person, with all that is needed to see why and to try again.

    Attributes:
        letter_id: Derived from the pointer (`letters.py`), so that a replay writes the same letter, not another.
        stage: `ingest` (a record is not an event, or has no user), `commit` or `publish`.
        reason: Class of fault.
        detail: One sentence, free of payload.
        stream: Name of the stream it came from.
        shard_id: Its shard.
        sequence: Its sequence number.
        partition_key: Its partition key, to put it back where it was.
        at_ms: When it was set aside, epoch milliseconds.
        payload: The record as it was; for `publish` a JSON object that names user, project, score, revision.
        payload_size: Bytes of the record; more than `len(payload)` when it did not fit the table.
    """

    letter_id: str
    stage: str
    reason: Reason
    detail: str
    stream: str
    shard_id: str
    sequence: str
    partition_key: str
    at_ms: int
    payload: bytes
    payload_size: int


class DeadLetters(Protocol):
    """Where dead letters are put; reading them back is the command line's business."""

    async def put(self, letters: Sequence[DeadLetter]) -> None:
        """Keep the letters (any number), durably; one that is there already stays as it is."""
        ...

    async def between(self, origin: str, first: str, last: str) -> Collection[str]:
        """Return the ids of the letters of an origin whose rest is `first` to `last`, both included."""
        ...


class Published(msgspec.Struct, frozen=True):
    """The sink has it."""


class NoTarget(msgspec.Struct, frozen=True):
    """The sink knows nobody to write this score to, such as a user without endpoints: counted, no error."""


class NoDestination(msgspec.Struct, frozen=True):
    """The place that the scores of this project go to does not exist, such as a Pinpoint project.

    A fault of the configuration: counted by itself, reported by the sink, and watched by an alert. The score stays in
    its table: `scoring reconcile` publishes it once the place exists.
    """


SinkOutcome = Published | NoTarget | NoDestination | Rejected


class Ordering(StrEnum):
    """What a sink's receiver does with a score that comes after a newer one of the same user."""

    VERSIONED = "versioned"
    """It compares revisions and ignores the older one, so no score need be published again for order's sake."""
    LAST_WRITE = "last_write"
    """It keeps what comes last (deploy/decisions/0003)."""


class Sink(Protocol):
    """Somewhere scores are written to. `publish` raises `TransientError` when none of the batch went out."""

    @property
    def name(self) -> str:
        """Short name: a metric label."""
        ...

    @property
    def max_batch(self) -> int:
        """Most changes a call takes."""
        ...

    @property
    def ordering(self) -> Ordering:
        """What the receiver does with an older score that comes late."""
        ...

    async def publish(self, changes: Sequence[ScoreChange]) -> Sequence[SinkOutcome | TransientError]:
        """Write absolute scores of different users, none a removal; return one outcome for each.

        A single change that may work later comes back as a `TransientError` value.
        """
        ...
