"""Which user an endpoint belonged to, at every position of the stream. Pure.

The rule: an event that names no user belongs to the user that the latest naming before it gives to its endpoint. A
naming is an event that names both, or a snapshot of the endpoint that states it has no user. "Before" is by sequence
number within a shard, and by arrival between shards. Before its first naming, an endpoint belongs to the user that its
owner (Pinpoint) names, or to nobody: what a device did before its first sign-in is not credited to who signs in later.

The rule does not mention batches: a batch boundary, a slow worker or an outage changes nothing. A change of hands is
kept with its position and the former user, so that a record that is read again, after a crash or a rewind, belongs to
the same user as before, and counts once. Only an endpoint's first naming is kept without its position (that would be a
second row for every endpoint there is): what comes before it, and is read again or read late from another shard,
belongs to the user it names. Nobody had been credited with that.

The same rule holds for e-mail addresses, phone numbers, profile ids and anonymous ids. Their first naming is kept with
its position, as a change from nobody: until then, the address itself may have been credited as a user.
"""

from __future__ import annotations

import msgspec

MAX_FORMER = 8
"""Former users remembered of an endpoint. Where more change hands within what is read again, the oldest of those
remembered counts for all before."""

NOBODY = ""
"""The user of an endpoint that is known to have none."""


class Position(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """Where a record stands.

    Attributes:
        shard: Its shard's tag (`marks.shard_tag`).
        sequence: Its decimal sequence number.
        arrival_ms: When the stream took it, epoch milliseconds.
    """

    shard: str
    sequence: str
    arrival_ms: int

    def precedes(self, other: Position) -> bool:
        """Return whether this record comes before another, which may be in another shard."""
        if self.shard == other.shard:
            return int(self.sequence) < int(other.sequence)
        return self.arrival_ms < other.arrival_ms


class Former(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """A former user of an endpoint, and the position of the naming that ended it."""

    user_id: str
    until: Position


class Ownership(msgspec.Struct, frozen=True, gc=False):
    """The user of an endpoint.

    Attributes:
        user_id: Its user now; `NOBODY` where it is known to have none.
        former: Its users before, oldest first.
    """

    user_id: str
    former: tuple[Former, ...] = ()

    def at(self, position: Position) -> str:
        """Return the user at a position: at that of a naming, already the one it names."""
        for former in self.former:
            if position.precedes(former.until):
                return former.user_id
        return self.user_id

    def named(self, user_id: str, position: Position) -> Ownership:
        """Return the ownership after a naming.

        A naming that is older than others, from a shard that is behind or read again, changes nothing after those.
        """
        users = self.former
        index = next((at for at, former in enumerate(users) if position.precedes(former.until)), len(users))
        earlier, later = users[:index], users[index:]
        until_now = later[0].user_id if later else self.user_id
        if until_now == user_id:
            return self
        if not later:
            return Ownership(user_id, (*earlier, Former(until_now, position))[-MAX_FORMER:])
        former = (*earlier, Former(until_now, position), Former(user_id, later[0].until), *later[1:])
        return Ownership(self.user_id, former[-MAX_FORMER:])


def after_naming(before: Ownership | None, user_id: str, position: Position) -> Ownership:
    """Return the ownership after a naming; `before` is None where nothing was known of the endpoint."""
    return Ownership(user_id) if before is None else before.named(user_id, position)
