from __future__ import annotations

import math
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.config import table as config_table
from service.config.load import ConfigurationError, Purpose, load
from service.config.settings import FIELDS, VARIABLES, epoch_ms
from service.runtime.fields import expected

GOOD = {"SCORING_STREAM": "events", "AWS_REGION": "us-east-1"}
ROOT = Path(__file__).parents[3]


def problems(purpose: Purpose = Purpose.RUN, **environ: str) -> dict[str, str]:
    with pytest.raises(ConfigurationError) as caught:
        load(environ, purpose)
    return {problem.variable: str(problem) for problem in caught.value.problems}


def test_defaults():
    settings = load(GOOD)
    assert settings.stream == settings.stream_name == "events"
    assert settings.aws_region == "us-east-1"
    assert settings.scores_table == "userEngagementScore"
    assert settings.definitions_table == "engagementScoreDefinition"
    assert settings.start == "TRIM_HORIZON"
    assert settings.sinks == ("log",)
    assert (settings.http_host, settings.http_port) == ("127.0.0.1", 9464)
    assert settings.ingests
    assert settings.publishes
    assert not settings.identity_lookup
    assert settings.options_of("pinpoint").score_attribute == "EngagementScore"


def test_everything_wrong_is_said_at_once():
    found = problems(
        SCORING_HTTP_PORT="99999",
        SCORING_BATCH_MAX_RECORDS="many",
        SCORING_START="2026-01-31T12:00:00",
        SCORING_SINKS="pinpoint,pigeon",
        SCORING_LOG_LEVEL="chatty",
        SCORING_IDENTITY_LOOKUP="perhaps",
        SCORING_SCORES_TABLE="a b",
        SCORING_SHARDS="3",
    )
    assert set(found) == {
        "SCORING_HTTP_PORT",
        "SCORING_BATCH_MAX_RECORDS",
        "SCORING_START",
        "SCORING_SINKS",
        "SCORING_LOG_LEVEL",
        "SCORING_IDENTITY_LOOKUP",
        "SCORING_SCORES_TABLE",
        "SCORING_SHARDS",
        "SCORING_STREAM",
        "AWS_REGION",
    }
    assert found["SCORING_HTTP_PORT"] == (
        "SCORING_HTTP_PORT = '99999' is out of bounds: set a whole number from 0 to 65,535"
    )
    assert "without a zone" in found["SCORING_START"]
    assert "`on` or `off`" in found["SCORING_IDENTITY_LOOKUP"]


@pytest.mark.parametrize(
    ("wrong", "right"),
    [
        ("SCORING_STRAEM", "SCORING_STREAM"),
        ("SCORING_SCORE_TABLE", "SCORING_SCORES_TABLE"),
        ("SCORING_BATCH_MAX_AGE", "SCORING_BATCH_MAX_AGE_MS"),
        ("scoring_stream", "SCORING_STREAM"),
    ],
)
def test_a_misspelt_name_gets_the_nearest_right_one(wrong: str, right: str):
    assert f"did you mean {right}?" in problems(**GOOD, **{wrong: "x"})[wrong]


def test_a_name_like_no_other_gets_no_suggestion():
    assert "did you mean" not in problems(**GOOD, SCORING_FOO="x")["SCORING_FOO"]


def test_the_value_of_an_unknown_variable_is_not_shown():
    assert "hunter2" not in problems(**GOOD, SCORING_PASSWORD="hunter2")["SCORING_PASSWORD"]  # noqa: S106 # no password of anything


def test_a_long_value_is_cut():
    assert len(problems(**{**GOOD, "SCORING_STREAM": "x" * 5000})["SCORING_STREAM"]) < 300


BOUNDED = {variable: FIELDS[name].about for variable, name in VARIABLES.items() if FIELDS[name].kind in (int, float)}


@pytest.mark.parametrize("variable", sorted(BOUNDED))
def test_every_number_has_bounds_that_hold(variable: str):
    about = BOUNDED[variable]
    assert about.le < math.inf
    low = max(about.ge, about.gt)
    assert low > -math.inf
    for bad in (about.le + 1, low - 1, "nan", "inf", "x"):
        assert variable in problems(**GOOD, **{variable: str(bad)})
    if about.gt == low:
        assert variable in problems(**GOOD, **{variable: str(low)})
    lease = {} if variable == "SCORING_LEASE_DURATION_S" else {"SCORING_LEASE_DURATION_S": "300"}
    load({**GOOD, **lease, variable: str(about.le)})


def test_set_to_nothing_counts_as_not_set():
    assert load({**GOOD, "SCORING_HTTP_PORT": "", "SCORING_SINKS": " "}).http_port == 9464
    assert "SCORING_STREAM" in problems(AWS_REGION="us-east-1", SCORING_STREAM="")


def test_publishing_needs_no_stream_but_a_region():
    assert not load({"AWS_DEFAULT_REGION": "us-east-1", "SCORING_ROLE": "publish"}).ingests
    assert set(problems(SCORING_ROLE="publish")) == {"AWS_REGION"}
    assert load({}, Purpose.LOCAL).stream == ""
    assert load({}, Purpose.TABLES, profile_region="eu-west-1").aws_region == "eu-west-1"
    assert set(problems(Purpose.STREAM, AWS_REGION="us-east-1", SCORING_ROLE="publish")) == {"SCORING_STREAM"}


