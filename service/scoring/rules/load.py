"""Rules files: YAML to `RulesFile`, or every fault with its line.

    project: 5f0c2d9e8b7a4c61a3d2e1f0b9c8a7d6
    groups:
      email:  {half_life: 30d, max: 100}
      buying: {half_life: 90d}
    score: {min: 0, max: 1000, scale: 2}
    tiers:
      - {name: hot, enter: 120, leave: 80}
    rules:
      - {id: click, on: _email.click, points: 50, group: email, once: message, cap: {per: day, events: 3},
         when: [human]}
      - {id: order, on: _monetization.purchase, group: buying, per: {path: metrics._item_price, factor: 0.1, max: 200}}
      - {id: gone,  on: [_email.unsubscribe, _email.complaint], suppress: email}
      - {id: quiet, idle: {days: 60, points: -20}, group: email}

A rule has no slot yet: `scoring rules apply` gives it one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from decimal import Decimal

import msgspec
import yaml

from service.scoring.event import MAX_ID_BYTES, MAX_PROJECT_BYTES, id_fault
from service.scoring.rules.decay import MAX_HALF_LIFE
from service.scoring.rules.fields import Fields, name_fault
from service.scoring.rules.model import (
    MAIN_GROUP,
    MAX_SLOTS,
    MICRO,
    ONCE_ENTRIES,
    Amount,
    Cap,
    Group,
    Idle,
    Once,
    Rule,
    Tier,
    Window,
)
from service.scoring.yaml_nodes import NodeReader, Problem, shown

NO_SLOT = -1
MAX_GROUPS, MAX_TIERS, MAX_TYPES = 20, 20, 100
MAX_ONCE_ENTRIES = 24
"""Entries of 8 bytes that leave the sums room within the state's bound."""

MAX_CAP = 10**9

_TOP = ("project", "groups", "score", "tiers", "rules", "once_entries", "min_seconds")
_RULE = (
    "id", "on", "points", "per", "group", "once", "cap", "when", "from", "until", "suppress", "resume", "idle",
)  # fmt: skip


class RulesFile(msgspec.Struct, frozen=True):
    """What a rules file says.

    Attributes:
        project_id: The project.
        groups: By name; `main` where any rule needs it.
        rules: Without slots, in the file's order.
        idles: Rules without events.
        tiers: By `enter`, rising.
        minimum: Of the score; None: no limit.
        maximum: Likewise.
        scale: Decimals of what is published.
        once_entries: Messages, campaigns and event ids remembered per person.
        min_seconds: For `human`.
    """

    project_id: str
    groups: Mapping[str, Group]
    rules: tuple[Rule, ...]
    idles: tuple[Idle, ...]
    tiers: tuple[Tier, ...]
    minimum: Decimal | None
    maximum: Decimal | None
    scale: int
    once_entries: int
    min_seconds: int


def load_rules(text: str | bytes, file: str) -> tuple[RulesFile | None, Sequence[Problem]]:
    """Read a rules file; None, and at least one problem, where anything is wrong. Never raises for any content."""
    loader = _Loader(NodeReader(file))
    found = loader.load(text)
    problems = loader.reader.problems
    return (None if problems else found), problems


