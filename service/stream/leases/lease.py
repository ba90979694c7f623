"""A lease's life as pure transitions; the store compares owner and counter, and sets.

    unowned --take--> owned --checkpoint--> owned --release--> unowned
                        |                                        ^
                        +--finish--> finished (SHARD_END)        |
                        +--(owner's member row goes silent)--seize by another

Fencing: every transition counts `counter` up and is written only where owner and counter are the
expected ones. A worker that lost a lease finds out at its next write, and writes nothing.

*Member* rows, one per worker, show who is alive; leases are not renewed one by one: in steady state a
worker costs one write per heartbeat, however many leases it holds.
"""

from __future__ import annotations

import msgspec

from service.stream.position import SHARD_END, Position


class Lease(msgspec.Struct, frozen=True):
    """A row of the lease table: who reads a shard, and how far it is done.

    Attributes:
        shard_id: The stream's id of the shard.
        checkpoint: Everything up to here is durably dealt with.
        owner: Worker id; empty when nobody's.
        counter: Counts every transition; with `owner` the fencing token.
        parents: Shard ids that must be at SHARD_END before this one is read.
        children: Known children, at SHARD_END only.
        owner_switches: Take-overs since the last checkpoint (`ownerSwitchesSinceCheckpoint`).
        ended_ms: When SHARD_END was written, epoch milliseconds; 0 before.
        checkpoint_ms: When the checkpoint was last moved, epoch milliseconds; 0 before.
        unsettled: Whether requests of an owner before, which seemed dead, may still land: the next owner
            takes the place of the one that seized it.
        starting: `Shard.starting` as listed when the row was made or its shard last read; empty where nobody knew it.
    """

    shard_id: str
    checkpoint: Position
    owner: str = ""
    counter: int = 0
    parents: tuple[str, ...] = ()
    children: tuple[str, ...] = ()
    owner_switches: int = 0
    ended_ms: int = 0
    checkpoint_ms: int = 0
    unsettled: bool = False
    starting: str = ""

    @property
    def finished(self) -> bool:
        """Whether every record of the shard is dealt with."""
        return self.checkpoint == SHARD_END

    def taken_by(self, worker: str) -> Lease:
        """Return the lease in the hands of `worker`."""
        return msgspec.structs.replace(
            self,
            owner=worker,
            counter=self.counter + 1,
            owner_switches=self.owner_switches + 1,
            unsettled=False,
        )

    def checkpointed(self, position: Position, now_ms: int) -> Lease:
        """Return the lease with everything up to `position` done."""
        return msgspec.structs.replace(
            self, checkpoint=position, counter=self.counter + 1, owner_switches=0, checkpoint_ms=now_ms
        )

    def ended(self, children: tuple[str, ...], now_ms: int) -> Lease:
        """Return the lease of a shard that was read to its end; it needs no owner any more."""
        return msgspec.structs.replace(
            self,
            checkpoint=SHARD_END,
            counter=self.counter + 1,
            owner="",
            owner_switches=0,
            children=children,
            ended_ms=now_ms,
            checkpoint_ms=now_ms,
        )

    def released(self, *, unsettled: bool = False) -> Lease:
        """Return the lease free for anyone."""
        return msgspec.structs.replace(self, owner="", counter=self.counter + 1, unsettled=unsettled)


class Assigned(msgspec.Struct, frozen=True):
    """A shard a worker is to hold.

    Attributes:
        shard_id: The shard.
        seize_owner: Owner found dead, from whom it may be taken by force; empty: take it only once free.
        seize_counter: The counter the dead owner's lease was seen at; it must not have moved.
    """

    shard_id: str
    seize_owner: str = ""
    seize_counter: int = 0


class Member(msgspec.Struct, frozen=True):
    """A row per worker: its heartbeat, and what the leader wants it to hold.

    Attributes:
        worker: Host and random id, new at every start.
        beats: Heartbeats so far: alive means that this grows.
        beat_ms: The worker's wall clock at the last heartbeat, a hint for a new leader.
        assigned: What it is to hold; what it holds beyond that it hands over.
        version: Counts assignments up.
        leaving: Whether it is stopping: it takes nothing more, and what it holds needs another owner. Workers
            that do not know this attribute never set it, and are found to have left once their leases are free.
        capability: What its version can do, as a number that grows with the versions; 0: it is older than this number.
    """

    worker: str
    beats: int = 0
    beat_ms: int = 0
    assigned: tuple[Assigned, ...] = ()
    version: int = 0
    leaving: bool = False
    capability: int = 0


class Leadership(msgspec.Struct, frozen=True):
    """The row of the one worker that plans for all.

    Attributes:
        leader: Worker id; empty when it stepped down.
        counter: Grows with every renewal; expired means that it stood still for a lease duration.
        initial: Position at which the shards of the first discovery start.
        discovered: Whether that first discovery is complete.
        target: What the leases' positions belong to (see `target.py`); empty where no leader has said so yet.
        sharing: The workers that share rates, as in `share.py`; None where the leader is of version 0.1.
        plans: Counts the plans that changed what somebody is to hold: who sees it change asks at once what that is.
    """

    leader: str
    counter: int
    initial: Position
    discovered: bool = False
    plans: int = 0
    target: str = ""
    sharing: bytes | None = None


class Snapshot(msgspec.Struct, frozen=True):
    """Everything the lease table holds of one stream."""

    leases: tuple[Lease, ...]
    members: tuple[Member, ...]
    leadership: Leadership | None
