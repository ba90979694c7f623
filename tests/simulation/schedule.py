"""What goes wrong in a run, and when: drawn from its seed."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import msgspec

from tests.simulation.actions import ACTIONS, Action
from tests.simulation.network import Rates

if TYPE_CHECKING:
    from tests.simulation.sim_world import SimWorld


class Options(msgspec.Struct, frozen=True):
    """What is asked of a simulation.

    Attributes:
        also: An action that happens in every run, whatever else does; empty: none.
        harsh: Also faults against which nothing is promised (see `actions.pause` and `SimWorld.crash`).
    """

    also: str = ""
    harsh: bool = False


class Schedule(msgspec.Struct):
    """What happens in a run.

    Attributes:
        seconds: Virtual time within which faults begin.
        feed_s: Time in which the events come, more or less.
        late_sink: Sink calls of the dead take effect up to `CALL_TIMEOUT` late, rather than at once or never.
        sinks: How many there are.
        sink_s, letters_s: What a call of the sink, or of the dead letters, takes.
        latest: Workers start at LATEST; events come once the first leader has noted when that was.
    """

    workers: int
    events: int
    seconds: float
    feed_s: float
    rates: Rates
    late_sink: bool
    sinks: int
    sink_s: float
    letters_s: float
    latest: bool
    actions: list[tuple[float, Action]]


GENERATIONS = 0.1
"""Share of the runs that see all shards replaced again and again, and the old ones forgotten."""


def draw(rng: random.Random, options: Options) -> Schedule:
    """Draw a schedule."""
    generations = rng.random() < GENERATIONS
    seconds = rng.uniform(18, 30) if generations else rng.uniform(8, 25)
    busy = rng.choice([0.0, 0.3, 1.0])
    rates = Rates(
        throttle=busy * rng.uniform(0, 0.05),
        error=busy * rng.uniform(0, 0.05),
        lose=busy * rng.uniform(0, 0.06),
        reset=busy * rng.uniform(0, 0.04),
        slow=busy * rng.uniform(0, 0.03),
        statement=busy * rng.uniform(0, 0.15),
        unprocessed=busy * rng.uniform(0, 0.1),
    )
    names = list(ACTIONS)
    weights = [ACTIONS[name][0] for name in names]
    actions: list[tuple[float, Action]] = []
    for _ in range(rng.randint(2, 14)):
        name = rng.choices(names, weights)[0]
        actions.append((rng.uniform(0.5, seconds), counted(name)))
    if generations:
        actions += [(seconds * share, counted("new shards")) for share in (0.1, 0.3, 0.5, 0.7)]
        actions += [(seconds * share, counted("retention")) for share in (0.45, 0.6, 0.75, 0.9)]
    if options.also:
        # In the first half: events come after it, and nobody is paused for ever before it.
        actions.append((random.Random(seconds).uniform(0.2, 0.6) * seconds, counted(options.also)))
    return Schedule(
        workers=rng.randint(1, 3),
        events=rng.randint(40, 220),
        seconds=seconds,
        feed_s=seconds * rng.choice([0.4, 0.7, 1.0]),
        rates=rates,
        sinks=rng.choice([1, 1, 2]),
        sink_s=rng.choice([0.0, 0.0, 0.3, 2.0]),
        letters_s=rng.choice([0.0, 0.0, 0.5, 2.0]),
        late_sink=rng.random() < 0.5 or options.harsh,
        latest=rng.random() < 0.15,
        actions=actions,
    )


def counted(name: str) -> Action:
    act = ACTIONS[name][1]

    async def action(world: SimWorld) -> None:
        world.ether.faults[name] += 1
        world.ether.note("action", name)
        await act(world)

    return action
