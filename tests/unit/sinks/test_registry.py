from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from service.config.load import load
from service.config.settings import FIELDS, VARIABLES
from service.runtime.fields import Secret, fields_of
from service.sinks.registry import LOOKUP, SINKS

SERVICE = Path(__file__).parents[3] / "service"
SEAM = ("config", "publish", "runtime", "observability", "stream")
"""Packages that work with sinks, and must not name one."""
NOT_A_SINK = {"log"}  # a word of its own


@pytest.mark.parametrize("package", SEAM)
def test_no_sink_is_named_where_sinks_are_used(package: str):
    names = {name.replace("-", "_") for name in SINKS} - NOT_A_SINK
    named = re.compile(rf"[\"'`]({'|'.join(names)})[\"'`]|sinks\.({'|'.join(names)})\b")
    for path in (SERVICE / package).rglob("*.py"):
        assert not named.search(path.read_text(encoding="utf-8").lower().replace("-", "_")), path


def test_a_sink_is_its_folder_and_a_line_in_the_registry():
    for name in SINKS:
        folder = SERVICE / "sinks" / name.replace("-", "_")
        assert (folder / "registration.py").is_file(), name


def test_no_two_sinks_read_one_variable():
    names = [name for sink in SINKS.values() for name in fields_of(sink.options)]
    assert len(names) == len(set(names))
    assert {f"SCORING_{name.upper()}" for name in names} <= VARIABLES.keys()
    assert set(names) <= FIELDS.keys()


def test_the_look_up_names_a_sink_that_exists():
    assert LOOKUP.sink in SINKS


def test_reading_the_configuration_imports_no_sink_and_no_aws_library():
    slow = ("aiobotocore", "aiohttp", "structlog")
    code = f"import sys, service.config.load; print([name for name in {slow} if name in sys.modules])"
    run = [sys.executable, "-c", code]
    done = subprocess.run(run, capture_output=True, text=True, check=True, cwd=SERVICE.parent)  # noqa: S603 # our own code
    assert done.stdout.strip() == "[]"


def test_a_secret_shows_itself_nowhere():
    secret = Secret("hunter2")
    assert secret.reveal() == "hunter2"
    assert secret == Secret("hunter2") != Secret("hunter3")
    assert secret
    assert not Secret("")
    assert "hunter2" not in f"{secret} {secret!r} {[secret]}"


def test_options_of_a_sink_not_in_use_have_their_defaults():
    settings = load({"SCORING_STREAM": "s", "AWS_REGION": "us-east-1", "SCORING_SCORE_ATTRIBUTE": "Heat"})
    assert settings.sinks == ("log",)
    assert settings.options_of("pinpoint").score_attribute == "Heat"
