from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.config.load import ConfigurationError, load
from service.local.webhook_fake.credentials import SIGNING_SECRET, TOKEN
from service.sinks.registry import SINKS
from service.sinks.trials import Verdict
from service.sinks.webhook.verdicts import MAX_WAIT_S, Answer, remedy, retry_after_s, verdict

GOOD = {
    "SCORING_STREAM": "events",
    "AWS_REGION": "us-east-1",
    "SCORING_SINKS": "webhook",
    "SCORING_WEBHOOK_URL": "https://example.com/hook",
    "SCORING_WEBHOOK_SECRET": SIGNING_SECRET,
}


@pytest.mark.parametrize(
    ("status", "answer"),
    [
        (200, Answer.TAKEN), (204, Answer.TAKEN), (207, Answer.TAKEN), (301, Answer.SETTING), (308, Answer.SETTING),
        (400, Answer.HALVE), (401, Answer.SETTING), (404, Answer.SETTING), (408, Answer.AGAIN), (410, Answer.GONE),
        (413, Answer.HALVE), (422, Answer.HALVE), (425, Answer.AGAIN), (429, Answer.AGAIN), (500, Answer.AGAIN),
        (503, Answer.AGAIN),
    ],
)  # fmt: skip
def test_what_a_status_means(status: int, answer: Answer):
    assert verdict(status) is answer
    assert remedy(status)


def test_retry_after_is_seconds_or_a_date():
    now = 1_700_000_000.0  # 22:13:20
    assert retry_after_s("120", now) == 120
    assert retry_after_s("Tue, 14 Nov 2023 22:14:20 GMT", now) == 60
    assert retry_after_s("Tue, 14 Nov 2023 22:12:20 GMT", now) == 0
    assert retry_after_s("999999999999999999999", now) == MAX_WAIT_S
    assert retry_after_s("", now) == retry_after_s("-5", now) == retry_after_s("soon", now) == 0


@given(st.text(max_size=40))
def test_no_retry_after_raises(text: str):
    assert 0 <= retry_after_s(text, 1_700_000_000.0) <= MAX_WAIT_S


def problems(**environ: str) -> dict[str, str]:
    with pytest.raises(ConfigurationError) as caught:
        load({**GOOD, **environ})
    return {each.variable: str(each) for each in caught.value.problems}


def test_a_webhook_needs_a_url_and_what_its_format_needs():
    load(GOOD)
    assert set(problems(SCORING_WEBHOOK_URL="", SCORING_WEBHOOK_SECRET="")) == {
        "SCORING_WEBHOOK_URL", "SCORING_WEBHOOK_SECRET",
    }  # fmt: skip
    for name in ("segment", "braze", "hubspot"):
        assert set(problems(SCORING_WEBHOOK_FORMAT=name, SCORING_WEBHOOK_SECRET="")) == {"SCORING_WEBHOOK_TOKEN"}
        load({**GOOD, "SCORING_WEBHOOK_FORMAT": name, "SCORING_WEBHOOK_TOKEN": TOKEN})
    assert set(problems(SCORING_WEBHOOK_ATTRIBUTE="a{user}")) == {"SCORING_WEBHOOK_ATTRIBUTE"}
    load({**GOOD, "SCORING_SINKS": "log", "SCORING_WEBHOOK_URL": "nonsense"})


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("SCORING_WEBHOOK_URL", "http://example.com/hunter2"),
        ("SCORING_WEBHOOK_SECRET", "hunter2"),
        ("SCORING_WEBHOOK_SECRET", "whsec_hunter2!"),
        ("SCORING_WEBHOOK_SECRET", "whsec_aHVudGVyMg=="),
        ("SCORING_WEBHOOK_TOKEN", "hunter2\x01"),
    ],
)
def test_a_secret_that_cannot_be_used_is_explained_without_being_shown(variable: str, value: str):
    found = problems(**{variable: value})
    assert set(found) == {variable}
    assert "hunter2" not in str(found)
    assert "aHVudGVyMg" not in str(found)


def test_the_doctor_reads_the_format_and_sends_nothing(tmp_path: Path):
    settings = load({**GOOD, "SCORING_WEBHOOK_TOKEN": "hunter2"})
    found = SINKS["webhook"].examine(settings.options_of("webhook"), [])
    assert [each.verdict for each in found] == [Verdict.OK, Verdict.SKIPPED]
    assert "https://example.com" in found[0].detail
    assert "hunter2" not in str(found)
    settings = load({**GOOD, "SCORING_WEBHOOK_FORMAT": str(tmp_path / "none.yaml")})
    (finding,) = SINKS["webhook"].examine(settings.options_of("webhook"), [])
    assert finding.verdict is Verdict.BROKEN
    assert "none.yaml" in finding.detail


def test_settings_do_not_show_secrets():
    shown = repr(load({**GOOD, "SCORING_WEBHOOK_TOKEN": "hunter2"}))
    assert "hunter2" not in shown
    assert SIGNING_SECRET not in shown
    assert "example.com" not in shown
