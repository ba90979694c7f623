"""What may happen to a world: faults, reshards, operators, and whoever else writes where the service does."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any

import msgspec

from service.publish.reconcile import restated
from service.runtime.errors import TransientError
from service.scoring.definitions import Definition
from service.scoring.fold import UserKey
from service.stream.position import TRIM_HORIZON, sequence_of
from tests.fakes.aio import VirtualClock
from tests.simulation.events import FOREIGN, PROJECT, TOGGLED, versioned
from tests.simulation.forgetting import old_marks, retention_change
from tests.simulation.network import CALL_TIMEOUT, SINKS, Rates, Wire
from tests.simulation.reshards import expiry, merge, new_shards, roll_over, split, stale_list
from tests.simulation.stores import ScorePort, now

if TYPE_CHECKING:
    from tests.simulation.sim_world import SimWorld

Action = Callable[["SimWorld"], Coroutine[Any, Any, None]]

KINDS = (
    "leases",
    "scores",
    "letters",
    "definitions",
    "identities",
    "lookup",
    "ingest stream",
    "publish stream",
    *SINKS,
)


async def crash(world: SimWorld) -> None:
    """A worker dies; another starts, sooner or later."""
    victims = [worker for worker in world.living() if world.options.harsh or _may_crash(world, worker.resumed_at)]
    victim = world.rng.choice(victims) if victims else None
    leaving = victim is not None and victim not in world.workers
    if victim is not None:
        world.crash(victim)
    await asyncio.sleep(world.rng.choice([0.1, 2.0, 9.0]))
    if not leaving:
        world.start_worker()


def _may_crash(world: SimWorld, resumed_at: float) -> bool:
    # Not promised (deploy/decisions/0003): a worker that wakes up late, or whose call loses its connection, so that an
    # old score may be written to a sink, and that dies before it is mended.
    settled = max(world.no_crash_until, world.ether.sinks_settled_at)
    return now() >= settled and now() > resumed_at + 3 * CALL_TIMEOUT


async def crash_all(world: SimWorld) -> None:
    """Power failure."""
    if world.options.harsh or _all_may_crash(world):
        await _power_failure(world)


async def pause(world: SimWorld) -> None:
    """A worker stands still, for a moment or for longer than its lease."""
    if not world.workers:
        return
    worker = world.rng.choice(world.workers)
    worker.wire.pause()
    worker.resumed_at = float("inf")
    await asyncio.sleep(world.rng.choice([1.0, 4.0]) + world.rng.expovariate(0.12))
    worker.wire.resume()
    worker.resumed_at = now()


async def partition(world: SimWorld) -> None:
    """A worker cannot reach some of the world."""
    if not world.workers:
        return
    worker = world.rng.choice(world.workers)
    kinds = world.rng.sample(KINDS, world.rng.choice([1, 1, 2, len(KINDS)]))
    if world.rng.random() < 0.5 and "leases" not in kinds:
        kinds[0] = "leases"
    for kind in kinds:
        worker.wire.cut[kind] += 1
    await asyncio.sleep(world.rng.uniform(1, 15))
    for kind in kinds:
        worker.wire.cut[kind] -= 1


async def outage(world: SimWorld) -> None:
    """Something is down for everybody."""
    kind = world.rng.choice([*KINDS, "sink", "sink", "lookup"])
    world.ether.down[kind] += 1
    await asyncio.sleep(world.rng.uniform(0.5, 8))
    world.ether.down[kind] -= 1


async def storm(world: SimWorld) -> None:
    """For a while many calls fail."""
    before = world.ether.rates
    world.ether.rates = Rates(throttle=0.2, error=0.1, lose=0.15, reset=0.05, slow=0.05, statement=0.4, unprocessed=0.3)
    await asyncio.sleep(world.rng.uniform(0.5, 4))
    world.ether.rates = before


async def hand_over(world: SimWorld) -> None:
    """SIGTERM to one, and a new one joins, before or after."""
    if world.rng.random() < 0.5:
        world.start_worker()
    running = [worker for worker in world.workers if not worker.wire.paused]
    if running and len(world.workers) > 1:
        world.leave(world.rng.choice(running))
    elif len(world.workers) < 4:
        world.start_worker()


async def retention(world: SimWorld) -> None:
    """The event stream forgets shards that were read to their end, and of which nobody has anything in hand any more.

    In earnest that is a day after at the earliest: nobody sleeps that long here and then goes on.
    """
    lately = now() - world.tuning.ingest.lease_duration - CALL_TIMEOUT
    asleep = any(worker.wire.paused or worker.resumed_at > lately for worker in world.living())
    if asleep or world.ether.adrift:
        return
    for shard_id in list(world.events.shards):
        finished_at = world.witness.finished.get(("ingest", world.events.place(shard_id)), now())
        if finished_at < now() - world.tuning.ingest.lease_duration - 1:
            world.ether.faults["forgotten shard"] += 1
            world.events.forget(shard_id)
    world.events.changed()


async def recreate(world: SimWorld) -> None:
    """The event stream is deleted and made again under its name; whoever starts from now on knows no other."""
    if world.plan.latest:
        return  # a worker that starts at LATEST may leave out what is on the new stream already
    world.recreate(world.rng.randint(1, 3))
    if world.rng.random() < 0.5 and len(world.workers) < 4:
        await asyncio.sleep(world.rng.uniform(0, 2))
        world.start_worker()


async def trim(world: SimWorld) -> None:
    """Everybody dies, and before anybody is back the score stream has forgotten changes that nobody has read.

    It cannot be read shortly before, so that there are such changes, and in some runs not for a while after: the loss
    need not be the first thing that goes wrong for the worker that reads there next. In some runs everybody dies once
    more soon after somebody has found out.
    """
    down, noticed = world.ether.down, world.ether.faults["RecordsTrimmedError"]
    await _until(world, 15, lambda: _all_may_crash(world))
    down["publish stream"] += 1
    for _ in range(3 if world.asked_for else 0):
        _put_last(world)
    await asyncio.sleep(world.rng.uniform(0, 3))
    trimmed = _all_may_crash(world)
    if trimmed:
        await _power_failure(world, lambda: _trim_unread(world))
        await asyncio.sleep(world.rng.choice([0.0, world.rng.uniform(1, 12)]))
    down["publish stream"] -= 1
    if trimmed:
        await _until(world, 30, lambda: world.ether.faults["RecordsTrimmedError"] > noticed)
        await asyncio.sleep(world.rng.uniform(0, 20))
        if _all_may_crash(world):
            await _power_failure(world)


def _all_may_crash(world: SimWorld) -> bool:
    return all(_may_crash(world, worker.resumed_at) for worker in world.living())


async def _until(world: SimWorld, seconds: float, condition: Callable[[], bool]) -> None:
    """Wait until it holds, but no longer than `seconds`, nor for anything that comes after all faults."""
    end = now() + seconds
    while not condition() and now() < end and not world.ether.healed:  # noqa: ASYNC110 - nobody says when
        await asyncio.sleep(0.5)


async def _power_failure(world: SimWorld, meanwhile: Callable[[], None] = lambda: None) -> None:
    count = max(1, len(world.workers))
    for worker in world.living():
        world.crash(worker)
    meanwhile()
    await asyncio.sleep(world.rng.uniform(0.1, 3))
    for _ in range(count):
        world.start_worker()


def _trim_unread(world: SimWorld) -> None:
    for shard in world.changes.shards.values():
        row = world.leases["publish"].leases.get(shard.shard_id)
        done = sequence_of(row.checkpoint) if row is not None else None
        # From the trim horizon on nobody can tell that something is missing.
        unread = [at for at, each in enumerate(shard.records) if done is not None and int(each.sequence) > done]
        if unread:
            kept = max(shard.trimmed_to, world.rng.randint(unread[0], len(shard.records) - 1) + 1)
            world.changes.trim(shard.shard_id, kept)
            world.witness.trimmed[shard.shard_id] = int(shard.records[kept - 1].sequence)
            world.trimmed = True
            world.ether.faults["trimmed shard"] += 1


async def switch(world: SimWorld) -> None:
    """The score table's stream is switched off, and on again: another one. A while later the old one is gone."""
    if not world.latest:
        return
    old = world.switch_off()
    for _ in range(world.rng.choice([0, 3]) if world.asked_for else 0):
        _put_last(world)
    await asyncio.sleep(world.rng.uniform(0.2, 8))
    world.switch_on()
    await asyncio.sleep(world.rng.choice([0.0, world.rng.uniform(0, 25)]))
    old.vanish()


