"""The phases of a tail, and which may follow which.

    READING ──finish()──► FINISHING ──hand_over()──► HANDING_OVER ──patience is over──► CUT_SHORT
       └──────────────────────hand_over()───────────────▲

    Every phase ──the last commit is done──► DRAINED

READING       Pages are fetched, batches prepared and committed.
FINISHING     Nothing more is fetched. Everything in hand is committed.
HANDING_OVER  Nothing more is fetched. What is in hand is committed while the next owner, most likely, does not wait.
CUT_SHORT     Only the commit that was begun goes on. The next owner reads the rest again.
DRAINED       Nothing is being committed. What remains is the last write of the lease.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from enum import Enum


class Phase(Enum):
    """See the module."""

    READING = "reading"
    FINISHING = "finishing"
    HANDING_OVER = "handing over"
    CUT_SHORT = "cut short"
    DRAINED = "drained"


NEXT: Mapping[Phase, AbstractSet[Phase]] = {
    Phase.READING: {Phase.FINISHING, Phase.HANDING_OVER, Phase.DRAINED},
    Phase.FINISHING: {Phase.HANDING_OVER, Phase.DRAINED},
    Phase.HANDING_OVER: {Phase.CUT_SHORT, Phase.DRAINED},
    Phase.CUT_SHORT: {Phase.DRAINED},
    Phase.DRAINED: set(),
}
"""Allowed transitions."""


class Progress:
    """The phase that a tail is in.

    Attributes:
        phase: It.
        handing_over: Set once `HANDING_OVER` is reached; stays set.
    """

    def __init__(self) -> None:
        self.phase = Phase.READING
        self.handing_over = asyncio.Event()

    def to(self, phase: Phase) -> bool:
        """Enter a phase; return False, and change nothing, where the present one does not allow it."""
        if phase not in NEXT[self.phase]:
            return False
        self.phase = phase
        if phase is Phase.HANDING_OVER:
            self.handing_over.set()
        return True
