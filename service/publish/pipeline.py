"""What all workers agree on about publishing, in one row of the lease table. Pure.

The row says which stream of the score table they read. A table gets another stream where its stream is switched off and
on, or where the table is made again. Two workers that read two streams of one table would publish an old score after a
newer one, so they change over together: by this row, once the old stream is read to its end.

The row also says which reconciliations are owed and how far the one under way is. So a worker that finds out that
changes were lost may die right after it has written that down: the leader of the pipeline does the work.
"""

from __future__ import annotations

from typing import Protocol

import msgspec

from service.scoring.fold import UserKey


class PipelineState(msgspec.Struct, frozen=True):
    """The row.

    Attributes:
        counter: Grows with every write; a write names the counter that it expects.
        stream_arn: The stream that is read; empty before a worker has ever opened one.
        owed: How many reconciliations were ever asked for. One that begins afterwards answers all of them.
        done: `owed` as it was when the last complete one began.
        running: `owed` as it was when the one under way began; 0 while there is none.
        cursor: The last score that the one under way has dealt with, in the order of the table's scan.
    """

    counter: int = 0
    stream_arn: str = ""
    owed: int = 0
    done: int = 0
    running: int = 0
    cursor: UserKey | None = None

    @property
    def owes(self) -> bool:
        """Whether a reconciliation has been asked for and is not complete."""
        return self.owed > self.done

    @property
    def resume_after(self) -> UserKey | None:
        """Where to go on; None: from the start. What was asked for since the one under way began needs all of it."""
        return self.cursor if self.running == self.owed else None

    def reading(self, stream_arn: str, *, scores_exist: bool) -> PipelineState:
        """Return the row with a stream to read.

        A reconciliation is owed where changes may have been made that no worker has read and the stream does not show:
        where another stream was read before, and where scores exist although none was (deploy/decisions/0011).

        Args:
            stream_arn: The stream.
            scores_exist: Whether the table had an item after it had this stream.
        """
        changed = msgspec.structs.replace(self, counter=self.counter + 1, stream_arn=stream_arn)
        missed = bool(self.stream_arn) or scores_exist
        return msgspec.structs.replace(changed, owed=self.owed + 1) if missed else changed

    def owing(self) -> PipelineState:
        """Return the row with one more reconciliation owed."""
        return msgspec.structs.replace(self, counter=self.counter + 1, owed=self.owed + 1)

    def progressed(self, running: int, cursor: UserKey) -> PipelineState:
        """Return the row with the reconciliation that began at `running` done up to `cursor`."""
        return msgspec.structs.replace(self, counter=self.counter + 1, running=running, cursor=cursor)

    def completed(self, running: int) -> PipelineState:
        """Return the row with the reconciliation that began at `running` complete."""
        return msgspec.structs.replace(
            self, counter=self.counter + 1, done=max(self.done, running), running=0, cursor=None
        )


class PipelineStore(Protocol):
    """Where the row is. Every method may raise `TransientError`."""

    async def load(self) -> PipelineState | None:
        """Return the row, read consistently; None where there is none yet."""
        ...

    async def replace(self, expected: PipelineState | None, new: PipelineState) -> bool:
        """Write `new` where the row's counter is still that of `expected` (None: no row); return whether it was."""
        ...
