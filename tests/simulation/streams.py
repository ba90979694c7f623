"""The simulated streams and the lease table."""

from __future__ import annotations

import asyncio
import random
import zlib
from collections.abc import Callable
from typing import Any, TypeVar

from service.ingest.marks import shard_tag
from service.runtime.errors import TransientError
from service.stream.leases.lease import Lease
from service.stream.ports import Page, Shard, StreamId
from tests.fakes.aio import EPOCH_MS
from tests.fakes.leases import LeaseTable
from tests.fakes.source import FakeShard, FakeSource, FakeStream, incarnation_of
from tests.simulation.forgetting import Forgetting
from tests.simulation.network import Ether, Port
from tests.simulation.oracle import Witness

T = TypeVar("T")

EVENTS = StreamId(name="events", arn="arn:aws:kinesis:eu-central-1:000000000000:stream/events", tag="ev")


def place(shard_id: str, incarnation: int) -> str:
    """Return the name of a shard of a stream that was made again so many times."""
    return f"{shard_id} of stream {incarnation}" if incarnation else shard_id


class SimStream(FakeStream):
    """A stream whose list may be old, whose pages may be short or empty, and whose every fetch is witnessed.

    Attributes:
        stale: Whether lists may be old now.
        gone: Whether nothing can be read any more.
    """

    def __init__(
        self,
        pipeline: str,
        shards: int,
        sequence: int,
        ether: Ether,
        witness: Witness,
        rng: random.Random,
        *,
        first: int = 0,
        forgetting: Forgetting | None = None,
    ) -> None:
        self._witness = witness
        self._forgetting = forgetting
        super().__init__(shards, dynamodb=pipeline == "publish", iterator_life=60.0, first=first)
        self._sequence = sequence
        self.pipeline = pipeline
        self.stale = False
        self.gone = False
        self.page = rng.choice([3, 10, 1000])
        self._ether = ether
        self._rng = rng
        self._lists: list[list[Shard]] = []
        self._ranges = {name: (at / shards, (at + 1) / shards) for at, name in enumerate(self.shards)}
        self.changed()

    def _new(self, *parents: str) -> FakeShard:
        shard = super()._new(*parents)
        if not self.dynamodb:
            tag = shard_tag(incarnation_of(EVENTS, self.incarnation), shard.shard_id)
            self._witness.starts[tag] = int(shard.starting)
        return shard

    def error_ms(self, shard_id: str) -> int:
        return self._forgetting.error_ms(shard_id) if self._forgetting else 0

    def expire(self) -> None:
        """Forget what is older than the retention; what does not count by now may never do."""
        if self._forgetting is None or not self._forgetting.short:
            return
        now_s = asyncio.get_running_loop().time()
        for shard in self.shards.values():
            oldest_ms = EPOCH_MS + (now_s - self._forgetting.retention_s) * 1000 + self.error_ms(shard.shard_id)
            at = shard.trimmed_to
            while at < len(shard.records) and shard.records[at].arrival_ms < oldest_ms:
                at += 1
            if at > shard.trimmed_to:
                self._ether.faults["expired records"] += at - shard.trimmed_to
                self._witness.expired(self.place(shard.shard_id), shard.records[at - 1].sequence)
                shard.trimmed_to = at

    def changed(self) -> None:
        """Remember how the stream was listed until now."""
        self._lists.append([shard.as_listed() for shard in self.shards.values()])

    def open(self) -> list[str]:
        return [shard.shard_id for shard in self.shards.values() if not shard.closed and not shard.children]

    def place(self, shard_id: str) -> str:
        """Return a shard's name for the witness: shards of a stream made again have the same ids."""
        return place(shard_id, self.incarnation)

    def recreate(self, shards: int) -> None:
        super().recreate(shards)
        self._lists = []
        self.changed()

    def roll(self, shard_id: str) -> None:
        """Replace a shard by its successor; it looks open until `settle`."""
        self._ranges[self.roll_over(shard_id, close=False)] = self._ranges[shard_id]
        self.changed()

    def halve(self, shard_id: str) -> None:
        """Replace a shard by two."""
        low, high = self._ranges[shard_id]
        one, other = self.split(shard_id)
        self._ranges[one], self._ranges[other] = (low, (low + high) / 2), ((low + high) / 2, high)
        self.changed()

    def settle(self) -> None:
        """Close whatever has children."""
        for shard in self.shards.values():
            shard.closed = shard.closed or bool(shard.children)
        self.changed()

    def shard_of(self, key: str) -> str:
        """Return the open shard that takes an item's changes: all of them are in one lineage."""
        at = zlib.crc32(key.encode()) / 2**32
        return next(name for name in self.open() if self._ranges[name][0] <= at < self._ranges[name][1])

    def switch_off(self) -> None:
        """Close every shard: the table's changes go elsewhere, or nowhere."""
        for shard in self.shards.values():
            shard.closed = True
        self.changed()

    def vanish(self) -> None:
        """Forget everything, as a day after it was switched off."""
        self.shards.clear()
        self.gone = True

    def list_shards(self) -> list[Shard]:
        if self.gone:
            raise TransientError("the stream is gone")
        now = super().list_shards()
        if self.stale and not self._ether.healed and self._rng.random() < 0.7:
            self._ether.faults["stale list"] += 1
            now = self._rng.choice(self._lists[-3:])
            finished = self._witness.finished
            known = [shard for shard in now if (self.pipeline, self.place(shard.shard_id)) in finished]
            if known and self._rng.random() < 0.5:
                hidden = self._rng.choice(known)
                now = [shard for shard in now if shard is not hidden]
        return now

    def iterator(self, shard_id: str, position: str) -> str:
        self.expire()
        return self._counted(lambda: super(SimStream, self).iterator(shard_id, position))

    def fetch(self, iterator: str, limit: int) -> Page[Any]:
        self.expire()
        shard_id = iterator.split("|", maxsplit=1)[0]
        if not self._ether.healed and self._rng.random() < 0.05:
            limit = 0
        page = self._counted(lambda: super(SimStream, self).fetch(iterator, min(limit, self.page)))
        parents = [self.place(parent) for parent in self.shards[shard_id].parents]
        self._witness.fetched(self.pipeline, self.place(shard_id), parents)
        if page.records:
            self._ether.note("fetch", shard_id, page.records[-1].sequence)
        return page

    def _counted(self, call: Callable[[], T]) -> T:
        try:
            return call()
        except Exception as error:
            self._ether.faults[type(error).__name__] += 1
            raise


class SimSource(FakeSource):
    def __init__(self, stream: SimStream, named: StreamId, port: Port, incarnation: int) -> None:
        super().__init__(stream, port, named, incarnation)  # all a source asks of a gate is `call`


class SimLeaseTable(LeaseTable):
    """The lease rows of a stream: every write is witnessed."""

    def __init__(self, pipeline: str, incarnation: int, ether: Ether, witness: Witness) -> None:
        super().__init__()
        self.pipeline = pipeline
        self.incarnation = incarnation
        self._ether = ether
        self._witness = witness

    def put(self, lease: Lease) -> None:
        shard = place(lease.shard_id, self.incarnation)
        self._witness.lease_written(self.pipeline, shard, self.leases.get(lease.shard_id), lease)
        self._ether.note("lease", self.pipeline, lease.shard_id, lease.owner, lease.counter, lease.checkpoint)
        self.leases[lease.shard_id] = lease