class _Loader:
    def __init__(self, reader: NodeReader) -> None:
        self.reader = reader
        self.fields = Fields(reader)
        self._groups: dict[str, Group] = {}

    def load(self, text: str | bytes) -> RulesFile | None:
        reader = self.reader
        root = reader.document(text)
        top = reader.mapping(root, "", _TOP) if root is not None else None
        if root is None or top is None:
            return None
        for name in ("project", "rules"):
            if name not in top:
                reader.problem(root, "", f"`{name}` is missing")
        project = (reader.text(top["project"], "project", "a project id") or "") if "project" in top else ""
        if project and (fault := id_fault("project", project, MAX_PROJECT_BYTES)) is not None:
            reader.problem(top["project"], "project", fault.detail)
        if "groups" in top:
            for name, node in (reader.mapping(top["groups"], "groups", None) or {}).items():
                self._group(name, node)
            if len(self._groups) > MAX_GROUPS:
                reader.problem(top["groups"], "groups", f"at most {MAX_GROUPS} groups")
        minimum, maximum, scale = self._score(top.get("score"))
        rules, idles = self._rules(top["rules"]) if "rules" in top else ((), ())
        if any(each.group == MAIN_GROUP for each in (*rules, *idles)):
            self._groups.setdefault(MAIN_GROUP, Group(MAIN_GROUP))
        return RulesFile(
            project,
            self._groups,
            tuple(rules),
            tuple(idles),
            self._tiers(top["tiers"]) if "tiers" in top else (),
            minimum,
            maximum,
            scale,
            self.fields.whole(top.get("once_entries"), "once_entries", 0, MAX_ONCE_ENTRIES, ONCE_ENTRIES),
            self.fields.whole(top.get("min_seconds"), "min_seconds", 0, 3600, 2),
        )

    def _group(self, name: str, node: yaml.Node) -> None:
        path = f"groups.{name}" if name.isprintable() else "groups"
        entries = self.reader.mapping(node, path, ("half_life", "expire", "min", "max"))
        if entries is None:
            return
        if (fault := name_fault(name)) is not None:
            self.reader.problem(node, "groups", fault)
        if "half_life" in entries and "expire" in entries:
            self.reader.problem(node, path, "a group has `half_life` or `expire`, not both")
        low, high = self.fields.bounds(entries, path)
        self._groups[name] = Group(
            name,
            self.fields.days(entries["half_life"], f"{path}.half_life") if "half_life" in entries else 0,
            self.fields.days(entries["expire"], f"{path}.expire") if "expire" in entries else 0,
            low,
            high,
        )

    def _score(self, node: yaml.Node | None) -> tuple[Decimal | None, Decimal | None, int]:
        entries = self.reader.mapping(node, "score", ("min", "max", "scale")) if node is not None else None
        if not entries:
            return None, None, 2
        low, high = self.fields.bounds(entries, "score")
        return low, high, self.fields.whole(entries.get("scale"), "score.scale", 0, 9, 2)

    def _tiers(self, node: yaml.Node) -> tuple[Tier, ...]:
        tiers: list[Tier] = []
        for index, item in enumerate(self.reader.sequence(node, "tiers", MAX_TIERS) or ()):
            path = f"tiers[{index}]"
            entries = self.reader.mapping(item, path, ("name", "enter", "leave"))
            if entries is None:
                continue
            if missing := [name for name in ("name", "enter") if name not in entries]:
                self.reader.problem(item, path, f"`{missing[0]}` is missing")
                continue
            name = self.fields.name(entries["name"], f"{path}.name")
            enter = self.fields.points(entries["enter"], f"{path}.enter") or Decimal(0)
            leave = self.fields.points(entries["leave"], f"{path}.leave") if "leave" in entries else enter
            if leave is not None and leave > enter:
                self.reader.problem(item, path, f"leave {leave} is above enter {enter}: a person would leave at once")
            if tiers and tiers[-1].enter >= enter:
                self.reader.problem(item, path, "tiers stand in rising order of `enter`")
            if any(tier.name == name for tier in tiers):
                self.reader.problem(item, path, f"another tier is named {shown(name)} already")
            tiers.append(Tier(name, enter, enter if leave is None else leave))
        return tuple(tiers)

    def _rules(self, node: yaml.Node) -> tuple[list[Rule], list[Idle]]:
        rules: list[Rule] = []
        idles: list[Idle] = []
        ids: set[str] = set()
        for index, item in enumerate(self.reader.sequence(node, "rules", MAX_SLOTS) or ()):
            path = f"rules[{index}]"
            entries = self.reader.mapping(item, path, _RULE)
            if entries is None:
                continue
            if "id" not in entries:
                self.reader.problem(item, path, "`id` is missing")
                continue
            rule_id = self.fields.name(entries["id"], f"{path}.id")
            if rule_id in ids:
                self.reader.problem(entries["id"], f"{path}.id", f"another rule has the id {shown(rule_id)} already")
            ids.add(rule_id)
            if "idle" in entries:
                idles.append(self._idle(rule_id, item, entries, path))
            else:
                rules.append(self._rule(rule_id, item, entries, path))
        return rules, idles

    def _idle(self, rule_id: str, node: yaml.Node, entries: Mapping[str, yaml.Node], path: str) -> Idle:
        if others := sorted(entries.keys() - {"id", "idle", "group"}):
            self.reader.problem(node, path, f"`idle` goes with `group` only, not with `{others[0]}`")
        inner = self.reader.mapping(entries["idle"], f"{path}.idle", ("days", "points")) or {}
        if missing := [name for name in ("days", "points") if name not in inner]:
            self.reader.problem(entries["idle"], f"{path}.idle", f"`{missing[0]}` is missing")
        days = self.fields.whole(inner.get("days"), f"{path}.idle.days", 1, MAX_HALF_LIFE, 1)
        points = self.fields.points(inner["points"], f"{path}.idle.points") if "points" in inner else None
        return Idle(rule_id, self._group_of(entries, path), days, points or Decimal(0))

    def _rule(self, rule_id: str, node: yaml.Node, entries: Mapping[str, yaml.Node], path: str) -> Rule:
        gives = [name for name in ("points", "per", "suppress", "resume") if name in entries]
        if len(gives) != 1:
            said = f"it has {' and '.join(f'`{name}`' for name in gives)}" if gives else "it has none of them"
            self.reader.problem(node, path, f"a rule has one of `points`, `per`, `suppress`, `resume`; {said}")
        stamp = next((name for name in ("suppress", "resume") if name in entries), "")
        if stamp and (others := sorted(entries.keys() & {"group", "once", "cap"})):
            self.reader.problem(node, path, f"`{others[0]}` has no meaning beside `{stamp}`")
        group = self._named_group(entries[stamp], f"{path}.{stamp}") if stamp else self._group_of(entries, path)
        when, human = self.fields.when(entries["when"], f"{path}.when") if "when" in entries else ((), False)
        once, cap = self._once(entries, path)
        of = self._groups.get(group, Group(group))
        start, end = (
            self.fields.moment(entries[n], f"{path}.{n}") if n in entries else None for n in ("from", "until")
        )
        if start is not None and end is not None and start >= end:
            self.reader.problem(entries["from"], path, "`from` is not before `until`: the rule would never count")
        amount = self._amount(entries["per"], f"{path}.per") if "per" in entries else None
        if cap is not None and cap.in_points and amount is not None and amount.minimum < 0:
            self.reader.problem(entries["cap"], f"{path}.cap", "a cap in points needs amounts that are not negative")
        return Rule(
            rule_id,
            NO_SLOT,
            self._types(node, entries, path),
            group,
            self.fields.points(entries["points"], f"{path}.points") if "points" in entries else None,
            amount,
            0 if stamp else of.half_life,
            0 if stamp else of.expire,
            once,
            cap,
            when,
            human,
            start,
            end,
            suppress=stamp == "suppress",
            resume=stamp == "resume",
        )

    def _types(self, node: yaml.Node, entries: Mapping[str, yaml.Node], path: str) -> tuple[str, ...]:
        if "on" not in entries:
            self.reader.problem(node, path, "`on` is missing: which event types does the rule count?")
            return ()
        found = self.fields.texts(entries["on"], f"{path}.on", MAX_TYPES)
        for each in found:
            if (fault := id_fault("the event type", each, MAX_ID_BYTES)) is not None:
                self.reader.problem(entries["on"], f"{path}.on", fault.detail)
        return tuple(dict.fromkeys(found))

    def _once(self, entries: Mapping[str, yaml.Node], path: str) -> tuple[Once | None, Cap | None]:
        """`once: life` is a cap of one event: a sum is never forgotten, as a remembered message may be."""
        cap = self._cap(entries["cap"], f"{path}.cap") if "cap" in entries else None
        if "once" not in entries:
            return None, cap
        said = self.reader.text(entries["once"], f"{path}.once", "`message`, `campaign` or `life`")
        if said == "life":
            if cap is not None:
                self.reader.problem(entries["once"], path, "`once: life` is a cap of one event; leave `cap` out")
            return None, Cap(Window.LIFE, 1, in_points=False)
        if said is not None and said not in ("message", "campaign"):
            self.reader.problem(
                entries["once"], f"{path}.once", f"{shown(said)} is not known; write `message`, `campaign` or `life`"
            )
            return None, cap
        return (Once(said) if said else None), cap

    def _cap(self, node: yaml.Node, path: str) -> Cap | None:
        entries = self.reader.mapping(node, path, ("per", "events", "points"))
        if entries is None:
            return None
        if len(entries.keys() & {"events", "points"}) != 1 or "per" not in entries:
            self.reader.problem(node, path, "write {per: day, events: 3} or {per: day, points: 20}")
            return None
        said = self.reader.text(entries["per"], f"{path}.per", "`day`, `week`, `month` or `life`")
        if said not in [window.value for window in Window]:
            if said is not None:
                self.reader.problem(
                    entries["per"], f"{path}.per", f"{shown(said)} is not known; write `day`, `week`, `month` or `life`"
                )
            return None
        if "events" in entries:
            return Cap(
                Window(said), self.fields.whole(entries["events"], f"{path}.events", 1, MAX_CAP, 1), in_points=False
            )
        points = self.fields.points(entries["points"], f"{path}.points") or Decimal(0)
        if not 0 < points <= MAX_CAP:
            self.reader.problem(entries["points"], f"{path}.points", f"more than 0 and at most {MAX_CAP} is expected")
        return Cap(Window(said), int(points * MICRO), in_points=True)

    def _amount(self, node: yaml.Node, path: str) -> Amount | None:
        entries = self.reader.mapping(node, path, ("path", "factor", "min", "max"))
        if entries is None:
            return None
        if "path" not in entries:
            self.reader.problem(node, path, "`path` is missing: where does the number stand?")
            return None
        text = self.reader.text(entries["path"], f"{path}.path", "a path") or ""
        low, high = self.fields.bounds(entries, path)
        factor = self.fields.points(entries["factor"], f"{path}.factor") if "factor" in entries else Decimal(1)
        found = self.fields.lookup(entries["path"], text, f"{path}.path")
        return Amount(text, factor or Decimal(0), low or Decimal(0), high, found)

    def _group_of(self, entries: Mapping[str, yaml.Node], path: str) -> str:
        return self._named_group(entries["group"], f"{path}.group") if "group" in entries else MAIN_GROUP

    def _named_group(self, node: yaml.Node, path: str) -> str:
        name = self.reader.text(node, path, "a group") or MAIN_GROUP
        if name != MAIN_GROUP and name not in self._groups:
            known = ", ".join(f"`{each}`" for each in (*self._groups, MAIN_GROUP))
            self.reader.problem(node, path, f"there is no group {shown(name)}; groups are {known}")
        return name
