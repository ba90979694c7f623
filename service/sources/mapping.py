"""A source at work: from a decoded event that it recognises to what the event means."""

from __future__ import annotations

import msgspec

from service.scoring.event import Reason
from service.scoring.paths import Steps, elements, walk
from service.sources.conditions import compiled
from service.sources.decoding import MAX_RECORD_BYTES, JsonObject
from service.sources.model import NEEDS_PRESENCE, Check, SourceSpec
from service.sources.outcomes import Outcome, RejectedEvent, SkippedEvent
from service.sources.plan import Context, Plan
from service.sources.values import text_of

_NO_CASE = "the source that recognised the event has no case for it: add one, or `*` for all others"


class Source:
    """A compiled source.

    Args:
        spec: What it says.
    """

    def __init__(self, spec: SourceSpec) -> None:
        self.spec = spec
        self.name = spec.name
        self._recognises = compiled(spec.when)
        self._keys = tuple({_needed_key(checks): None for checks in spec.when})
        self._skips = [(skips, reason) for when, reason in spec.skips if (skips := compiled(when)) is not None]
        self._within = spec.within.steps if spec.within is not None else ()
        self._by = [(path.from_top, path.steps) for path in spec.by]
        self._only = None if spec.cases else Plan(spec, spec.base)
        self._exact: dict[str, Plan] = {}
        self._prefixes: list[tuple[str, Plan]] = []
        for key, case in spec.cases.items():
            plan = Plan(spec, spec.merged(case))
            if key.endswith("*"):
                self._prefixes.append((key[:-1], plan))
            else:
                self._exact[key] = plan

    def recognises(self, top: JsonObject) -> bool:
        """Return whether an event is this source's."""
        for key in self._keys:  # most events have none of a foreign source's keys: one look each tells
            if key in top:
                return self._recognises is not None and self._recognises(top, top)
        return False

    def read(self, top: JsonObject, data: bytes, index: int, context: Context) -> list[Outcome]:
        """Return what an event that this source recognises comes to: at least one outcome. Never raises.

        Args:
            top: The decoded event.
            data: Its bytes, for dead letters.
            index: Which event of its record it is.
            context: What else is needed.
        """
        for skips, reason in self._skips:
            if skips(top, top):
                return [SkippedEvent("", reason, self.name, index)]
        body = self._body(top) if self._within else top
        plan = self._only or self._plan(body, top)
        if plan is None:
            return [RejectedEvent(Reason.UNKNOWN_FORMAT, _NO_CASE, data, self.name, index)]
        outcomes = plan.read(body, top, data, index, context)
        if len(outcomes) > 1:
            rejected = [outcome for outcome in outcomes if isinstance(outcome, RejectedEvent)]
            if len(rejected) * len(data) > MAX_RECORD_BYTES:
                # A dead letter for each would repeat the rest of the event each time.
                why = f"{len(rejected)} of its {len(outcomes)} people cannot be read; the first: {rejected[0].detail}"
                return [RejectedEvent(rejected[0].reason, why, data, self.name, index)]
            for each in rejected:
                alone = self.part_payload(top, data, each.part)
                outcomes[each.part - 1] = msgspec.structs.replace(each, payload=alone)
        return outcomes

    def part_payload(self, top: JsonObject, data: bytes, part: int) -> bytes:
        """Return an event with only the person that `part` stands for, so that redriving it counts no sibling again.

        Args:
            top: The decoded event.
            data: Its bytes: what is returned where the event concerns one person anyway.
            part: As in the outcome; 0: the whole event.
        """
        if not part:
            return data
        body = self._body(top)
        plan = self._only or self._plan(body, top)
        if plan is None or plan.array is None:
            return data
        if len(elements(walk(top if plan.array_from_top else body, plan.array))) <= 1:
            return data
        steps = plan.array if plan.array_from_top or body is top else self._within + plan.array
        return msgspec.json.encode(_with_one_element(top, steps, part - 1))

    def _body(self, top: JsonObject) -> JsonObject:
        """Return where paths start: what `within` names, if that is an object, else the top."""
        inner = walk(top, self._within)
        return inner if type(inner) is dict else top

    def _plan(self, body: JsonObject, top: JsonObject) -> Plan | None:
        found = None
        for from_top, steps in self._by:
            found = walk(top if from_top else body, steps)
            if found is not None:
                break
        chosen = found if type(found) is str else text_of(found) or ""
        plan = self._exact.get(chosen)
        if plan is not None:
            return plan
        for prefix, plan in self._prefixes:
            if chosen.startswith(prefix):
                return plan
        return None


def _needed_key(checks: tuple[Check, ...]) -> str:
    """Return a key that an event must have at its top to meet all checks."""
    for check in checks:
        first = check.path.steps[0] if check.path.steps else None
        if check.mode in NEEDS_PRESENCE and isinstance(first, str):
            return first
    raise ValueError("`when` holds for events without any key: the loader refuses such a source")


def _with_one_element(tree: object, steps: Steps, part: int) -> object:
    """Return a copy in which the array at `steps` has only its element `part`, from 0; the rest is shared."""
    if not steps:
        return [tree[part]] if type(tree) is list else tree
    step, rest = steps[0], steps[1:]
    if type(tree) is dict and type(step) is str:
        return {**tree, step: _with_one_element(tree[step], rest, part)}
    if type(tree) is list and type(step) is int:
        return [*tree[:step], _with_one_element(tree[step], rest, part), *tree[step + 1 :]]
    return tree
