"""The documents: their limits, their links, and the files they name."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.deploy.files import DOCS, GUIDE, ROOT

README = ROOT / "README.md"
MAX_LINES = 130
MAX_WORDS = 1_100
DOCUMENTS = [
    README,
    ROOT / "CHANGELOG.md",
    GUIDE,
    *sorted(DOCS.glob("*.md")),
    *sorted(ROOT.glob("deploy/decisions/*.md")),
]
MARKDOWN_LINK = re.compile(r"\]\(([^()\s]+)\)")
NAMED_FILE = re.compile(r"`((?:service|tests|deploy)/[\w./-]+)`")


def without_code(text: str) -> str:
    return re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)


def anchors(document: Path) -> set[str]:
    """The anchors that GitHub gives the headings of a document."""
    headings = re.findall(r"^#+ +(.+)$", without_code(document.read_text(encoding="utf-8")), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_the_readme_is_short():
    text = README.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= MAX_LINES
    assert len(text.split()) <= MAX_WORDS


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_links_lead_somewhere(document: Path):
    broken = []
    for link in MARKDOWN_LINK.findall(without_code(document.read_text(encoding="utf-8"))):
        if re.match(r"https?:", link):
            continue
        path, _, anchor = link.partition("#")
        target = (document.parent / path).resolve() if path else document
        if not target.exists() or (anchor and anchor not in anchors(target)):
            broken.append(link)
    assert broken == []


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_documents_name_files_that_exist(document: Path):
    named = NAMED_FILE.findall(document.read_text(encoding="utf-8"))
    assert [path for path in named if not (ROOT / path).exists()] == []


def test_the_architecture_names_every_package():
    packages = {f"service/{path.parent.name}" for path in ROOT.glob("service/*/__init__.py")}
    assert packages <= set(NAMED_FILE.findall((DOCS / "architecture.md").read_text(encoding="utf-8")))
