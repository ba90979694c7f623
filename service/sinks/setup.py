"""What `scoring setup` makes for a sink, where it is missing. Pure: no call is made here."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import msgspec

Call = tuple[str, Mapping[str, Any]]
"""Method of a client, and its arguments."""


class Look(msgspec.Struct, frozen=True):
    """Something that must be there before, and that `scoring setup` does not make.

    Attributes:
        resource: What, for people.
        operation: Method that finds it; `ResourceNotFoundException` says that it is not there.
        params: Arguments.
        remedy: What a person can do where it is missing.
    """

    resource: str
    operation: str
    params: Mapping[str, Any]
    remedy: str


class Wanted(msgspec.Struct, frozen=True):
    """A resource that a sink needs.

    Attributes:
        resource: What, for people.
        detail: One phrase about it.
        service: botocore's name of the service.
        inside: What must be there before.
        look: The call that finds it; `ResourceNotFoundException` says that it is not there.
        make: The call that makes it.
        differs: Says in what the answer of `look` differs from what is wanted; empty: in nothing.
        remedy: What a person can do where it differs.
    """

    resource: str
    detail: str
    service: str
    inside: Look
    look: Call
    make: Call
    differs: Callable[[Mapping[str, Any]], str]
    remedy: str
