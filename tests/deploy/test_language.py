"""Words that this project's prose avoids: comments, docstrings and messages of the code, and the documents.

These words are not wrong by themselves. They were habits that made sentences hard to read: personified programs,
archaic negations, and pronouns without a referent. A word that has to stay is an exception with a reason.
"""

from __future__ import annotations

import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.deploy.files import ROOT

INSTEAD = {
    r"told": "reported, assigned, asked, known",
    r"anew": "again",
    r"(?<!there )(?:is|are|was|were) no(?! (?:more|longer|less|later|fewer))": "is not a",
    r"whoever": "the worker that, a caller that",
    r"so many": "a number of, this many",
    r"for want of": "because ... is missing",
    r"doubts?": "uncertain",
    r"mend(?:s|ed|ing)?": "repair, patch, publish again",
    r"reigns?": "leadership",
    r"in office": "leads",
    r"bury|buries|buried": "remove",
    r"puzzles?": "problem",
    r"heard of": "received, noticed",
    r"lets? go": "release",
    r"whose an?": "which user ... belongs to",
    r"nobody foresaw": "unexpected",
}
WORDS = re.compile(r"\b(?:" + "|".join(INSTEAD) + r")\b", re.IGNORECASE)

EXCEPTIONS: dict[str, tuple[str, str]] = {
    "CHANGELOG.md": ("buries", "the former name of a log event"),
}
"""File to the beginning of a word that it may use, and the reason."""


def prose(path: Path) -> Iterator[tuple[int, str]]:
    """Every line of text for people in a file: all of it, or the comments and strings of a program."""
    text = path.read_text(encoding="utf-8")
    if path.suffix != ".py":
        yield from enumerate(text.splitlines(), start=1)
        return
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.COMMENT or (token.type == tokenize.STRING and " " in token.string):
            yield from enumerate(token.string.splitlines(), start=token.start[0])


def files() -> list[Path]:
    suffixes = {".py", ".md", ".yml", ".yaml", ".conf"}
    found = [path for folder in ("service", "deploy") for path in (ROOT / folder).rglob("*") if path.suffix in suffixes]
    found += sorted((ROOT / "deploy/grafana/dashboards").glob("*.json"))
    return [*sorted(found), ROOT / "README.md", ROOT / "CHANGELOG.md", ROOT / "docker-compose.yml", ROOT / "Makefile"]


@pytest.mark.parametrize("folder", ["service", "deploy", ""])
def test_prose_uses_plain_words(folder: str):
    found = []
    for path in files():
        name = path.relative_to(ROOT).as_posix()
        if (name.partition("/")[0] if "/" in name else "") != folder:
            continue
        allowed = EXCEPTIONS.get(name, ("\0", ""))[0]
        found += [
            f"{name}:{number}: {match[0]!r} in {line.strip()[:100]!r}"
            for number, line in prose(path)
            for match in WORDS.finditer(line)
            if not match[0].lower().startswith(allowed)
        ]
    assert not found, "\n".join(["plain words are in tests/deploy/test_language.py:", *found])


def test_exceptions_are_needed():
    for name, (word, _) in EXCEPTIONS.items():
        path = ROOT / name
        assert path.exists(), name
        hits = [match[0].lower() for _, line in prose(path) for match in WORDS.finditer(line)]
        assert any(hit.startswith(word) for hit in hits), f"{name} does not use {word!r} any more"
