"""What stands between one simulated worker and the world: latency, faults, pauses, crashes.

A call is in one of three places: in the process (a pause holds it there), on the wire (whatever happens to the
process, it takes effect within `CALL_TIMEOUT`, or never), or done, with its answer on the way back.
"""

from __future__ import annotations

import asyncio
import random
import zlib
from collections import Counter
from collections.abc import Callable
from typing import Any, TypeVar

import msgspec

from service.runtime.errors import TransientError

T = TypeVar("T")

CALL_TIMEOUT = 7.0
"""Seconds within which a request that was sent takes effect, if it ever does: the adapters' clients bound it. Longer
than most leases here, as in production: so a dead worker's last call may land after its successor's first."""


AT_ONCE = 0.1
"""Seconds within which some calls take effect, if ever, unless a run is `harsh`: sink calls in half of the runs, and
dead letters. A letter that lands later than that may meet a successor that has found the user meanwhile and scored
the event: an insert that a network holds for longer than a lease is not promised against."""


LONGEST_STALE_S = 6.0
"""Seconds for which a list of shards may be wrong."""

SINKS = ("sink", "other sink")
"""Kinds of calls to a sink; the second sink is there in some runs only."""

_WITHOUT_ANSWER = frozenset({"throttle", "error", "outage", "partition", "reset"})


class Rates(msgspec.Struct):
    """Probability of each fault per call."""

    throttle: float = 0.0
    error: float = 0.0
    lose: float = 0.0
    reset: float = 0.0
    slow: float = 0.0
    statement: float = 0.0
    unprocessed: float = 0.0


class Ether:
    """What all wires share.

    Attributes:
        faults: Faults injected, by kind.
        rates: In force now.
        down: Kinds of calls that fail for everybody.
        healed: Nothing fails any more.
        sink_s, letters_s: What a call of a sink, or of the dead letters, takes, seconds.
        adrift: Calls whose caller is gone and that will still take effect.
        sinks_settled_at: When every user of a sink call whose connection was lost has been told of anew.
        awaited: Users, each with what is set once a sink is being told of them.
        digest: Of everything that took effect, in order.
    """

    def __init__(self, rates: Rates, *, late_sink: bool, sink_s: float, letters_s: float, harsh: bool) -> None:
        self.faults: Counter[str] = Counter()
        self.rates = rates
        self.down: Counter[str] = Counter()
        self.healed = False
        self.adrift = 0
        self.sinks_settled_at = 0.0
        self.awaited: dict[str, asyncio.Event] = {}
        self.late_sink = late_sink
        self.sink_s = sink_s
        self.letters_s = letters_s
        self.harsh = harsh
        self.digest = 0
        self.entries = 0
        self.log: list[str] | None = None

    def seconds(self, kind: str) -> float:
        """Return what a call takes at most, beyond what every call takes."""
        return self.sink_s if kind in SINKS else self.letters_s if kind == "letters" else 0.0

    def note(self, what: str, *details: object) -> None:
        """Add to the event log."""
        line = f"{asyncio.get_running_loop().time()!r} {what} {details!r}"
        self.digest = zlib.crc32(line.encode(), self.digest)
        self.entries += 1
        if self.log is not None:
            self.log.append(line)


