"""The rows of the identity table, and the port through which they are read and changed.

Every change is conditional: it is made only where the row is still the one that was read. `identity_plan.py` says which
rows change, `identity_store.py` makes the calls.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Protocol

import msgspec

RowKey = tuple[str, str]
"""`endpoint#<id>`, another kind of name such as `email#<address>`, or `user#<id>`; and the project's id."""


class Row(msgspec.Struct, frozen=True, gc=False):
    """A row: of an endpoint, or of a user.

    Attributes:
        stamp: Another one with every write; what a conditional write expects. Empty: version 0.1 wrote the row.
        user_id: Of an endpoint: its user; empty: it has none.
        endpoint_id: The endpoint that gets the user's score, as its owner spells it, in both rows; empty: none, or not
            this one.
        status: Its `EndpointStatus`.
        channel: Its `ChannelType`.
        checked_ms: When the owner of the endpoints said so, epoch milliseconds; 0: it must be asked.
        others: Of a user: the other endpoints, each with its status, where they get the score too.
        named: Of an endpoint: whether an event named its user. Of a user: whether an event named an endpoint.
        expires_s: When the table forgets the row, epoch seconds; 0: never.
    """

    stamp: str = ""
    user_id: str = ""
    endpoint_id: str = ""
    status: str = ""
    channel: str = ""
    checked_ms: int = 0
    others: tuple[tuple[str, str], ...] = ()
    named: bool = False
    expires_s: int = 0


class Write(msgspec.Struct, frozen=True, gc=False):
    """A conditional change of one row.

    Attributes:
        before: The row as it was read; None: there was none.
        after: The row as it is to be.
    """

    before: Row | None
    after: Row


class RowStore(Protocol):
    """The table. Both calls may raise `TransientError`."""

    async def read(self, keys: Collection[RowKey]) -> Mapping[RowKey, Row]:
        """Return the rows that exist of `keys` (different ones, any number), read consistently."""
        ...

    async def write(self, writes: Mapping[RowKey, Write]) -> Collection[RowKey]:
        """Change any number of rows, independently; return the keys whose row was not `before` any more.

        A row is `before` where its stamp is the same, or where there is none and `before` is None.
        """
        ...
