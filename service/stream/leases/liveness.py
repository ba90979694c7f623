"""Who is alive: a counter that grew was written by a living worker. Pure; times are this process's monotonic seconds.

Only growth seen by this very process counts, so wall clocks may differ. Both ends of a reading are on the safe side:
growth is dated when the answer was in, silence is judged as of when the question went out. So a worker
that is found silent for a lease duration has passed its own deadline, which counts from before its last write was sent.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import msgspec

from service.stream.leases.lease import Leadership, Member


class Pulse(msgspec.Struct, frozen=True):
    """A counter and when it was last seen to grow.

    Attributes:
        count: Its value.
        since: When it was seen to have grown to that.
    """

    count: int
    since: float


def renewed(pulse: Pulse | None, count: int, answered_at: float) -> Pulse:
    """Return the pulse after a reading of `count` that was answered at `answered_at`."""
    return pulse if pulse is not None and pulse.count == count else Pulse(count=count, since=answered_at)


class LeaderWatch:
    """Watches the leadership row of somebody else."""

    def __init__(self, lease_duration: float) -> None:
        self._lease_duration = lease_duration
        self._leader = ""
        self._pulse: Pulse | None = None

    def vacant(self, row: Leadership | None, asked_at: float, answered_at: float) -> bool:
        """Take in a reading; return whether nobody leads: no row, stepped down, or silent for a lease duration."""
        if row is None or not row.leader:
            self._pulse = None
            return True
        if row.leader != self._leader:
            self._leader, self._pulse = row.leader, None
        self._pulse = renewed(self._pulse, row.counter, answered_at)
        return asked_at - self._pulse.since >= self._lease_duration

    def vacant_in(self, now: float) -> float:
        """Return seconds until the leader, if it stays silent, has been so for a lease duration; infinity without one.

        Zero or less once that has passed.
        """
        return float("inf") if self._pulse is None else self._pulse.since + self._lease_duration - now


def first_pulse(member: Member, *, now: float, now_ms: int, longest: float) -> Pulse:
    """Return the pulse of a member that a new leader sees for the first time.

    Its own wall clock hints at how long it has been silent, but never so long that a living worker whose clock
    is wrong had no time left to beat again.

    Args:
        member: Its row.
        now: Monotonic seconds.
        now_ms: This worker's wall clock, epoch milliseconds.
        longest: Silence granted at most, seconds.
    """
    silent = min(max((now_ms - member.beat_ms) / 1000, 0.0), longest)
    return Pulse(count=member.beats, since=now - silent)


class Liveness:
    """The leader's view of who is alive.

    Args:
        lease_duration: Silence after which a worker is dead, seconds.
        beat_interval: Seconds between two beats of a living one.
        deposed: The leader before, when it fell silent: it stopped by its own deadline, and is dead at once.
    """

    def __init__(self, *, lease_duration: float, beat_interval: float, deposed: str = "") -> None:
        self._lease_duration = lease_duration
        self._longest_hint = max(0.0, lease_duration - 1.5 * beat_interval)
        self._deposed = deposed
        self._pulses: Mapping[str, Pulse] = {}
        self._strangers: frozenset[str] = frozenset()
        self._dead: frozenset[str] = frozenset()
        self._others: frozenset[str] = frozenset()

    def observe(
        self,
        members: Iterable[Member],
        owners: Iterable[str],
        *,
        me: str,
        asked_at: float,
        answered_at: float,
        now_ms: int,
    ) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Take in a reading of all members.

        Args:
            members: Their rows.
            owners: Every owner of a lease, empty ones included.
            me: This worker, alive by definition: it ends its leadership by its own deadline.
            asked_at: When the reading was asked for.
            answered_at: When it was in.
            now_ms: Wall clock, for members seen for the first time.

        Returns:
            The living, and the dead among members and owners; both sorted. An owner without a row is a worker that
            was removed as dead: dead to us if found dead before, or when two readings in a row did not show its row.
        """
        pulses: dict[str, Pulse] = {}
        for member in members:
            before = self._pulses.get(member.worker)
            pulses[member.worker] = (
                first_pulse(member, now=answered_at, now_ms=now_ms, longest=self._longest_hint)
                if before is None
                else renewed(before, member.beats, answered_at)
            )
        alive = {
            worker
            for worker, pulse in pulses.items()
            if worker == me or (worker != self._deposed and asked_at - pulse.since < self._lease_duration)
        }
        strangers = frozenset(owner for owner in owners if owner and owner not in pulses and owner != me)
        dead = (pulses.keys() - alive) | (strangers & (self._strangers | self._dead))
        self._dead = frozenset(dead)
        self._others = frozenset(alive - {me})
        self._pulses = pulses
        self._strangers = strangers
        return tuple(sorted(alive)), tuple(sorted(dead))

    def next_death(self, now: float) -> float:
        """Return seconds until the first of the other living will have been silent for too long, if it stays silent."""
        silences = (self._pulses[worker].since + self._lease_duration - now for worker in self._others)
        return min(silences, default=float("inf"))

    def stalled(self, now: float, seconds: float) -> frozenset[str]:
        """Return the workers that have been silent for more than `seconds`; they may live, but get no new leases."""
        return frozenset(worker for worker, pulse in self._pulses.items() if now - pulse.since > seconds)
