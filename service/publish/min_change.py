"""Which changes of a score are too small to be published. Pure, and without a memory.

A score is published when it enters another step of a ladder. Steps have a fixed number of points, or each is a fixed
percentage above the one before. So a sink always holds a score of the current step, whichever worker reads the change,
and its score is off by less than a step. What has no score before, what is written again on purpose (the same
score under another revision, deploy/decisions/0003), and a change of the tier are always published.
"""

from __future__ import annotations

import math
import re
from decimal import ROUND_FLOOR, Decimal

import msgspec

_TEXT = re.compile(r"(?P<number>\d{1,12}(\.\d{1,6})?)(?P<per_cent>%?)")
MAX_PER_CENT = 100


class MinChange(msgspec.Struct, frozen=True):
    """The width of a step.

    Attributes:
        points: Points; 0: none.
        per_cent: Per cent of the score, where `points` is 0. Scores between -1 and 1 are one step.
    """

    points: Decimal = Decimal(0)
    per_cent: Decimal = Decimal(0)

    def publishes(self, before: Decimal | None, after: Decimal) -> bool:
        """Return whether a score that was `before` (None: not known) is published as `after`."""
        return before is None or before == after or self._step(before) != self._step(after)

    def _step(self, score: Decimal) -> int:
        if self.points:
            return int((score / self.points).to_integral_value(ROUND_FLOOR))
        size = float(abs(score))
        if size < 1:
            return 0
        step = 1 + math.floor(math.log(size) / math.log1p(float(self.per_cent) / 100))
        return step if score > 0 else -step


def parse(text: str) -> MinChange:
    """Return what a text such as `5` (points) or `10%` says.

    Raises:
        ValueError: It says neither.
    """
    match = _TEXT.fullmatch(text)
    number = Decimal(match["number"]) if match else Decimal(0)
    if match is None or not number or (match["per_cent"] and number > MAX_PER_CENT):
        raise ValueError("is neither a number of points above 0 nor a percentage")
    return MinChange(per_cent=number) if match["per_cent"] else MinChange(points=number)