async def rewind(world: SimWorld) -> None:
    """The owner of a shard dies and an operator sets its checkpoint back: everything since is delivered again."""
    name = world.rng.choice(["ingest", "ingest", "publish"])
    table = world.leases[name]
    stream = world.events if name == "ingest" else world.changes
    # A stale list may have brought the row of a shard back that the stream has forgotten.
    rows = [row for row in table.leases.values() if not row.finished and row.shard_id in stream.shards]
    if not rows or (world.trimmed and name == "publish"):
        return  # a checkpoint that points at what the stream has lost is all that tells of the loss
    row = world.rng.choice(rows)
    # `scoring position reset` refuses while anybody may hold the shard: an idle owner would not notice.
    owners = [worker for worker in world.workers if row.owner.split(".")[0] == worker.name]
    if owners and not _may_crash(world, owners[0].resumed_at):
        return
    for worker in owners:
        world.crash(worker)
        world.start_worker()
    records = stream.shards[row.shard_id].records
    position = TRIM_HORIZON
    if world.plan.latest and name == "ingest":
        if not row.checkpoint.isdecimal():
            return
        position = records[0].sequence if records else row.checkpoint
    elif records and row.checkpoint.isdecimal() and world.rng.random() < 0.7:
        earlier = [record.sequence for record in records if int(record.sequence) <= int(row.checkpoint)]
        position = world.rng.choice(earlier)
    # The owner stays: who takes the shard seizes it, and knows that calls of the dead may still land.
    new = msgspec.structs.replace(row, checkpoint=position, counter=row.counter + 1)
    world.witness.operator_wrote.add((name, stream.place(row.shard_id), new.counter))
    table.put(new)


