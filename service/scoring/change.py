"""A score that changed: what the score table's stream tells, and which of two changes is the newer."""

from __future__ import annotations

from decimal import Decimal

import msgspec

from service.scoring.fold import UserKey


class ScoreChange(msgspec.Struct, frozen=True):
    """The score a user has now; absolute, so publishing it twice does no harm.

    Attributes:
        key: Whose score.
        score: The running total; None says that the score item was removed.
        revision: The item's `Revision`; 0 for an item that something else wrote without one.
        updated_ms: Newest event arrival in the score, epoch milliseconds; 0 when not known.
    """

    key: UserKey
    score: Decimal | None
    revision: int
    updated_ms: int

    @property
    def is_removal(self) -> bool:
        """Whether the score is gone rather than changed."""
        return self.score is None


def supersedes(newer: ScoreChange, older: ScoreChange) -> bool:
    """Return whether `newer`, read later from the stream, replaces `older`.

    Changes of one user arrive in the order they were made, but a replay starts again with old ones, so
    `Revision` decides. Equal revisions are the same change, or a foreign increment after it: both read
    later for a reason. A removal ends a life; what is read after it begins another, from revision 1.
    """
    return newer.is_removal or older.is_removal or newer.revision >= older.revision
