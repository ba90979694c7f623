"""Test cases for a rules file: events and what is to be shown on some days. Pure; `scoring rules test` runs them.

    cases:
      - name: a click halves in thirty days
        events:
          - {type: _email.click, at: D0, message: m1}
          - {type: _monetization.purchase, at: D1 12:30, payload: {metrics: {_item_price: 129.5}}, times: 2}
        expect:
          - {at: D30, score: 50, groups: {email: 50}, tier: hot}

Times are ISO 8601, or days counted from D0 (Monday, 2026-01-05) with an optional time of day. A day without a time is
its start for an event and its end for an expectation. The daily sweep is played too: tiers fall without events.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from decimal import Decimal

import msgspec
import yaml

from service.scoring.rules.decay import DAY_MS, day_of
from service.scoring.rules.evaluate import Facts, covers, evaluate, remembered
from service.scoring.rules.fields import Fields
from service.scoring.rules.fold import RuleEvent, absorb
from service.scoring.rules.model import ADJUSTMENT, RuleSet
from service.scoring.rules.state import EMPTY
from service.scoring.rules.view import Explanation, explain, view
from service.scoring.yaml_nodes import NodeReader, Problem, shown

D0 = 20_458
"""Day D0 of a file of cases: 2026-01-05, a Monday, so that a week of caps is D0 to D6."""

MAX_CASES, MAX_EVENTS, MAX_EXPECTED, MAX_TIMES = 1_000, 1_000, 100, 10_000
MAX_DAYS = 4_000
"""Most days from the first event of a case to its last expectation."""

_MAX_DEPTH = 30
_RELATIVE = re.compile(r"D(\d{1,4})(?:[ T](\d\d):(\d\d)(?::(\d\d)(?:\.(\d{1,3}))?)?)?")
_EVENT = (
    "type", "at", "message", "campaign", "event_id", "user_agent", "machine", "happened", "sent", "payload", "times",
    "points",
)  # fmt: skip


class CaseEvent(msgspec.Struct, frozen=True):
    """An event of a case.

    Attributes:
        facts: What rules ask of it.
        event_id: Its sender's id; empty: none.
        times: How often it comes.
    """

    facts: Facts
    event_id: str
    times: int


class Expected(msgspec.Struct, frozen=True):
    """What is to be shown.

    Attributes:
        line: Where it stands in the file.
        written: The time as written.
        at_ms: Events up to then are in, epoch milliseconds.
        score: None: any.
        groups: By name; those that are missing may be anything.
        tier: Empty: none; None: any.
    """

    line: int
    written: str
    at_ms: int
    score: Decimal | None
    groups: Mapping[str, Decimal]
    tier: str | None


class Case(msgspec.Struct, frozen=True):
    """One case: events in order of their arrival, expectations in order of time."""

    name: str
    events: tuple[CaseEvent, ...]
    expected: tuple[Expected, ...]


class Failed(msgspec.Struct, frozen=True):
    """An expectation that does not hold.

    Attributes:
        case: Its name.
        expected: The expectation.
        differences: One sentence each.
        explanation: What is shown, and why.
    """

    case: str
    expected: Expected
    differences: tuple[str, ...]
    explanation: Explanation


def load_cases(text: str | bytes, file: str) -> tuple[Sequence[Case], Sequence[Problem]]:
    """Read a file of cases; never raises for any content. Cases are whole only where there is no problem."""
    reader = NodeReader(file)
    root = reader.document(text)
    top = reader.mapping(root, "", ("cases",)) if root is not None else None
    if root is None or top is None:
        return (), reader.problems
    if "cases" not in top:
        reader.problem(root, "", "`cases` is missing")
        return (), reader.problems
    loader = _CaseLoader(reader)
    nodes = reader.sequence(top["cases"], "cases", MAX_CASES) or ()
    cases = [loader.case(node, f"cases[{index}]") for index, node in enumerate(nodes)]
    return [case for case in cases if case is not None], reader.problems


def run_case(rules: RuleSet, case: Case) -> list[Failed]:
    """Return the expectations of a case that do not hold."""
    play = _Play(rules)
    failed: list[Failed] = []
    events = list(reversed(case.events))
    for expected in case.expected:
        while events and events[-1].facts.arrival_ms <= expected.at_ms:
            play.take(events.pop())
        play.sweep(day_of(expected.at_ms))
        found = play.shown(day_of(expected.at_ms))
        if differences := _differences(expected, found):
            failed.append(Failed(case.name, expected, differences, found))
    return failed


def unknown_types(rules: RuleSet, cases: Sequence[Case]) -> list[str]:
    """Return the event types of cases that no rule names: mostly typing errors."""
    types = {event.facts.event_type for case in cases for event in case.events}
    return sorted(each for each in types if not covers(rules, each))


class _Play:
    """One person's state while events arrive and days pass."""

    def __init__(self, rules: RuleSet) -> None:
        self._rules = rules
        self._state = EMPTY
        self._tier = ""
        self._updated_ms = 0
        self._day = 0

    def take(self, event: CaseEvent) -> None:
        facts = event.facts
        day = day_of(facts.arrival_ms)
        self.sweep(day)
        hits = evaluate(self._rules, facts).hits
        if not hits:
            return
        digest = remembered("event", event.event_id) if event.event_id else b""
        for _ in range(event.times):
            arrived = RuleEvent(facts.arrival_ms, hits, digest)
            self._state = absorb(self._state, (arrived,), self._rules.once_entries).state
            self._updated_ms = max(self._updated_ms, facts.arrival_ms)
            self._look(day)

    def sweep(self, day: int) -> None:
        """Let the days pass up to `day`, as the daily sweep does."""
        if self._updated_ms:
            for each in range(self._day + 1, day + 1):
                self._look(each)
        self._day = max(self._day, day)

    def _look(self, day: int) -> None:
        self._tier = view(self._rules, self._state, self._tier, self._updated_ms, day).tier

    def shown(self, day: int) -> Explanation:
        return explain(self._rules, self._state, self._tier, self._updated_ms, day)


