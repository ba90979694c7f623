"""What happens to the streams: shards split, merge, roll over, appear; lists are old, iterators expire."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from tests.simulation.network import LONGEST_STALE_S

if TYPE_CHECKING:
    from tests.simulation.sim_world import SimWorld


async def split(world: SimWorld) -> None:
    open_shards = world.events.open()
    if len(open_shards) < 4:
        world.events.split(world.rng.choice(open_shards))
        world.events.changed()


async def merge(world: SimWorld) -> None:
    open_shards = world.events.open()
    if len(open_shards) > 1:
        world.events.merge(*world.rng.sample(open_shards, 2))
        world.events.changed()


async def new_shards(world: SimWorld) -> None:
    """Every shard of the event stream is replaced, as by a change of its shard count."""
    open_shards = world.events.open()
    if len(open_shards) > 2:
        world.events.merge(open_shards[0], open_shards[1])
        open_shards = open_shards[2:]
    for shard_id in open_shards:
        world.events.split(shard_id)
    world.events.changed()


async def roll_over(world: SimWorld) -> None:
    """A shard of the score stream is replaced; it looks open for a while."""
    open_shards = world.changes.open()
    if not open_shards:
        return
    shard_id = world.rng.choice(open_shards)
    if len(open_shards) < 3 and world.rng.random() < 0.3:
        world.changes.halve(shard_id)
    else:
        changes = world.changes
        changes.roll(shard_id)
        await asyncio.sleep(world.rng.uniform(0, 4))
        changes.settle()


async def stale_list(world: SimWorld) -> None:
    """The shard list is old, or misses a shard, for a while."""
    stream = world.rng.choice([world.events, world.changes])
    if stream.stale:
        return
    stream.stale = True
    await asyncio.sleep(world.rng.uniform(2, LONGEST_STALE_S - 1))
    stream.stale = False


async def expiry(world: SimWorld) -> None:
    """Iterators live shorter than the time between two reads."""
    stream = world.rng.choice([world.events, world.changes])
    stream.iterator_life = 0.3
    await asyncio.sleep(world.rng.uniform(1, 4))
    stream.iterator_life = 60.0