def test_an_arn_names_stream_and_region():
    arn = "arn:aws:kinesis:us-east-1:111122223333:stream/events"
    assert load({**GOOD, "SCORING_STREAM": arn}).stream_name == "events"
    assert "us-east-1" in problems(SCORING_STREAM=arn, AWS_REGION="eu-west-1")["SCORING_STREAM"]


def test_start_is_a_position():
    assert load({**GOOD, "SCORING_START": "LATEST"}).start == "LATEST"
    assert load({**GOOD, "SCORING_START": "2026-01-31T13:00:00+01:00"}).start == "AT_TIMESTAMP#1769860800000"
    assert "SCORING_START" in problems(**GOOD, SCORING_START="yesterday")


def test_a_time_needs_its_zone():
    assert epoch_ms("1970-01-01T00:00:01.5Z") == 1500
    with pytest.raises(ValueError, match="without a zone"):
        epoch_ms("1970-01-01T00:00:01")


def test_lists_lose_blanks_and_repeats():
    settings = load({**GOOD, "SCORING_PROJECT_IDS": " a, b,,a", "SCORING_SINKS": "log,pinpoint"})
    assert settings.project_ids == ("a", "b")
    assert settings.sinks == ("log", "pinpoint")


def test_pinpoint_is_asked_only_where_it_is_a_sink_or_wanted():
    assert load({**GOOD, "SCORING_SINKS": "log,pinpoint"}).identity_lookup
    assert not load({**GOOD, "SCORING_SINKS": "log"}).identity_lookup
    assert load({**GOOD, "SCORING_SINKS": "log", "SCORING_IDENTITY_LOOKUP": "on"}).identity_lookup
    assert not load({**GOOD, "SCORING_SINKS": "pinpoint", "SCORING_IDENTITY_LOOKUP": "off"}).identity_lookup


def test_a_wait_longer_than_the_lease_is_refused():
    found = problems(**GOOD, SCORING_LEASE_DURATION_S="1", SCORING_BATCH_MAX_AGE_MS="5000")
    assert "SCORING_LEASE_DURATION_S" in found["SCORING_BATCH_MAX_AGE_MS"]
    assert load({**GOOD, "SCORING_LEASE_DURATION_S": "2"}).checkpoint_interval_ms > 2000, "heartbeats hold leases"


def test_a_time_to_come_is_no_start():
    there, to_come = "2026-01-31T12:00:00Z", "2026-01-31T12:00:01Z"
    now_ms = epoch_ms(there)
    assert load({**GOOD, "SCORING_START": there}, now_ms=now_ms).start == f"AT_TIMESTAMP#{now_ms}"
    with pytest.raises(ConfigurationError, match="SCORING_START is in the future"):
        load({**GOOD, "SCORING_START": to_come}, now_ms=now_ms)


@pytest.mark.parametrize("url", ["foo", "ftp://host", "http://", "localhost:4566"])
def test_an_endpoint_is_a_url(url: str):
    assert problems(**GOOD, AWS_ENDPOINT_URL_KINESIS=url)["AWS_ENDPOINT_URL_KINESIS"]
    load({**GOOD, "AWS_ENDPOINT_URL": "http://localhost:4566", "AWS_ENDPOINT_URL_DYNAMODB": ""})


def test_settings_neither_change_nor_read_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    (tmp_path / ".env").write_text("SCORING_STREAM=from-file\nHTTP_PORT=1\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HTTP_PORT", "1")
    monkeypatch.setenv("SCORING_HTTP_PORT", "1")
    settings = load(GOOD)
    assert (settings.stream, settings.http_port) == ("events", 9464)
    with pytest.raises(AttributeError):
        settings.stream = "other"


@given(st.sampled_from(sorted(VARIABLES)), st.text(max_size=30))
def test_any_text_is_taken_or_explained(variable: str, value: str):
    try:
        load({**GOOD, variable: value})
    except ConfigurationError as error:
        assert variable in [problem.variable for problem in error.problems]  # noqa: PT017 # either outcome is right


def test_every_variable_is_described():
    for variable, name in VARIABLES.items():
        assert FIELDS[name].about.description, variable
        assert expected(FIELDS[name]), variable
        assert variable in config_table.table()


def test_the_table_goes_between_its_markers():
    document = f"before\n{config_table.BEGIN}\nstale table\n{config_table.END}\nafter\n"
    once = config_table.updated(document)
    assert once == config_table.updated(once)
    assert once.startswith("before\n")
    assert once.endswith("after\n")
    assert "stale table" not in once
    with pytest.raises(ValueError, match="configuration:begin"):
        config_table.updated("no markers")


def test_the_configuration_document_is_current():
    text = (ROOT / config_table.DOCUMENT).read_text(encoding="utf-8")
    assert config_table.updated(text) == text, f"run: python -m service.config.table --write {config_table.DOCUMENT}"


def test_the_table_is_printed_by_its_module():
    done = subprocess.run(
        [sys.executable, "-m", "service.config.table"],
        capture_output=True, text=True, check=True, cwd=ROOT, env={**os.environ, "PYTHONIOENCODING": "utf-8"},
    )  # fmt: skip
    assert done.stdout == config_table.table()
