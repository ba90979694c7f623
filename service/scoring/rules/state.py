"""What is kept of a person: sums by slot, what was counted once, the last events. One Binary, self-describing.

Bytes, in this order; whole numbers are a length byte and that many bytes, signed, big-endian:

| part | bytes |
|---|---|
| header | format (1); score last published: decimals (1) and number; day of entering the tier (2); evictions (number) |
| slots | how many (1); each: slot (1), kind and flags (1), its sums or time, its window where it is capped |
| once | how many (1); each: hash (6), day (2) |
| last events | how many (1); each: seconds (4), slot (1) |

Sums are never dropped. Above `MAX_STATE_BYTES` the oldest of the last events go first, then the oldest once entries,
whose number is counted. Days and seconds are counted from 2020-01-01.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from decimal import Decimal

import msgspec

FORMAT = 1
MAX_STATE_BYTES = 300
LAST_EVENTS = 5
HASH_BYTES = 6

EPOCH_DAY = 18_262
"""2020-01-01, counted from 1970-01-01."""

MAX_HEADER_BYTES = 32
"""A published score has 38 digits at most (16 bytes), evictions at most 8 bytes."""

_NOT_PUBLISHED = 0xFF
_EPOCH_S = EPOCH_DAY * 86_400
_MAX_DAY = EPOCH_DAY + 0xFFFF
_MAX_SECOND = _EPOCH_S + 0xFFFF_FFFF

PLAIN, DECAYING, EXPIRING, STAMP = range(4)
_SINGLE = frozenset({PLAIN, STAMP})
_KIND = 0b11
_CAPPED = 0b100

_once = struct.Struct(">6sH")
_last = struct.Struct(">IB")
ONCE_BYTES, LAST_BYTES = _once.size, _last.size


class Used(msgspec.Struct, frozen=True, gc=False):
    """How much of a cap is used.

    Attributes:
        window: Index of the newest window seen.
        current: Used in it.
        previous: Used in the window before it.
    """

    window: int
    current: int
    previous: int = 0


class Slot(msgspec.Struct, frozen=True, gc=False):
    """One rule's part of a person.

    Attributes:
        kind: `PLAIN`, `DECAYING`, `EXPIRING` or `STAMP`.
        sums: Plain: 0 to the sum. Decaying: epoch to weighted sum. Expiring: day to sum. Stamp: 0 to the time,
            epoch milliseconds.
        used: How much of its cap is used; None where it has none.
    """

    kind: int
    sums: Mapping[int, int]
    used: Used | None = None


class PersonState(msgspec.Struct, frozen=True, gc=False):
    """A person's rules state.

    Attributes:
        slots: By slot number.
        once: Hash of what was counted to the newest day it was seen.
        last: The newest events that met a rule: (epoch seconds, slot), oldest first.
        published: The score as last written, to tell what others added to it; None before the first write.
        tier_day: The day the present tier was entered, counted from 1970-01-01; 0: not known.
        evictions: Once entries dropped to stay within the bound.
    """

    slots: Mapping[int, Slot]
    once: Mapping[bytes, int]
    last: tuple[tuple[int, int], ...]
    published: Decimal | None = None
    tier_day: int = 0
    evictions: int = 0


EMPTY = PersonState({}, {}, ())


class StateFormatError(ValueError):
    """The bytes are not a state that this version can read."""


def pack(state: PersonState) -> bytes:
    """Return the state as bytes."""
    return pack_header(state) + pack_body(state)


def pack_header(state: PersonState) -> bytes:
    """Return the first part of the bytes, `MAX_HEADER_BYTES` at most: what the view settles after the sums."""
    out = bytearray((FORMAT,))
    if state.published is None:
        out.append(_NOT_PUBLISHED)
    else:
        scale = max(0, -int(state.published.as_tuple().exponent))
        out.append(scale)
        _put(out, int(state.published.scaleb(scale)))
    out += max(0, min(state.tier_day, _MAX_DAY) - EPOCH_DAY).to_bytes(2, "big")
    _put(out, state.evictions)
    return bytes(out)


def pack_body(state: PersonState) -> bytes:
    """Return the rest of the bytes: slots, once entries, last events."""
    out = bytearray((len(state.slots),))
    for number in sorted(state.slots):
        slot = state.slots[number]
        kind, sums, used = slot.kind, slot.sums, slot.used
        out.append(number)
        out.append(kind if used is None else kind | _CAPPED)
        if kind in _SINGLE:
            _put(out, sums.get(0, 0))
        else:
            out.append(len(sums))
            for index in sorted(sums) if len(sums) > 1 else sums:
                _put(out, index)
                _put(out, sums[index])
        if used is not None:
            _put(out, used.window)
            _put(out, used.current)
            _put(out, used.previous)
    out.append(len(state.once))
    for digest, day in sorted(state.once.items(), key=by_day):
        out += _once.pack(digest, max(0, min(day, _MAX_DAY) - EPOCH_DAY))
    out.append(len(state.last))
    for second, number in state.last:
        out += _last.pack(max(0, min(second, _MAX_SECOND) - _EPOCH_S), number)
    return bytes(out)


def by_day(entry: tuple[bytes, int]) -> tuple[int, bytes]:
    """Return the sort key of a once entry: the oldest first."""
    return entry[1], entry[0]


def _put(out: bytearray, value: int) -> None:
    size = (value.bit_length() + 8) // 8
    out.append(size)
    out += value.to_bytes(size, "big", signed=True)


class _Reader:
    """Reads a state's bytes from front to back."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def byte(self) -> int:
        self._at += 1
        return self._data[self._at - 1]

    def take(self, size: int) -> bytes:
        self._at += size
        if self._at > len(self._data):
            raise IndexError
        return self._data[self._at - size : self._at]

    def number(self) -> int:
        return int.from_bytes(self.take(self.byte()), "big", signed=True)

    def end(self) -> bool:
        return self._at == len(self._data)


