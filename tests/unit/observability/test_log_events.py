"""deploy/docs/log-events.md lists exactly the events of the source, in one scheme."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[3]
DOCUMENT = ROOT / "deploy/docs/log-events.md"
LEVELS = {"debug": "debug", "info": "info", "warning": "warning", "error": "error", "exception": "error"}
IRREGULAR = {"left", "lost", "found", "taken"}
SCHEME = re.compile(r"[a-z][a-z_]*\.[a-z_]+")


def is_log(value: ast.expr) -> bool:
    name = value.attr if isinstance(value, ast.Attribute) else value.id if isinstance(value, ast.Name) else ""
    return name in {"log", "_log"}


def events() -> Iterator[tuple[str, str]]:
    """Every event and its level, as the source has them."""
    for path in sorted((ROOT / "service").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and is_log(node.func.value):
                if node.func.attr not in LEVELS:
                    continue
                where = f"{path.relative_to(ROOT)}:{node.lineno}"
                assert node.args, f"{where}: a log call without an event"
                name = node.args[0]
                assert isinstance(name, ast.Constant), f"{where}: the event is not a literal"
                yield str(name.value), LEVELS[node.func.attr]


def listed() -> list[tuple[str, str]]:
    return re.findall(r"^\| `([^`]+)` \| (\w+) \|", DOCUMENT.read_text(encoding="utf-8"), re.MULTILINE)


def test_the_document_lists_the_events_of_the_source():
    assert listed() == sorted(set(events()))


def test_event_names_are_a_noun_and_a_past_verb():
    for name, _ in events():
        assert SCHEME.fullmatch(name), name
        words = name.partition(".")[2].split("_")
        assert any(word.endswith("ed") or word in IRREGULAR for word in words), name
