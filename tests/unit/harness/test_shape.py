"""The shape of the source: files, functions and names of tests of a length that a reader can take in."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[3]

MAX_FILE_LINES = 399
LONG_FILES: dict[str, str] = {}
"""Longer files, each with the reason."""

MAX_FUNCTION_LINES = 60
LONG_FUNCTIONS = {
    "service/app/publishing.py make_publishing": "wiring: one constructor after the other, no branches",
    "service/observability/metrics.py _scoring": "a catalogue: one metric after the other, no branches",
    "service/sources/pinpoint.py decode": "the hottest function: calls of helpers were measurable",
    "service/stream/leases/assignment.py plan": "half of it is the docstring of its eight arguments",
    "tests/benchmarks/contenders/floor.py main": "the least program that does the work: one function on purpose",
}
"""Longer functions, each with the reason."""

MAX_NAME = 69


def sources() -> Iterator[tuple[str, str]]:
    """Yield path and text of every Python file."""
    for folder in ("service", "tests"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            yield path.relative_to(ROOT).as_posix(), path.read_text(encoding="utf-8")


def functions(text: str) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    """Yield every function of a module."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            yield node


def test_files_are_below_400_lines():
    long = {path for path, text in sources() if text.count("\n") > MAX_FILE_LINES}
    assert long <= LONG_FILES.keys(), "split it, or say why in LONG_FILES"


def test_functions_are_at_most_60_lines():
    long = {
        f"{path} {node.name}"
        for path, text in sources()
        for node in functions(text)
        if (node.end_lineno or 0) - node.lineno + 1 > MAX_FUNCTION_LINES
    }
    assert long <= LONG_FUNCTIONS.keys(), "split it, or say why in LONG_FUNCTIONS"


def test_names_of_tests_are_below_70_characters():
    long = [
        f"{path} {node.name}"
        for path, text in sources()
        if path.startswith("tests/")
        for node in functions(text)
        if node.name.startswith("test_") and len(node.name) > MAX_NAME
    ]
    assert long == []


def test_one_test_runs_an_async_story_one_way():
    """In virtual time: `@in_virtual_time`, and no function in the test that is run by hand."""
    by_hand = re.compile(r"^ +run\(story\(\)\)$", re.MULTILINE)
    assert [path for path, text in sources() if path.startswith("tests/unit/") and by_hand.search(text)] == []
