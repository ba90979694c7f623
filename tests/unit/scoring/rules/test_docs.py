"""The examples of deploy/docs/rules.md: every rules file is right, and comes to what the page says."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from service.scoring.rules.cases import load_cases, run_case, unknown_types
from service.scoring.rules.load import _RULE, _TOP, load_rules
from service.scoring.rules.plan import plan

PAGE = (Path(__file__).parents[4] / "deploy" / "docs" / "rules.md").read_text()
SECTIONS = {
    title: re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)
    for title, text in re.findall(r"\n### ([^\n]+)\n(.*?)(?=\n##)", PAGE, re.DOTALL)
}


@pytest.mark.parametrize("title", SECTIONS)
def test_an_example_comes_to_what_the_page_says(title: str):
    rules_text, cases_text = SECTIONS[title]
    file, problems = load_rules(rules_text, "rules.yml")
    assert file is not None, [str(problem) for problem in problems]
    rules = plan(None, file, retroactive=False).rules
    assert rules is not None
    cases, problems = load_cases(cases_text, "cases.yml")
    assert [str(problem) for problem in problems] == []
    assert [failed.differences for case in cases for failed in run_case(rules, case)] == []
    assert unknown_types(rules, cases) == []


@pytest.mark.parametrize("key", sorted({*_RULE, *_TOP, "half_life", "expire", "scale", "factor", "leave"}))
def test_every_key_of_a_rules_file_is_in_an_example_or_the_text(key: str):
    assert re.search(rf"\b{key}:|`{key}\b", PAGE), key
