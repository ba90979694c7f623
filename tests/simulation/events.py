"""The events of a simulation, and the arithmetic that tells from a score alone which of them are in it.

Each type of event has three decimal digits of the score to itself, so that the number of its events can be read off:
no type ever has 1000 events of one user. What somebody else adds to a score has three of its own.

    X 0.000001   N -0.001   A 1   B 10^3   C 10^6 (and 10^15 for each version of its definition)   D 10^9   E 10^12

- A, B, N: definitions never change, users are always known: every one of them is in the score, once.
- C: its definition changes; every one is in the score once, and what was added per event lies between the oldest and
  the newest version. (Which version a worker used is its own affair: it reads the table every few seconds.)
- D: its definition comes and goes: an event is in the score once, or ignored.
- E: names only an endpoint, whose user is learned late, or told by a fallback that may fail: an event is in the
  score, or in the dead letters, never both.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from decimal import Decimal

import msgspec

from service.scoring.definitions import Definition

PROJECT = "p"
FIELD = 1000
FOREIGN = Decimal("0.000001")
"""What somebody else adds to a score, each time (X)."""
CONSTANT = {"A": Decimal(1), "B": Decimal(10**3), "N": Decimal("-0.001"), "E": Decimal(10**12), "_email.A": Decimal(1)}
NOBODYS = frozenset({"nobody", "anonymous", "probe", "malformed"})
"""Kinds of events that are in nobody's score."""
TOGGLED = Decimal(10**9)
VERSION = 10**15


def versioned(version: int) -> Decimal:
    return Decimal(10**6 + version * VERSION)


def first_definitions() -> dict[str, Definition]:
    points = CONSTANT | {"C": versioned(0), "D": TOGGLED}
    return {name: Definition(name, PROJECT, value) for name, value in points.items()}


def count_in(score: Decimal) -> Counter[str]:
    """Return how many a score holds: events by type, foreign increments, `V`: the versions of C events added up."""
    left, foreign = divmod(int(score * FIELD * FIELD), FIELD)
    found: Counter[str] = Counter(X=foreign, N=-left % FIELD)
    left = (left + found["N"]) // FIELD
    for name in ("A", "B", "C", "D", "E"):
        left, found[name] = divmod(left, FIELD)
    found["V"] = left
    return found


class Sent(msgspec.Struct, frozen=True):
    """A record put to the stream, and what may become of it.

    Attributes:
        kind: A, B, C, D, E, or `ignored`, `anonymous`, `probe`, `malformed`, `nobody` (E of an endpoint without user).
        user: Whose it is; empty for nobody's.
        shard_id: Its shard.
        sequence: Its sequence number, which no other record of a run has.
        incarnation: How often its stream had been deleted and made again.
        index: Which event of its record it is, from 1; 0 where it is alone.
        body: The event alone.
    """

    kind: str
    user: str
    shard_id: str
    sequence: str
    incarnation: int = 0
    index: int = 0
    body: bytes = b""

    @property
    def must_be_lettered(self) -> bool:
        return self.kind in {"malformed", "nobody"} or (self.user == "spoilt" and self.kind not in {"D", "ignored"})

    @property
    def may_be_lettered(self) -> bool:
        return self.must_be_lettered or self.kind == "E" or self.user == "spoilt"

    @property
    def leaves_no_trace(self) -> bool:
        return self.kind in {"ignored", "anonymous", "probe"}


def payload(kind: str, user: str, endpoint: str, arrival_ms: int, *, attributed: bool) -> bytes:
    """Return a record as Pinpoint would send it."""
    if kind == "malformed":
        return b'{"event_type": "A", '
    event_type = {"ignored": "unheard of", "probe": "_test.event_stream", "nobody": "E", "anonymous": "_email.A"}
    record: dict[str, object] = {
        "event_type": event_type.get(kind, kind),
        "arrival_timestamp": arrival_ms,
        "application": {"app_id": PROJECT},
        "client": {"client_id": endpoint},
        "attributes": {"campaign_id": "c"} if attributed else {},
    }
    if user:
        record["endpoint"] = {"User": {"UserId": user}}
    return msgspec.json.encode(record)


def siblings(rng: random.Random, users: Sequence[str], arrival_ms: int) -> list[tuple[str, str, bytes]]:
    """Return one to three more events for a record: of each the kind, whose it is, and the event."""
    found: list[tuple[str, str, bytes]] = []
    for _ in range(rng.randint(1, 3)):
        user = rng.choice([*users, "spoilt"])
        kind = rng.choices(["A", "B", "E", "nobody", "ignored", "malformed"], [6, 4, 4, 2, 1, 2])[0]
        endpoint, named = f"known {user}", user
        if kind == "E":
            endpoint, named = f"late {user}", ""
        elif kind == "nobody":
            endpoint, named = f"nobody {rng.getrandbits(32)}", ""
        body = payload(kind, named, endpoint, arrival_ms, attributed=kind != "ignored")
        found.append((kind, "" if kind in NOBODYS else user, body))
    return found
