"""Errors, grouped by who must act. Anything that is neither one of these nor `Rejected` is a bug and ends the worker.

deploy/decisions/0007-errors-by-who-must-act.md describes what a worker does about each.
"""

from __future__ import annotations

from enum import StrEnum


class RefusedError(Exception):
    """A request of a person was not carried out; only what the message says was changed.

    Attributes:
        why: The cause.
        remedy: What the person can do.
    """

    def __init__(self, what: str, why: str = "", remedy: str = "") -> None:
        super().__init__(what)
        self.why = why
        self.remedy = remedy


class TransientError(Exception):
    """The call may succeed later (it was throttled, timed out or refused); the caller retries with back-off.

    Attributes:
        throttled: The other side asked for fewer requests; callers that adapt their rate react to this.
        undone: Whether it is certain that nothing was changed and nothing will be. Otherwise the request may still be
            in progress, or may have been carried out.
    """

    def __init__(self, message: str, *, throttled: bool = False, undone: bool = False) -> None:
        super().__init__(message)
        self.throttled = throttled
        self.undone = undone or throttled


class Trouble(StrEnum):
    """The kind of a `TroubleError`, as a metric label."""

    ANSWER = "answer"
    CERTIFICATE = "certificate"
    CLOCK = "clock"
    CREDENTIALS = "credentials"
    ENCRYPTION = "encryption"
    MISSING = "missing"
    PERMISSION = "permission"
    REFUSED = "refused"


class TroubleError(TransientError):
    """An unexpected answer, or one that a person must act on. It concerns one call, shard or user.

    The caller retries it like every `TransientError`: it may end without a person (a disabled key is enabled again, a
    clock is set, a proxy recovers), and other work continues meanwhile. It is logged as an error and counted where it
    is recognized (`service.aws.translation.translated`).

    Attributes:
        kind: What is wrong.
        remedy: What a person can do; may be empty.
    """

    def __init__(self, message: str, kind: Trouble = Trouble.ANSWER, remedy: str = "") -> None:
        # A refusal changes nothing; an unreadable answer may belong to a request that was carried out.
        super().__init__(message, undone=kind is not Trouble.ANSWER)
        self.kind = kind
        self.remedy = remedy


class SetupError(TroubleError):
    """A person must create, allow or configure something. The text says what and how.

    It ends a command, and a worker that is starting and holds no lease yet. Later it is treated like any other
    `TroubleError`: the worker retries.
    """


class NothingWorksError(Exception):
    """No call to AWS has succeeded for minutes: this process ends, so that a new one can try.

    Attributes:
        remedy: What a person can do, judging by the last failure; may be empty.
    """

    def __init__(self, message: str, remedy: str = "") -> None:
        super().__init__(message)
        self.remedy = remedy


class LeaseLostError(Exception):
    """Another worker holds the lease, or may hold it: work on this shard stops, and nothing is written for it."""


class ReleasedError(Exception):
    """The rest of a batch was not begun, because its shard is being handed over: the next owner reads it again."""


class IteratorExpiredError(Exception):
    """The iterator is too old (5 minutes for Kinesis, 15 for DynamoDB streams): ask for a new one."""


class RecordsTrimmedError(Exception):
    """The position is older than anything the stream still has: records were lost for good."""


class ShardGoneError(Exception):
    """The stream no longer has the shard."""