async def read_all_again(world: SimWorld) -> None:
    """Everybody dies, and an operator has everything read again that the event stream still holds."""
    if world.plan.latest or not _all_may_crash(world):
        return

    def reset() -> None:
        table = world.leases["ingest"]
        for row in [row for row in table.leases.values() if not row.finished]:
            new = msgspec.structs.replace(row, checkpoint=TRIM_HORIZON, counter=row.counter + 1)
            world.witness.operator_wrote.add(("ingest", world.events.place(row.shard_id), new.counter))
            table.put(new)

    await _power_failure(world, reset)


async def clock_jump(world: SimWorld) -> None:
    """The wall clock of a worker jumps."""
    if world.workers:
        worker = world.rng.choice(world.workers)
        if world.forgetting.old_marks:
            return  # a clock that is behind dates such marks too early: a day is promised, and may be used up
        ahead = -1 if world.plan.latest else world.rng.choice([-1, 1])
        worker.clock.skew_ms += ahead * world.rng.choice([500, 5_000, 3_600_000])


async def reconcile(world: SimWorld) -> None:
    """Every stored score is published again: by a worker that is asked to, or by an operator who may break it off."""
    rng = world.rng
    if world.workers and rng.random() < 0.5:
        worker = rng.choice(world.workers)
        if worker.reconciler is not None:
            await worker.reconciler.owe("asked")
        return
    operator = random.Random(rng.random())
    scores = ScorePort(world.scores, Wire(world.ether, operator, "operator"))
    clock, per_s = VirtualClock(), operator.choice([5.0, 100.0])
    with contextlib.suppress(TimeoutError, TransientError):
        async with asyncio.timeout(operator.choice([1.0, 20.0])):
            async for _ in restated(scores.scan(), scores, clock, world.metrics, operator, per_s):
                pass


