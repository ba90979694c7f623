"""Endpoints that change hands, and users whose first endpoint comes late: Pinpoint in memory, and who watches its sink.

In a share of the runs the real Pinpoint sink publishes too, over the real identity store. Half of the users have an
endpoint from the start, and now and then one of the desks, which the sink then prefers. The others have none until they
get their first. An event that names both follows each change, sooner or later; for some desks it never comes.

- Stolen: a score of a user is never sent to an endpoint that events processed seconds ago say is another's.
- Unpublished: whoever was named together with a first endpoint has his score there in the end.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Collection, Iterable, Mapping
from typing import TYPE_CHECKING, Any

import msgspec
from botocore.exceptions import ClientError

from service.ingest.identity_plan import alias_row, user_row
from service.ingest.identity_rows import Row, RowKey, Write
from service.ingest.identity_store import IdentityStore
from service.ingest.stores import AliasKey
from service.observability.metrics import Metrics
from service.runtime.clock import Clock
from service.scoring.change import format_score
from service.scoring.fold import ScoreState, UserKey
from service.sinks.pinpoint.sink import PinpointOptions, PinpointSink
from tests.fakes.identities import apply
from tests.simulation.events import PROJECT, Sent
from tests.simulation.network import Wire
from tests.simulation.oracle import Witness

if TYPE_CHECKING:
    from tests.simulation.sim_world import SimWorld

SHARE = 0.3
"""Of the runs."""

CONFIRMED_FOR_S = 2.0
"""In earnest 10 s: runs are short."""

TRUSTED_FOR_S = CONFIRMED_FOR_S
"""What the workers take for it."""

SLACK_S = 0.1
"""What a call's way through the sink may take after the target was looked at."""


class _Named(msgspec.Struct):
    """An event that names an endpoint and its user: since when that was so, and when it was processed."""

    user: str
    since: float
    processed: float


class Hands:
    """The state of Pinpoint, and what is known of it.

    Attributes:
        owners: Whose each endpoint is; nobody else's update changes that here.
        late: Users without an endpoint at the start.
        answer_s: What an answer takes on its way back at most.
        held: The score last written for each user, on an endpoint of his own.
    """

    def __init__(self, seed: int, users: Iterable[str]) -> None:
        self.rng = rng = random.Random(f"{seed} hands")
        people = list(users)
        self.late = people[1::2]
        self.settled = people[::2]
        self.owners = {f"home {user}": user for user in self.settled}
        self.desks: dict[str, list[str]] = {
            f"desk {number}": rng.sample(self.settled, len(self.settled)) for number in range(rng.randint(1, 3))
        }
        self.answer_s = rng.choice([0.0, 1.0, 4.0])
        self.rows: dict[RowKey, Row] = {}
        self.held: dict[str, str] = {}
        self.due: dict[str, Sent] = {}
        self._since: dict[tuple[str, str], float] = {}
        self._named: dict[str, list[_Named]] = {}

    def know(self, users: Mapping[AliasKey, str]) -> None:
        """Have the identity table know what events of long ago have named."""
        for key, user in users.items():
            self.rows[alias_row(key)] = Row("long ago", user_id=user, named=True)
            self.rows[user_row(UserKey(user, key.project_id))] = Row("long ago", named=True)

    async def run(self, world: SimWorld) -> None:
        """Give the desks from hand to hand, and the late users their endpoints."""
        while not world.asked_for:  # noqa: ASYNC110 - with LATEST, what comes earlier is not read, and nobody tells
            await asyncio.sleep(0.5)
        async with asyncio.TaskGroup() as group:
            for desk, visitors in self.desks.items():
                group.create_task(self._pass_on(world, desk, visitors))
            for user in self.late:
                group.create_task(self._arrive(world, user))

    async def _pass_on(self, world: SimWorld, desk: str, visitors: list[str]) -> None:
        for user in visitors:  # each once: so an event tells which visit it is of
            self.owners[desk] = user
            self._since[desk, user] = now()
            world.ether.note("hands", desk, user)
            if self.rng.random() < 0.8:
                await asyncio.sleep(self.rng.uniform(0, 1.5))
                world.put(user, endpoint=desk)
            await asyncio.sleep(self.rng.uniform(1, 2 * world.plan.seconds / len(visitors)))

    async def _arrive(self, world: SimWorld, user: str) -> None:
        await asyncio.sleep(self.rng.uniform(0, world.plan.seconds))
        endpoint = self.rng.choice([f"known {user}", f"first {user}"])  # known to the identity table already, or not
        self.owners[endpoint] = user
        self.due[user] = world.put(user, endpoint=endpoint)

    def processed(self, users: Mapping[AliasKey, str]) -> None:
        """Take note of what a worker has learned from events."""
        for key, user in users.items():
            since = self._since.get((key.value, user))
            known = self._named.setdefault(key.value, [])
            if since is not None and not any(each.user == user for each in known):
                known.append(_Named(user, since, now()))

    def writing(self, items: Iterable[Mapping[str, Any]], witness: Witness) -> None:
        """Look at an update that a worker is about to send."""
        for item in items:
            endpoint, user = item["Id"], item["User"]["UserId"]
            since = self._since.get((endpoint, user), 0.0)
            last = max(self._named.get(endpoint, []), key=lambda each: each.since, default=None)
            if (
                self.owners.get(endpoint) != user
                and last is not None
                and last.user != user
                and last.since > since
                and now() > last.processed + CONFIRMED_FOR_S + SLACK_S
            ):
                witness.problem("stolen", f"{endpoint} is written for {user}, and is {last.user}'s since {last.since}")

    def written(self, items: Iterable[Mapping[str, Any]]) -> None:
        """Carry an update out."""
        for item in items:
            user = item["User"]["UserId"]
            if self.owners.get(item["Id"]) == user:
                self.held[user] = item["User"]["UserAttributes"]["EngagementScore"][0]

    def compare(self, items: Mapping[UserKey, object], lost: Collection[tuple[str, str]]) -> list[tuple[str, str]]:
        """Return whose score is not on the endpoint that came late; `lost` are events that may never count."""
        found: list[tuple[str, str]] = []
        for user in [user for user, sent in self.due.items() if (sent.shard_id, sent.sequence) not in lost]:
            state = items.get(UserKey(user, PROJECT))
            score = format_score(state.score) if isinstance(state, ScoreState) and state.score is not None else None
            if score is not None and self.held.get(user) != score:
                found.append(("unpublished", f"pinpoint, {user}: {self.held.get(user)} is not {score}"))
        return found


