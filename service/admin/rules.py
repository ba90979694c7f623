"""What `scoring rules` decides: what a file changes, whether it may be applied, the first file of a project. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from decimal import Decimal

from service.scoring.definitions import Definition
from service.scoring.rules.fields import name_fault
from service.scoring.rules.load import RulesFile
from service.scoring.rules.model import Group, RuleSet
from service.scoring.rules.plan import Kind, Plan, Step
from service.scoring.rules.stored import FORMAT, Applied, RulesRow, encode_rules, pack_history, unpack_history
from service.stream.leases.lease import Snapshot

SILENT_MS = 10 * 60 * 1000
"""A worker whose last heartbeat is older does not run, or scores nothing."""

SUPPRESSING = Decimal(-500)
"""Definitions with at most this many points exist to remove a person from all segments."""


def changes_of(made: Plan, current: RuleSet | None, file: RulesFile) -> list[Step]:
    """Return the steps of a plan that change something, and what changes beside the rules.

    A setting is a step without slot (-1), as it concerns how a person's sums are shown.
    """
    steps = [step for step in made.steps if step.kind is not Kind.KEPT]
    return steps + [Step(name, Kind.SETTING, -1, (said,)) for name, said in _settings(current, file)]


def _settings(current: RuleSet | None, file: RulesFile) -> list[tuple[str, str]]:
    before = _view_settings(current) if current is not None else {}
    after = _view_settings(file)
    return [
        (name, f"{before.get(name, 'nothing')} -> {after.get(name, 'nothing')}")
        for name in sorted(before.keys() | after.keys())
        if before.get(name) != after.get(name)
    ]


def _view_settings(rules: RuleSet | RulesFile) -> dict[str, str]:
    """Return what is neither a rule nor the way a rule counts, by name."""
    found = {
        "score": f"{_bounds(rules.minimum, rules.maximum)}, scale {rules.scale}",
        "once_entries": f"{rules.once_entries}",
        "min_seconds": f"{rules.min_seconds}",
    }
    found |= {f"group {group.name}": _group(group) for group in rules.groups.values()}
    found |= {
        f"tier {tier.name}": f"{index + 1}: from {tier.enter:f} until below {tier.leave:f}"
        for index, tier in enumerate(rules.tiers)
    }
    found |= {f"idle {idle.rule_id}": f"{idle.points:f} after {idle.days} days in {idle.group}" for idle in rules.idles}
    return found


def _group(group: Group) -> str:
    fades = f"half_life {group.half_life}d" if group.half_life else f"expire {group.expire}d" if group.expire else ""
    return ", ".join(part for part in (fades, _bounds(group.minimum, group.maximum)) if part)


def _bounds(minimum: Decimal | None, maximum: Decimal | None) -> str:
    low = "" if minimum is None else f"min {minimum.normalize():f} "
    high = "" if maximum is None else f"max {maximum.normalize():f}"
    return (low + high).strip() or "no bounds"


def line_of(step: Step) -> str:
    """Return a step as one line of the history."""
    slot = f" (slot {step.slot})" if step.slot >= 0 else ""
    why = f": {', '.join(step.why)}" if step.why else ""
    return f"{step.kind.value} {step.rule_id}{slot}{why}"


def next_row(
    before: RulesRow | None, rules: RuleSet, steps: Sequence[Step], file: str, now_ms: int, *, retroactive: bool
) -> RulesRow:
    """Return the row to write: the rules, and the history with one version more.

    Args:
        before: The row stored; None: there is none.
        rules: What is to be in force, in the version after it.
        steps: What changes.
        file: The file's text.
        now_ms: Epoch milliseconds.
        retroactive: How it is applied.

    Raises:
        StoredRulesError: The history stored cannot be read.
    """
    versions = unpack_history(before.history) if before is not None else ()
    applied = Applied(rules.version, now_ms, retroactive, tuple(map(line_of, steps)), file)
    return RulesRow(rules.project_id, rules.version, encode_rules(rules), pack_history((*versions, applied)))


def unable(snapshot: Snapshot, now_ms: int) -> list[str]:
    """Return the workers that read events, or may at any moment, and cannot score by rules as they are stored now.

    Args:
        snapshot: Leases and workers of the pipeline that reads events.
        now_ms: Epoch milliseconds.
    """
    able = {member.worker for member in snapshot.members if member.capability >= FORMAT}
    running = {member.worker for member in snapshot.members if now_ms - member.beat_ms < SILENT_MS}
    known = {member.worker for member in snapshot.members}
    running |= {
        lease.owner
        for lease in snapshot.leases
        if lease.owner and lease.owner not in known and now_ms - lease.checkpoint_ms < SILENT_MS
    }
    return sorted(running - able)


_PLAIN = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]*")
_WORDS = frozenset({"y", "n", "yes", "no", "on", "off", "true", "false", "null"})
_CHANNELS = (("_email.", "email"), ("_SMS.", "sms"))
_OPENS = frozenset({"_email.open", "_campaign.opened_notification"})


def init_file(project_id: str, definitions: Iterable[Definition]) -> str:
    """Return the text of a rules file that gives what the definitions of a project give, with suggestions.

    Args:
        project_id: The project.
        definitions: At least one, all of the project.
    """
    chosen = sorted(definitions, key=lambda each: each.event_type)
    groups = list(dict.fromkeys(name for name in map(_channel, chosen) if name))
    lines = [
        f"# Rules of the project, made of its {len(chosen)} definitions. What is marked `suggested` differs from the",
        "# definition, which stands above it: keep one of the two. Then:",
        "#   scoring rules validate FILE        faults, with their lines",
        "#   scoring rules test FILE CASES      what examples come to",
        "#   scoring rules plan FILE            what would change",
        "#   scoring rules apply FILE           workers follow within seconds",
        "# Every feature, with an example: deploy/docs/rules.md",
        f"project: {_quoted(project_id)}",
        "",
    ]
    if groups:
        lines += ["# A half-life lets points fade: after that time half of them are left.", "groups:"]
        lines += [f"  {name}: {{}}  # suggested: {{half_life: 30d}}" for name in groups]
        lines.append("")
    lines += ["# score: {min: 0, max: 1000}  # bounds of what is shown; never of what is counted", "", "rules:"]
    used: set[str] = set()
    for definition in chosen:
        lines += _rule_lines(definition, _free_id(definition.event_type, used))
    return "\n".join(lines) + "\n"


def _channel(definition: Definition) -> str:
    return next((name for prefix, name in _CHANNELS if definition.event_type.startswith(prefix)), "")


def _rule_lines(definition: Definition, rule_id: str) -> list[str]:
    event_type, group = definition.event_type, _channel(definition)
    is_plain = _PLAIN.fullmatch(event_type) is not None and event_type.lower() not in _WORDS
    written = event_type if is_plain else _quoted(event_type)
    belongs = f", group: {group}" if group else ""
    plain = f"{{id: {rule_id}, on: {written}, points: {definition.points:f}{belongs}}}"
    if definition.points <= SUPPRESSING:
        return [
            f"  # - {plain}",
            "  # suggested: nothing of the group is shown until a rule with `resume`; what was counted stays.",
            f"  - {{id: {rule_id}, on: {written}, suppress: {group or 'main'}}}",
        ]
    if event_type in _OPENS:
        return [
            f"  # - {plain}",
            "  # suggested: opens by known prefetchers and scanners do not count.",
            f"  - {plain[:-1]}, when: [human]}}",
        ]
    return [f"  - {plain}"]


def _quoted(text: str) -> str:
    """Return a text in double quotes, as YAML reads it (https://yaml.org/spec/1.1/#c-ns-esc-char)."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return '"' + "".join(char if char.isprintable() else f"\\U{ord(char):08x}" for char in escaped) + '"'


def _free_id(event_type: str, used: set[str]) -> str:
    wanted = re.sub(r"[^A-Za-z0-9]+", "-", event_type).strip("-")[:50] or "rule"
    if name_fault(wanted) is not None or wanted.lower() in _WORDS:
        wanted = f"rule-{wanted}"
    found, number = wanted, 1
    while found in used:
        number += 1
        found = f"{wanted}-{number}"
    used.add(found)
    return found


def shadowed(rules: RuleSet, definitions: Iterable[Definition]) -> list[str]:
    """Return the event types of definitions that do not count, because an active rule names the type."""
    return sorted(
        each.event_type
        for each in definitions
        if each.project_id == rules.project_id and each.event_type in rules.by_type
    )