async def foreign_increments(world: SimWorld) -> None:
    """Something else adds to scores, of users known here or not; a worker may be about to write them."""
    for user in world.rng.choices(world.users, k=world.rng.randint(1, 5)):
        world.witness.foreign[user] += 1
        world.scores.add_foreign(UserKey(user, PROJECT), FOREIGN)
        await asyncio.sleep(world.rng.choice([0.0, 0.0, 0.3]))


def _put_last(world: SimWorld) -> str:
    """Put an event of a user who has no other; return the user."""
    world.quiet += 1
    user = f"quiet {world.quiet}"
    world.put(user)
    return user


async def last_words(world: SimWorld) -> None:
    """A worker dies while it tells a sink of a user to whom one more thing happens, and then nothing ever again."""
    if not world.asked_for:
        return
    user = _put_last(world)
    told = world.ether.awaited[user] = asyncio.Event()
    try:
        async with asyncio.timeout(6.0):
            await told.wait()
    except TimeoutError:
        return
    finally:
        del world.ether.awaited[user]
    for worker in list(world.workers):
        telling = any(key.user_id == user for sink in worker.sinks for key in sink.flying)
        if telling and (world.options.harsh or _may_crash(world, worker.resumed_at)):
            passed_on = world.rng.random() < 0.7
            worker.wire.adrift_share, worker.wire.adrift_from = 1.0, 0.95 if passed_on else 0.7
            world.crash(worker)
            world.put(user)
            if passed_on:
                await _pass_on(world, worker.name)
            await asyncio.sleep(world.rng.choice([0.1, 2.0]))
            world.start_worker()


async def _pass_on(world: SimWorld, dead: str) -> None:
    """Whoever seizes a shard from the dead is told to leave at once."""
    world.start_worker()
    asked = world.witness.seizures[dead] = asyncio.get_running_loop().create_future()
    try:
        async with asyncio.timeout(12.0):
            name = await asked
    except TimeoutError:
        return
    finally:
        world.witness.seizures.pop(dead, None)
    seizer = next((worker for worker in world.workers if worker.name == name and not worker.wire.paused), None)
    if seizer is not None and len(world.workers) > 1:
        world.leave(seizer)


async def definition_change(world: SimWorld) -> None:
    rows = world.definitions
    if world.rng.random() < 0.5:
        if rows.pop("D", None) is None:
            rows["D"] = Definition("D", PROJECT, TOGGLED)
    elif world.versions < 3:
        world.versions += 1
        rows["C"] = Definition("C", PROJECT, versioned(world.versions))


ACTIONS: dict[str, tuple[int, Action]] = {
    "crash": (6, crash),
    "crash of all": (1, crash_all),
    "last words": (3, last_words),
    "pause": (6, pause),
    "partition": (2, partition),
    "outages": (2, outage),
    "storm": (2, storm),
    "hand-over": (3, hand_over),
    "split": (4, split),
    "merge": (3, merge),
    "roll-over": (3, roll_over),
    "new shards": (1, new_shards),
    "retention": (1, retention),
    "retention change": (0, retention_change),
    "marks of 0.1": (0, old_marks),
    "read all again": (0, read_all_again),
    "stream made again": (2, recreate),
    "trimmed changes": (2, trim),
    "stream off and on": (2, switch),
    "stale lists": (2, stale_list),
    "expiry": (1, expiry),
    "rewind": (2, rewind),
    "clock jump": (2, clock_jump),
    "reconcile": (2, reconcile),
    "foreign increments": (3, foreign_increments),
    "definition change": (3, definition_change),
}
