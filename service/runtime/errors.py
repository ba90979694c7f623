"""Errors by who must act. Anything that is neither of these, nor `Rejected`, is a bug and crashes loudly.

What a worker does about each is in deploy/decisions/0007-errors-by-who-must-act.md.
"""

from __future__ import annotations

from enum import StrEnum


class RefusedError(Exception):
    """What a person asked for is not done; nothing was changed but what the message says.

    Attributes:
        why: The cause.
        remedy: What the person can do.
    """

    def __init__(self, what: str, why: str = "", remedy: str = "") -> None:
        super().__init__(what)
        self.why = why
        self.remedy = remedy


class TransientError(Exception):
    """It may work later: throttled, timed out, refused, unavailable. The caller retries with back-off.

    Attributes:
        throttled: The other side asked for less; callers that adapt their rate listen to this.
        undone: Whether it is certain that nothing was changed, and nothing will be; else a request may still be under
            way, or have been carried out.
    """

    def __init__(self, message: str, *, throttled: bool = False, undone: bool = False) -> None:
        super().__init__(message)
        self.throttled = throttled
        self.undone = undone or throttled


class Trouble(StrEnum):
    """What kind of trouble a call met, as a metric label."""

    ANSWER = "answer"
    CERTIFICATE = "certificate"
    CLOCK = "clock"
    CREDENTIALS = "credentials"
    ENCRYPTION = "encryption"
    MISSING = "missing"
    PERMISSION = "permission"
    REFUSED = "refused"


class TroubleError(TransientError):
    """An answer that nobody foresaw, or one that a person must act on. It concerns one call, shard or user.

    The caller retries it like every `TransientError`: it may end without anybody's doing (a key that was disabled is
    enabled again, a clock is set, a proxy recovers), and work that does not need this call goes on meanwhile. It is
    logged as an error and counted where it is recognized (`service.aws.translation.translated`).

    Attributes:
        kind: What is wrong.
        remedy: What a person can do; may be empty.
    """

    def __init__(self, message: str, kind: Trouble = Trouble.ANSWER, remedy: str = "") -> None:
        # A refusal changes nothing; an answer that cannot be read may be to a request that was carried out.
        super().__init__(message, undone=kind is not Trouble.ANSWER)
        self.kind = kind
        self.remedy = remedy


class SetupError(TroubleError):
    """A person must create, allow or configure something. The text says what, and how.

    A command ends with it, and so does a worker at its start, before it holds any lease. Later it is a `TroubleError`
    like any other: the worker retries.
    """


class NothingWorksError(Exception):
    """No call to AWS has worked for minutes: this process ends, so that a new one may try.

    Attributes:
        remedy: What a person can do, as far as the last trouble tells; may be empty.
    """

    def __init__(self, message: str, remedy: str = "") -> None:
        super().__init__(message)
        self.remedy = remedy


class LeaseLostError(Exception):
    """Another worker holds the lease, or may: work on this shard stops, nothing is written for it."""


class LetGoError(Exception):
    """What is left of a batch was not begun, as its shard is being handed over: the next owner reads it again."""


class IteratorExpiredError(Exception):
    """The iterator is too old (5 minutes for Kinesis, 15 for DynamoDB streams): ask for a new one."""


class RecordsTrimmedError(Exception):
    """The position is older than what the stream still holds: records were lost, which nothing can undo."""


class ShardGoneError(Exception):
    """The stream no longer knows the shard."""
