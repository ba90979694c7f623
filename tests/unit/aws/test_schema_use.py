"""What a table's items look like is known below `service/aws` only."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from service.aws.schema import DEFINITION_KEYS, EXPIRES, IDENTITY_KEYS, KEY_NAMES, LEASE_KEYS, LETTER_KEYS

SERVICE = Path(__file__).parents[3] / "service"
NAMES = {*KEY_NAMES, *DEFINITION_KEYS, *LEASE_KEYS, *LETTER_KEYS, *IDENTITY_KEYS, EXPIRES} - {"Id"}
"""`Id` is a word of many APIs."""

OTHERS = {
    "admin/definitions.py": "the names in the files of `scoring definitions`",
    "cli/definitions.py": "likewise",
    "admin/adjust.py": "the fields of an event",
    "admin/kinesis_python.py": "the table of another program",
}
FOLDERS = ("admin", "app", "cli", "config", "ingest", "observability", "publish", "queries", "runtime", "stream")


def files() -> Iterator[Path]:
    for folder in FOLDERS:
        yield from (SERVICE / folder).rglob("*.py")


@pytest.mark.parametrize("path", sorted(files()), ids=lambda path: str(path.relative_to(SERVICE)))
def test_nobody_above_names_an_attribute_of_a_key(path: Path):
    used = {
        node.value
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    }
    name = str(path.relative_to(SERVICE))
    assert bool(used & NAMES) == (name in OTHERS), sorted(used & NAMES)
