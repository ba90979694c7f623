"""What a change of rules does to the scores there are: every person seen through the old rules and the new ones."""

from __future__ import annotations

from collections import Counter
from decimal import Decimal

import msgspec

from service.ingest.stores import ScoreStore
from service.observability.metrics import score_band
from service.scoring.fold import ScoreState
from service.scoring.rules.model import RuleSet
from service.scoring.rules.score import person_of
from service.scoring.rules.state import StateFormatError
from service.scoring.rules.view import score_of


class Impact(msgspec.Struct):
    """What changes.

    Attributes:
        people: Scores of the project.
        changed: Those of them that show another number.
        up: The largest rise.
        down: The largest fall, as a negative number.
        tiers: People by tier before and after, for those that change tier; empty: none.
        bands_before: People by score band with the rules in force.
        bands_after: Likewise with the new ones.
        unusable: Items whose state cannot be read.
    """

    people: int = 0
    changed: int = 0
    up: Decimal = Decimal(0)
    down: Decimal = Decimal(0)
    tiers: Counter[tuple[str, str]] = msgspec.field(default_factory=Counter)
    bands_before: Counter[str] = msgspec.field(default_factory=Counter)
    bands_after: Counter[str] = msgspec.field(default_factory=Counter)
    unusable: int = 0

    def add(self, state: ScoreState, before: RuleSet | None, after: RuleSet, day: int) -> None:
        """Take in one person.

        Args:
            state: As stored.
            before: The rules in force; None: the project has plain definitions only.
            after: The new rules.
            day: Counted from 1970-01-01.
        """
        try:
            person = person_of(state)
        except StateFormatError:
            self.unusable += 1
            return
        tier = state.by_rules.tier if state.by_rules is not None else ""
        old, old_tier = state.score or Decimal(0), tier
        if before is not None:
            old, old_tier = score_of(before, person, tier, state.updated_ms, day)
        new, new_tier = score_of(after, person, tier, state.updated_ms, day)
        self.people += 1
        self.changed += old != new
        self.up, self.down = max(self.up, new - old), min(self.down, new - old)
        self.bands_before[score_band(float(old))] += 1
        self.bands_after[score_band(float(new))] += 1
        if old_tier != new_tier:
            self.tiers[old_tier, new_tier] += 1


async def impact_of(scores: ScoreStore, project_id: str, before: RuleSet | None, after: RuleSet, day: int) -> Impact:
    """Scan the score table, eventually consistent, and return what the new rules change for a project.

    Raises:
        TransientError: The table cannot be read now.
    """
    impact = Impact()
    async for key, state in scores.scan_states():
        if key.project_id == project_id:
            impact.add(state, before, after, day)
    return impact
