"""To whom the events of a batch belong: the rule of `ownership.py`, applied to every event at its position. Pure.

Events that name their user need nothing else. For the others, each endpoint has a *trail*: its namings and its events
without a user, in the shard's order. Once the owners before the batch are known, the trails are followed.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import msgspec

from service.ingest.ownership import NOBODY, Ownership, Position, after_naming
from service.ingest.stores import AliasKey
from service.scoring.event import Event
from service.scoring.fold import Scorable
from service.stream.ports import Record

_NOT_NAMED = Ownership(NOBODY)
"""What is known of a name other than an endpoint before its first naming."""

Waiting = tuple[Record[bytes], Event, Scorable]
"""A record whose event is worth points."""


class _Run(msgspec.Struct, gc=False):
    """Namings of one user in a row; those between the first and the last add nothing."""

    user_id: str
    first: Record[bytes]
    last: Record[bytes]


class Followed(msgspec.Struct, frozen=True):
    """What the trails lead to.

    Attributes:
        users: By index in `waiting`, the user of an event that names none; empty: nobody. Unknown ones are absent.
        owners: Whose the endpoints are after the batch, as far as it names their users.
    """

    users: Mapping[int, str]
    owners: Mapping[AliasKey, Ownership]


class Attribution:
    """The events of one batch that are worth points, and what all its events say of endpoints.

    Attributes:
        waiting: What is worth points, in the shard's order.
    """

    def __init__(self, shard_tag: str) -> None:
        self.waiting: list[Waiting] = []
        self._shard_tag = shard_tag
        self._trails: dict[AliasKey, list[_Run | int]] = {}
        self._sought: dict[AliasKey, bool] = {}
        self._several: dict[int, Sequence[AliasKey]] = {}

    @property
    def endpoints(self) -> Collection[AliasKey]:
        """Every endpoint of which it matters whose it was before the batch."""
        return self._trails.keys()

    @property
    def sought(self) -> Collection[AliasKey]:
        """Those of them that have an event without a user."""
        return self._sought.keys()

    def name(self, key: AliasKey, user_id: str, record: Record[bytes]) -> None:
        """Note that a record gives an endpoint a user, or states that it has none (`ownership.NOBODY`)."""
        trail = self._trails.get(key)
        if trail is None:
            self._trails[key] = [_Run(user_id, record, record)]
            return
        last = trail[-1]
        if isinstance(last, _Run) and last.user_id == user_id:
            last.last = record
        else:
            trail.append(_Run(user_id, record, record))

    def seek(self, keys: Sequence[AliasKey], waiting: Waiting, *, worth_asking: bool) -> None:
        """Note an event that gives names and no user.

        Args:
            keys: The names, at least one. The first that leads to a user decides.
            waiting: The event.
            worth_asking: Whether the owner of the endpoints should be asked where nothing else knows the user.
        """
        for key in keys:
            self._trails.setdefault(key, []).append(len(self.waiting))
            self._sought[key] = worth_asking or self._sought.get(key, False)
        if len(keys) > 1:
            self._several[len(self.waiting)] = keys
        self.waiting.append(waiting)

    def to_ask(self, before: Mapping[AliasKey, Ownership]) -> list[AliasKey]:
        """Return the endpoints to ask for: those with an event before which nothing is known of them.

        What a campaign or journey caused comes first: that has a user for certain.
        """
        certain: list[AliasKey] = []
        others: list[AliasKey] = []
        for key, worth_asking in self._sought.items():
            first = self._trails[key][0]
            if worth_asking and key.is_endpoint and key not in before and isinstance(first, int):
                (certain if self.waiting[first][1].attributed else others).append(key)
        return certain + others

    def follow(self, before: Mapping[AliasKey, Ownership]) -> Followed:
        """Return to whom each event without a user belongs, and whose the endpoints are afterwards.

        Args:
            before: Whose the endpoints were before the batch; unknown ones are absent.
        """
        users: dict[int, str] = {}
        by_name: dict[tuple[int, AliasKey], str] = {}
        owners: dict[AliasKey, Ownership] = {}
        for key, trail in self._trails.items():
            ownership = before.get(key, None if key.is_endpoint else _NOT_NAMED)
            named = False
            for step in trail:
                if isinstance(step, int):
                    if ownership is not None:
                        former = ownership.former
                        user = ownership.at(self._position(self.waiting[step][0])) if former else ownership.user_id
                        if step in self._several:
                            by_name[step, key] = user
                        else:
                            users[step] = user
                    continue
                named = True
                if ownership is None or ownership.user_id != step.user_id or ownership.former:
                    ownership = after_naming(ownership, step.user_id, self._position(step.first))
                    if step.last is not step.first:
                        ownership = after_naming(ownership, step.user_id, self._position(step.last))
            if named and ownership is not None:
                owners[key] = ownership
        return Followed(users | self._decided(by_name), owners)

    def _decided(self, by_name: Mapping[tuple[int, AliasKey], str]) -> dict[int, str]:
        """Return the users of events with several names: what the first name that leads to one says."""
        users: dict[int, str] = {}
        for step, keys in self._several.items():
            found = [by_name[step, key] for key in keys if (step, key) in by_name]
            if found:
                users[step] = next(filter(None, found), NOBODY)
        return users

    def _position(self, record: Record[bytes]) -> Position:
        return Position(self._shard_tag, record.sequence, record.arrival_ms)
