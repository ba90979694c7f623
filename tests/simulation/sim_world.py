"""One seeded run: a world in memory, workers in it, a schedule of faults, and the comparison at the end."""

from __future__ import annotations

import asyncio
import gc
import random
import traceback
from collections import Counter
from collections.abc import Callable, Coroutine, Sequence
from typing import Any
from unittest import mock

import msgspec

from service.ingest.ownership import Former
from service.ingest.stores import AliasKey
from service.observability.metrics import Metrics
from service.publish import reconcile
from service.scoring.event import Reason, Rejected
from service.scoring.fold import UserKey
from service.stream.position import LATEST
from tests.fakes.aio import EPOCH_MS, VirtualLoop
from tests.fakes.dead_letters import MemoryDeadLetters
from tests.fakes.pipeline import PipelineRow
from tests.simulation.events import FOREIGN, NOBODYS, PROJECT, Sent, first_definitions, payload, siblings
from tests.simulation.forgetting import Forgetting, small_hours
from tests.simulation.hands import SHARE, Hands
from tests.simulation.network import CALL_TIMEOUT, SINKS, Ether
from tests.simulation.oracle import Problems, Witness
from tests.simulation.ruled import Ruled
from tests.simulation.schedule import Options, counted, draw
from tests.simulation.sim_worker import SimWorker, tuning
from tests.simulation.stores import SimScores, now, score_stream_arn
from tests.simulation.streams import EVENTS, SimLeaseTable, SimStream

DRAIN_S = 120.0
"""Virtual seconds after the last fault within which everything must be dealt with."""

MAX_VIRTUAL_S = 400.0

IN_USE_BEFORE = 0.1
"""Share of the runs in which the score table holds scores from the start that its stream has never shown."""

SEVERAL = 0.15
"""Share of the records that hold several events."""

RECONCILE_CHUNK = 3
"""Scores written at a time by a reconciliation: so few that it takes a while, though there are few users."""


class Result(msgspec.Struct):
    """What a run came to.

    Attributes:
        events: Records put to the stream.
        digest: Of everything that took effect: the same for the same seed.
        drained_s: Virtual seconds from the last fault to the end of all work.
    """

    seed: int
    problems: Problems
    details: list[str]
    faults: Counter[str]
    events: int
    digest: int
    drained_s: float
    log: list[str] | None = None