class HandsRows:
    """`RowStore`."""

    def __init__(self, hands: Hands, wire: Wire) -> None:
        self._hands = hands
        self._wire = wire

    async def read(self, keys: Collection[RowKey]) -> Mapping[RowKey, Row]:
        rows = self._hands.rows
        return await self._wire.call("identities", lambda: {key: rows[key] for key in keys if key in rows})

    async def write(self, writes: Mapping[RowKey, Write]) -> Collection[RowKey]:
        def change() -> list[RowKey]:
            lost = apply(self._hands.rows, writes)
            self._wire.ether.note("identities", sorted(writes), sorted(lost))
            return lost

        return await self._wire.call("identities", change)


class HandsIdentities(IdentityStore):
    """The identity table as a worker has it; what it learns is witnessed once it is durable."""

    def __init__(self, hands: Hands, wire: Wire, clock: Clock, rng: random.Random) -> None:
        super().__init__(
            HandsRows(hands, wire),
            wall_s=lambda: clock.wall_ms() / 1000,
            monotonic=clock.monotonic,
            confirmed_for_s=TRUSTED_FOR_S,
            rng=rng,
        )
        self._hands = hands

    async def learn(self, users: Mapping[AliasKey, str]) -> None:
        await super().learn(users)
        self._hands.processed(users)


class HandsClient:
    """A worker's Pinpoint client."""

    def __init__(self, hands: Hands, wire: Wire, witness: Witness) -> None:
        self._hands = hands
        self._wire = wire
        self._witness = witness

    async def get_app(self, **_: object) -> Mapping[str, Any]:
        return await self._wire.call("pinpoint", dict)

    async def get_user_endpoints(self, *, UserId: str, **_: object) -> Mapping[str, Any]:  # noqa: N803 - AWS's name
        def look() -> Mapping[str, Any]:
            own = [endpoint for endpoint, user in self._hands.owners.items() if user == UserId]
            if not own:
                raise ClientError({"Error": {"Code": "NotFoundException"}}, "GetUserEndpoints")
            return {"EndpointsResponse": {"Item": [{"Id": each, "User": {"UserId": UserId}} for each in own]}}

        answer = await self._wire.call("pinpoint", look)
        await self._wire.sleep(self._hands.rng.uniform(0, self._hands.answer_s))
        return answer

    async def update_endpoints_batch(self, *, EndpointBatchRequest: Mapping[str, Any], **_: object) -> object:  # noqa: N803 - AWS's name
        items = EndpointBatchRequest["Item"]
        self._hands.writing(items, self._witness)
        return await self._wire.call("pinpoint", lambda: self._hands.written(items))


def sink(hands: Hands, identities: IdentityStore, wire: Wire, witness: Witness, clock: Clock, metrics: Metrics) -> Any:  # noqa: ANN401 - a Sink
    """Return a worker's Pinpoint sink."""
    # So fast that nobody waits: a limiter's shortest wait does not move a virtual clock.
    options = PinpointOptions(updates_per_s=1e6, lookups_per_s=1e6)
    return PinpointSink(HandsClient(hands, wire, witness), identities, clock, metrics, options)


def now() -> float:
    return asyncio.get_running_loop().time()