def _differences(expected: Expected, found: Explanation) -> tuple[str, ...]:
    said = []
    if expected.score is not None and expected.score != found.shown.score:
        said.append(f"score is {found.shown.score}, expected {expected.score}")
    for name, points in expected.groups.items():
        shows = found.shown.groups.get(name)
        if shows is None:
            said.append(f"the rules have no group {shown(name)}")
        elif shows != points:
            said.append(f"group {name} is {shows}, expected {points}")
    if expected.tier is not None and expected.tier != found.shown.tier:
        said.append(f"tier is {found.shown.tier or 'none'}, expected {expected.tier or 'none'}")
    return tuple(said)


class _CaseLoader:
    def __init__(self, reader: NodeReader) -> None:
        self.reader = reader
        self.fields = Fields(reader)

    def case(self, node: yaml.Node, path: str) -> Case | None:
        reader = self.reader
        entries = reader.mapping(node, path, ("name", "events", "expect"))
        if entries is None:
            return None
        if missing := [name for name in ("name", "expect") if name not in entries]:
            reader.problem(node, path, f"`{missing[0]}` is missing")
            return None
        name = reader.text(entries["name"], f"{path}.name", "a name") or ""
        events: list[CaseEvent] = []
        if "events" in entries:
            for index, item in enumerate(reader.sequence(entries["events"], f"{path}.events", MAX_EVENTS) or ()):
                if (event := self._event(item, f"{path}.events[{index}]")) is not None:
                    events.append(event)
        expected = [
            found
            for index, item in enumerate(reader.sequence(entries["expect"], f"{path}.expect", MAX_EXPECTED) or ())
            if (found := self._expected(item, f"{path}.expect[{index}]")) is not None
        ]
        events.sort(key=lambda event: event.facts.arrival_ms)
        expected.sort(key=lambda each: each.at_ms)
        if events and expected and expected[-1].at_ms - events[0].facts.arrival_ms > MAX_DAYS * DAY_MS:
            reader.problem(
                node, path, f"from the first event to the last expectation there are more than {MAX_DAYS} days"
            )
            return None
        return Case(name, tuple(events), tuple(expected))

    def _event(self, node: yaml.Node, path: str) -> CaseEvent | None:
        entries = self.reader.mapping(node, path, _EVENT)
        if entries is None:
            return None
        adjusts = "points" in entries
        if missing := [name for name in (("at",) if adjusts else ("type", "at")) if name not in entries]:
            self.reader.problem(node, path, f"`{missing[0]}` is missing")
            return None
        texts = {
            name: (self.reader.text(entries[name], f"{path}.{name}") or "") if name in entries else ""
            for name in ("type", "message", "campaign", "event_id", "user_agent")
        }
        if adjusts and texts["type"] not in ("", ADJUSTMENT):
            self.reader.problem(
                entries["points"], f"{path}.points", "`points` is an adjustment by hand; leave out `type`"
            )
        points = self.fields.points(entries["points"], f"{path}.points") if adjusts else None
        facts = Facts(
            ADJUSTMENT if adjusts else texts["type"],
            self._moment(entries["at"], f"{path}.at"),
            self._plain(entries["payload"], f"{path}.payload", 0) if "payload" in entries else {},
            texts["message"],
            texts["campaign"],
            texts["user_agent"],
            bool(self.reader.boolean(entries["machine"], f"{path}.machine")) if "machine" in entries else False,
            self._moment(entries["happened"], f"{path}.happened") if "happened" in entries else 0,
            self._moment(entries["sent"], f"{path}.sent") if "sent" in entries else 0,
            points or Decimal(0),
        )
        times = self.fields.whole(entries.get("times"), f"{path}.times", 1, MAX_TIMES, 1)
        return CaseEvent(facts, texts["event_id"], times)

    def _expected(self, node: yaml.Node, path: str) -> Expected | None:
        entries = self.reader.mapping(node, path, ("at", "score", "groups", "tier"))
        if entries is None:
            return None
        if "at" not in entries or len(entries) == 1:
            self.reader.problem(node, path, "write {at: D30, score: 50}, with one or more of `score`, `groups`, `tier`")
            return None
        groups = {}
        if "groups" in entries:
            for name, value in (self.reader.mapping(entries["groups"], f"{path}.groups", None) or {}).items():
                groups[name] = self.fields.points(value, f"{path}.groups") or Decimal(0)
        tier = self.reader.scalar(entries["tier"], f"{path}.tier") if "tier" in entries else None
        at = entries["at"]
        return Expected(
            node.start_mark.line + 1,
            at.value if isinstance(at, yaml.ScalarNode) else "",
            self._moment(at, f"{path}.at", end=True),
            self.fields.points(entries["score"], f"{path}.score") if "score" in entries else None,
            groups,
            None if tier is None else str(tier),
        )

    def _moment(self, node: yaml.Node, path: str, *, end: bool = False) -> int:
        """Return a time in epoch milliseconds; with `end`, a day without a time is its last millisecond."""
        written = node.value if isinstance(node, yaml.ScalarNode) else ""
        match = _RELATIVE.fullmatch(written)
        if match is None:
            found = self.fields.moment(node, path) or 0
            return found + DAY_MS - 1 if end and len(written) == len("2026-01-05") else found
        day, hour, minute, second, fraction = match.groups()
        start = (D0 + int(day)) * DAY_MS
        if hour is None:
            return start + DAY_MS - 1 if end else start
        at = ((int(hour) * 60 + int(minute)) * 60 + int(second or 0)) * 1000 + int((fraction or "0").ljust(3, "0"))
        if at >= DAY_MS:
            self.reader.problem(node, path, f"{shown(written)}: a time of day is 00:00 to 23:59:59.999")
        return start + at

    def _plain(self, node: yaml.Node, path: str, depth: int) -> object:
        """Return a payload as a decoder of JSON would."""
        if depth > _MAX_DEPTH:
            self.reader.problem(node, path, f"payloads nest at most {_MAX_DEPTH} deep")
            return None
        if isinstance(node, yaml.MappingNode):
            entries = self.reader.mapping(node, path, None) or {}
            return {key: self._plain(value, path, depth + 1) for key, value in entries.items()}
        if isinstance(node, yaml.SequenceNode):
            return [self._plain(item, path, depth + 1) for item in node.value]
        if node.tag == "tag:yaml.org,2002:null":
            return None
        return self.reader.scalar(node, path)
