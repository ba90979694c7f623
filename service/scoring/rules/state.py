"""What is kept of a person: sums by slot, what was counted once, the last events. One Binary, self-describing.

The bytes are one MessagePack array (https://github.com/msgpack/msgpack/blob/master/spec.md), flat, in this order:

| part | entries |
|---|---|
| header | format; score last published: its decimals (nil: none yet) and digits; day of entering the tier; evictions |
| slots | how many numbers follow; each slot: number, kind and flags and how many sums, its sums, its cap's window |
| once | bytes: for each entry day (2), hash (6), the oldest first |
| last events | bytes: for each event seconds (4), slot (1), the oldest first |

Integers beyond 32 bits are bytes: signed, big-endian. Sums are never dropped. Above `MAX_STATE_BYTES` the oldest of the
last events go first, then the oldest once entries, whose number is counted. Days and seconds count from 2020-01-01.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from decimal import ROUND_HALF_EVEN, Context, Decimal
from typing import Any

import msgspec

FORMAT = 1
MAX_STATE_BYTES = 300
LAST_EVENTS = 5
HASH_BYTES = 6

EPOCH_DAY = 18_262
"""2020-01-01, counted from 1970-01-01."""

EXACT = Context(prec=400, rounding=ROUND_HALF_EVEN)
"""Enough digits for any score that DynamoDB can hold (38 digits, 1E+125)."""

PLAIN, DECAYING, EXPIRING, STAMP = range(4)
_SINGLE = frozenset({PLAIN, STAMP})
_KIND = 0b11
_CAPPED = 0b100
_SUMS = 3
"""Bits to the left of which the number of sums stands."""

_EPOCH_S = EPOCH_DAY * 86_400
_DAY_BYTES, _SECOND_BYTES = 2, 4
ONCE_BYTES, LAST_BYTES = _DAY_BYTES + HASH_BYTES, _SECOND_BYTES + 1
_MAX_DAY = EPOCH_DAY + 0xFFFF
_MAX_SECOND = _EPOCH_S + 0xFFFF_FFFF
_SHORT = 1 << 31

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(list[Any]).decode


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
        once: What was counted once: `ONCE_BYTES` each (`once_entry`), the oldest first.
        last: The newest events that met a rule: `LAST_BYTES` each (`last_entry`), the oldest first.
        published: The score as last written, to tell what others added to it; None before the first write.
        tier_day: The day the present tier was entered, counted from 1970-01-01; 0: not known.
        evictions: Once entries dropped to stay within the bound.
    """

    slots: Mapping[int, Slot]
    once: bytes = b""
    last: bytes = b""
    published: Decimal | None = None
    tier_day: int = 0
    evictions: int = 0


EMPTY = PersonState({})


class StateFormatError(ValueError):
    """The bytes are not a state that this version can read."""


def once_entry(digest: bytes, day: int) -> bytes:
    """Return what stands in `PersonState.once` for a hash that was last seen on a day."""
    return max(0, min(day, _MAX_DAY) - EPOCH_DAY).to_bytes(_DAY_BYTES, "big") + digest


def once_days(once: bytes) -> Mapping[bytes, int]:
    """Return the day on which each hash was last seen."""
    return {
        entry[_DAY_BYTES:]: int.from_bytes(entry[:_DAY_BYTES], "big") + EPOCH_DAY for entry in _parts(once, ONCE_BYTES)
    }


def found_at(once: bytes, digest: bytes) -> int:
    """Return where the entry of a hash begins in `PersonState.once`, or -1."""
    at = once.find(digest)
    while at >= 0 and at % ONCE_BYTES != _DAY_BYTES:
        at = once.find(digest, at + 1)
    return at - _DAY_BYTES if at >= 0 else -1


def with_entry(entries: bytes, entry: bytes) -> bytes:
    """Return sorted entries of equal size with one more in its place."""
    if entry >= entries[-len(entry) :]:
        return entries + entry
    return b"".join(sorted([*_parts(entries, len(entry)), entry]))


