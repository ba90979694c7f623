"""What `scoring doctor` tries of a sink, and what it reports. Pure: no call is made here."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from enum import StrEnum
from typing import Any

import msgspec

PROBE = "scoring-doctor-probe"
"""A key that nothing has: no user, endpoint, lease or letter has this name."""


class Verdict(StrEnum):
    """The result of a check."""

    OK = "ok"
    NOTE = "note"
    BROKEN = "broken"
    SKIPPED = "skipped"


class Finding(msgspec.Struct, frozen=True):
    """One line of the report.

    Attributes:
        verdict: The result; only `broken` stops the service.
        subject: What was checked.
        detail: What was found, one phrase.
        remedy: The action or setting that is missing; empty where nothing is.
    """

    verdict: Verdict
    subject: str
    detail: str
    remedy: str = ""


def _nothing(_: Mapping[str, Any]) -> Sequence[Finding]:
    return ()


class Trial(msgspec.Struct, frozen=True):
    """One call that tries one permission.

    Attributes:
        action: The IAM action.
        resource: What it must be allowed on, for people.
        service: botocore's name of the service.
        operation: Method of its client.
        params: Arguments.
        proves: Error codes that mean "allowed, and nothing to do".
        missing: Error codes that mean that the resource does not exist; empty: the usual ones of AWS.
        remedy: What to do where it does not exist.
        optional: What is lost where it is not allowed, for people; empty: the service cannot work then.
        read: Judges the answer, where there is more to say than that the call is allowed.
    """

    action: str
    resource: str
    service: str
    operation: str
    params: Mapping[str, Any]
    proves: frozenset[str] = frozenset()
    missing: frozenset[str] = frozenset()
    remedy: str = "run `scoring setup`, or correct the name"
    optional: str = ""
    read: Callable[[Mapping[str, Any]], Sequence[Finding]] = _nothing


class Rate(msgspec.Struct, frozen=True):
    """A configured rate, and the quota that an account has unless it was raised.

    Attributes:
        subject: The service and operation, for people: `Pinpoint quota GetEndpoint`.
        configured: Calls per second.
        quota: Default quota, calls per second.
        variable: The variable that sets the rate.
    """

    subject: str
    configured: float
    quota: float
    variable: str