class _Task(asyncio.Task[Any]):
    """Hashes by order of creation, not by address: sets of tasks are walked in the same order in every run."""

    _made = 0

    def __init__(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401 - handed on
        _Task._made += 1
        self._number = _Task._made
        super().__init__(*args, **kwargs)

    def __hash__(self) -> int:
        return self._number


class SimWorld:
    """Everything outside the workers.

    Attributes:
        trimmed: Whether the score stream has lost changes that nobody had read.
        pipeline: The row that all publishing workers share.
        latest: ARN of the score table's stream; empty while that is switched off.
        changes: That stream, or the one that was switched off last.
        leases: The lease rows of either stream.
        quiet: Users of whom nothing more will be heard.
        asked_for: Whether events put from now on are after the start that the workers were given.
        owners: What the identity fallback knows, and from which second on.
        leases: The lease rows of each pipeline's stream as it is now.
        event_leases: Those of every stream of events there ever was, by incarnation.
        sinks: What each sink holds: revision and score.
    """

    def __init__(self, seed: int, metrics: Metrics, options: Options, *, verbose: bool = False) -> None:
        self.seed = seed
        self.rng = rng = random.Random(seed)
        self.metrics = metrics
        self.options = options
        self.plan = draw(rng, options)
        self.forgetting = Forgetting(seed, self.plan.seconds, latest=self.plan.latest)
        self.plan.feed_s = max(self.plan.feed_s, self.forgetting.feed_s)
        self.plan.actions += [(moment, counted(name)) for moment, name in self.forgetting.actions]
        self.ether = Ether(
            self.plan.rates,
            late_sink=self.plan.late_sink,
            sink_s=self.plan.sink_s,
            letters_s=self.plan.letters_s,
            harsh=options.harsh,
        )
        self.ether.log = [] if verbose else None
        self.sinks: dict[str, dict[UserKey, Any]] = {name: {} for name in SINKS[: self.plan.sinks]}
        self.witness = Witness(EVENTS, tuple(self.sinks))
        self.events = self._stream("ingest", rng.randint(1, 3), 10 ** rng.choice([20, 55]) - rng.randint(1, 700))
        self.score_streams: dict[str, SimStream] = {}
        self.score_leases: dict[str, SimLeaseTable] = {}
        self.latest = ""
        self.pipeline = PipelineRow()
        self.leases = {"ingest": SimLeaseTable("ingest", 0, self.ether, self.witness)}
        self.event_leases = [self.leases["ingest"]]
        self.scores = SimScores(None, self.ether, self.witness)
        self.switch_on()
        self.letters = MemoryDeadLetters()
        self.witness.letters = self.letters.letters
        self.definitions = first_definitions()
        self.ruled = Ruled(seed, self.plan.seconds)
        self.versions = 0
        self.quiet = 0
        self.asked_for = False
        self.identities: dict[AliasKey, str] = {}
        self.former: dict[AliasKey, Sequence[Former]] = {}
        self.owners: dict[AliasKey, tuple[str, float]] = {}
        self.tuning = tuning(rng)
        if self.plan.latest:
            self.tuning = msgspec.structs.replace(self.tuning, start=LATEST)
        self.workers: list[SimWorker] = []
        self.past: list[SimWorker] = []
        self.started = 0
        self.no_crash_until = 0.0
        self.trimmed = False
        self.users = [f"u{number}" for number in range(rng.choice([3, 8, 20, 40]))]
        self._count = 0
        self._packing = random.Random(f"{seed} packing")
        self.hands = Hands(seed, self.users) if random.Random(f"{seed} whether").random() < SHARE else None
        self._people()

    def _stream(self, name: str, shards: int, sequence: int) -> SimStream:
        rng = random.Random(f"{self.seed} {name}")
        return SimStream(name, shards, sequence, self.ether, self.witness, rng, forgetting=self.forgetting)

    def switch_on(self) -> None:
        """Give the score table a stream: its first, or another one."""
        number = len(self.score_streams)
        self.latest = arn = score_stream_arn(number)
        self.changes = self.score_streams[arn] = self.scores.stream = SimStream(
            "publish",
            self.rng.randint(1, 2),
            10**21 - self.rng.randint(1, 700),
            self.ether,
            self.witness,
            random.Random(f"{self.seed} publish {number}"),
            first=1000 * number,
        )
        self.leases["publish"] = self.score_leases[arn] = SimLeaseTable("publish", 0, self.ether, self.witness)

    def switch_off(self) -> SimStream:
        """Take the score table's stream away: changes are lost until there is another. Return it."""
        self.changes.switch_off()
        self.scores.stream, self.latest = None, ""
        return self.changes

    def _people(self) -> None:
        self.scores.items[UserKey("spoilt", PROJECT)] = Rejected(Reason.BAD_SCORE_ITEM, "Score is not a number")
        for user in (*self.users, "spoilt", "refused"):
            self.identities[AliasKey(f"known {user}", PROJECT)] = user
            if self.rng.random() < 0.5:
                self.owners[AliasKey(f"late {user}", PROJECT)] = user, self.rng.uniform(0, self.plan.seconds)
        if self.hands is not None:
            self.hands.know(self.identities)
        before = random.Random(f"{self.seed} before")
        if before.random() < IN_USE_BEFORE:
            for user in [*before.sample(self.users, 3), "before"]:  # the last one has no events
                self.witness.foreign[user] += 1
                self.scores.put_foreign(UserKey(user, PROJECT), FOREIGN)

    def put(self, whose: str = "", endpoint: str = "") -> Sent:
        """One more event: a plain one of somebody, on an endpoint of his own or on `endpoint`, or any of anybody."""
        rng = self.rng
        user = whose or rng.choices([*self.users, "spoilt", "refused"], [4] * len(self.users) + [1, 1])[0]
        kind = rng.choices(
            ["A", "B", "N", "C", "D", "E", "nobody", "ignored", "anonymous", "probe", "malformed"],
            [10, 10, 4, 6, 3, 8, 1, 1, 1, 1, 1],
        )[0]
        kind = "A" if whose else kind
        self._count += 1
        given, named = endpoint, user
        endpoint = given or f"known {user}"
        if kind == "E":
            endpoint, named = f"late {user}", ""
        elif kind in {"nobody", "anonymous"}:
            endpoint, named = f"nobody {self._count}", ""
        elif not whose and rng.random() < 0.3:
            named = ""
        elif rng.random() < 0.2 and not given:
            endpoint = f"late {user}"
        counted = "" if kind in NOBODYS else user
        shard_id = rng.choice(self.events.open())
        arrival_ms = EPOCH_MS + round(now() * 1000)
        body = payload(kind, named, endpoint, arrival_ms, attributed=kind not in {"anonymous", "ignored"})
        events = [(kind, counted, body)]
        if self._packing.random() < SEVERAL:
            events += siblings(self._packing, self.users, arrival_ms)
        sequence = self.events.put(shard_id, b"\n".join(body for _, _, body in events))
        sent = [
            Sent(kind, counted, shard_id, sequence, self.events.incarnation, index if len(events) > 1 else 0, body)
            for index, (kind, counted, body) in enumerate(events, 1)
        ]
        self.witness.sent[self.events.place(shard_id)] += sent
        return sent[0]

    def recreate(self, shards: int) -> None:
        """Delete the event stream and make it again; its leases have keys of their own."""
        self.witness.deleted()
        self.events.recreate(shards)
        self.leases["ingest"] = SimLeaseTable("ingest", self.events.incarnation, self.ether, self.witness)
        self.event_leases.append(self.leases["ingest"])

    def start_worker(self) -> SimWorker:
        self.started += 1
        worker = SimWorker(self, f"w{self.started}", self.metrics)
        self.workers.append(worker)
        return worker

    def living(self) -> list[SimWorker]:
        """Return all that live, those that were told to leave included."""
        return self.workers + [worker for worker in self.past if worker.alive]

    def crash(self, worker: SimWorker) -> None:
        if worker in self.workers:
            self.workers.remove(worker)
            self.past.append(worker)
        publishing = any(sink.flying for sink in worker.sinks)
        worker.crash()
        if self.plan.late_sink and publishing:
            # Not promised (deploy/decisions/0003): a successor that dies while calls of the dead may still land.
            self.no_crash_until = now() + 2 * self.tuning.ingest.lease_duration + 2 * CALL_TIMEOUT

    def leave(self, worker: SimWorker) -> None:
        self.workers.remove(worker)
        self.past.append(worker)
        worker.stop()

    def heal(self) -> None:
        """From now on nothing fails."""
        self.ether.healed = True
        self.ether.sink_s = self.ether.letters_s = 0.0
        if self.hands is not None:
            self.hands.answer_s = 0.0
        self.events.iterator_life = self.changes.iterator_life = 60.0
        self.events.settle()
        self.changes.settle()
        for worker in self.workers + self.past:
            worker.wire.resume()

    async def run(self) -> float:
        """Live through the plan; return how long the rest took."""
        for _ in range(self.plan.workers):
            self.start_worker()
        async with asyncio.TaskGroup() as group:
            group.create_task(self._feed())
            if self.hands is not None:
                group.create_task(self.hands.run(self))
            for at, action in self.plan.actions:
                group.create_task(self._at(at, action))
        self.heal()
        if not self.workers:
            self.start_worker()
        healed_at = now()
        while now() < healed_at + DRAIN_S and not self._crashed() and self.left():  # noqa: ASYNC110 - nobody tells
            await asyncio.sleep(1.0)
        return now() - healed_at

    async def _at(self, at: float, action: Callable[[SimWorld], Coroutine[Any, Any, None]]) -> None:
        await asyncio.sleep(at)
        await action(self)

    async def _feed(self) -> None:
        """Put the events, in bursts."""
        if self.plan.latest:
            # What arrives before the first leader has written down where to start is not asked for.
            while self.leases["ingest"].leader is None:  # noqa: ASYNC110 - the table tells nobody
                await asyncio.sleep(0.5)
            await asyncio.sleep(1.0)
        self.asked_for = True
        left = self.plan.events
        while left:
            burst = min(left, self.rng.choice([1, 5, 15]))
            for _ in range(burst):
                self.put()
            left -= burst
            await asyncio.sleep(self.rng.uniform(0, 2 * self.plan.feed_s * burst / self.plan.events))

    def left(self) -> list[tuple[str, str]]:
        """Return what is not yet as it must be in the end."""
        found: list[tuple[str, str]] = []
        if self.ether.adrift:
            found.append(("undrained", f"{self.ether.adrift} calls adrift"))
        row = self.pipeline.state
        if row is not None and (row.owes or row.stream_arn not in {"", self.latest}):
            found.append(("undrained", f"a reconciliation is owed, or an old stream is read: {row}"))
        for name, stream in (("ingest", self.events), ("publish", self.changes)):
            for shard in stream.shards.values():
                row = self.leases[name].leases.get(shard.shard_id)
                if (name, stream.place(shard.shard_id)) in self.witness.finished:
                    continue
                done = row is not None and not shard.closed
                if done and shard.records and row is not None:
                    last = shard.records[-1].sequence
                    done = row.checkpoint == last or int(last) <= self.witness.trimmed.get(shard.shard_id, -1)
                    done = done or (name == "ingest" and shard.trimmed_to == len(shard.records))
                if not done:
                    found.append(("undrained", f"{name} {shard.shard_id}: {row}"))
        if self.hands is not None:
            found += self.hands.compare(self.scores.items, self.witness.lost)
        return found + self.witness.compare(self.scores.items, self.sinks, self.versions)

    def _crashed(self) -> list[SimWorker]:
        return [worker for worker in self.workers + self.past if _error_of(worker) is not None]

    async def judge(self) -> None:
        """Write down what is still wrong."""
        for worker in self._crashed():
            error = _error_of(worker)
            assert error is not None
            self.witness.problem("crashed", f"{worker.name}: " + "".join(traceback.format_exception(error)))
        for kind, detail in self.left():
            self.witness.problem(kind, detail)

    async def end(self) -> None:
        """End every worker."""
        for worker in self.workers:
            worker.crash()
        for worker in self.workers + self.past:
            await asyncio.wait([worker.task])
            if not worker.task.cancelled():
                worker.task.exception()


def _error_of(worker: SimWorker) -> BaseException | None:
    if not worker.task.done():
        return None
    if worker.task.cancelled():
        return None
    return worker.task.exception()


def simulate(seed: int, metrics: Metrics, options: Options, *, verbose: bool = False) -> Result:
    """Run one seed."""

    async def main() -> Result:
        asyncio.get_running_loop().set_task_factory(lambda loop, coro, **kwargs: _Task(coro, loop=loop, **kwargs))
        world = SimWorld(seed, metrics, options, verbose=verbose)
        drained_s = 0.0
        try:
            with mock.patch.object(reconcile, "CHUNK", RECONCILE_CHUNK), small_hours():
                async with asyncio.timeout(MAX_VIRTUAL_S):
                    drained_s = await world.run()
        except TimeoutError:
            world.witness.problem("undrained", f"not over after {MAX_VIRTUAL_S:g} virtual seconds")
        await world.judge()
        await world.end()
        witness = world.witness
        return Result(
            seed=seed,
            problems=witness.problems,
            details=witness.details,
            faults=world.ether.faults,
            events=world._count,
            digest=world.ether.digest,
            drained_s=drained_s,
            log=world.ether.log,
        )

    gc.disable()
    _Task._made = 0
    try:
        with asyncio.Runner(loop_factory=VirtualLoop) as runner:
            return runner.run(main())
    finally:
        gc.enable()
