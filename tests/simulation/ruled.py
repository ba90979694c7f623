"""Rules in a simulation: applied, changed and taken away while it runs, with the prices of the definitions.

A score by such rules comes to the same sum as plain points do, so the oracle reads it without knowing of them: every
event must be in it once, whether it was counted by a rule, by a definition of a project with rules (C and D, which no
rule names), or by a definition before the project had rules (which then is what something else has added).
"""

from __future__ import annotations

import random

import msgspec

from service.scoring.definitions import Definition
from service.scoring.rules.model import Group, Once, Rule, RuleSet
from service.scoring.rules.stored import RulesRow, encode_rules
from tests.simulation.events import CONSTANT, PROJECT

SHARE = 0.5
"""Share of the runs in which rules come and go."""


class Ruled:
    """When which rules are in force.

    Attributes:
        changes: Seconds of the run and the row from then on; None: the project has no rules.
    """

    def __init__(self, seed: int, seconds: float) -> None:
        rng = random.Random(f"{seed} rules")
        self.changes: list[tuple[float, RulesRow | None]] = []
        if rng.random() >= SHARE:
            return
        rules: tuple[Rule, ...] = ()
        version = given = 0
        for at in sorted(rng.uniform(-seconds / 4, seconds) for _ in range(rng.randint(1, 4))):
            if self.changes and rng.random() < 0.15:
                self.changes.append((max(at, 0.0), None))
                continue
            version += 1
            named = rng.sample(sorted(CONSTANT), rng.randint(1, len(CONSTANT)))
            retired = tuple(msgspec.structs.replace(rule, active=False) for rule in rules)
            once = rng.choice([None, Once.MESSAGE])
            # Without a message every event counts, so `once` changes nothing.
            fresh = tuple(
                Rule(f"{name} {version}", given + index, (name,), points=CONSTANT[name], once=once)
                for index, name in enumerate(named)
            )
            given += len(fresh)
            rules = retired + fresh
            made = RuleSet(PROJECT, version, {"main": Group("main")}, rules, scale=9, slots_given=given)
            self.changes.append((max(at, 0.0), RulesRow(PROJECT, version, encode_rules(made))))

    def rows(self, definitions: dict[str, Definition], now: float) -> list[Definition | RulesRow]:
        """Return the table at a second of the run."""
        found: list[Definition | RulesRow] = list(definitions.values())
        row = next((row for at, row in reversed(self.changes) if at <= now), None)
        return found if row is None else [*found, row]