def unpack(data: bytes) -> PersonState:
    """Return the state that `pack` made these bytes of.

    Raises:
        StateFormatError: They are of another format, cut off, or too long.
    """
    try:
        state = _read(_Reader(data))
    except (IndexError, struct.error) as error:
        raise StateFormatError("the state is cut off") from error
    return state


def _read(reader: _Reader) -> PersonState:
    if (version := reader.byte()) != FORMAT:
        raise StateFormatError(f"the state has format {version}; this version reads {FORMAT}")
    scale = reader.byte()
    published = None if scale == _NOT_PUBLISHED else Decimal(reader.number()).scaleb(-scale)
    tier_day = int.from_bytes(reader.take(2), "big")
    evictions = reader.number()
    slots = {}
    for _ in range(reader.byte()):
        number = reader.byte()
        slots[number] = _read_slot(reader)
    once = {}
    for _ in range(reader.byte()):
        digest, day = _once.unpack(reader.take(_once.size))
        once[digest] = day + EPOCH_DAY
    last = []
    for _ in range(reader.byte()):
        second, number = _last.unpack(reader.take(_last.size))
        last.append((second + _EPOCH_S, number))
    if not reader.end():
        raise StateFormatError("the state has bytes behind its end")
    return PersonState(slots, once, tuple(last), published, tier_day + EPOCH_DAY if tier_day else 0, evictions)


def _read_slot(reader: _Reader) -> Slot:
    flags = reader.byte()
    kind = flags & _KIND
    if kind in _SINGLE:
        sums = {0: reader.number()}
    else:
        sums = {}
        for _ in range(reader.byte()):
            index = reader.number()
            sums[index] = reader.number()
    used = Used(reader.number(), reader.number(), reader.number()) if flags & _CAPPED else None
    return Slot(kind, sums, used)
