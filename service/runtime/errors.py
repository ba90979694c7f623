"""Errors by who must act. Anything that is neither of these, nor `Rejected`, is a bug and crashes loudly."""

from __future__ import annotations


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