def last_entry(second: int, slot: int) -> bytes:
    """Return what stands in `PersonState.last` for an event, by epoch seconds, and the slot that it met."""
    return max(0, min(second, _MAX_SECOND) - _EPOCH_S).to_bytes(_SECOND_BYTES, "big") + bytes((slot,))


def last_events(last: bytes) -> list[tuple[int, int]]:
    """Return the last events as epoch seconds and slot, the oldest first."""
    return [(int.from_bytes(entry[:-1], "big") + _EPOCH_S, entry[-1]) for entry in _parts(last, LAST_BYTES)]


def _parts(data: bytes, size: int) -> Iterator[bytes]:
    return (data[at : at + size] for at in range(0, len(data), size))


def pack(state: PersonState) -> bytes:
    """Return the state as bytes, however many."""
    published = state.published
    scale, digits = None, 0
    if published is not None:
        scale = max(0, -int(published.as_tuple().exponent))
        digits = int(EXACT.scaleb(published, scale))
    numbers: list[int | bytes] = []
    for number in sorted(state.slots):
        slot = state.slots[number]
        kind, sums, used = slot.kind, slot.sums, slot.used
        flags = kind if used is None else kind | _CAPPED
        if kind in _SINGLE:
            numbers += number, flags, _short(sums.get(0, 0))
        else:
            numbers += number, flags | len(sums) << _SUMS
            for index in sorted(sums) if len(sums) > 1 else sums:
                numbers += index, _short(sums[index])
        if used is not None:
            numbers += used.window, _short(used.current), _short(used.previous)
    return _encode(
        (
            FORMAT,
            scale,
            _short(digits),
            max(0, min(state.tier_day, _MAX_DAY) - EPOCH_DAY),
            state.evictions,
            len(numbers),
            *numbers,
            state.once,
            state.last,
        )
    )


def _short(value: int) -> int | bytes:
    """Return an integer as it is, or as bytes where that is shorter."""
    if -_SHORT <= value < _SHORT:
        return value
    return value.to_bytes((value.bit_length() + 8) // 8, "big", signed=True)


def _long(value: int | bytes) -> int:
    return value if type(value) is int else int.from_bytes(value, "big", signed=True)  # type: ignore[arg-type] # bytes


def unpack(data: bytes) -> PersonState:
    """Return the state that `pack` made these bytes of.

    Raises:
        StateFormatError: They are of another format, cut off, or something else.
    """
    try:
        return _read(_decode(data))
    except (msgspec.DecodeError, IndexError, TypeError, ValueError) as error:
        if isinstance(error, StateFormatError):
            raise
        raise StateFormatError("the state is cut off, or is something else") from error


def _read(found: list[Any]) -> PersonState:
    if found[0] != FORMAT:
        raise StateFormatError(f"the state has format {found[0]}; this version reads {FORMAT}")
    _, scale, digits, tier_day, evictions, size = found[:6]
    end = 6 + size
    if end + 2 != len(found):
        raise StateFormatError("the state is cut off, or has bytes behind its end")
    slots: dict[int, Slot] = {}
    at = 6
    while at < end:
        number, flags = found[at], found[at + 1]
        at += 2
        kind = flags & _KIND
        if kind in _SINGLE:
            sums = {0: _long(found[at])}
            at += 1
        else:
            count = flags >> _SUMS
            sums = {found[index]: _long(found[index + 1]) for index in range(at, at + 2 * count, 2)}
            at += 2 * count
        used = None
        if flags & _CAPPED:
            used = Used(found[at], _long(found[at + 1]), _long(found[at + 2]))
            at += 3
        slots[number] = Slot(kind, sums, used)
    once, last = found[end], found[end + 1]
    if at != end or len(once) % ONCE_BYTES or len(last) % LAST_BYTES:
        raise StateFormatError("the state is cut off, or is something else")
    published = None if scale is None else EXACT.scaleb(Decimal(_long(digits)), -scale)
    return PersonState(slots, once, last, published, tier_day + EPOCH_DAY if tier_day else 0, evictions)