class Wire:
    """One worker's; its life ends with the worker's.

    Attributes:
        cut: Kinds of calls that fail for this worker.
        adrift_share: Of the calls cut off by the end of their caller, the share that takes effect later.
        adrift_from: How late at least, as a share of how late they may.
    """

    def __init__(self, ether: Ether, rng: random.Random, name: str) -> None:
        self.ether = ether
        self.name = name
        self._rng = rng
        self._running = asyncio.Event()
        self._running.set()
        self.cut: Counter[str] = Counter()
        self.adrift_share = 0.5
        self.adrift_from = 0.0
        self.dead = False

    @property
    def paused(self) -> bool:
        return not self._running.is_set()

    def pause(self) -> None:
        """As SIGSTOP does."""
        self._running.clear()

    def resume(self) -> None:
        self._running.set()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)
        if not self._running.is_set():
            await self._running.wait()

    async def call(self, kind: str, operation: Callable[[], T]) -> T:
        """Do `operation`, which is atomic, in the world."""
        if self.dead:
            raise asyncio.CancelledError
        if not self._running.is_set():
            await self._running.wait()
        ether, rng = self.ether, self._rng
        delay = rng.uniform(0.002, 0.02) + rng.uniform(0.5, 1.0) * ether.seconds(kind)
        fault = None if ether.healed else self._fault(kind)
        if fault is not None:
            ether.faults[fault] += 1
            if fault == "reset":
                self._set_adrift(kind, operation, self._longest_drift(kind))
                if kind in SINKS:
                    ether.sinks_settled_at = asyncio.get_running_loop().time() + 3 * CALL_TIMEOUT
            if fault in _WITHOUT_ANSWER:
                await self.sleep(delay)
                raise TransientError(f"injected: {fault}", throttled=fault == "throttle", undone=fault == "error")
            if fault == "slow call":
                delay = rng.uniform(0.1, CALL_TIMEOUT)
        result = await self._send(kind, operation, delay)
        if not self._running.is_set():
            await self._running.wait()
        if fault == "lost answer":
            raise TransientError("injected: answer lost")
        return result

    async def _send(self, kind: str, operation: Callable[[], T], delay: float) -> T:
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()

        def arrive() -> None:
            if future.done():
                return
            try:
                future.set_result(operation())
            except Exception as error:  # noqa: BLE001 - it is the caller's
                future.set_exception(error)

        arriving = loop.call_later(delay, arrive)
        try:
            return await future
        except asyncio.CancelledError:
            if not future.done() or future.cancelled():
                arriving.cancel()
                if self._rng.random() < self.adrift_share:
                    self._set_adrift(kind, operation, self._longest_drift(kind))
            raise

    def _longest_drift(self, kind: str) -> float:
        ether = self.ether
        late = ether.late_sink if kind in SINKS else ether.harsh if kind == "letters" else True
        return CALL_TIMEOUT if late else AT_ONCE

    def _set_adrift(self, kind: str, operation: Callable[[], Any], longest: float) -> None:
        ether = self.ether
        delay = self._rng.uniform(self.adrift_from * longest, longest)
        ether.adrift += 1

        def arrive() -> None:
            ether.adrift -= 1
            ether.faults["late call"] += 1
            try:
                operation()
            except Exception as error:  # noqa: BLE001 - nobody waits for the answer
                ether.note("late call failed", kind, type(error).__name__)

        asyncio.get_running_loop().call_later(delay, arrive)

    def _fault(self, kind: str) -> str | None:
        ether, rates = self.ether, self.ether.rates
        dice = self._rng.random()
        if ether.down[kind]:
            return "outage"
        if self.cut[kind]:
            return "partition"
        for name, rate in (
            ("throttle", rates.throttle),
            ("error", rates.error),
            ("lost answer", rates.lose),
            ("slow call", rates.slow),
        ):
            if dice < rate:
                return name
            dice -= rate
        return "reset" if dice < rates.reset else None

    def uniform(self, low: float, high: float) -> float:
        """Return a random number."""
        return self._rng.uniform(low, high)

    def chance(self, rate: float, fault: str) -> bool:
        """Return whether a fault inside a call happens, and count it."""
        if self.ether.healed or self._rng.random() >= rate:
            return False
        self.ether.faults[fault] += 1
        return True


class Port:
    """A wire for one kind of call: what the fakes of `tests/fakes` call a gate."""

    def __init__(self, wire: Wire, kind: str) -> None:
        self._wire = wire
        self._kind = kind

    async def call(self, operation: Callable[[], T]) -> T:
        return await self._wire.call(self._kind, operation)
